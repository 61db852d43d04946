//! Tokens that were verified already, so that a signature is checked once and not on every request.
//! An entry holds the whole token and is compared with it; it dies when the token expires or when its
//! key is no longer trusted, and the cache dies with the filter, so changed rules start empty.
//!
//! Each worker has a part of its own, so a hit writes nothing that another worker reads.

use std::collections::HashMap;
use std::hash::{BuildHasher, BuildHasherDefault, Hasher};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use foldhash::fast::RandomState;

use crate::base::cx::Principal;
use crate::base::seat;

pub(super) struct Cache {
    /// Entries of a part at most.
    capacity: usize,
    seed: RandomState,
    parts: Box<[Padded]>,
}

/// A part never shares a cache line with its neighbour.
#[repr(align(128))]
#[derive(Default)]
struct Padded(Mutex<Part>);

/// Entries stand in a row, over which a hand goes round when a place is needed: it takes away a mark from
/// each entry that was used since it came by, and takes the place of the first without one (CLOCK;
/// Corbató, A Paging Experiment with the Multics System, 1968).
#[derive(Default)]
struct Part {
    places: HashMap<u64, usize, BuildHasherDefault<Hashed>>,
    entries: Vec<Entry>,
    hand: usize,
}

struct Entry {
    hash: u64,
    token: Box<[u8]>,
    principal: Arc<Principal>,
    proof: Proof,
    used: bool,
}

/// What made a token a good one.
#[derive(Debug, Clone, Copy)]
pub(super) struct Proof {
    /// Seconds since 1970.
    pub(super) expires: u64,
    /// The newest generation of keys that was seen to hold its key.
    pub(super) generation: u64,
    pub(super) key: u64,
}

/// Keys are hashes under a random seed already.
#[derive(Default)]
struct Hashed(u64);

impl Hasher for Hashed {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.0 = self.0.rotate_left(8) ^ u64::from(*byte));
    }

    fn write_u64(&mut self, value: u64) {
        self.0 = value;
    }
}

impl std::fmt::Debug for Cache {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cache").field("capacity", &self.capacity).finish_non_exhaustive()
    }
}

impl Cache {
    /// For `capacity` tokens on each worker; 0 remembers none.
    pub(super) fn new(capacity: usize) -> Self {
        let parts = (0..seat::COUNT).map(|_| Padded::default()).collect();
        Self { capacity, seed: RandomState::default(), parts }
    }

    /// `has` says whether a key is trusted in this generation of keys; it is asked once for each entry and
    /// generation.
    pub(super) fn get(
        &self,
        token: &[u8],
        now: u64,
        generation: u64,
        has: impl FnOnce(u64) -> bool,
    ) -> Option<Arc<Principal>> {
        if self.capacity == 0 {
            return None;
        }
        let mut part = self.part()?;
        let entry = part.get(self.seed.hash_one(token), token, now)?;
        if entry.proof.generation != generation {
            if !has(entry.proof.key) {
                return None;
            }
            entry.proof.generation = generation;
        }
        entry.used = true;
        Some(Arc::clone(&entry.principal))
    }

    pub(super) fn put(&self, token: &[u8], principal: &Arc<Principal>, proof: Proof) {
        if self.capacity == 0 {
            return;
        }
        let hash = self.seed.hash_one(token);
        let principal = Arc::clone(principal);
        let entry = Entry { hash, token: token.into(), principal, proof, used: false };
        if let Some(mut part) = self.part() {
            part.put(entry, self.capacity);
        }
    }

    /// The part of this worker. More workers than parts share some; a panic leaves a part whole.
    fn part(&self) -> Option<MutexGuard<'_, Part>> {
        let part = self.parts.get(seat::number() % self.parts.len().max(1))?;
        Some(part.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Part {
    fn get(&mut self, hash: u64, token: &[u8], now: u64) -> Option<&mut Entry> {
        let entry = self.entries.get_mut(*self.places.get(&hash)?)?;
        (*entry.token == *token && entry.proof.expires > now).then_some(entry)
    }

    fn put(&mut self, entry: Entry, capacity: usize) {
        let place = match self.places.get(&entry.hash) {
            Some(place) => *place,
            None if self.entries.len() < capacity => self.entries.len(),
            None => self.free(),
        };
        self.places.insert(entry.hash, place);
        match self.entries.get_mut(place) {
            Some(old) => *old = entry,
            None => self.entries.push(entry),
        }
    }

    /// Forgets an entry, and tells where it stood.
    fn free(&mut self) -> usize {
        loop {
            let place = self.hand;
            self.hand = (place + 1) % self.entries.len().max(1);
            match self.entries.get_mut(place) {
                Some(entry) if entry.used => entry.used = false,
                Some(entry) => {
                    self.places.remove(&entry.hash);
                    return place;
                }
                None => return place,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn principal() -> Arc<Principal> {
        Arc::new(Principal { claims: serde_json::Map::new() })
    }

    fn until(expires: u64) -> Proof {
        Proof { expires, generation: 1, key: 7 }
    }

    #[test]
    fn an_entry_dies_with_its_key_and_outlives_other_keys() {
        let cache = Cache::new(2);
        cache.put(b"a", &principal(), until(100));
        assert!(cache.get(b"a", 0, 1, |_| panic!("asked for nothing")).is_some());
        assert!(cache.get(b"a", 0, 2, |key| key == 7).is_some(), "its key is in the next set too");
        assert!(cache.get(b"a", 0, 2, |_| panic!("asked twice")).is_some());
        assert!(cache.get(b"a", 0, 3, |_| false).is_none());
        assert!(cache.get(b"a", 0, 3, |_| false).is_none(), "nor later");
    }

    #[test]
    fn an_entry_dies_with_its_token() {
        let cache = Cache::new(2);
        cache.put(b"a", &principal(), until(100));
        assert!(cache.get(b"a", 99, 1, |_| false).is_some());
        assert!(cache.get(b"a", 100, 1, |_| false).is_none());
        assert!(cache.get(b"b", 0, 1, |_| false).is_none());
        cache.put(b"a", &principal(), until(200));
        assert!(cache.get(b"a", 100, 1, |_| false).is_some(), "verified anew, it lives on");
    }

    #[test]
    fn the_cache_is_bounded_and_keeps_what_is_used() {
        let cache = Cache::new(100);
        cache.put(b"kept", &principal(), until(100));
        for token in 0..1_000_u32 {
            cache.put(&token.to_be_bytes(), &principal(), until(100));
            assert!(
                cache.get(b"kept", 0, 1, |_| false).is_some(),
                "used all the time, forgotten at {token}"
            );
        }
        let part = cache.part().unwrap();
        assert_eq!((part.entries.len(), part.places.len()), (100, 100));
        assert!(part.places.iter().all(|(hash, place)| part.entries[*place].hash == *hash));
    }

    #[test]
    fn a_full_cache_whose_entries_are_all_used_takes_a_new_one() {
        let cache = Cache::new(3);
        for token in [b"a", b"b", b"c"] {
            cache.put(token, &principal(), until(100));
            assert!(cache.get(token, 0, 1, |_| false).is_some());
        }
        cache.put(b"d", &principal(), until(100));
        assert!(cache.get(b"d", 0, 1, |_| false).is_some());
    }

    #[test]
    fn workers_do_not_share() {
        let cache = Arc::new(Cache::new(10));
        cache.put(b"a", &principal(), until(100));
        let other = Arc::clone(&cache);
        let seen = std::thread::spawn(move || {
            seat::take(1);
            other.get(b"a", 0, 1, |_| false).is_some()
        });
        assert!(!seen.join().unwrap());
        assert!(cache.get(b"a", 0, 1, |_| false).is_some());
    }
}
