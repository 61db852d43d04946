//! A share of a whole: `0%` to `100%`, in whole steps. The one rule: more than all of something is
//! refused here, so that nobody further on has to ask.

use std::fmt;
use std::str::FromStr;

use super::{Malformed, leading_number, quantity};

/// Whole percent, from 0 to 100.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub(crate) struct Percent(pub(crate) u8);

quantity!(
    Percent,
    "Percent",
    r"^(100|[0-9]{1,2})%$",
    ["50%", "100%"],
    "A whole number of percent, from 0% to 100%."
);

impl FromStr for Percent {
    type Err = Malformed;

    fn from_str(text: &str) -> Result<Self, Malformed> {
        let malformed = || Malformed::new("a whole percentage from 0% to 100%, like 50%", text);
        if text.parse::<f64>().is_ok_and(f64::is_finite) {
            return Err(Malformed::no_unit(text, "50%"));
        }
        match leading_number(text) {
            Some((number, "%")) if number <= 100 => {
                u8::try_from(number).map(Self).map_err(|_| malformed())
            }
            _ => Err(malformed()),
        }
    }
}

impl fmt::Display for Percent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}%", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_and_prints() {
        for number in 0..=100 {
            let text = format!("{number}%");
            assert_eq!(text.parse(), Ok(Percent(number)));
            assert_eq!(Percent(number).to_string(), text);
        }
    }

    #[test]
    fn refuses_the_rest() {
        let refused = |text: &str| text.parse::<Percent>().unwrap_err().to_string();
        assert_eq!(refused("50"), "`50` has no unit: write a unit, like 50%");
        assert_eq!(refused("0.5"), "`0.5` has no unit: write a unit, like 50%");
        for text in ["", "101%", "-1%", "1.5%", "5 %", "%", "half"] {
            assert!(refused(text).contains("expected a whole percentage"), "{text}");
        }
    }
}
