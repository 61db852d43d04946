//! The calls that a breaker judges by: those of the last while, or the last so many. Memory is taken with
//! the first call that counts, once.

use std::time::Duration;

use super::ring::Ring;
use super::totals::{Seen, Totals};
use crate::moment::Moment;

/// Most calls that a window of calls holds.
pub const MAX_CALLS: u32 = 10_000;

/// How far back calls count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Window {
    /// Those of the last while, in tenths of it.
    Time(Duration),
    /// The last so many; between 1 and [`MAX_CALLS`].
    Calls(u32),
}

/// The calls of one window.
#[derive(Debug)]
pub(super) enum Counts {
    Time(Box<Ring>),
    Calls(Last),
}

/// The last calls, one byte each.
#[derive(Debug)]
pub(super) struct Last {
    marks: Box<[u8]>,
    /// Where the next one goes.
    next: usize,
    totals: Totals,
}

/// A mark is `FAILED | kind`, with `SLOW`; a place without a call is `NONE`.
const FAILED: u8 = 0x40;
const SLOW: u8 = 0x80;
const KIND: u8 = 0x0f;
const NONE: u8 = 0x20;

impl Counts {
    pub(super) fn new(window: Window) -> Self {
        match window {
            Window::Time(_) => Self::Time(Box::default()),
            Window::Calls(size) => {
                let size = usize::try_from(size.clamp(1, MAX_CALLS)).unwrap_or(1);
                let marks = vec![NONE; size].into_boxed_slice();
                Self::Calls(Last { marks, next: 0, totals: Totals::default() })
            }
        }
    }

    /// Forgets them all.
    pub(super) fn clear(&mut self) {
        match self {
            Self::Time(ring) => **ring = Ring::default(),
            Self::Calls(last) => {
                last.marks.fill(NONE);
                last.totals = Totals::default();
            }
        }
    }

    /// Whether they were counted for such a window; what another one counted means something else.
    pub(super) fn fit(&self, window: Window) -> bool {
        match (self, window) {
            (Self::Time(_), Window::Time(_)) => true,
            (Self::Calls(last), Window::Calls(size)) => {
                usize::try_from(size.clamp(1, MAX_CALLS)).is_ok_and(|size| last.marks.len() == size)
            }
            _ => false,
        }
    }

    pub(super) fn record(&mut self, window: Window, now: Moment, seen: Seen) {
        match (self, window) {
            (Self::Time(ring), Window::Time(window)) => ring.record(window, now, seen),
            (Self::Calls(last), Window::Calls(_)) => last.record(seen),
            _ => {}
        }
    }

    pub(super) fn totals(&self, window: Window, now: Moment) -> Totals {
        match (self, window) {
            (Self::Time(ring), Window::Time(window)) => ring.totals(window, now),
            (Self::Calls(last), Window::Calls(_)) => last.totals,
            _ => Totals::default(),
        }
    }
}

impl Last {
    fn record(&mut self, seen: Seen) {
        let Some(place) = self.marks.get_mut(self.next) else { return };
        let before = std::mem::replace(place, mark(seen));
        self.next = if self.next + 1 < self.marks.len() { self.next + 1 } else { 0 };
        if before != NONE {
            self.totals.remove(read(before));
        }
        self.totals.add(seen);
    }
}

fn mark(seen: Seen) -> u8 {
    let failure = seen.failure.map_or(0, |kind| FAILED | kind.min(KIND));
    if seen.slow { failure | SLOW } else { failure }
}

fn read(mark: u8) -> Seen {
    Seen { failure: (mark & FAILED != 0).then_some(mark & KIND), slow: mark & SLOW != 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_calls_are_exact() {
        let window = Window::Calls(7);
        let mut counts = Counts::new(window);
        let mut all = Vec::new();
        for n in 0_u8..100 {
            let seen = Seen { failure: (n % 3 == 0).then_some(n % 20), slow: n % 5 == 0 };
            counts.record(window, Moment::default(), seen);
            all.push(seen);
            let mut want = Totals::default();
            all.iter().rev().take(7).for_each(|seen| want.add(*seen));
            assert_eq!(counts.totals(window, Moment::default()), want, "after {n}");
        }
        counts.clear();
        counts.record(window, Moment::default(), Seen { failure: None, slow: true });
        assert_eq!(counts.totals(window, Moment::default()).calls, 1);
        assert!(counts.fit(window) && !counts.fit(Window::Calls(8)));
        assert!(!counts.fit(Window::Time(Duration::from_secs(1))));
    }
}
