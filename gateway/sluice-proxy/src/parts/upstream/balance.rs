//! How an endpoint is chosen: what operators write about it, and the engine's rules it becomes. What an
//! endpoint bears that has just come is here too.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sluice_engine::balance::{Policy, SlowStart};

use crate::base::units::{Percent, Span};
use crate::base::yaml::Place;
use crate::parts::env::Env;
use crate::parts::key::{self, Use};

/// How an endpoint is chosen.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Balance {
    /// In turn, by weight, as evenly spread as can be.
    #[default]
    RoundRobin,
    /// The same: weights always count.
    Weighted,
    /// The one with the fewest requests in flight for its weight.
    LeastRequest,
    /// The one where the requests in flight take the least time, by the slowest answers of late.
    Fastest,
    /// Any, by weight.
    Random,
    /// The one that the request's key belongs to, the same on every instance.
    Hash,
    /// `hash` with the key `address`.
    IpHash,
}

/// What keeps requests together under `balance: hash`.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct HashConfig {
    /// `address`, `claim:NAME`, `header:NAME`, `cookie:NAME`, `capture:NAME`, or several joined by `+`, as
    /// for limits. A part that a request lacks is replaced by its address. `ip_hash` has `address`.
    #[serde(default)]
    key: Option<String>,
    /// An endpoint with more than so many percent of its share of the requests in flight is passed over,
    /// from 100 to 1000; no bound if not given. Instances no longer agree then.
    #[serde(default)]
    balance_factor: Option<u32>,
}

/// What an endpoint bears that has just come, or come back.
#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct SlowStartConfig {
    /// After so long it bears its whole weight.
    window: Span,
    /// How much of it comes early: the share is `(time / window) ^ (1 / aggression)`, so it grows evenly
    /// with 1; from 0.1 to 10.
    #[serde(default = "default_aggression")]
    aggression: f32,
    /// The share it begins with.
    #[serde(default = "default_min_weight")]
    min_weight: Percent,
}

fn default_aggression() -> f32 {
    1.0
}

fn default_min_weight() -> Percent {
    Percent(10)
}

/// A way of choosing, compiled.
#[derive(Debug)]
pub(crate) struct Rules {
    pub(crate) policy: Policy,
    /// The key's words, where all requests have one.
    pub(crate) key: Option<String>,
    pub(crate) max_load: Option<u32>,
}

impl Balance {
    /// `at` is the upstream's place.
    pub(super) fn build(
        self,
        hash: Option<&HashConfig>,
        at: &Place<'_>,
        env: &mut Env<'_>,
    ) -> Option<Rules> {
        let policy = match self {
            Self::RoundRobin | Self::Weighted => Policy::RoundRobin,
            Self::LeastRequest => Policy::LeastRequest,
            Self::Fastest => Policy::Fastest,
            Self::Random => Policy::Random,
            Self::Hash | Self::IpHash => Policy::Hash,
        };
        let key = hash.and_then(|hash| hash.key.clone());
        let place = at.field("hash");
        match (self, &key) {
            (Self::Hash, None) => {
                env.problems
                    .error(&at.field("balance"), "`balance: hash` does not say what is hashed")
                    .help("write `hash: { key: \"header:x-user\" }`, or `balance: ip_hash`");
                return None;
            }
            (Self::IpHash, Some(_)) => {
                env.problems
                    .error(&place.field("key"), "`ip_hash` hashes the address")
                    .help("write `balance: hash` for another key");
                return None;
            }
            (Self::Hash | Self::IpHash, _) => {}
            _ if hash.is_some() => {
                env.problems
                    .error(&place, "`hash` has no meaning here")
                    .help("it goes with `balance: hash`; see also `sticky`");
                return None;
            }
            _ => {}
        }
        if let Some(text) = &key {
            key::parts(text, &place.field("key"), Use::Upstream(None), env)?;
        }
        let max_load = hash.and_then(|hash| hash.balance_factor);
        if max_load.is_some_and(|percent| !(100..=1000).contains(&percent)) {
            env.problems.error(
                &place.field("balance_factor"),
                "`balance_factor` must lie between 100 and 1000",
            );
            return None;
        }
        let key = key.or_else(|| (policy == Policy::Hash).then(|| "address".to_owned()));
        Some(Rules { policy, key, max_load })
    }
}

impl SlowStartConfig {
    pub(super) fn build(self, at: &Place<'_>, env: &mut Env<'_>) -> Option<SlowStart> {
        let mut whole = true;
        let fine = Duration::from_millis(100)..=Duration::from_secs(3600);
        if !fine.contains(&self.window.0) {
            whole = false;
            env.problems.error(&at.field("window"), "`window` must lie between 100ms and 1h");
        }
        if !(0.1..=10.0).contains(&self.aggression) {
            whole = false;
            env.problems.error(&at.field("aggression"), "`aggression` must lie between 0.1 and 10");
        }
        whole.then_some(SlowStart {
            window: self.window.0,
            aggression: self.aggression,
            least_percent: self.min_weight.0,
        })
    }
}
