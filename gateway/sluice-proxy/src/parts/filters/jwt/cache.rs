//! Tokens that were verified already, so that a signature is checked once and not on every request.
//! An entry holds the whole token and is compared with it; it dies when the token expires, and the
//! cache dies with the filter, so changed keys or rules start empty.

use std::hash::BuildHasher;
use std::sync::Arc;

use dashmap::DashMap;
use foldhash::fast::RandomState;

use crate::base::cx::Principal;

pub(super) struct Cache {
    capacity: usize,
    seed: RandomState,
    entries: DashMap<u64, Entry, RandomState>,
}

struct Entry {
    token: Box<str>,
    principal: Arc<Principal>,
    /// Seconds since 1970.
    expires: u64,
}

impl std::fmt::Debug for Cache {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cache").field("capacity", &self.capacity).finish_non_exhaustive()
    }
}

impl Cache {
    pub(super) fn new(capacity: usize) -> Self {
        Self {
            capacity,
            seed: RandomState::default(),
            entries: DashMap::with_hasher(RandomState::default()),
        }
    }

    pub(super) fn get(&self, token: &str, now: u64) -> Option<Arc<Principal>> {
        if self.capacity == 0 {
            return None;
        }
        let entry = self.entries.get(&self.seed.hash_one(token))?;
        (*entry.token == *token && entry.expires > now).then(|| Arc::clone(&entry.principal))
    }

    pub(super) fn put(&self, token: &str, principal: &Arc<Principal>, expires: u64, now: u64) {
        if self.capacity == 0 {
            return;
        }
        if self.entries.len() >= self.capacity {
            self.entries.retain(|_, entry| entry.expires > now);
        }
        if self.entries.len() >= self.capacity {
            // All of them are valid still: start over rather than keep an order for every hit.
            self.entries.clear();
        }
        let entry = Entry { token: token.into(), principal: Arc::clone(principal), expires };
        self.entries.insert(self.seed.hash_one(token), entry);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn principal() -> Arc<Principal> {
        Arc::new(Principal { claims: serde_json::Map::new() })
    }

    #[test]
    fn an_entry_dies_with_its_token() {
        let cache = Cache::new(2);
        cache.put("a", &principal(), 100, 0);
        assert!(cache.get("a", 99).is_some());
        assert!(cache.get("a", 100).is_none());
        assert!(cache.get("b", 0).is_none());
    }

    #[test]
    fn the_cache_is_bounded() {
        let cache = Cache::new(2);
        for token in ["a", "b", "c"] {
            cache.put(token, &principal(), 100, 0);
        }
        assert!(cache.entries.len() <= 2);
        assert!(cache.get("c", 0).is_some());
    }
}
