//! Nonces that were used, in this process: each is taken once until its time is over. What would not fit
//! is not taken, since forgetting one early would let its request pass again.

use std::collections::HashMap;
use std::hash::BuildHasher as _;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use foldhash::fast::RandomState;

use crate::base::clock::Moment;

/// Parts with a lock each.
const PARTS: usize = 16;
/// Nonces in one part, at most: about four million in all, 100 MB.
const MOST: usize = 1 << 18;
/// A part is looked through for old nonces when it has grown to this.
const FIRST_SWEEP: usize = 1024;
/// And no sooner again than this where it is full: others wait for it meanwhile.
const PAUSE: Duration = Duration::from_secs(1);
/// Callers are counted in so many groups by chance, which stand in the lowest bits of a hash.
const GROUPS: usize = 256;
const LOWEST: u64 = 0xff;
/// What a group of callers may have of a part that is half full.
const SHARE: usize = 8;

/// What became of a nonce.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Taken {
    /// Nobody had it before.
    First,
    /// Somebody had.
    Again,
    /// There is no place for it.
    Full,
}

/// The used nonces. Only hashes under random seeds are kept, of caller and nonce: 64 bits that nobody can aim at.
pub(crate) struct Nonces {
    seed: RandomState,
    parts: [Mutex<Part>; PARTS],
    most: usize,
}

struct Part {
    /// Until when each is remembered.
    until: HashMap<u64, Moment, RandomState>,
    /// How large it may grow before it is looked through.
    sweep_at: usize,
    /// Where it is full, or somebody's share is: before this there is nothing to find.
    sweep_after: Moment,
    /// Nonces of each group of callers.
    groups: Box<[u32; GROUPS]>,
}

impl Nonces {
    pub(crate) fn new() -> Self {
        Self::of(MOST)
    }

    fn of(most: usize) -> Self {
        let part = || Part {
            until: HashMap::default(),
            sweep_at: FIRST_SWEEP.min(most),
            sweep_after: Moment::default(),
            groups: Box::new([0; GROUPS]),
        };
        let parts = std::array::from_fn(|_| Mutex::new(part()));
        Self { seed: RandomState::default(), parts, most }
    }

    fn group_of(&self, caller: &[u8]) -> u64 {
        self.seed.hash_one(caller) & LOWEST
    }

    /// Takes `nonce` of `caller` for `time`, if nobody has.
    pub(crate) fn take(&self, caller: &[u8], nonce: &[u8], time: Duration, now: Moment) -> Taken {
        let hash = (self.seed.hash_one((caller, nonce)) & !LOWEST) | self.group_of(caller);
        let at = usize::try_from(hash >> 60).unwrap_or(0);
        let Some(part) = self.parts.get(at) else { return Taken::Full };
        let mut part = part.lock().unwrap_or_else(PoisonError::into_inner);
        if part.until.get(&hash).is_some_and(|until| *until > now) {
            return Taken::Again;
        }
        let grown = part.until.len() >= part.sweep_at && part.until.len() < self.most;
        if grown || (!part.has_place(hash, self.most) && now >= part.sweep_after) {
            part.sweep(now, self.most);
        }
        if !part.has_place(hash, self.most) {
            return Taken::Full;
        }
        let until = now.after(time);
        part.sweep_after = part.sweep_after.min(until);
        if part.until.insert(hash, until).is_none() {
            count(&mut part.groups, hash);
        }
        Taken::First
    }
}

impl Part {
    /// Whether the caller of this one gets a place. One alone may have half of all, so that others find some.
    fn has_place(&self, hash: u64, most: usize) -> bool {
        let held = self.until.len();
        let own = self.groups.get(group(hash)).map_or(0, |own| *own as usize);
        held < most && (held * 2 < most || own < most / SHARE)
    }

    /// Forgets what is over.
    fn sweep(&mut self, now: Moment, most: usize) {
        let (groups, mut first) = (&mut self.groups, None::<Moment>);
        groups.fill(0);
        self.until.retain(|hash, until| {
            let alive = *until > now;
            if alive {
                count(groups, *hash);
                first = Some(first.map_or(*until, |first| first.min(*until)));
            }
            alive
        });
        // Twice what is alive: looking through costs each nonce a constant time.
        self.sweep_at = (self.until.len() * 2).max(FIRST_SWEEP).min(most);
        self.sweep_after = now.after(PAUSE).max(first.unwrap_or_default());
    }
}

fn group(hash: u64) -> usize {
    let [lowest, ..] = hash.to_le_bytes();
    usize::from(lowest)
}

fn count(groups: &mut [u32; GROUPS], hash: u64) {
    if let Some(held) = groups.get_mut(group(hash)) {
        *held += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIME: Duration = Duration::from_secs(600);

    #[test]
    fn k_02_a_nonce_is_taken_once_until_its_time_is_over() {
        let nonces = Nonces::new();
        let start = Moment::from_nanos(1);
        assert_eq!(nonces.take(b"k", b"a", TIME, start), Taken::First);
        assert_eq!(nonces.take(b"k", b"b", TIME, start), Taken::First);
        assert_eq!(nonces.take(b"k", b"a", TIME, start.after(TIME / 2)), Taken::Again);
        assert_eq!(nonces.take(b"k", b"a", TIME, start.after(TIME)), Taken::First);
    }

    #[test]
    fn what_does_not_fit_is_not_taken_and_nothing_is_forgotten_early() {
        let nonces = Nonces::of(64);
        let start = Moment::from_nanos(1);
        let mut taken = Vec::new();
        for n in 0..10_000_u32 {
            match nonces.take(&n.to_le_bytes(), &n.to_be_bytes(), TIME, start) {
                Taken::First => taken.push(n),
                Taken::Full => {}
                Taken::Again => panic!("{n} was new"),
            }
        }
        assert_eq!(taken.len(), 64 * PARTS);
        for n in &taken {
            assert_eq!(nonces.take(&n.to_le_bytes(), &n.to_be_bytes(), TIME, start), Taken::Again);
        }
        let later = start.after(TIME);
        assert_eq!(nonces.take(b"k", b"new", TIME, later), Taken::First, "the old ones made room");
    }

    #[test]
    fn k_02_of_many_at_once_one_wins() {
        let nonces = Nonces::new();
        let won = std::sync::atomic::AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    if nonces.take(b"k", b"one", TIME, Moment::from_nanos(1)) == Taken::First {
                        won.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                    }
                });
            }
        });
        assert_eq!(won.into_inner(), 1);
    }

    #[test]
    fn one_caller_leaves_places_for_the_others() {
        let nonces = Nonces::of(64);
        let start = Moment::from_nanos(1);
        let take = |caller: &[u8], n: u32, at| nonces.take(caller, &n.to_be_bytes(), TIME, at);
        let all =
            |caller: &[u8]| (0..10_000).filter(|n| take(caller, *n, start) == Taken::First).count();
        assert_eq!(all(b"greedy"), 32 * PARTS, "half of all");
        assert_eq!(take(b"greedy", 20_000, start), Taken::Full);
        let differs = |caller: &[u8; 4]| nonces.group_of(caller) != nonces.group_of(b"greedy");
        let other = (0_u32..).map(u32::to_be_bytes).find(differs).unwrap();
        assert_eq!(all(&other), 8 * PARTS, "an eighth of a store that is half full");
        assert_eq!(take(b"greedy", 0, start), Taken::Again);
        let later = start.after(TIME);
        assert_eq!(take(b"greedy", 20_000, later), Taken::First, "its own old ones made room");
    }

    #[test]
    fn a_full_store_is_not_looked_through_at_every_request() {
        let nonces = Nonces::of(64);
        let at = |seconds| Moment::from_nanos(1).after(Duration::from_secs_f64(seconds));
        let fill = |from: u32, now| {
            for n in from..from + 10_000 {
                nonces.take(&n.to_le_bytes(), &n.to_be_bytes(), TIME, now);
            }
        };
        fill(0, at(0.0));
        let swept = || nonces.parts.each_ref().map(|part| part.lock().unwrap().sweep_after);
        assert!(swept().iter().all(|after| *after >= at(600.0)), "nothing can be found before");
        fill(20_000, at(599.5));
        assert_eq!(nonces.take(b"k", b"new", TIME, at(599.5)), Taken::Full);
        assert!(swept().iter().all(|after| *after == at(600.0)), "so nobody has looked");
        assert_eq!(nonces.take(b"k", b"new", TIME, at(600.0)), Taken::First);
    }
}
