//! Requests in progress by key, for limits kept in this process. A key is held only while a request of it is
//! in progress, so there are never more keys than requests; nothing has to be forgotten.

use std::hash::BuildHasher as _;
use std::sync::Arc;

use dashmap::DashMap;
use foldhash::fast::RandomState;

/// Requests in progress of one limit by hashed key.
pub(crate) struct Places {
    seeds: (RandomState, RandomState),
    taken: DashMap<u128, u64, RandomState>,
}

/// A request's place; dropping it gives it back.
pub(crate) struct Place {
    places: Arc<Places>,
    key: u128,
}

impl Places {
    pub(crate) fn new() -> Self {
        let seeds = (RandomState::default(), RandomState::default());
        Self { seeds, taken: DashMap::with_hasher(RandomState::default()) }
    }

    /// Takes a place unless `limit` are taken, and says how many were taken before.
    pub(crate) fn enter(self: &Arc<Self>, key: &[u8], limit: u64) -> (Option<Place>, u64) {
        let key = self.hash(key);
        let mut taken = self.taken.entry(key).or_insert(0);
        let before = *taken;
        if before >= limit {
            if before == 0 {
                drop(taken);
                self.taken.remove_if(&key, |_, taken| *taken == 0);
            }
            return (None, before);
        }
        *taken += 1;
        (Some(Place { places: Arc::clone(self), key }), before)
    }

    /// Keys with requests in progress.
    pub(crate) fn len(&self) -> usize {
        self.taken.len()
    }

    fn hash(&self, key: &[u8]) -> u128 {
        let half = |state: &RandomState| u128::from(state.hash_one(key));
        (half(&self.seeds.0) << 64) | half(&self.seeds.1)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.places.taken.remove_if_mut(&self.key, |_, taken| {
            *taken = taken.saturating_sub(1);
            *taken == 0
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_taken_and_given_back_by_key() {
        let places = Arc::new(Places::new());
        let (one, before) = places.enter(b"a", 2);
        assert!(one.is_some() && before == 0);
        let (two, before) = places.enter(b"a", 2);
        assert!(two.is_some() && before == 1);
        assert!(matches!(places.enter(b"a", 2), (None, 2)));
        assert!(places.enter(b"a", 3).0.is_some(), "given back at once, and the limit may change");
        assert!(places.enter(b"b", 1).0.is_some());
        drop(one);
        assert!(matches!(places.enter(b"a", 1), (None, 1)), "a lowered limit waits for the rest");
        let (again, before) = places.enter(b"a", 2);
        assert!(again.is_some() && before == 1);
        drop((two, again));
        assert!(places.enter(b"a", 0).0.is_none());
        assert_eq!(places.len(), 0, "nobody is in progress");
    }
}
