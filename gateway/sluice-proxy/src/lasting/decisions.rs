//! How limits decided, counted for each limit without a lock: a part for each worker.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::base::seat;

/// Where a call was counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    /// In this process, where no Redis is configured.
    Process,
    /// In Redis.
    Shared,
    /// In Redis, in advance.
    Leased,
    /// In this process against its share, because Redis cannot be asked.
    Local,
    /// Nowhere: Redis cannot be asked, and the limit says what happens then.
    Unasked,
}

/// Decisions of one limit.
pub(crate) struct Decisions {
    /// `route:orders`, with the limit's label if it has one.
    pub(crate) limit: String,
    parts: Box<[Part]>,
}

/// On a cache line of its own. Admitted and refused, by mode.
#[derive(Default)]
#[repr(align(128))]
struct Part([[AtomicU64; 2]; Mode::ALL.len()]);

impl Mode {
    pub(crate) const ALL: [Self; 5] =
        [Self::Process, Self::Shared, Self::Leased, Self::Local, Self::Unasked];

    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Process => "process",
            Self::Shared => "shared",
            Self::Leased => "leased",
            Self::Local => "local",
            Self::Unasked => "unasked",
        }
    }
}

impl Decisions {
    pub(crate) fn new(limit: String) -> Self {
        Self { limit, parts: (0..seat::COUNT).map(|_| Part::default()).collect() }
    }

    pub(crate) fn count(&self, mode: Mode, admitted: bool) {
        let part = self.parts.get(seat::number() % seat::COUNT);
        if let Some(count) = part.and_then(|part| part.of(mode, admitted)) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// All parts together.
    pub(crate) fn sum(&self, mode: Mode, admitted: bool) -> u64 {
        let of = |part: &Part| part.of(mode, admitted).map_or(0, |n| n.load(Ordering::Relaxed));
        self.parts.iter().map(of).sum()
    }
}

impl Part {
    fn of(&self, mode: Mode, admitted: bool) -> Option<&AtomicU64> {
        self.0.get(mode as usize)?.get(usize::from(!admitted))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decisions_add_up_over_workers() {
        let decisions = Decisions::new("route:a".to_owned());
        decisions.count(Mode::Local, false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                seat::take(3);
                decisions.count(Mode::Local, false);
                decisions.count(Mode::Shared, true);
            });
        });
        assert_eq!(decisions.sum(Mode::Local, false), 2);
        assert_eq!(decisions.sum(Mode::Local, true), 0);
        assert_eq!(decisions.sum(Mode::Shared, true), 1);
    }
}
