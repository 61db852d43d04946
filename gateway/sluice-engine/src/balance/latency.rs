//! How long requests to an endpoint take: the peak of what was seen lately, forgotten by time (the *peak
//! EWMA* of Twitter's Finagle).
//!
//! A slower answer counts at once and whole, a faster one only with time, so that an endpoint that begins
//! to stall is left at once. Nobody who is not asked could ever show that it has recovered, so an estimate
//! falls while nobody asks; being asked raises it again to what it was, until there is an answer, so that
//! one request tries what is uncertain and not a hundred. The one rule: one cell, one atomic for what was
//! seen, so that a reader never meets half of it.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use crate::moment::{self, Moment};

/// What was seen long ago counts e times less after each such time.
const MEMORY: Duration = Duration::from_secs(10);
/// What is expected of an endpoint that was asked and has not answered yet for the first time.
const UNKNOWN: f32 = 1e9;
/// A failure counts as if it had taken so many times as long as requests do. It may have come fast, and
/// who fails fast must not look attractive.
const FAILURE: f32 = 10.0;
/// But at least, and at most, so many nanoseconds.
const FAILURE_RANGE: (f32, f32) = (1e8, 1e10);

/// What is known of one endpoint.
#[derive(Debug, Default)]
pub struct Latency {
    /// Above, the estimate in nanoseconds as the bits of a float, 0 if there is none; below, when it was
    /// made, in [`Stamp`]s.
    seen: AtomicU64,
    /// When somebody asked last; 0 if nobody did.
    asked: AtomicU32,
}

/// Steps of 2^20 ns, about a millisecond, which wrap after 52 days.
#[derive(Clone, Copy)]
struct Stamp(u32);

impl Latency {
    /// A request is sent there.
    pub fn asked(&self, now: Moment) {
        let now = Stamp::of(now).0.max(1);
        if self.asked.load(Ordering::Relaxed) != now {
            self.asked.store(now, Ordering::Relaxed);
        }
    }

    /// An answer came after so long.
    pub fn answered(&self, took: Duration, now: Moment) {
        self.note(now, |_| float(took));
    }

    /// An attempt failed after so long.
    pub fn failed(&self, took: Duration, now: Moment) {
        let (least, most) = FAILURE_RANGE;
        self.note(now, |known| float(took).max((known * FAILURE).clamp(least, most)));
    }

    /// Nanoseconds that a request is expected to take; 0 where nobody knows.
    pub fn expected(&self, now: Moment) -> u64 {
        let (known, at) = unpacked(self.seen.load(Ordering::Relaxed));
        let asked = self.asked.load(Ordering::Relaxed);
        let now = Stamp::of(now);
        let (known, idle) = match (known > 0.0, asked > 0) {
            (false, false) => return 0,
            (false, true) => (UNKNOWN, now.since(Stamp(asked))),
            (true, false) => (known, now.since(at)),
            (true, true) => (known, now.since(at).min(now.since(Stamp(asked)))),
        };
        let expected = known * faded(idle);
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "casts saturate"
        )]
        let nanos = expected.max(1.0) as u64;
        nanos
    }

    fn note(&self, now: Moment, took: impl Fn(f32) -> f32) {
        let now = Stamp::of(now);
        let noted = |seen: u64| {
            let (known, at) = unpacked(seen);
            let took = took(known).max(1.0);
            if took >= known {
                return Some(packed(took, now));
            }
            match now.since(at) {
                // Many answers within one step: the first speaks for all.
                0 => None,
                steps => {
                    let kept = faded(steps);
                    Some(packed(known * kept + took * (1.0 - kept), now))
                }
            }
        };
        // That nothing had to be noted is no failure.
        let _ = self.seen.fetch_update(Ordering::Relaxed, Ordering::Relaxed, noted);
    }
}

impl Stamp {
    fn of(moment: Moment) -> Self {
        #[expect(clippy::cast_possible_truncation, reason = "the upper bits are meant to be lost")]
        Self((moment.nanos() >> 20) as u32)
    }

    /// Steps since `earlier`, 0 if that is later.
    fn since(self, earlier: Self) -> u32 {
        let steps = self.0.wrapping_sub(earlier.0);
        if steps > u32::MAX / 2 { 0 } else { steps }
    }
}

/// What is left of an estimate after so many steps.
fn faded(steps: u32) -> f32 {
    if steps == 0 {
        return 1.0;
    }
    #[expect(clippy::cast_precision_loss, reason = "an estimate")]
    let memory = (moment::nanos(MEMORY) >> 20) as f32;
    #[expect(clippy::cast_precision_loss, reason = "an estimate")]
    let steps = steps as f32;
    (-steps / memory).exp()
}

fn float(took: Duration) -> f32 {
    #[expect(clippy::cast_precision_loss, reason = "an estimate")]
    let nanos = moment::nanos(took) as f32;
    nanos
}

fn packed(nanos: f32, at: Stamp) -> u64 {
    u64::from(nanos.to_bits()) << 32 | u64::from(at.0)
}

fn unpacked(seen: u64) -> (f32, Stamp) {
    #[expect(clippy::cast_possible_truncation, reason = "the lower half")]
    let at = Stamp(seen as u32);
    (f32::from_bits(u32::try_from(seen >> 32).unwrap_or_default()), at)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Moment {
        Moment::from_nanos(millis * 1_000_000)
    }

    fn millis(nanos: u64) -> u64 {
        nanos / 1_000_000
    }

    #[test]
    fn slower_counts_at_once_and_faster_with_time() {
        let cell = Latency::default();
        assert_eq!(cell.expected(at(1)), 0);
        cell.answered(Duration::from_millis(2), at(10));
        assert_eq!(cell.expected(at(10)), 2_000_000);
        cell.answered(Duration::from_millis(20), at(11));
        assert_eq!(cell.expected(at(11)), 20_000_000);
        for now in 12..5_012 {
            cell.answered(Duration::from_millis(2), at(now));
        }
        // 2 + 18 × e^(-1/2) = 12.9.
        assert_eq!(millis(cell.expected(at(5_012))), 12);
        for now in 5_012..60_000 {
            cell.answered(Duration::from_millis(2), at(now));
        }
        assert_eq!(millis(cell.expected(at(60_000))), 2);
    }

    #[test]
    fn who_is_left_alone_becomes_attractive_to_one_request() {
        let cell = Latency::default();
        cell.answered(Duration::from_millis(20), at(1_000));
        let later = at(31_000);
        assert!(cell.expected(later) < 1_100_000, "20 × e^-3");
        cell.asked(later);
        assert_eq!(millis(cell.expected(later)), 20, "the next one looks elsewhere");
        // It never answers, so somebody tries again.
        assert!(cell.expected(at(61_000)) < 1_100_000);
    }

    #[test]
    fn what_nobody_knows_is_tried_once() {
        let cell = Latency::default();
        cell.asked(at(5));
        assert_eq!(cell.expected(at(5)), 1_000_000_000);
        cell.answered(Duration::from_millis(3), at(8));
        assert_eq!(millis(cell.expected(at(8))), 3);
    }

    #[test]
    fn failing_fast_is_not_attractive() {
        let cell = Latency::default();
        cell.failed(Duration::from_micros(50), at(1));
        assert_eq!(millis(cell.expected(at(1))), 100);
        cell.failed(Duration::from_micros(50), at(2));
        assert_eq!(millis(cell.expected(at(2))), 1_000);
        cell.failed(Duration::from_secs(15), at(3));
        assert_eq!(millis(cell.expected(at(3))), 15_000);
        assert!(cell.expected(at(200_000)) < 1_000, "and is forgotten");
    }

    #[test]
    fn clocks_that_disagree_and_wrap_do_no_harm() {
        let cell = Latency::default();
        cell.answered(Duration::from_millis(20), at(1_000));
        cell.answered(Duration::from_millis(2), at(500));
        assert_eq!(millis(cell.expected(at(400))), 20);
        let end = u64::from(u32::MAX) << 20;
        cell.answered(Duration::from_millis(30), Moment::from_nanos(end));
        cell.answered(Duration::from_millis(2), Moment::from_nanos(end + (10_000 << 20)));
        assert!(millis(cell.expected(Moment::from_nanos(end + (10_000 << 20)))) < 13);
        cell.answered(Duration::MAX, at(1));
        assert!(cell.expected(at(1)) > 1_000_000_000);
    }
}
