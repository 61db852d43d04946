//! What became of a breaker: its last transitions, each with the calls that caused it. Nothing is kept of
//! calls that go well.

use std::collections::VecDeque;
use std::time::Duration;

use super::totals::Totals;
use super::{State, Why};
use crate::moment::Moment;

/// Transitions kept.
pub const ENTRIES: usize = 32;
/// Failing calls kept beside a transition.
pub const SAMPLES: usize = 4;

/// One failing call.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sample {
    /// What the caller knows it by, for instance its trace id; never 0.
    pub id: u128,
    /// The kind of its failure; `None` for a slow success.
    pub kind: Option<u8>,
}

/// The last failing calls, in a ring.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Samples {
    places: [Sample; SAMPLES],
    next: usize,
}

/// A transition, and why.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Entry {
    /// When.
    pub at: Moment,
    /// The state before.
    pub from: State,
    /// The state after.
    pub to: State,
    /// The reason.
    pub why: Why,
    /// The calls it was judged by.
    pub window: Totals,
    /// Failures in a row before it.
    pub streak: u32,
    /// Some of those that failed, the latest ones.
    pub samples: Samples,
    /// For how long it stays open, where it opened.
    pub open_for: Option<Duration>,
}

/// The last transitions.
#[derive(Clone, Debug, Default)]
pub(super) struct History {
    entries: VecDeque<Entry>,
}

impl Samples {
    pub(super) fn keep(&mut self, sample: Sample) {
        if sample.id == 0 {
            return;
        }
        if let Some(place) = self.places.get_mut(self.next) {
            *place = sample;
        }
        self.next = (self.next + 1) % SAMPLES;
    }

    /// Those there are, the latest first.
    pub fn iter(&self) -> impl Iterator<Item = Sample> + '_ {
        let back = (1..=SAMPLES).map(move |n| (self.next + SAMPLES - n) % SAMPLES);
        back.filter_map(|at| self.places.get(at)).filter(|sample| sample.id != 0).copied()
    }
}

impl History {
    pub(super) fn add(&mut self, entry: Entry) {
        if self.entries.len() >= ENTRIES {
            self.entries.pop_front();
        }
        self.entries.push_back(entry);
    }

    /// Says of the last transition for how long it opened.
    pub(super) fn opened_for(&mut self, long: Duration) {
        if let Some(entry) = self.entries.back_mut() {
            entry.open_for = Some(long);
        }
    }

    pub(super) fn last(&self) -> Option<&Entry> {
        self.entries.back()
    }

    /// The oldest first.
    pub(super) fn to_vec(&self) -> Vec<Entry> {
        self.entries.iter().copied().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_are_the_latest_ones() {
        let mut samples = Samples::default();
        assert_eq!(samples.iter().count(), 0);
        for id in 0..7 {
            samples.keep(Sample { id, kind: Some(1) });
        }
        let ids: Vec<u128> = samples.iter().map(|sample| sample.id).collect();
        assert_eq!(ids, [6, 5, 4, 3]);
    }
}
