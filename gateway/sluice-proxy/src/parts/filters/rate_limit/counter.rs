//! Where the calls of one limit are counted: in Redis, shared with other gateways, or in this process.
//!
//! Two things keep Redis from being asked for what is known: a key that was refused is refused here until
//! the moment at which Redis could admit it, or a second at most; and while Redis is gone this gateway
//! counts against its own share of the limit.

use std::sync::Arc;
use std::time::Duration;

use sluice_engine::window::Verdict;
use sluice_engine::{bucket, exact, quota, window};

use super::config::OnStoreError;
use crate::base::clock::{self, Moment};
use crate::base::fault::Fault;
use crate::lasting::limits::{Cell, Table};
use crate::lasting::redis::{self, Target};
use crate::lasting::retained::Retained;

/// How long a refusal is believed without asking again: a limit that was raised elsewhere must show.
const BELIEVED: Duration = Duration::from_secs(1);

/// What is admitted; of one limit all rules are of one kind.
#[derive(Debug, Clone, Copy)]
pub(super) enum Rules {
    Window(window::Rules),
    Exact(window::Rules),
    Bucket(bucket::Rules),
    Quota(quota::Rules),
}

/// What a call met.
pub(super) struct Counted {
    pub(super) verdict: Verdict,
    /// Where it was counted, if that could have been elsewhere.
    pub(super) mode: Option<&'static str>,
}

/// The counts of one limit.
pub(super) struct Counter {
    /// The limit's name, the same on every gateway that has this config.
    name: String,
    here: Here,
    shared: Option<Shared>,
}

struct Shared {
    redis: Arc<Target>,
    on_error: OnStoreError,
    refused: Arc<Table<Refusal>>,
}

enum Here {
    Window(Arc<Table<window::Counter>>),
    Exact(Arc<Table<exact::Log>>),
    Bucket(Arc<Table<bucket::Bucket>>),
    Quota(Arc<Table<quota::Used>>),
}

impl Counter {
    pub(super) fn new(
        name: String,
        rules: &Rules,
        redis: Option<Arc<Target>>,
        on_error: OnStoreError,
        retained: &Retained,
    ) -> Self {
        let here = match rules {
            Rules::Window(_) => Here::Window(retained.cell(&name, Table::new)),
            Rules::Exact(_) => Here::Exact(retained.cell(&name, Table::new)),
            Rules::Bucket(_) => Here::Bucket(retained.cell(&name, Table::new)),
            Rules::Quota(_) => Here::Quota(retained.cell(&name, Table::new)),
        };
        let shared = redis.map(|redis| Shared {
            redis,
            on_error,
            refused: retained.cell(&name, Table::new),
        });
        Self { name, here, shared }
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Counts one call. `None` lets it pass uncounted.
    pub(super) async fn count(&self, key: &[u8], rules: &Rules) -> Result<Option<Counted>, Fault> {
        let now = clock::now();
        let Some(shared) = &self.shared else {
            return Ok(Some(Counted { verdict: self.here(key, rules, now), mode: None }));
        };
        if let Some(verdict) = shared.refused.look(key, |refusal| refusal.verdict(now)) {
            return Ok(Some(Counted { verdict, mode: Some("shared") }));
        }
        // The state of a command in flight is large; limits in this process should not carry it.
        let asked = Box::pin(shared.redis.hit(&self.name, key, &rules.shared(), 1)).await;
        if let Some(verdict) = asked {
            if !verdict.admitted {
                shared.refused.hit(key, &verdict, now);
            }
            return Ok(Some(Counted { verdict, mode: Some("shared") }));
        }
        match shared.on_error {
            OnStoreError::Local => {
                let share = rules.share(shared.redis.gateways());
                let verdict = self.here(key, &share, now);
                Ok(Some(Counted { verdict, mode: Some("local") }))
            }
            OnStoreError::Allow => Ok(None),
            OnStoreError::Deny => Err(Fault::LimitStoreDown),
        }
    }

    fn here(&self, key: &[u8], rules: &Rules, now: Moment) -> Verdict {
        match (&self.here, rules) {
            (Here::Window(table), Rules::Window(rules)) => table.hit(key, rules, now),
            (Here::Exact(table), Rules::Exact(rules)) => table.hit(key, rules, now),
            (Here::Bucket(table), Rules::Bucket(rules)) => table.hit(key, rules, now),
            (Here::Quota(table), Rules::Quota(rules)) => table.hit(key, rules, now),
            // All rules of a limit are of the kind that its table was made for.
            _ => Verdict {
                admitted: true,
                remaining: 0,
                reset_after: Duration::ZERO,
                wait: Duration::ZERO,
                retry_after: Duration::ZERO,
            },
        }
    }
}

impl Rules {
    /// What counts by these rules mean, beside the numbers they are held against.
    pub(super) fn meaning(&self) -> String {
        match self {
            Self::Window(rules) => format!("{}ms", rules.per.as_millis()),
            Self::Exact(rules) => format!("exact {}ms", rules.per.as_millis()),
            Self::Bucket(rules) => format!("bucket {}ms", rules.per.as_millis()),
            Self::Quota(rules) => format!("quota {:?} {}", rules.period, rules.offset),
        }
    }

    pub(super) fn limit(&self) -> u64 {
        match self {
            Self::Window(rules) | Self::Exact(rules) => rules.limit,
            Self::Bucket(rules) => rules.limit,
            Self::Quota(rules) => rules.limit,
        }
    }

    /// Its word in the log.
    pub(super) fn algorithm(&self) -> &'static str {
        match self {
            Self::Window(_) | Self::Exact(_) => "sliding_window",
            Self::Bucket(rules) if rules.queue > 0 => "leaky_bucket",
            Self::Bucket(_) => "token_bucket",
            Self::Quota(_) => "quota",
        }
    }

    fn shared(&self) -> redis::Rules<'_> {
        match self {
            Self::Window(rules) => redis::Rules::Window(rules),
            Self::Exact(rules) => redis::Rules::Exact(rules),
            Self::Bucket(rules) => redis::Rules::Bucket(rules),
            Self::Quota(rules) => redis::Rules::Quota(rules),
        }
    }

    /// One of `gateways` equal parts, at least one call.
    fn share(&self, gateways: u64) -> Self {
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
        }
    }
}

/// Until when a key is refused, as Redis said.
#[derive(Default)]
struct Refusal {
    believed_until: Moment,
    admits_at: Moment,
    whole_at: Moment,
}

impl Refusal {
    fn verdict(&self, now: Moment) -> Option<Verdict> {
        (now < self.believed_until).then(|| Verdict {
            admitted: false,
            remaining: 0,
            reset_after: self.whole_at.saturating_since(now),
            wait: Duration::ZERO,
            retry_after: self.admits_at.saturating_since(now),
        })
    }
}

impl Cell for Refusal {
    /// The refusal that Redis gave.
    type Rules = Verdict;

    fn hit(&mut self, refused: &Verdict, now: Moment) -> Verdict {
        *self = Self {
            believed_until: now.after(refused.retry_after.min(BELIEVED)),
            admits_at: now.after(refused.retry_after),
            whole_at: now.after(refused.reset_after),
        };
        *refused
    }

    fn horizon(_: &Verdict) -> Duration {
        BELIEVED
    }
}
