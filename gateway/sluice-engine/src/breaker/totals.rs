//! What a number of calls came to. Kinds of failures are numbers that the caller gives a meaning.

/// How many kinds of failures are told apart; larger numbers count as the last.
pub const KINDS: usize = 16;

/// What counts of one call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Seen {
    /// The kind of its failure, if it failed.
    pub(super) failure: Option<u8>,
    pub(super) slow: bool,
}

/// Calls, and how many of them went wrong in which way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// All of them.
    pub calls: u32,
    /// Those that failed.
    pub failures: u32,
    /// Those that took too long, whether they failed or not.
    pub slow: u32,
    /// Failures by kind.
    pub kinds: [u32; KINDS],
}

impl Totals {
    pub(super) fn add(&mut self, seen: Seen) {
        self.calls = self.calls.saturating_add(1);
        self.slow = self.slow.saturating_add(u32::from(seen.slow));
        if let Some(kind) = seen.failure {
            self.failures = self.failures.saturating_add(1);
            if let Some(count) = self.kinds.get_mut(place(kind)) {
                *count = count.saturating_add(1);
            }
        }
    }

    pub(super) fn remove(&mut self, seen: Seen) {
        self.calls = self.calls.saturating_sub(1);
        self.slow = self.slow.saturating_sub(u32::from(seen.slow));
        if let Some(kind) = seen.failure {
            self.failures = self.failures.saturating_sub(1);
            if let Some(count) = self.kinds.get_mut(place(kind)) {
                *count = count.saturating_sub(1);
            }
        }
    }

    pub(super) fn plus(mut self, other: &Self) -> Self {
        self.calls = self.calls.saturating_add(other.calls);
        self.failures = self.failures.saturating_add(other.failures);
        self.slow = self.slow.saturating_add(other.slow);
        for (sum, more) in self.kinds.iter_mut().zip(other.kinds) {
            *sum = sum.saturating_add(more);
        }
        self
    }

    /// The failed share, from 0.0 to 1.0; 0.0 when there were no calls.
    #[must_use]
    pub fn failure_rate(&self) -> f64 {
        share(self.failures, self.calls)
    }

    /// The slow share, from 0.0 to 1.0; 0.0 when there were no calls.
    #[must_use]
    pub fn slow_rate(&self) -> f64 {
        share(self.slow, self.calls)
    }

    /// The kind that most of the failures are of, if there were any.
    #[must_use]
    pub fn top_kind(&self) -> Option<u8> {
        let most = self.kinds.iter().copied().max().filter(|most| *most > 0)?;
        let at = self.kinds.iter().position(|count| *count == most)?;
        u8::try_from(at).ok()
    }
}

/// Whether `part` is at least `percent` of `whole`; false when there is no whole.
pub(super) fn is_share(part: u32, whole: u32, percent: u8) -> bool {
    whole > 0 && u64::from(part) * 100 >= u64::from(whole) * u64::from(percent)
}

fn share(part: u32, whole: u32) -> f64 {
    if whole == 0 { 0.0 } else { f64::from(part) / f64::from(whole) }
}

fn place(kind: u8) -> usize {
    usize::from(kind).min(KINDS - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_exact_at_the_edge() {
        assert!(is_share(1, 2, 50) && !is_share(1, 2, 51));
        assert!(!is_share(0, 0, 1));
        let half = Totals { calls: 2, failures: 1, slow: 2, ..Totals::default() };
        assert!((half.failure_rate() - 0.5).abs() < f64::EPSILON);
        assert!((half.slow_rate() - 1.0).abs() < f64::EPSILON);
        assert!(Totals::default().failure_rate().abs() < f64::EPSILON);
    }

    #[test]
    fn what_is_removed_was_never_there() {
        let mut totals = Totals::default();
        let calls = [
            Seen { failure: Some(2), slow: true },
            Seen { failure: None, slow: true },
            Seen { failure: Some(200), slow: false },
            Seen { failure: Some(15), slow: false },
        ];
        calls.iter().for_each(|seen| totals.add(*seen));
        assert_eq!((totals.calls, totals.failures, totals.slow), (4, 3, 2));
        assert_eq!((totals.kinds[2], totals.kinds[15], totals.top_kind()), (1, 2, Some(15)));
        calls.iter().for_each(|seen| totals.remove(*seen));
        assert_eq!((totals, totals.top_kind()), (Totals::default(), None));
    }
}
