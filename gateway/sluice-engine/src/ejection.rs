//! Taking an endpoint out of use that keeps failing: for a while, for longer each time, and never too
//! many at once. Envoy calls this outlier detection.
//!
//! What a failure is, and choosing among the endpoints that are left, is the caller's. The one rule:
//! every outcome of an endpoint comes to its [`Cell`], since a success is what ends a series of failures.

mod success_rate;

use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

pub use success_rate::{Outliers, SuccessRate};

use crate::moment::{self, Moment};

/// When to eject, and for how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rules {
    /// After so many failures with no success between them; 0 counts as 1.
    pub consecutive_failures: u32,
    /// For so long the first time, and so much longer each further time.
    pub base: Duration,
    /// But no longer than that.
    pub longest: Duration,
    /// Only while no more than so many of 100 endpoints are out, and never the last that is up.
    pub max_percent: u8,
}

/// What is known about one endpoint. Reading and noting a success do not write where nothing changes.
#[derive(Debug, Default)]
pub struct Cell {
    /// Failures since the last success.
    streak: AtomicU32,
    /// Out of use before this moment, in nanoseconds; 0 if it never was.
    until: AtomicU64,
    /// How often it was ejected lately: one less for each `base` that it stayed in use. Written by whoever
    /// holds the group's lock.
    times: AtomicU32,
    /// How often it was ever ejected, by [`Reason`].
    total: [AtomicU64; REASONS],
    /// Since when it is out, and why.
    since: AtomicU64,
    reason: AtomicU8,
    /// Outcomes of this interval.
    tally: success_rate::Tally,
}

/// Why an endpoint is ejected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// Its requests have failed in a row.
    ConsecutiveFailures,
    /// More of its requests have failed than of its peers'.
    SuccessRate,
}

const REASONS: usize = 2;

/// An ejection in force.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Out {
    /// When it began.
    pub since: Moment,
    /// When it ends.
    pub until: Moment,
    /// What it is for.
    pub reason: Reason,
}

/// One upstream's right to eject, so that two workers never eject one too many together.
#[derive(Debug, Default)]
pub struct Group {
    /// Held for a look at each endpoint, by who ejects.
    lock: Mutex<()>,
    /// When the success rates are compared next, in nanoseconds; 0 before the first request.
    next: AtomicU64,
}

/// What came of an attempt to eject.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is out of use for so long.
    Ejected(Duration),
    /// It was out already.
    Already,
    /// Too many are out, or it is the last one.
    Spared,
}

/// One of the endpoints among which somebody may be ejected.
#[derive(Clone, Copy, Debug)]
pub struct Member<'a> {
    /// What is known about it.
    pub cell: &'a Cell,
    /// Whether it could be used, were it not ejected.
    pub up: bool,
}

impl Cell {
    /// Whether it is out of use at `now`.
    pub fn is_ejected(&self, now: Moment) -> bool {
        now.nanos() < self.until.load(Ordering::Relaxed)
    }

    /// When its last ejection was over, if it had one and that is over.
    pub fn ended(&self, now: Moment) -> Option<Moment> {
        let until = self.until.load(Ordering::Relaxed);
        (until > 0 && until <= now.nanos()).then(|| Moment::from_nanos(until))
    }

    /// How often it was ever ejected for this.
    pub fn ejections(&self, reason: Reason) -> u64 {
        self.total.get(reason as usize).map_or(0, |total| total.load(Ordering::Relaxed))
    }

    /// The ejection in force at `now`.
    pub fn out(&self, now: Moment) -> Option<Out> {
        let reason = Reason::ALL.get(usize::from(self.reason.load(Ordering::Relaxed)))?;
        let moment = |nanos: &AtomicU64| Moment::from_nanos(nanos.load(Ordering::Relaxed));
        let out = Out { since: moment(&self.since), until: moment(&self.until), reason: *reason };
        (now < out.until).then_some(out)
    }

    /// Counts an outcome towards the success rate.
    pub fn tally(&self, success: bool) {
        self.tally.count(success);
    }

    /// A call went well.
    pub fn succeeded(&self) {
        if self.streak.load(Ordering::Relaxed) != 0 {
            self.streak.store(0, Ordering::Relaxed);
        }
    }

    /// A call failed; tells whether it is time for [`Group::eject`].
    #[must_use]
    pub fn failed(&self, rules: &Rules) -> bool {
        let before = self.streak.fetch_add(1, Ordering::Relaxed);
        before.saturating_add(1) >= rules.consecutive_failures.max(1)
    }

    /// How often in a row it has been ejected, with this time.
    fn turn(&self, rules: &Rules, now: Moment) -> u32 {
        let back = Moment::from_nanos(self.until.load(Ordering::Relaxed));
        let well = moment::nanos(now.saturating_since(back)) / moment::nanos(rules.base).max(1);
        let before = u64::from(self.times.load(Ordering::Relaxed)).saturating_sub(well);
        u32::try_from(before).unwrap_or(u32::MAX).saturating_add(1)
    }
}

impl Reason {
    /// All reasons.
    pub const ALL: [Self; REASONS] = [Self::ConsecutiveFailures, Self::SuccessRate];

    /// The word for it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ConsecutiveFailures => "consecutive_failures",
            Self::SuccessRate => "success_rate",
        }
    }
}

impl Group {
    /// Takes `culprit` out of use unless too many of `members`, to whom it belongs, are out. `random` is
    /// 64 random bits, which make the time a fifth longer or shorter, so that gateways do not bring an
    /// endpoint back all at once.
    pub fn eject<'a>(
        &self,
        rules: &Rules,
        culprit: &Cell,
        members: impl Iterator<Item = Member<'a>>,
        reason: Reason,
        (now, random): (Moment, u64),
    ) -> Verdict {
        let _held = self.lock.lock().unwrap_or_else(PoisonError::into_inner);
        if culprit.is_ejected(now) {
            return Verdict::Already;
        }
        let (mut all, mut out, mut left) = (0_u64, 0_u64, false);
        for member in members {
            all += 1;
            if member.cell.is_ejected(now) {
                out += 1;
            } else {
                left |= member.up && !std::ptr::eq(member.cell, culprit);
            }
        }
        if !left || (out + 1) * 100 > all * u64::from(rules.max_percent) {
            return Verdict::Spared;
        }
        let turn = culprit.turn(rules, now);
        let long = rules.base.saturating_mul(turn).min(rules.longest);
        let long = moment::spread(long, random);
        // Where it grows no longer, it need not be remembered for longer either.
        let most = rules.longest.as_nanos().div_ceil(rules.base.as_nanos().max(1));
        culprit.times.store(turn.min(u32::try_from(most).unwrap_or(u32::MAX)), Ordering::Relaxed);
        culprit.streak.store(0, Ordering::Relaxed);
        if let Some(total) = culprit.total.get(reason as usize) {
            total.fetch_add(1, Ordering::Relaxed);
        }
        culprit.since.store(now.nanos(), Ordering::Relaxed);
        culprit.reason.store(reason as u8, Ordering::Relaxed);
        culprit.until.store(now.after(long).nanos(), Ordering::Relaxed);
        Verdict::Ejected(long)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULES: Rules = Rules {
        consecutive_failures: 3,
        base: Duration::from_secs(10),
        longest: Duration::from_secs(35),
        max_percent: 50,
    };
    /// Makes the time neither longer nor shorter.
    const MIDDLE: u64 = 1 << 63;

    fn at(seconds: u64) -> Moment {
        Moment::from_nanos(seconds * 1_000_000_000)
    }

    fn eject(cells: &[Cell], index: usize, now: Moment) -> Verdict {
        let members = cells.iter().map(|cell| Member { cell, up: true });
        Group::default().eject(
            &RULES,
            &cells[index],
            members,
            Reason::ConsecutiveFailures,
            (now, MIDDLE),
        )
    }

    fn cells(count: usize) -> Vec<Cell> {
        (0..count).map(|_| Cell::default()).collect()
    }

    #[test]
    fn failures_have_to_be_in_a_row() {
        let cell = Cell::default();
        for _ in 0..5 {
            assert!(!cell.failed(&RULES) && !cell.failed(&RULES));
            cell.succeeded();
        }
        assert!(!cell.failed(&RULES) && !cell.failed(&RULES) && cell.failed(&RULES));
        assert!(cell.failed(&RULES), "who was spared is asked about again");
    }

    #[test]
    fn each_time_is_longer_up_to_the_longest_and_good_times_are_remembered() {
        let cells = cells(2);
        let mut now = at(1);
        for seconds in [10, 20, 30, 35, 35] {
            let long = Duration::from_secs(seconds);
            assert_eq!(eject(&cells, 0, now), Verdict::Ejected(long));
            assert_eq!(eject(&cells, 0, now), Verdict::Already);
            let reason = Reason::ConsecutiveFailures;
            assert_eq!(cells[0].out(now), Some(Out { since: now, until: now.after(long), reason }));
            assert_eq!(cells[0].out(now.after(long)), None);
            now = now.after(long);
            assert!(cells[0].is_ejected(Moment::from_nanos(now.nanos() - 1)));
            assert!(!cells[0].is_ejected(now));
        }
        // Remembered are four times, as many as make it longer; two base times in use forgive two.
        let later = now.after(Duration::from_secs(29));
        assert_eq!(eject(&cells, 0, later), Verdict::Ejected(Duration::from_secs(30)));
        assert_eq!(cells[0].ejections(Reason::ConsecutiveFailures), 6);
        assert_eq!(cells[0].ejections(Reason::SuccessRate), 0);
    }

    #[test]
    fn half_of_them_stay() {
        for (count, most) in [(1, 0), (2, 1), (3, 1), (4, 2), (7, 3)] {
            let cells = cells(count);
            let out = (0..count).filter(|n| eject(&cells, *n, at(1)) != Verdict::Spared).count();
            assert_eq!(out, most, "of {count}");
        }
    }

    #[test]
    fn the_last_one_up_stays() {
        let cells = cells(3);
        let rules = Rules { max_percent: 100, ..RULES };
        let eject = |index: usize, up: [bool; 3]| {
            let members = cells.iter().zip(up).map(|(cell, up)| Member { cell, up });
            Group::default().eject(&rules, &cells[index], members, Reason::SuccessRate, (at(1), 0))
        };
        assert_eq!(eject(0, [true, false, false]), Verdict::Spared);
        assert_eq!(eject(0, [true, true, false]), Verdict::Ejected(Duration::from_secs(8)));
        assert_eq!(eject(1, [true, true, false]), Verdict::Spared);
    }
}
