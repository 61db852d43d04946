//! How long a caller waits, as it says itself: `grpc-timeout`, and the plain field that HTTP callers use.
//!
//! Since when it waits is the caller's to know. The one rule: what is told on is never longer than what
//! was asked for, and is said in the same unit, since whoever reads it may know no other.

use std::time::Duration;

/// The most digits of a `grpc-timeout`.
const GRPC_DIGITS: usize = 8;

/// A time that somebody waits, and how it was said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeout {
    /// The time.
    pub wait: Duration,
    form: Form,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    Grpc,
    /// A number alone, which is one of seconds.
    Number,
    Seconds,
    Millis,
}

impl Timeout {
    /// Reads a `grpc-timeout`: up to eight digits and a unit out of `H`, `M`, `S`, `m`, `u`, `n`
    /// (the specification "gRPC over HTTP2").
    #[must_use]
    pub fn grpc(text: &str) -> Option<Self> {
        let unit = text.chars().last().filter(char::is_ascii)?;
        let digits = text.get(..text.len() - 1)?;
        if digits.len() > GRPC_DIGITS {
            return None;
        }
        let number = whole(digits)?;
        let wait = match unit {
            'H' => Duration::from_secs(number * 3600),
            'M' => Duration::from_secs(number * 60),
            'S' => Duration::from_secs(number),
            'm' => Duration::from_millis(number),
            'u' => Duration::from_micros(number),
            'n' => Duration::from_nanos(number),
            _ => return None,
        };
        Some(Self { wait, form: Form::Grpc })
    }

    /// Reads a number of seconds, whole or with a fraction, with `s` or nothing behind it, or a whole
    /// number of milliseconds with `ms`.
    #[must_use]
    pub fn plain(text: &str) -> Option<Self> {
        let text = text.trim();
        if let Some(millis) = text.strip_suffix("ms") {
            return Some(Self { wait: Duration::from_millis(whole(millis)?), form: Form::Millis });
        }
        let (number, form) = match text.strip_suffix('s') {
            Some(number) => (number, Form::Seconds),
            None => (text, Form::Number),
        };
        let (seconds, fraction) = number.split_once('.').unwrap_or((number, "0"));
        let seconds = Duration::from_secs(whole(seconds)?);
        // Nothing finer than a millisecond is meant by anybody.
        let millis = format!("{:0<3}", fraction.get(..3).unwrap_or(fraction));
        whole(fraction)?;
        Some(Self { wait: seconds + Duration::from_millis(whole(&millis)?), form })
    }

    /// A time for callers of gRPC, in milliseconds.
    #[must_use]
    pub fn grpc_of(wait: Duration) -> Self {
        Self { wait, form: Form::Grpc }
    }

    /// A time for other callers, in milliseconds.
    #[must_use]
    pub fn plain_of(wait: Duration) -> Self {
        Self { wait, form: Form::Millis }
    }

    /// The same for somebody who is to wait for `left` at most: in whole milliseconds, rounded down, but
    /// at least one.
    #[must_use]
    pub fn shortened(self, left: Duration) -> String {
        let millis = self.wait.min(left).as_millis().max(1);
        let (seconds, rest) = (millis / 1000, millis % 1000);
        let number = match rest {
            0 => seconds.to_string(),
            _ => format!("{seconds}.{rest:03}"),
        };
        match self.form {
            Form::Grpc if millis >= 10_u128.pow(8) => format!("{}S", seconds.min(99_999_999)),
            Form::Grpc => format!("{millis}m"),
            Form::Number => number,
            Form::Seconds => format!("{number}s"),
            Form::Millis => format!("{millis}ms"),
        }
    }
}

/// A whole number without a sign that is no larger than anybody means.
fn whole(text: &str) -> Option<u64> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if digits && text.len() <= 12 { text.parse().ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grpc_has_units_of_its_own() {
        let nanos = |text| Timeout::grpc(text).map(|timeout| timeout.wait.as_nanos());
        for (text, expected) in [
            ("1H", 3_600_000_000_000),
            ("2M", 120_000_000_000),
            ("3S", 3_000_000_000),
            ("4m", 4_000_000),
            ("5u", 5_000),
            ("00000006n", 6),
            ("0S", 0),
        ] {
            assert_eq!(nanos(text), Some(expected), "{text}");
        }
        for text in
            ["", "S", "1", "1s", "123456789S", "-1S", "+1S", "1.5S", " 1S", "1S ", "1\u{e9}"]
        {
            assert_eq!(nanos(text), None, "{text:?}");
        }
    }

    #[test]
    fn plain_numbers_are_seconds() {
        let millis = |text| Timeout::plain(text).map(|timeout| timeout.wait.as_millis());
        for (text, expected) in [
            ("2", 2_000),
            ("2s", 2_000),
            (" 1.5 ", 1_500),
            ("0.25s", 250),
            ("1.2345", 1_234),
            ("700ms", 700),
        ] {
            assert_eq!(millis(text), Some(expected), "{text}");
        }
        for text in [
            "",
            "s",
            "ms",
            "1.",
            ".5",
            "-1",
            "1e3",
            "1 s",
            "1.5ms",
            "1m",
            "1.\u{b2}",
            "9999999999999",
        ] {
            assert_eq!(millis(text), None, "{text:?}");
        }
    }

    #[test]
    fn what_is_told_on_keeps_its_unit() {
        let told = |timeout: Option<Timeout>, left| timeout.unwrap().shortened(left);
        let left = Duration::from_micros(1_234_567);
        assert_eq!(told(Timeout::grpc("2S"), left), "1234m");
        assert_eq!(told(Timeout::grpc("1S"), left), "1000m");
        assert_eq!(told(Timeout::grpc("99999999H"), Duration::MAX), "99999999S");
        assert_eq!(told(Timeout::plain("2"), left), "1.234");
        assert_eq!(told(Timeout::plain("2s"), left), "1.234s");
        assert_eq!(told(Timeout::plain("1s"), left), "1s");
        assert_eq!(told(Timeout::plain("2000ms"), left), "1234ms");
        assert_eq!(told(Timeout::plain("2"), Duration::ZERO), "0.001");
    }
}
