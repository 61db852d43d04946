//! The numbers of a limit: what is admitted, and how they are read.

use std::collections::HashMap;
use std::time::Duration;

use sluice_engine::{bucket, quota, window};

use super::Tiers;
use super::config::{Algorithm, Config, OnExceed, Period, Tier, TiersConfig};
use crate::base::units::Span;
use crate::base::yaml::Place;
use crate::lasting::redis;
use crate::parts::env::Env;

/// Most calls that an exact window remembers for each key.
const MOST_EXACT: u64 = 1_000;
/// Most requests in progress for each key: Redis keeps a name for each.
const MOST_TOGETHER: u64 = 10_000;
/// Counts and levels are numbers in floating point in Redis, which is exact up to here.
const MOST_LEVEL: u64 = 1 << 53;
/// Nobody should wait longer for a turn: whoever waits holds memory, and clients give up.
const LONGEST_WAIT: Duration = Duration::from_secs(30);
/// How long a place lasts without being renewed: a few missed signs of life.
const LEASE: Duration = Duration::from_secs(10);
/// Leases are looked after once a second.
const SHORTEST_LEASE: Duration = Duration::from_secs(3);
const LONGEST_LEASE: Duration = Duration::from_secs(300);

/// What is admitted; of one limit all rules are of one kind.
#[derive(Debug, Clone, Copy)]
pub(super) enum Rules {
    Window(window::Rules),
    Exact(window::Rules),
    Bucket(bucket::Rules),
    Quota(quota::Rules),
    Together(Together),
}

/// Requests in progress at a time.
#[derive(Debug, Clone, Copy)]
pub(super) struct Together {
    pub(super) limit: u64,
    /// How long a place in Redis lasts without being renewed.
    pub(super) lease: Duration,
}

impl Rules {
    /// What counts by these rules mean, beside the numbers they are held against.
    pub(super) fn meaning(&self) -> String {
        match self {
            Self::Window(rules) => format!("{}ms", rules.per.as_millis()),
            Self::Exact(rules) => format!("exact {}ms", rules.per.as_millis()),
            Self::Bucket(rules) => format!("bucket {}ms", rules.per.as_millis()),
            Self::Quota(rules) => format!("quota {:?} {}", rules.period, rules.offset),
            Self::Together(_) => "concurrency".to_owned(),
        }
    }

    pub(super) fn limit(&self) -> u64 {
        match self {
            Self::Window(rules) | Self::Exact(rules) => rules.limit,
            Self::Bucket(rules) => rules.limit,
            Self::Quota(rules) => rules.limit,
            Self::Together(rules) => rules.limit,
        }
    }

    /// Its word in the log.
    pub(super) fn algorithm(&self) -> &'static str {
        match self {
            Self::Window(_) | Self::Exact(_) => "sliding_window",
            Self::Bucket(rules) if rules.queue > 0 => "leaky_bucket",
            Self::Bucket(_) => "token_bucket",
            Self::Quota(_) => "quota",
            Self::Together(_) => "concurrency",
        }
    }

    /// As Redis counts them; requests in progress are not counted but listed.
    pub(super) fn shared(&self) -> Option<redis::Rules<'_>> {
        match self {
            Self::Window(rules) => Some(redis::Rules::Window(rules)),
            Self::Exact(rules) => Some(redis::Rules::Exact(rules)),
            Self::Bucket(rules) => Some(redis::Rules::Bucket(rules)),
            Self::Quota(rules) => Some(redis::Rules::Quota(rules)),
            Self::Together(_) => None,
        }
    }

    /// Whether calls may be counted before they are made. Not where each has a moment or a turn of its own.
    pub(super) fn can_prepay(&self) -> bool {
        match self {
            Self::Window(_) | Self::Quota(_) => true,
            Self::Bucket(rules) => rules.queue == 0,
            Self::Exact(_) | Self::Together(_) => false,
        }
    }

    /// One of `gateways` equal parts, at least one call.
    pub(super) fn share(&self, gateways: u64) -> Self {
        let part = |limit: u64| limit.div_ceil(gateways.max(1));
        match *self {
            Self::Window(rules) => {
                Self::Window(window::Rules { limit: part(rules.limit), ..rules })
            }
            Self::Exact(rules) => Self::Exact(window::Rules { limit: part(rules.limit), ..rules }),
            Self::Bucket(rules) => Self::Bucket(bucket::Rules {
                limit: part(rules.limit),
                burst: part(rules.burst),
                queue: part(rules.queue),
                ..rules
            }),
            Self::Quota(rules) => Self::Quota(quota::Rules { limit: part(rules.limit), ..rules }),
            Self::Together(rules) => Self::Together(Together { limit: part(rules.limit), ..rules }),
        }
    }
}

impl Config {
    /// Words that go with another algorithm are mistakes.
    pub(super) fn words(&self, at: &Place<'_>, env: &mut Env<'_>) -> Option<()> {
        use Algorithm::{Concurrency, LeakyBucket, Quota, SlidingWindow, TokenBucket};
        let queues = self.queues();
        let is = |algorithms: &[Algorithm]| algorithms.contains(&self.algorithm);
        let words: [(&str, bool, bool, &str); 10] = [
            ("per", self.per.is_some(), !is(&[Quota, Concurrency]), "no span is looked at"),
            ("lease", self.lease.is_some(), is(&[Concurrency]), "only `concurrency` has leases"),
            (
                "prepay",
                self.prepay.is_some(),
                !is(&[Concurrency, LeakyBucket]) && !self.exact && !queues,
                "each call is counted when it is made",
            ),
            ("burst", self.burst.is_some(), is(&[TokenBucket]), "only a `token_bucket` has bursts"),
            ("exact", self.exact, is(&[SlidingWindow]), "only a `sliding_window` can be exact"),
            ("period", self.period.is_some(), is(&[Quota]), "only a `quota` has a period"),
            ("utc_offset", self.utc_offset.is_some(), is(&[Quota]), "only a `quota` knows days"),
            (
                "on_exceed",
                self.on_exceed == Some(OnExceed::Queue),
                is(&[TokenBucket, LeakyBucket]),
                "only a `leaky_bucket` or a `token_bucket` can queue",
            ),
            ("queue", self.queue.is_some(), queues, "it counts where `on_exceed` is `queue`"),
            ("max_wait", self.max_wait.is_some(), queues, "it counts where `on_exceed` is `queue`"),
        ];
        let mut whole = true;
        for (word, given, fits, why) in words {
            if given && !fits {
                whole = false;
                env.problems.error(&at.field(word), format!("`{word}` has no meaning here: {why}"));
            }
        }
        whole.then_some(())
    }

    fn queues(&self) -> bool {
        let default = match self.algorithm {
            Algorithm::LeakyBucket => OnExceed::Queue,
            _ => OnExceed::Reject,
        };
        let buckets = matches!(self.algorithm, Algorithm::TokenBucket | Algorithm::LeakyBucket);
        buckets && self.on_exceed.unwrap_or(default) == OnExceed::Queue
    }

    /// The rules with these numbers; `at` is where they stand.
    pub(super) fn rules(&self, tier: Tier, at: &Place<'_>, env: &mut Env<'_>) -> Option<Rules> {
        let limit = tier.limit;
        if limit == 0 {
            env.problems
                .error(&at.field("limit"), "a limit of 0 refuses every call")
                .help("to refuse everybody use `respond: { status: 403 }`");
            return None;
        }
        if limit > MOST_LEVEL {
            env.problems.error(
                &at.field("limit"),
                format!("a limit may be {MOST_LEVEL} at most: more cannot be counted exactly"),
            );
            return None;
        }
        match self.algorithm {
            Algorithm::SlidingWindow if self.exact => {
                if limit > MOST_EXACT {
                    let message = format!("an exact window remembers at most {MOST_EXACT} calls");
                    env.problems
                        .error(&at.field("limit"), message)
                        .help("leave `exact` out: the ordinary window is right for smooth traffic");
                    return None;
                }
                Some(Rules::Exact(window::Rules { limit, per: self.span(at, env)? }))
            }
            Algorithm::SlidingWindow => {
                Some(Rules::Window(window::Rules { limit, per: self.span(at, env)? }))
            }
            Algorithm::TokenBucket => self.bucket(tier.burst.unwrap_or(limit), limit, at, env),
            Algorithm::LeakyBucket => self.bucket(1, limit, at, env),
            Algorithm::Quota => self.quota(limit, at, env),
            Algorithm::Concurrency => self.together(limit, at, env),
        }
    }

    fn span(&self, at: &Place<'_>, env: &mut Env<'_>) -> Option<Duration> {
        let Some(Span(per)) = self.per else {
            env.problems.error(at, "missing field `per`").help("write the span, like `per: 1s`");
            return None;
        };
        if !(Duration::from_millis(100)..=Duration::from_secs(86_400)).contains(&per) {
            env.problems
                .error(&at.field("per"), "`per` must lie between 100ms and 1d")
                .help("for days and months of the calendar there is `algorithm: quota`");
            return None;
        }
        Some(per)
    }

    fn bucket(&self, burst: u64, limit: u64, at: &Place<'_>, env: &mut Env<'_>) -> Option<Rules> {
        let per = self.span(at, env)?;
        let max_wait = self.max_wait.map_or(Duration::from_secs(1), |wait| wait.0);
        let queue = self.queue.unwrap_or(100);
        if burst == 0 {
            env.problems.error(&at.field("burst"), "a bucket without depth holds no call");
            return None;
        }
        if self.queues() && max_wait > LONGEST_WAIT {
            env.problems
                .error(&at.field("max_wait"), "nobody should wait longer than 30s for a turn");
            return None;
        }
        let queue = if self.queues() { queue } else { 0 };
        let rules = bucket::Rules { limit, per, burst, queue, max_wait };
        if redis::most(&rules) > MOST_LEVEL {
            env.problems
                .error(at, "these numbers are too large to be counted without rounding")
                .help("choose a shorter `per` with a smaller `limit` and `burst`: the rate counts");
            return None;
        }
        Some(Rules::Bucket(rules))
    }

    fn together(&self, limit: u64, at: &Place<'_>, env: &mut Env<'_>) -> Option<Rules> {
        let lease = self.lease.map_or(LEASE, |lease| lease.0);
        if !(SHORTEST_LEASE..=LONGEST_LEASE).contains(&lease) {
            env.problems
                .error(&at.field("lease"), "`lease` must lie between 3s and 5m")
                .help("it is renewed while a request lasts, and is how long a dead gateway counts");
            return None;
        }
        if limit > MOST_TOGETHER {
            let message = format!("at most {MOST_TOGETHER} requests in progress can be counted");
            env.problems.error(&at.field("limit"), message);
            return None;
        }
        Some(Rules::Together(Together { limit, lease }))
    }

    fn quota(&self, limit: u64, at: &Place<'_>, env: &mut Env<'_>) -> Option<Rules> {
        let period = match self.period {
            Some(Period::Day) => quota::Period::Day,
            Some(Period::Month) => quota::Period::Month,
            None => {
                env.problems
                    .error(at, "missing field `period`")
                    .help("write `period: day` or `period: month`");
                return None;
            }
        };
        let offset = match self.utc_offset.as_deref() {
            None => 0,
            Some(text) => match offset(text) {
                Some(offset) => offset,
                None => {
                    env.problems
                        .error(&at.field("utc_offset"), format!("`{text}` is not an offset"))
                        .help("write hours and minutes, like +08:00 or -03:30");
                    return None;
                }
            },
        };
        Some(Rules::Quota(quota::Rules { limit, period, offset }))
    }

    pub(super) fn tiers(
        &self,
        tiers: &TiersConfig,
        at: &Place<'_>,
        env: &mut Env<'_>,
    ) -> Option<Tiers> {
        let claim = tiers.by.strip_prefix("claim:").filter(|name| !name.is_empty());
        if claim.is_none() {
            let message = format!("`{}` does not prove a tier", tiers.by);
            env.problems.error(&at.field("by"), message).help(
                "write claim:NAME: what a caller only says of itself must not raise its limit",
            );
        }
        let mut of = HashMap::new();
        for (name, tier) in &tiers.of {
            let at = at.field("of").field(name);
            if tier.burst.is_some() && self.algorithm != Algorithm::TokenBucket {
                env.problems.error(&at.field("burst"), "only a `token_bucket` has bursts");
            }
            of.insert(name.clone(), self.rules(*tier, &at, env)?);
        }
        Some(Tiers { claim: claim?.to_owned(), of })
    }

    /// The rules for an address whose caller says what it likes.
    pub(super) fn address(
        &self,
        unproven: bool,
        at: &Place<'_>,
        env: &mut Env<'_>,
    ) -> Option<Option<Rules>> {
        if !unproven {
            if self.address_limit.is_some() {
                env.problems.error(
                    &at.field("address_limit"),
                    "`address_limit` has no meaning here: the key has no `header:` and no `cookie:`",
                );
                return None;
            }
            return Some(None);
        }
        let limit = self.address_limit.unwrap_or(self.limit);
        // Bursts grow with the limit, so that the cap does not cut what the limit admits.
        let burst =
            self.burst.map(|burst| burst.max(burst.saturating_mul(limit) / self.limit.max(1)));
        self.rules(Tier { limit, burst }, at, env).map(Some)
    }
}

/// `+08:00` in seconds.
fn offset(text: &str) -> Option<i64> {
    let (sign, rest) = match text.split_at_checked(1)? {
        ("+", rest) => (1, rest),
        ("-", rest) => (-1, rest),
        _ => return None,
    };
    let (hours, minutes) = rest.split_once(':')?;
    let two = |text: &str, below: i64| {
        let number = text.parse::<i64>().ok().filter(|number| (0..below).contains(number));
        number.filter(|_| text.len() == 2 && text.bytes().all(|byte| byte.is_ascii_digit()))
    };
    Some(sign * (two(hours, 15)? * 3_600 + two(minutes, 60)? * 60))
}

#[cfg(test)]
mod tests {
    use super::offset;

    #[test]
    fn offsets_are_hours_and_minutes() {
        assert_eq!(offset("+08:00"), Some(28_800));
        assert_eq!(offset("-03:30"), Some(-12_600));
        for text in ["", "8", "08:00", "+8:00", "+08", "+24:00", "+08:60", "+0８:00", "++1:00"] {
            assert_eq!(offset(text), None, "{text}");
        }
    }
}
