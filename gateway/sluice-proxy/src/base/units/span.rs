//! A length of time: `250ms`, `3s`, `1m30s`, `2h`, `1d`. The one rule: units go from large to small,
//! each at most once, so that every length has one way to be written.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use super::{Malformed, leading_number, quantity};

/// A length of time, with nanoseconds as the smallest step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub(crate) struct Span(pub(crate) Duration);

quantity!(
    Span,
    "Span",
    r"^([0-9]+d)?([0-9]+h)?([0-9]+m)?([0-9]+s)?([0-9]+ms)?([0-9]+us)?([0-9]+ns)?$",
    ["250ms", "3s", "1m30s", "2h"],
    "A length of time with its units: d, h, m, s, ms, us, ns."
);

/// Units with their nanoseconds, from large to small.
const UNITS: [(&str, u64); 7] = [
    ("d", 86_400_000_000_000),
    ("h", 3_600_000_000_000),
    ("m", 60_000_000_000),
    ("s", 1_000_000_000),
    ("ms", 1_000_000),
    ("us", 1_000),
    ("ns", 1),
];

impl FromStr for Span {
    type Err = Malformed;

    fn from_str(text: &str) -> Result<Self, Malformed> {
        let malformed = || Malformed::new("a length of time, like 250ms, 5s or 1m30s", text);
        if text.parse::<f64>().is_ok_and(f64::is_finite) {
            return Err(Malformed::no_unit(text, "5s"));
        }
        let mut rest = text;
        let mut nanos: u128 = 0;
        let mut units = UNITS.iter();
        while !rest.is_empty() {
            let (number, after) = leading_number(rest).ok_or_else(malformed)?;
            let end = after.find(|c: char| c.is_ascii_digit()).unwrap_or(after.len());
            let (unit, after) = after.split_at(end);
            // Looking only at the units that are left keeps the order.
            let (_, size) = units.find(|(name, _)| *name == unit).ok_or_else(malformed)?;
            nanos += u128::from(number) * u128::from(*size);
            rest = after;
        }
        let nanos = u64::try_from(nanos).map_err(|_| {
            Malformed(format!("`{text}` is longer than any timer runs: the most is 500 years"))
        })?;
        if text.is_empty() { Err(malformed()) } else { Ok(Self(Duration::from_nanos(nanos))) }
    }
}

/// The shortest text: `1m30s`, not `90s`.
impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut left = self.0.as_nanos();
        if left == 0 {
            return f.write_str("0s");
        }
        for (unit, size) in UNITS {
            let size = u128::from(size);
            if left >= size {
                write!(f, "{}{unit}", left / size)?;
                left %= size;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Duration {
        text.parse::<Span>().unwrap().0
    }

    fn refused(text: &str) -> String {
        text.parse::<Span>().unwrap_err().to_string()
    }

    #[test]
    fn reads_what_operators_write() {
        assert_eq!(read("250ms"), Duration::from_millis(250));
        assert_eq!(read("3s"), Duration::from_secs(3));
        assert_eq!(read("1m30s"), Duration::from_secs(90));
        assert_eq!(read("90s"), Duration::from_secs(90));
        assert_eq!(read("2h"), Duration::from_secs(7200));
        assert_eq!(read("1d"), Duration::from_secs(86_400));
        assert_eq!(read("0s"), Duration::ZERO);
        assert_eq!(read("1d1ns"), Duration::from_secs(86_400) + Duration::from_nanos(1));
    }

    #[test]
    fn says_what_to_write_instead() {
        assert_eq!(refused("5"), "`5` has no unit: write a unit, like 5s");
        assert_eq!(refused("1.5"), "`1.5` has no unit: write a unit, like 5s");
        assert_eq!(
            refused("lots"),
            "expected a length of time, like 250ms, 5s or 1m30s, got `lots`"
        );
        for text in ["", " ", "5 s", "1.5s", "-5s", "5S", "5sec", "30s1m", "1s1s", "s", "5s "] {
            assert!(refused(text).contains("expected a length of time"), "{text}");
        }
        assert!(refused("300000d").contains("500 years"));
        assert!(refused("99999999999999999999s").contains("expected"));
    }

    #[test]
    fn prints_what_it_reads() {
        for text in ["0s", "1ns", "250ms", "1s500ms", "1m30s", "1d", "1d1h1m1s1ms1us1ns"] {
            assert_eq!(text.parse::<Span>().unwrap().to_string(), text);
        }
        assert_eq!(Span(Duration::from_secs(90)).to_string(), "1m30s");
        for nanos in [1, 999, 1_000_001, 59_999_999_999, u64::MAX] {
            let span = Span(Duration::from_nanos(nanos));
            assert_eq!(span.to_string().parse(), Ok(span));
        }
    }
}
