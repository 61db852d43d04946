//! The words of `rate_limit:`, and how they become rules.

use std::collections::BTreeMap;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sluice_engine::{bucket, quota, window};

use super::counter::{Counter, Rules};
use super::{RateLimit, Tiers};
use crate::base::units::Span;
use crate::base::yaml::Place;
use crate::lasting::redis;
use crate::parts::env::{Env, Owner};
use crate::parts::key::{self, Part, Use};

/// Most calls that an exact window remembers for each key.
const MOST_EXACT: u64 = 1_000;
/// The level of a bucket is counted in Redis in floating point, which is exact up to here.
const MOST_LEVEL: u64 = 1 << 53;
/// Nobody should wait longer for a turn: whoever waits holds memory, and clients give up.
const LONGEST_WAIT: Duration = Duration::from_secs(30);

/// At most `limit` calls in any span of `per`, or as `algorithm` says, counted separately for each key.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "RateLimit")]
pub(crate) struct Config {
    /// How calls are counted.
    #[serde(default)]
    algorithm: Algorithm,
    /// Calls admitted.
    limit: u64,
    /// The span they are counted over; not for `quota`.
    #[serde(default)]
    per: Option<Span>,
    /// `token_bucket`: calls that may come at once; `limit` if not given.
    #[serde(default)]
    burst: Option<u64>,
    /// `sliding_window`: never over the limit, whatever the pattern; at most 1000 calls.
    #[serde(default)]
    exact: bool,
    /// `quota`: the period of the calendar.
    #[serde(default)]
    period: Option<Period>,
    /// `quota`: where days begin, as an offset from UTC like `+08:00`.
    #[serde(default)]
    utc_offset: Option<String>,
    /// What happens to a call over the limit. `leaky_bucket` queues if this is not given, all others
    /// reject; windows and quotas cannot queue.
    #[serde(default)]
    on_exceed: Option<OnExceed>,
    /// `on_exceed: queue`: calls of one key that may wait at a time; 100 if not given.
    #[serde(default)]
    queue: Option<u64>,
    /// `on_exceed: queue`: longest wait for a turn; 1s if not given.
    #[serde(default)]
    max_wait: Option<Span>,
    /// What is counted: `address`, `route`, `claim:NAME`, `header:NAME`, `cookie:NAME`, `capture:NAME`,
    /// or several joined by `+`. A part that a request lacks is replaced by its address: nobody is unlimited.
    #[serde(default = "default_key")]
    key: String,
    /// For keys with a `header:` or `cookie:`, which callers choose as they like: calls of one address, whatever it says
    /// of itself; `limit` if not given.
    #[serde(default)]
    address_limit: Option<u64>,
    /// Other numbers for some callers.
    #[serde(default)]
    tiers: Option<TiersConfig>,
    /// Tells two limits of one owner apart.
    #[serde(default)]
    label: Option<String>,
    /// Where calls are counted.
    #[serde(default)]
    store: StoreConfig,
    /// What happens to a call while Redis cannot be asked.
    #[serde(default)]
    on_store_error: OnStoreError,
}

/// How calls are counted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Algorithm {
    /// `limit` in any span of `per`.
    #[default]
    SlidingWindow,
    /// `limit` per `per` in the long run, and up to `burst` at once.
    TokenBucket,
    /// One after the other, `limit` per `per`; what comes faster waits its turn.
    LeakyBucket,
    /// `limit` per day or month of the calendar.
    Quota,
}

/// A period of the calendar.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Period {
    /// From midnight to midnight.
    Day,
    /// From the first of a month to the first of the next.
    Month,
}

/// What happens to a call over the limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum OnExceed {
    /// It is refused with 429.
    Reject,
    /// It waits for its turn, unless too many do or it would take too long.
    Queue,
}

/// Other numbers for some callers, told by a proven claim. A caller without one has those of the limit
/// itself.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct TiersConfig {
    /// `claim:NAME` of a verified token.
    by: String,
    /// Numbers by the claim's value.
    of: BTreeMap<String, Tier>,
}

/// The numbers of one tier.
#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Tier {
    /// Calls admitted.
    limit: u64,
    /// `token_bucket`: calls that may come at once; `limit` if not given.
    #[serde(default)]
    burst: Option<u64>,
}

/// Where calls are counted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum StoreConfig {
    /// In Redis if `redis.url` is set, else in this process.
    #[default]
    Auto,
    /// In Redis; an error if `redis.url` is not set.
    Redis,
    /// In this process, whatever `redis.url` says.
    Local,
}

/// What happens to a call while Redis cannot be asked.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum OnStoreError {
    /// It is counted in this process, against this gateway's share of the limit.
    #[default]
    Local,
    /// It passes.
    Allow,
    /// It is refused with 503.
    Deny,
}

fn default_key() -> String {
    "address".to_owned()
}

impl Config {
    pub(crate) fn build(
        &self,
        at: &Place<'_>,
        owner: &Owner,
        env: &mut Env<'_>,
    ) -> Option<RateLimit> {
        let parts = key::parts(&self.key, &at.field("key"), Use::Limit(&owner.captures), env)?;
        let own = Tier { limit: self.limit, burst: self.burst };
        let rules = self.words(at, env).and_then(|()| self.rules(own, at, env));
        let tiers = match &self.tiers {
            None => None,
            Some(tiers) => Some(self.tiers(tiers, &at.field("tiers"), env)?),
        };
        let rules = rules?;
        let unproven = parts.iter().any(Part::is_claimed);
        let address = self.address(unproven, at, env)?;
        let label = self.label.as_deref().unwrap_or("");
        // What the counts mean is part of the name; the numbers that they are held against are not.
        let name = format!("limit {} {label} {} {}", owner.name, rules.meaning(), self.key);
        let guard =
            tiers.is_none() && parts.iter().all(|part| matches!(part, Part::Address | Part::Route));
        if !env.limits.insert(name.clone()) {
            env.problems
                .error(at, "another limit here counts the same key over the same time")
                .help("give one of them a `label`, or they would count every call twice");
            return None;
        }
        let redis = match (self.store, &env.redis) {
            (StoreConfig::Local, _) | (StoreConfig::Auto, None) => None,
            (_, Some(redis)) => Some(std::sync::Arc::clone(redis)),
            (StoreConfig::Redis, None) => {
                env.problems
                    .error(&at.field("store"), "there is no Redis to count in")
                    .help("set `redis: { url: redis://host:6379 }`, or leave `store` out");
                return None;
            }
        };
        let counter = Counter::new(name, &rules, redis, self.on_store_error, env.retained);
        Some(RateLimit { rules, tiers, address, parts, counter, guard })
    }

    /// Words that go with another algorithm are mistakes.
    fn words(&self, at: &Place<'_>, env: &mut Env<'_>) -> Option<()> {
        use Algorithm::{LeakyBucket, Quota, SlidingWindow, TokenBucket};
        let queues = self.queues();
        let is = |algorithms: &[Algorithm]| algorithms.contains(&self.algorithm);
        let words: [(&str, bool, bool, &str); 8] = [
            ("per", self.per.is_some(), !is(&[Quota]), "a quota has a `period`"),
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
    fn rules(&self, tier: Tier, at: &Place<'_>, env: &mut Env<'_>) -> Option<Rules> {
        let limit = tier.limit;
        if limit == 0 {
            env.problems
                .error(&at.field("limit"), "a limit of 0 refuses every call")
                .help("to refuse everybody use `respond: { status: 403 }`");
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
        if redis::most(&rules) > MOST_LEVEL || limit > MOST_LEVEL {
            env.problems
                .error(at, "these numbers are too large to be counted without rounding")
                .help("choose a shorter `per` with a smaller `limit` and `burst`: the rate counts");
            return None;
        }
        Some(Rules::Bucket(rules))
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

    fn tiers(&self, tiers: &TiersConfig, at: &Place<'_>, env: &mut Env<'_>) -> Option<Tiers> {
        let claim = tiers.by.strip_prefix("claim:").filter(|name| !name.is_empty());
        if claim.is_none() {
            let message = format!("`{}` does not prove a tier", tiers.by);
            env.problems.error(&at.field("by"), message).help(
                "write claim:NAME: what a caller only says of itself must not raise its limit",
            );
        }
        let mut of = std::collections::HashMap::new();
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
    fn address(&self, unproven: bool, at: &Place<'_>, env: &mut Env<'_>) -> Option<Option<Rules>> {
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
