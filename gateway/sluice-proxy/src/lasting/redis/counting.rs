//! The scripts that count in Redis, and how what they say is read. Each repeats the arithmetic of a
//! mechanism of the engine, and the engine's own arithmetic over what Redis held makes the verdict; whether
//! a call was admitted is Redis's to say.

use std::time::Duration;

use redis::{Script, ScriptInvocation};
use sluice_engine::moment::Moment;
use sluice_engine::quota::Period;
use sluice_engine::window::{self, Verdict};
use sluice_engine::{bucket, quota};

/// What is counted, and how.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Rules<'a> {
    Window(&'a window::Rules),
    Exact(&'a window::Rules),
    Bucket(&'a bucket::Rules),
    Quota(&'a quota::Rules),
}

/// What a script says: whether it was admitted, Redis's time in microseconds, and what it held before.
pub(super) type Answer = (u8, u64, Vec<u64>);

pub(super) struct Scripts {
    window: Script,
    exact: Script,
    bucket: Script,
    quota: Script,
    beat: Script,
}

/// The set of gateways that are alive.
const GATEWAYS: &str = "sluice:gateways";

impl Scripts {
    pub(super) fn new() -> Self {
        Self {
            window: Script::new(include_str!("window.lua")),
            exact: Script::new(include_str!("exact.lua")),
            bucket: Script::new(include_str!("bucket.lua")),
            quota: Script::new(include_str!("quota.lua")),
            beat: Script::new(include_str!("beat.lua")),
        }
    }

    pub(super) fn call(&self, rules: &Rules<'_>, key: String, cost: u64) -> ScriptInvocation<'_> {
        let script = match rules {
            Rules::Window(_) => &self.window,
            Rules::Exact(_) => &self.exact,
            Rules::Bucket(_) => &self.bucket,
            Rules::Quota(_) => &self.quota,
        };
        let mut call = script.prepare_invoke();
        call.key(key).arg(cost);
        match rules {
            Rules::Window(rules) | Rules::Exact(rules) => {
                call.arg(rules.limit).arg(micros(rules.per));
            }
            Rules::Bucket(rules) => {
                call.arg(rules.limit).arg(micros(rules.per)).arg(most(rules));
            }
            Rules::Quota(rules) => {
                let period = if rules.period == Period::Day { "day" } else { "month" };
                call.arg(rules.limit).arg(period).arg(rules.offset);
            }
        }
        call
    }

    pub(super) fn beat(&self, own: &str) -> ScriptInvocation<'_> {
        let mut call = self.beat.prepare_invoke();
        call.key(GATEWAYS).arg(own);
        call
    }
}

impl Rules<'_> {
    /// Tells counters of different kinds apart.
    pub(super) fn letter(&self) -> char {
        match self {
            Self::Window(_) => 'w',
            Self::Exact(_) => 'x',
            Self::Bucket(_) => 'b',
            Self::Quota(_) => 'q',
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

/// The engine's arithmetic over what Redis held.
pub(super) fn verdict(answer: &Answer, rules: &Rules<'_>, cost: u64) -> Verdict {
    let (admitted, now, held) = answer;
    let (admitted, at) = (*admitted == 1, Moment::from_nanos(now.saturating_mul(1000)));
    let held = |index: usize| held.get(index).copied().unwrap_or(0);
    let mut verdict = match rules {
        Rules::Window(rules) => {
            let (index, previous, current) = (held(0), held(1), held(2));
            window::Counter { index, previous, current }.hit(rules, at, cost)
        }
        Rules::Exact(rules) => exact(rules, admitted, *now, [held(0), held(1), held(2)]),
        Rules::Bucket(rules) => {
            // In nanoseconds, like the engine's own.
            let level = u128::from(held(0)) * 1000;
            bucket::Bucket { level, at }.hit(rules, at, cost)
        }
        Rules::Quota(rules) => {
            let period = i64::try_from(held(0)).unwrap_or(i64::MAX);
            let unix = i64::try_from(now / 1_000_000).unwrap_or(i64::MAX);
            quota::Used { period, units: held(1) }.hit(rules, unix, cost)
        }
    };
    if verdict.admitted != admitted {
        // Redis counts in floating point: at the very edge the two may round differently.
        verdict.admitted = admitted;
        verdict.retry_after = if admitted { Duration::ZERO } else { Duration::from_millis(1) };
    }
    verdict
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
