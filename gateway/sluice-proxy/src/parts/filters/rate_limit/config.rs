//! The words of `rate_limit:`, and how they become rules.

use std::collections::BTreeMap;

use super::RateLimit;
use super::choice::Choice;
use super::counter::{Counter, Sharing};
use crate::base::units::Span;
use crate::base::yaml::Place;
use crate::parts::env::{Env, Owner};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// At most `limit` calls in any span of `per`, or as `algorithm` says, counted separately for each key.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "RateLimit")]
pub(crate) struct Config {
    /// How calls are counted.
    #[serde(default)]
    pub(super) algorithm: Algorithm,
    /// Calls admitted.
    pub(super) limit: u64,
    /// The span they are counted over; not for `quota` and `concurrency`.
    #[serde(default)]
    pub(super) per: Option<Span>,
    /// `token_bucket`: calls that may come at once; `limit` if not given.
    #[serde(default)]
    pub(super) burst: Option<u64>,
    /// `sliding_window`: never over the limit, whatever the pattern; at most 1000 calls.
    #[serde(default)]
    pub(super) exact: bool,
    /// `quota`: the period of the calendar.
    #[serde(default)]
    pub(super) period: Option<Period>,
    /// `quota`: where days begin, as an offset from UTC like `+08:00`.
    #[serde(default)]
    pub(super) utc_offset: Option<String>,
    /// What happens to a call over the limit. `leaky_bucket` queues if this is not given, all others
    /// reject; windows and quotas cannot queue.
    #[serde(default)]
    pub(super) on_exceed: Option<OnExceed>,
    /// `on_exceed: queue`: calls of one key that may wait at a time; 100 if not given.
    #[serde(default)]
    pub(super) queue: Option<u64>,
    /// `on_exceed: queue`: longest wait for a turn; 1s if not given.
    #[serde(default)]
    pub(super) max_wait: Option<Span>,
    /// `concurrency` in Redis: how long the requests of a gateway that died are counted; 10s if not given.
    #[serde(default)]
    pub(super) lease: Option<Span>,
    /// What is counted: `address`, `route`, `claim:NAME`, `api_key:HEADER`, `header:NAME`, `cookie:NAME`,
    /// `capture:NAME`, or several joined by `+`. Of several keys with `|` between them the first that a request has whole is
    /// counted. If it has none, its address stands for what is missing: nobody is unlimited.
    #[serde(default = "default_key")]
    key: String,
    /// For keys with a `header:`, `cookie:` or `api_key:`, which callers choose as they like: calls of one address, whatever it says
    /// of itself; `limit` if not given.
    #[serde(default)]
    pub(super) address_limit: Option<u64>,
    /// Other numbers for some callers.
    #[serde(default)]
    tiers: Option<TiersConfig>,
    /// Tells two limits of one owner apart.
    #[serde(default)]
    label: Option<String>,
    /// Where calls are counted.
    #[serde(default)]
    store: StoreConfig,
    /// Whether Redis may count calls of a busy key in advance, many by one command; true if not given.
    #[serde(default)]
    pub(super) prepay: Option<bool>,
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
    /// `limit` requests in progress at a time.
    Concurrency,
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
    pub(super) by: String,
    /// Numbers by the claim's value.
    pub(super) of: BTreeMap<String, Tier>,
}

/// The numbers of one tier.
#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Tier {
    /// Calls admitted.
    pub(super) limit: u64,
    /// `token_bucket`: calls that may come at once; `limit` if not given.
    #[serde(default)]
    pub(super) burst: Option<u64>,
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
        let keys = Choice::read(&self.key, &at.field("key"), owner, env)?;
        let own = Tier { limit: self.limit, burst: self.burst };
        let rules = self.words(at, env).and_then(|()| self.rules(own, at, env));
        let tiers = match &self.tiers {
            None => None,
            Some(tiers) => Some(self.tiers(tiers, &at.field("tiers"), env)?),
        };
        let rules = rules?;
        let address = self.address(keys.iter().any(Choice::is_unproven), at, env)?;
        let label = self.label.as_deref().unwrap_or("");
        // What the counts mean is part of the name; the numbers that they are held against are not.
        let name = format!("limit {} {label} {} {}", owner.name, rules.meaning(), self.key);
        let guard = tiers.is_none() && keys.iter().all(Choice::is_known_early);
        if !env.limits.insert(name.clone()) {
            env.problems
                .error(at, "another limit here counts the same key over the same time")
                .help("give one of them a `label`, or they would count every call twice");
            return None;
        }
        let shared = match (self.store, &env.redis) {
            (StoreConfig::Local, _) | (StoreConfig::Auto, None) => None,
            (_, Some(redis)) => Some(Sharing {
                redis: std::sync::Arc::clone(redis),
                on_error: self.on_store_error,
                prepay: self.prepay.unwrap_or(true),
            }),
            (StoreConfig::Redis, None) => {
                env.problems
                    .error(&at.field("store"), "there is no Redis to count in")
                    .help("set `redis: { url: \"redis://host:6379\" }`, or leave `store` out");
                return None;
            }
        };
        let named =
            if label.is_empty() { owner.name.clone() } else { format!("{} {label}", owner.name) };
        let counter = Counter::new(name, &named, &rules, shared, env.retained);
        Some(RateLimit { rules, tiers, address, keys, counter, guard })
    }
}
