//! Where the calls of one limit are counted: in Redis, shared with other gateways, or in this process. While
//! Redis is gone this gateway counts against its own share of the limit.

use std::any::Any;
use std::sync::Arc;
use std::time::Duration;

use sluice_engine::window::Verdict;
use sluice_engine::{bucket, exact, quota, window};

use super::config::OnStoreError;
use super::near::{self, Near, Step};
use super::rules::{Rules, Together};
use crate::base::clock::{self, Moment};
use crate::base::fault::Fault;
use crate::lasting::decisions::{Decisions, Mode};
use crate::lasting::limits::Table;
use crate::lasting::places::Places;
use crate::lasting::redis::{Entry, Target};
use crate::lasting::retained::Retained;

/// When to come back for a place: nobody knows, so soon.
const SOON: Duration = Duration::from_secs(1);

/// What a call met.
pub(super) struct Counted {
    pub(super) verdict: Verdict,
    pub(super) mode: Mode,
    /// To be given back when the request is over.
    pub(super) held: Option<Box<dyn Any>>,
}

/// The counts of one limit.
pub(super) struct Counter {
    /// The limit's name, the same on every gateway that has this config.
    name: String,
    here: Here,
    shared: Option<Shared>,
    pub(super) decisions: Arc<Decisions>,
}

/// How a limit uses Redis.
pub(super) struct Sharing {
    pub(super) redis: Arc<Target>,
    pub(super) on_error: OnStoreError,
    /// Whether calls may be counted in advance.
    pub(super) prepay: bool,
}

struct Shared {
    how: Sharing,
    near: Arc<Table<Near>>,
}

enum Here {
    Window(Arc<Table<window::Counter>>),
    Exact(Arc<Table<exact::Log>>),
    Bucket(Arc<Table<bucket::Bucket>>),
    Quota(Arc<Table<quota::Used>>),
    Places(Arc<Places>),
}

impl Counter {
    /// `label` is what the limit is called in metrics.
    pub(super) fn new(
        name: String,
        label: &str,
        rules: &Rules,
        shared: Option<Sharing>,
        retained: &Retained,
    ) -> Self {
        let here = match rules {
            Rules::Window(_) => Here::Window(retained.cell(&name, Table::new)),
            Rules::Exact(_) => Here::Exact(retained.cell(&name, Table::new)),
            Rules::Bucket(_) => Here::Bucket(retained.cell(&name, Table::new)),
            Rules::Quota(_) => Here::Quota(retained.cell(&name, Table::new)),
            Rules::Together(_) => Here::Places(retained.cell(&name, Places::new)),
        };
        let shared = shared.map(|how| Shared { how, near: retained.cell(&name, Table::new) });
        let decisions = retained.cell(label, || Decisions::new(label.to_owned()));
        Self { name, here, shared, decisions }
    }

    /// Whether it is counted in Redis, as long as that can be asked.
    pub(super) fn is_shared(&self) -> bool {
        self.shared.is_some()
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Counts one call. `None` lets it pass uncounted.
    pub(super) async fn count(&self, key: &[u8], rules: &Rules) -> Result<Option<Counted>, Fault> {
        let counted = match (&self.shared, &self.here, rules) {
            (Some(shared), Here::Places(places), Rules::Together(rules)) => {
                Box::pin(self.enter(shared, places, key, rules)).await
            }
            (Some(shared), ..) => self.share(shared, key, rules).await,
            (None, ..) => Ok(Some(self.here(key, rules, clock::now(), Mode::Process))),
        };
        let (mode, admitted) = match &counted {
            Ok(Some(counted)) => (counted.mode, counted.verdict.admitted),
            Ok(None) => (Mode::Unasked, true),
            Err(_) => (Mode::Unasked, false),
        };
        self.decisions.count(mode, admitted);
        counted
    }

    async fn share(
        &self,
        shared: &Shared,
        key: &[u8],
        rules: &Rules,
    ) -> Result<Option<Counted>, Fault> {
        let Some(of_redis) = rules.shared() else { return Ok(None) };
        let redis = &shared.how.redis;
        let (asked, gateways) = (clock::now(), redis.gateways());
        let prepay = shared.how.prepay && rules.can_prepay();
        let step = shared.near.with(key, near::HORIZON, asked, |near| {
            near.step(rules.limit(), gateways, prepay, asked)
        });
        let order = match step {
            Step::Refused(verdict) => return Ok(Some(Counted::new(verdict, Mode::Shared))),
            Step::Paid(verdict) => return Ok(Some(Counted::new(verdict, Mode::Leased))),
            Step::Ask(order) => order,
        };
        let buying = (order.calls > 1).then(|| Buying { near: &shared.near, key });
        // The state of a command in flight is large; limits in this process should not carry it.
        let granted = Box::pin(redis.hit(&self.name, key, &of_redis, order)).await;
        let now = clock::now();
        let told = granted.filter(|granted| prepay || !granted.verdict.admitted);
        if let Some(granted) = told {
            shared.near.with(key, near::HORIZON, now, |near| near.granted(&granted, asked, now));
        }
        drop(buying);
        if let Some(granted) = granted {
            return Ok(Some(Counted::new(granted.verdict, Mode::Shared)));
        }
        match shared.how.on_error {
            OnStoreError::Local => {
                Ok(Some(self.here(key, &rules.share(gateways), now, Mode::Local)))
            }
            OnStoreError::Allow => Ok(None),
            OnStoreError::Deny => Err(Fault::LimitStoreDown),
        }
    }

    /// Takes a place in Redis, and one here too: when Redis goes, what is in progress is known.
    async fn enter(
        &self,
        shared: &Shared,
        places: &Arc<Places>,
        key: &[u8],
        rules: &Together,
    ) -> Result<Option<Counted>, Fault> {
        let redis = &shared.how.redis;
        let (entry, seat) = redis.enter(&self.name, key, rules.limit, rules.lease).await;
        match entry {
            Some(Entry::Taken(before)) => {
                let (place, _) = places.enter(key, u64::MAX);
                let verdict = together(true, rules.limit, before);
                let held: Option<Box<dyn Any>> = Some(Box::new((place, seat)));
                Ok(Some(Counted { verdict, mode: Mode::Shared, held }))
            }
            Some(Entry::Full) => {
                Ok(Some(Counted::new(together(false, rules.limit, rules.limit), Mode::Shared)))
            }
            None => match shared.how.on_error {
                OnStoreError::Local => {
                    let limit = rules.limit.div_ceil(redis.gateways());
                    let (place, before) = places.enter(key, limit);
                    let verdict = together(place.is_some(), limit, before);
                    let held = place.map(|place| Box::new((place, seat)) as Box<dyn Any>);
                    Ok(Some(Counted { verdict, mode: Mode::Local, held }))
                }
                OnStoreError::Allow => Ok(None),
                OnStoreError::Deny => Err(Fault::LimitStoreDown),
            },
        }
    }

    fn here(&self, key: &[u8], rules: &Rules, now: Moment, mode: Mode) -> Counted {
        let verdict = match (&self.here, rules) {
            (Here::Window(table), Rules::Window(rules)) => table.hit(key, rules, now),
            (Here::Exact(table), Rules::Exact(rules)) => table.hit(key, rules, now),
            (Here::Bucket(table), Rules::Bucket(rules)) => table.hit(key, rules, now),
            (Here::Quota(table), Rules::Quota(rules)) => table.hit(key, rules, now),
            (Here::Places(places), Rules::Together(rules)) => {
                let (place, before) = places.enter(key, rules.limit);
                let verdict = together(place.is_some(), rules.limit, before);
                let held = place.map(|place| Box::new(place) as Box<dyn Any>);
                return Counted { verdict, mode, held };
            }
            // All rules of a limit are of the kind that its table was made for.
            _ => together(true, 0, 0),
        };
        Counted::new(verdict, mode)
    }
}

impl Counted {
    fn new(verdict: Verdict, mode: Mode) -> Self {
        Self { verdict, mode, held: None }
    }
}

/// What is said where requests in progress are counted.
fn together(admitted: bool, limit: u64, before: u64) -> Verdict {
    let soon = if admitted { Duration::ZERO } else { SOON };
    Verdict {
        admitted,
        remaining: limit.saturating_sub(before.saturating_add(u64::from(admitted))),
        reset_after: soon,
        wait: Duration::ZERO,
        retry_after: soon,
    }
}

/// Somebody is buying a block of calls; also when its client leaves meanwhile, another one may.
struct Buying<'a> {
    near: &'a Table<Near>,
    key: &'a [u8],
}

impl Drop for Buying<'_> {
    fn drop(&mut self) {
        let now = clock::now();
        self.near.with(self.key, near::HORIZON, now, Near::bought);
    }
}
