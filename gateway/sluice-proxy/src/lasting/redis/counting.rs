//! The scripts that count in Redis, and how what they say is read. Each repeats the arithmetic of a
//! mechanism of the engine, and the engine's own arithmetic over what Redis held makes the verdict; whether
//! a call was admitted is Redis's to say.

use std::time::Duration;

use aws_lc_rs::digest;
use sluice_engine::moment::Moment;
use sluice_engine::quota::Period;
use sluice_engine::window::{self, Verdict};
use sluice_engine::{bucket, quota};
use smallvec::{SmallVec, smallvec};

use super::resp::{self, Reply};

/// What is counted, and how.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Rules<'a> {
    Window(&'a window::Rules),
    Exact(&'a window::Rules),
    Bucket(&'a bucket::Rules),
    Quota(&'a quota::Rules),
}

/// What is asked for with a count.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Order {
    /// Calls wanted; as many are granted as fit.
    pub(crate) calls: u64,
    /// Calls that were granted before and not made, and the lot they came from.
    pub(crate) back: u64,
    pub(crate) lot: u64,
}

/// What a count came to.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Granted {
    pub(crate) verdict: Verdict,
    /// Calls that were admitted, of those that were asked for.
    pub(crate) calls: u64,
    /// How long these calls may be made without being counted at another time.
    pub(crate) fresh: Duration,
    /// The bucket or the period they were counted in.
    pub(crate) lot: u64,
}

/// A script, and the name under which a server keeps it.
pub(super) struct Script {
    source: &'static str,
    /// `EVALSHA`, the name and the number of keys, as they are sent.
    by_name: Vec<u8>,
}

pub(super) struct Scripts {
    window: Script,
    exact: Script,
    bucket: Script,
    quota: Script,
    beat: Script,
    enter: Script,
    renew: Script,
    swap: Script,
}

/// A word after the key.
#[derive(Debug, Clone, Copy)]
pub(super) enum Word<'a> {
    Number(u64),
    Signed(i64),
    Text(&'a [u8]),
}

/// A script to be run, or a plain command, over one key.
pub(super) struct Command<'a> {
    what: What<'a>,
    pub(super) key: &'a [u8],
    words: SmallVec<[Word<'a>; 6]>,
}

enum What<'a> {
    Script(&'a Script),
    Plain(&'static [u8]),
}

/// The set of gateways that are alive.
const GATEWAYS: &[u8] = b"sluice:gateways";

impl Script {
    fn new(source: &'static str) -> Self {
        // The name under which Redis keeps a script is its SHA-1; nothing here relies on its strength.
        let digest = digest::digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, source.as_bytes());
        let mut name = [0; 40];
        sluice_engine::trace::write_hex(digest.as_ref(), &mut name);
        let mut by_name = Vec::new();
        for word in [&b"EVALSHA"[..], &name, b"1"] {
            resp::word(word, &mut by_name);
        }
        Self { source, by_name }
    }
}

impl Scripts {
    pub(super) fn new() -> Self {
        Self {
            window: Script::new(include_str!("window.lua")),
            exact: Script::new(include_str!("exact.lua")),
            bucket: Script::new(include_str!("bucket.lua")),
            quota: Script::new(include_str!("quota.lua")),
            beat: Script::new(include_str!("beat.lua")),
            enter: Script::new(include_str!("enter.lua")),
            renew: Script::new(include_str!("renew.lua")),
            swap: Script::new(include_str!("swap.lua")),
        }
    }

    pub(super) fn sources(&self) -> impl Iterator<Item = &'static str> {
        let Self { window, exact, bucket, quota, beat, enter, renew, swap } = self;
        let all = [window, exact, bucket, quota, beat, enter, renew, swap];
        all.map(|script| script.source).into_iter()
    }

    pub(super) fn count<'a>(
        &'a self,
        rules: &Rules<'_>,
        key: &'a [u8],
        order: Order,
    ) -> Command<'a> {
        use Word::{Number, Signed};
        let (calls, back, lot) = (Number(order.calls), Number(order.back), Number(order.lot));
        let (script, words) = match rules {
            Rules::Window(rules) => {
                let (limit, per) = (Number(rules.limit), Number(micros(rules.per)));
                let kept = Number(micros(rules.per.saturating_mul(2)).div_ceil(1000));
                (&self.window, smallvec![calls, limit, per, back, lot, kept])
            }
            Rules::Exact(rules) => {
                (&self.exact, smallvec![calls, Number(rules.limit), Number(micros(rules.per))])
            }
            Rules::Bucket(rules) => {
                let (limit, per) = (Number(rules.limit), Number(micros(rules.per)));
                (&self.bucket, smallvec![calls, limit, per, Number(most(rules)), back])
            }
            Rules::Quota(rules) => {
                let month = u64::from(rules.period == Period::Month);
                let (limit, month) = (Number(rules.limit), Number(month));
                (&self.quota, smallvec![calls, limit, month, Signed(rules.offset), back, lot])
            }
        };
        Command { what: What::Script(script), key, words }
    }

    pub(super) fn beat<'a>(&'a self, own: &'a str) -> Command<'a> {
        let words = smallvec![Word::Text(own.as_bytes())];
        Command { what: What::Script(&self.beat), key: GATEWAYS, words }
    }

    /// Writes over a value that is still the first of `words`.
    pub(super) fn swap<'a>(&'a self, key: &'a [u8], words: &[Word<'a>]) -> Command<'a> {
        Command { what: What::Script(&self.swap), key, words: words.into() }
    }

    /// Asks for a place among `limit`, under a name, for as long as `lease`.
    pub(super) fn enter<'a>(
        &'a self,
        key: &'a [u8],
        name: &'a [u8],
        limit: u64,
        lease: Duration,
    ) -> Command<'a> {
        let words = smallvec![Word::Number(limit), Word::Number(micros(lease)), Word::Text(name)];
        Command { what: What::Script(&self.enter), key, words }
    }

    /// Keeps places for as long as `lease` from now on.
    pub(super) fn renew<'a>(
        &'a self,
        key: &'a [u8],
        names: impl Iterator<Item = &'a [u8]>,
        lease: Duration,
    ) -> Command<'a> {
        let words = std::iter::once(Word::Number(micros(lease))).chain(names.map(Word::Text));
        Command { what: What::Script(&self.renew), key, words: words.collect() }
    }
}

impl<'a> Command<'a> {
    /// A command without a script.
    pub(super) fn plain(name: &'static [u8], key: &'a [u8], words: &[Word<'a>]) -> Self {
        Command { what: What::Plain(name), key, words: words.into() }
    }

    /// Gives a place back.
    pub(super) fn leave(key: &'a [u8], name: &'a [u8]) -> Self {
        Command { what: What::Plain(b"ZREM"), key, words: smallvec![Word::Text(name)] }
    }

    /// Appends the command; a script as a whole if `whole`, else by its name.
    pub(super) fn write(&self, whole: bool, out: &mut Vec<u8>) {
        match &self.what {
            What::Plain(name) => {
                resp::words(2 + self.words.len(), out);
                resp::word(name, out);
            }
            What::Script(script) => {
                resp::words(4 + self.words.len(), out);
                if whole {
                    let head = [&b"EVAL"[..], script.source.as_bytes(), b"1"];
                    head.iter().for_each(|word| resp::word(word, out));
                } else {
                    out.extend_from_slice(&script.by_name);
                }
            }
        }
        resp::word(self.key, out);
        for word in &self.words {
            match word {
                Word::Number(number) => resp::number(*number, out),
                Word::Signed(number) => {
                    resp::word(itoa::Buffer::new().format(*number).as_bytes(), out);
                }
                Word::Text(text) => resp::word(text, out),
            }
        }
    }
}

impl Rules<'_> {
    /// Tells counters of different kinds apart.
    pub(super) fn letter(&self) -> u8 {
        match self {
            Self::Window(_) => b's',
            Self::Exact(_) => b'x',
            Self::Bucket(_) => b't',
            Self::Quota(_) => b'q',
        }
    }
}

/// The highest level that still admits, in units times microseconds.
pub(crate) fn most(rules: &bucket::Rules) -> u64 {
    let unit = u128::from(micros(rules.per));
    let waiting = u128::from(micros(rules.max_wait)) * u128::from(rules.limit);
    let queue = (u128::from(rules.queue) * unit).min(waiting);
    u64::try_from(u128::from(rules.burst.max(1)) * unit + queue).unwrap_or(u64::MAX)
}

/// The engine's arithmetic over what Redis held: how many it admitted, its time in microseconds, and what
/// the script says of before.
pub(super) fn granted(reply: &Reply, rules: &Rules<'_>) -> Option<Granted> {
    let told = |index: usize| match reply {
        Reply::Text(numbers) => packed(numbers, index),
        _ => reply.items().get(index).and_then(Reply::number),
    };
    let (calls, now) = (told(0)?, told(1)?);
    let held = |index: usize| told(index + 2).unwrap_or(0);
    let (admitted, at) = (calls > 0, Moment::from_nanos(now.saturating_mul(1000)));
    let cost = calls.max(1);
    let (mut fresh, mut lot) = (Duration::MAX, 0);
    let mut verdict = match rules {
        Rules::Window(rules) => {
            let (index, previous, current) = (held(0), held(1), held(2));
            let verdict = window::Counter { index, previous, current }.hit(rules, at, cost);
            // A call counts for its bucket, so it has to be made in it.
            (fresh, lot) = (verdict.reset_after, index);
            verdict
        }
        Rules::Exact(rules) => exact(rules, admitted, now, [held(0), held(1), held(2)]),
        Rules::Bucket(rules) => {
            // In nanoseconds, like the engine's own.
            let level = u128::from(held(0)) * 1000;
            bucket::Bucket { level, at }.hit(rules, at, cost)
        }
        Rules::Quota(rules) => {
            let period = i64::try_from(held(0)).unwrap_or(i64::MAX);
            let unix = i64::try_from(now / 1_000_000).unwrap_or(i64::MAX);
            let verdict = quota::Used { period, units: held(1) }.hit(rules, unix, cost);
            (fresh, lot) = (verdict.reset_after, held(0));
            verdict
        }
    };
    if verdict.admitted != admitted {
        // Redis counts in floating point: at the very edge the two may round differently.
        verdict.admitted = admitted;
        verdict.retry_after = if admitted { Duration::ZERO } else { Duration::from_millis(1) };
    }
    Some(Granted { verdict, calls, fresh, lot })
}

/// One of the numbers of eight bytes that a script has packed.
fn packed(numbers: &[u8], index: usize) -> Option<u64> {
    let number = numbers.chunks_exact(8).nth(index)?;
    Some(u64::from_le_bytes(number.try_into().ok()?))
}

/// The log itself stays in Redis; it says how long it is, and the two moments that matter.
fn exact(
    rules: &window::Rules,
    admitted: bool,
    now: u64,
    [held, barrier, newest]: [u64; 3],
) -> Verdict {
    let until =
        |at: u64| Duration::from_micros(at.saturating_add(micros(rules.per)).saturating_sub(now));
    Verdict {
        admitted,
        remaining: rules.limit.saturating_sub(held + u64::from(admitted)),
        reset_after: until(newest),
        wait: Duration::ZERO,
        retry_after: if admitted { Duration::ZERO } else { until(barrier) },
    }
}

fn micros(span: Duration) -> u64 {
    u64::try_from(span.as_micros()).unwrap_or(u64::MAX)
}
