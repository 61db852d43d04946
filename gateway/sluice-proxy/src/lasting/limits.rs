//! Counters by key, for limits kept in this process. A table belongs to one owner (a filter of a route, a
//! group or the whole gateway) and outlives reloads; its numbers come with each call.

use std::hash::{BuildHasher, Hash};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use dashmap::DashMap;
use foldhash::fast::RandomState;
use sluice_engine::window::{self, Verdict};
use sluice_engine::{bucket, exact, quota};

use super::places::Places;
use super::retained::Retained;
use crate::base::clock::{self, Moment};

/// Keys kept at most; beyond it the stalest are forgotten.
const CAPACITY: usize = 100_000;

/// What is kept for one key.
pub(crate) trait Kept: Default {
    /// Keys kept at most.
    const CAPACITY: usize = CAPACITY;
}

/// What counts calls.
pub(crate) trait Cell: Kept {
    type Rules;

    fn hit(&mut self, rules: &Self::Rules, now: Moment) -> Verdict;

    /// How long after its last hit a cell may still mean something.
    fn horizon(rules: &Self::Rules) -> Duration;
}

impl Kept for window::Counter {}

impl Cell for window::Counter {
    type Rules = window::Rules;

    fn hit(&mut self, rules: &Self::Rules, now: Moment) -> Verdict {
        self.hit(rules, now, 1)
    }

    fn horizon(rules: &Self::Rules) -> Duration {
        rules.per.saturating_mul(2)
    }
}

impl Kept for exact::Log {
    // Each may hold a thousand moments.
    const CAPACITY: usize = CAPACITY / 10;
}

impl Cell for exact::Log {
    type Rules = window::Rules;

    fn hit(&mut self, rules: &Self::Rules, now: Moment) -> Verdict {
        self.hit(rules, now)
    }

    fn horizon(rules: &Self::Rules) -> Duration {
        rules.per
    }
}

impl Kept for bucket::Bucket {}

impl Cell for bucket::Bucket {
    type Rules = bucket::Rules;

    fn hit(&mut self, rules: &Self::Rules, now: Moment) -> Verdict {
        self.hit(rules, now, 1)
    }

    fn horizon(rules: &Self::Rules) -> Duration {
        let units = rules.burst.saturating_add(rules.queue).div_ceil(rules.limit.max(1));
        rules.per.saturating_mul(u32::try_from(units).unwrap_or(u32::MAX))
    }
}

impl Kept for quota::Used {}

impl Cell for quota::Used {
    type Rules = quota::Rules;

    fn hit(&mut self, rules: &Self::Rules, _: Moment) -> Verdict {
        let unix = i64::try_from(clock::unix_seconds()).unwrap_or(i64::MAX);
        self.hit(rules, unix, 1)
    }

    fn horizon(rules: &Self::Rules) -> Duration {
        let days = if rules.period == quota::Period::Day { 1 } else { 31 };
        Duration::from_secs(days * 86_400)
    }
}

/// Counters of one limit by hashed key.
///
/// Keys are 128-bit hashes under random seeds: a caller can neither choose colliding keys nor make
/// the table hold long strings, and no key (a token's subject, an address) is kept readable.
pub(crate) struct Table<C> {
    seeds: (RandomState, RandomState),
    counters: DashMap<u128, Slot<C>, RandomState>,
    /// Keys held, or a few more while some are being forgotten: the map's own count visits all its parts.
    held: AtomicUsize,
}

struct Slot<C> {
    cell: C,
    last: Moment,
}

impl<C: Cell> Table<C> {
    /// Counts one call of `key` under `rules`.
    pub(crate) fn hit(&self, key: &[u8], rules: &C::Rules, now: Moment) -> Verdict {
        self.with(key, C::horizon(rules), now, |cell| cell.hit(rules, now))
    }
}

impl<C: Kept> Table<C> {
    pub(crate) fn new() -> Self {
        Self {
            seeds: (RandomState::default(), RandomState::default()),
            counters: DashMap::with_hasher(RandomState::default()),
            held: AtomicUsize::new(0),
        }
    }

    /// Has the cell of a key changed; a new one is made if there is none. Cells mean nothing when they were
    /// used last longer ago than `horizon`.
    pub(crate) fn with<T>(
        &self,
        key: &[u8],
        horizon: Duration,
        now: Moment,
        change: impl FnOnce(&mut C) -> T,
    ) -> T {
        let hashed = self.hash(key);
        if self.len() >= C::CAPACITY && !self.counters.contains_key(&hashed) {
            self.make_room(horizon, now);
        }
        let mut slot = self.counters.entry(hashed).or_insert_with(|| {
            self.held.fetch_add(1, Ordering::Relaxed);
            Slot { cell: C::default(), last: now }
        });
        slot.last = now;
        change(&mut slot.cell)
    }

    /// Keys held now.
    pub(crate) fn len(&self) -> usize {
        self.held.load(Ordering::Relaxed)
    }

    /// Forgets keys that were hit last beyond the horizon: they count for nothing.
    fn expire(&self, horizon: Duration, now: Moment) {
        self.keep(|slot| now.saturating_since(slot.last) < horizon);
    }

    fn make_room(&self, horizon: Duration, now: Moment) {
        self.expire(horizon, now);
        if self.len() <= C::CAPACITY / 4 * 3 {
            return;
        }
        // Nearly everything is fresh: halve by age. A pass over all keys must make room for many new
        // ones, or a caller with ever new keys would have one made for each.
        let mut ages: Vec<Moment> = self.counters.iter().map(|entry| entry.last).collect();
        let middle = ages.len() / 2;
        let (_, median, _) = ages.select_nth_unstable(middle);
        let cut = *median;
        self.keep(|slot| slot.last > cut);
    }

    fn keep(&self, wanted: impl Fn(&Slot<C>) -> bool) {
        self.counters.retain(|_, slot| {
            let kept = wanted(slot);
            if !kept {
                self.held.fetch_sub(1, Ordering::Relaxed);
            }
            kept
        });
    }

    fn hash(&self, key: &[u8]) -> u128 {
        let half = |state: &RandomState| {
            let mut hasher = state.build_hasher();
            key.hash(&mut hasher);
            u128::from(std::hash::Hasher::finish(&hasher))
        };
        (half(&self.seeds.0) << 64) | half(&self.seeds.1)
    }
}

/// Keys held by all limits.
pub(crate) fn keys(retained: &Retained) -> u64 {
    fn of<C: Cell + Send + Sync + 'static>(retained: &Retained) -> u64 {
        retained.all::<Table<C>>().iter().map(|table| table.len() as u64).sum()
    }
    of::<window::Counter>(retained)
        + of::<exact::Log>(retained)
        + of::<bucket::Bucket>(retained)
        + of::<quota::Used>(retained)
        + retained.all::<Places>().iter().map(|places| places.len() as u64).sum::<u64>()
}

#[cfg(test)]
mod tests {
    use super::*;
    use window::{Counter, Rules};

    const ROOMY: usize = CAPACITY / 4 * 3;

    fn at(seconds: u64) -> Moment {
        Moment::from_nanos(seconds * 1_000_000_000)
    }

    #[test]
    fn keys_do_not_share_counts_and_numbers_may_change() {
        let table = Table::<Counter>::new();
        let two = Rules { limit: 2, per: Duration::from_secs(60) };
        assert!(table.hit(b"a", &two, at(1)).admitted);
        assert!(table.hit(b"a", &two, at(1)).admitted);
        assert!(!table.hit(b"a", &two, at(1)).admitted);
        assert!(table.hit(b"b", &two, at(1)).admitted);
        let three = Rules { limit: 3, ..two };
        assert!(table.hit(b"a", &three, at(1)).admitted, "a raised limit admits one more");
        assert!(!table.hit(b"a", &three, at(1)).admitted, "the counts were kept");
    }

    #[test]
    fn the_table_is_bounded() {
        let table = Table::<Counter>::new();
        let rules = Rules { limit: 1, per: Duration::from_secs(60) };
        for key in 0..(CAPACITY as u64 + 10) {
            table.hit(&key.to_be_bytes(), &rules, Moment::from_nanos(key));
        }
        assert!(table.len() <= CAPACITY, "{}", table.len());
        assert_eq!(table.len(), table.counters.len());
        table.expire(rules.per * 2, at(1_000));
        assert_eq!(table.len(), 0);
    }

    #[test]
    fn room_is_made_for_many_at_a_time() {
        let table = Table::<Counter>::new();
        let rules = Rules { limit: 1, per: Duration::from_secs(1) };
        // One key is stale already whenever another one comes.
        let step = 2_000_000_000 / (CAPACITY as u64 - 1);
        for key in 0..=(CAPACITY as u64) {
            table.hit(&key.to_be_bytes(), &rules, Moment::from_nanos(key * step));
        }
        assert!(
            table.len() <= ROOMY + 1,
            "{} keys: the next new ones cost a pass each",
            table.len()
        );
    }
}
