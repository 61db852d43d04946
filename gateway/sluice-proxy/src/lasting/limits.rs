//! Sliding windows by key, for limits kept in this process. A table belongs to one owner (a filter of
//! a route, a group or the whole gateway) and outlives reloads; its numbers come with each call.

use std::hash::{BuildHasher, Hash};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use dashmap::DashMap;
use foldhash::fast::RandomState;
use sluice_engine::window::{Counter, Rules, Verdict};

use crate::base::clock::Moment;

/// Keys kept at most; beyond it the stalest are forgotten.
const CAPACITY: usize = 100_000;
/// Keys that may be left when room was made.
const ROOMY: usize = CAPACITY / 4 * 3;

/// Counters of one limit by hashed key.
///
/// Keys are 128-bit hashes under random seeds: a caller can neither choose colliding keys nor make
/// the table hold long strings, and no key (a token's subject, an address) is kept readable.
pub(crate) struct Table {
    seeds: (RandomState, RandomState),
    counters: DashMap<u128, Slot, RandomState>,
    /// Keys held, or a few more while some are being forgotten: the map's own count visits all its parts.
    held: AtomicUsize,
}

struct Slot {
    counter: Counter,
    last: Moment,
}

impl Table {
    pub(crate) fn new() -> Self {
        Self {
            seeds: (RandomState::default(), RandomState::default()),
            counters: DashMap::with_hasher(RandomState::default()),
            held: AtomicUsize::new(0),
        }
    }

    /// Counts one call of `key` under `rules`.
    pub(crate) fn hit(&self, key: &[u8], rules: &Rules, now: Moment) -> Verdict {
        let hashed = self.hash(key);
        if self.held.load(Ordering::Relaxed) >= CAPACITY && !self.counters.contains_key(&hashed) {
            self.make_room(rules.per, now);
        }
        let mut slot = self.counters.entry(hashed).or_insert_with(|| {
            self.held.fetch_add(1, Ordering::Relaxed);
            Slot { counter: Counter::default(), last: now }
        });
        slot.last = now;
        slot.counter.hit(rules, now, 1)
    }

    /// Keys held now.
    pub(crate) fn len(&self) -> usize {
        self.held.load(Ordering::Relaxed)
    }

    /// Forgets keys whose windows have passed wholly: they count for nothing.
    pub(crate) fn expire(&self, per: Duration, now: Moment) {
        let horizon = per.saturating_mul(2);
        self.keep(|slot| now.saturating_since(slot.last) < horizon);
    }

    fn make_room(&self, per: Duration, now: Moment) {
        self.expire(per, now);
        if self.len() <= ROOMY {
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

    fn keep(&self, wanted: impl Fn(&Slot) -> bool) {
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

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Moment {
        Moment::from_nanos(seconds * 1_000_000_000)
    }

    #[test]
    fn keys_do_not_share_counts_and_numbers_may_change() {
        let table = Table::new();
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
        let table = Table::new();
        let rules = Rules { limit: 1, per: Duration::from_secs(60) };
        for key in 0..(CAPACITY as u64 + 10) {
            table.hit(&key.to_be_bytes(), &rules, Moment::from_nanos(key));
        }
        assert!(table.len() <= CAPACITY, "{}", table.len());
        assert_eq!(table.len(), table.counters.len());
        table.expire(rules.per, at(1_000));
        assert_eq!(table.len(), 0);
    }

    #[test]
    fn room_is_made_for_many_at_a_time() {
        let table = Table::new();
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
