//! What a caller may use within a period of the calendar, a day or a month. Periods begin for everybody at
//! the same moment, so unlike a window a quota says when it is whole again in a way that people can plan
//! with.
//!
//! The calendar is arithmetic on days (Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms"); a
//! shared store repeats it. The one rule: seconds are those of the wall clock since 1970, moved by the
//! operator's offset from UTC.

use std::time::Duration;

use crate::window::Verdict;

/// How much in which period.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rules {
    /// Units within one period; 0 refuses everything.
    pub limit: u64,
    /// The period.
    pub period: Period,
    /// Seconds east of UTC where days begin.
    pub offset: i64,
}

/// A period of the calendar.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Period {
    /// From midnight to midnight.
    Day,
    /// From the first of a month to the first of the next.
    Month,
}

/// What was used.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Used {
    /// The period, as [`span`] numbers it.
    pub period: i64,
    /// Units.
    pub units: u64,
}

const DAY: i64 = 86_400;

impl Used {
    /// Asks for `cost` units at a time in seconds since 1970, and records them when they are admitted.
    pub fn hit(&mut self, rules: &Rules, unix: i64, cost: u64) -> Verdict {
        let (period, left) = span(rules.period, unix.saturating_add(rules.offset));
        // A clock that was set back stays in the period it has begun.
        if period > self.period {
            *self = Self { period, units: 0 };
        }
        let admitted = self.units.checked_add(cost).is_some_and(|sum| sum <= rules.limit);
        if admitted {
            self.units += cost;
        }
        let until_next = Duration::from_secs(left);
        let retry_after = match admitted {
            true => Duration::ZERO,
            false if cost > rules.limit => Duration::MAX,
            false => until_next,
        };
        Verdict {
            admitted,
            remaining: rules.limit.saturating_sub(self.units),
            reset_after: until_next,
            wait: Duration::ZERO,
            retry_after,
        }
    }
}

/// The number of the period that holds a local time, in seconds since 1970, and the seconds that are left of
/// it, at least one.
#[must_use]
pub fn span(period: Period, local: i64) -> (i64, u64) {
    let day = local.div_euclid(DAY);
    let (number, next_day) = match period {
        Period::Day => (day, day.saturating_add(1)),
        Period::Month => {
            let month = month_of(day);
            (month, first_day(month.saturating_add(1)))
        }
    };
    let left = next_day.saturating_mul(DAY).saturating_sub(local);
    (number, u64::try_from(left).unwrap_or(1).max(1))
}

/// The month that holds a day since 1970, counted from the year 0.
fn month_of(day: i64) -> i64 {
    // Years begin in March here, so that the day that is added comes last.
    let shifted = day.saturating_add(719_468);
    let era = shifted.div_euclid(146_097);
    let of_era = shifted.rem_euclid(146_097);
    let year = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    // March is month 2, counted from 0.
    (era * 400 + year) * 12 + month + 2
}

/// The first day, since 1970, of a month counted from the year 0.
fn first_day(month: i64) -> i64 {
    let shifted = month - 2;
    let (year, month) = (shifted.div_euclid(12), shifted.rem_euclid(12));
    let era = year.div_euclid(400);
    let of_era = year.rem_euclid(400);
    let of_year = (153 * month + 2) / 5;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAILY: Rules = Rules { limit: 2, period: Period::Day, offset: 0 };

    #[test]
    fn a_day_has_its_own_count() {
        let mut used = Used::default();
        assert!(used.hit(&DAILY, 100, 1).admitted);
        assert_eq!(used.hit(&DAILY, DAY - 10, 1).remaining, 0);
        let refused = used.hit(&DAILY, DAY - 10, 1);
        assert!(!refused.admitted);
        assert_eq!(refused.retry_after, Duration::from_secs(10));
        assert!(used.hit(&DAILY, DAY, 1).admitted);
        assert!(used.hit(&DAILY, DAY - 1, 1).admitted, "a clock set back begins no new day");
        assert!(!used.hit(&DAILY, DAY - 1, 1).admitted);
    }

    #[test]
    fn days_begin_where_the_operator_says() {
        let china = Rules { offset: 8 * 3_600, ..DAILY };
        let mut used = Used::default();
        let midnight = DAY - 8 * 3_600;
        assert!(used.hit(&china, midnight - 1, 2).admitted);
        assert!(used.hit(&china, midnight, 2).admitted);
    }

    #[test]
    fn months_are_those_of_the_calendar() {
        // 2024-02-29T00:00:00Z, a leap day.
        let leap = 1_709_164_800;
        let (february, left) = span(Period::Month, leap);
        assert_eq!((february, left), (2024 * 12 + 1, 86_400));
        assert_eq!(span(Period::Month, leap + DAY).0, february + 1);
        // 2026-12-31T23:59:59Z
        let last = 1_798_761_599;
        assert_eq!(span(Period::Month, last), (2026 * 12 + 11, 1));
        assert_eq!(span(Period::Month, last + 1), (2027 * 12, 31 * 86_400));
        assert_eq!(span(Period::Month, 0), (1970 * 12, 31 * 86_400));
        assert_eq!(span(Period::Month, -1).0, 1969 * 12 + 11);
    }

    #[test]
    fn every_day_of_four_centuries_is_in_the_month_that_holds_it() {
        for day in -150_000..150_000 {
            let month = month_of(day);
            assert!(first_day(month) <= day && day < first_day(month + 1), "day {day}");
        }
    }
}
