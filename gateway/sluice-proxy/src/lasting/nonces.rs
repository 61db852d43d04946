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

/// The used nonces. Only their hashes under random seeds are kept: 64 bits that nobody can aim at.
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
}

impl Nonces {
    pub(crate) fn new() -> Self {
        Self::of(MOST)
    }

    fn of(most: usize) -> Self {
        let part = || Part { until: HashMap::default(), sweep_at: FIRST_SWEEP.min(most) };
        let parts = std::array::from_fn(|_| Mutex::new(part()));
        Self { seed: RandomState::default(), parts, most }
    }

    /// Takes `nonce` for `time`, if nobody has.
    pub(crate) fn take(&self, nonce: &[u8], time: Duration, now: Moment) -> Taken {
        let hash = self.seed.hash_one(nonce);
        let at = usize::try_from(hash >> 60).unwrap_or(0);
        let Some(part) = self.parts.get(at) else { return Taken::Full };
        let mut part = part.lock().unwrap_or_else(PoisonError::into_inner);
        if part.until.get(&hash).is_some_and(|until| *until > now) {
            return Taken::Again;
        }
        if part.until.len() >= part.sweep_at {
            part.until.retain(|_, until| *until > now);
            // Twice what is alive: looking through costs each nonce a constant time.
            part.sweep_at = (part.until.len() * 2).max(FIRST_SWEEP).min(self.most);
            if part.until.len() >= self.most {
                return Taken::Full;
            }
        }
        part.until.insert(hash, now.after(time));
        Taken::First
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
        assert_eq!(nonces.take(b"a", TIME, start), Taken::First);
        assert_eq!(nonces.take(b"b", TIME, start), Taken::First);
        assert_eq!(nonces.take(b"a", TIME, start.after(TIME / 2)), Taken::Again);
        assert_eq!(nonces.take(b"a", TIME, start.after(TIME)), Taken::First);
    }

    #[test]
    fn what_does_not_fit_is_not_taken_and_nothing_is_forgotten_early() {
        let nonces = Nonces::of(64);
        let start = Moment::from_nanos(1);
        let mut taken = Vec::new();
        for n in 0..10_000_u32 {
            match nonces.take(&n.to_be_bytes(), TIME, start) {
                Taken::First => taken.push(n),
                Taken::Full => {}
                Taken::Again => panic!("{n} was new"),
            }
        }
        assert_eq!(taken.len(), 64 * PARTS);
        for n in &taken {
            assert_eq!(nonces.take(&n.to_be_bytes(), TIME, start), Taken::Again);
        }
        let later = start.after(TIME);
        assert_eq!(nonces.take(b"new", TIME, later), Taken::First, "the old ones made room");
    }

    #[test]
    fn k_02_of_many_at_once_one_wins() {
        let nonces = Nonces::new();
        let won = std::sync::atomic::AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    if nonces.take(b"one", TIME, Moment::from_nanos(1)) == Taken::First {
                        won.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                    }
                });
            }
        });
        assert_eq!(won.into_inner(), 1);
    }
}
