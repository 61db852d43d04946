//! A number of bytes: `512B`, `64KiB`, `10MiB`, `1GB`. Both families of prefixes are read, and told
//! apart by their `i`. The one rule: letters count as written, because `Mb` is not `MB`.

use std::fmt;
use std::str::FromStr;

use super::{Malformed, leading_number, quantity};

/// A number of bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub(crate) struct ByteSize(pub(crate) u64);

quantity!(
    ByteSize,
    "ByteSize",
    r"^[0-9]+(B|KB|MB|GB|TB|KiB|MiB|GiB|TiB)$",
    ["512B", "64KiB", "10MiB", "1GB"],
    "A number of bytes with its unit: KiB, MiB, GiB and TiB count in 1024, KB, MB, GB and TB in 1000."
);

/// Units with their bytes (IEC 80000-13, SI), from large to small.
const UNITS: [(&str, u64); 9] = [
    ("TiB", 1 << 40),
    ("TB", 1_000_000_000_000),
    ("GiB", 1 << 30),
    ("GB", 1_000_000_000),
    ("MiB", 1 << 20),
    ("MB", 1_000_000),
    ("KiB", 1 << 10),
    ("KB", 1_000),
    ("B", 1),
];

impl FromStr for ByteSize {
    type Err = Malformed;

    fn from_str(text: &str) -> Result<Self, Malformed> {
        let malformed = || Malformed::new("a size, like 512B, 64KiB or 10MiB", text);
        if text.parse::<f64>().is_ok_and(f64::is_finite) {
            return Err(Malformed::no_unit(text, "512B or 64KiB"));
        }
        let (number, unit) = leading_number(text).ok_or_else(malformed)?;
        let (_, size) = UNITS.iter().find(|(name, _)| *name == unit).ok_or_else(malformed)?;
        let too_large = || Malformed(format!("`{text}` is more than 64 bits can count"));
        number.checked_mul(*size).map(Self).ok_or_else(too_large)
    }
}

/// In the largest unit that divides it: `1MiB`, `1500KB`, `1025B`.
impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let fits = |(_, size): &&(&str, u64)| self.0 != 0 && self.0.is_multiple_of(*size);
        let (unit, size) = UNITS.iter().find(fits).copied().unwrap_or(("B", 1));
        write!(f, "{}{unit}", self.0 / size)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(text: &str) -> String {
        text.parse::<ByteSize>().unwrap_err().to_string()
    }

    #[test]
    fn reads_both_families() {
        let read = |text: &str| text.parse::<ByteSize>().unwrap().0;
        assert_eq!(read("512B"), 512);
        assert_eq!(read("1KB"), 1000);
        assert_eq!(read("64KiB"), 65_536);
        assert_eq!(read("10MiB"), 10_485_760);
        assert_eq!(read("1GiB"), 1_073_741_824);
        assert_eq!(read("0B"), 0);
    }

    #[test]
    fn says_what_to_write_instead() {
        assert_eq!(refused("1024"), "`1024` has no unit: write a unit, like 512B or 64KiB");
        for text in ["", "lots", "10mb", "10Mb", "10M", "10 MiB", "-1B", "1.5MiB", "MiB", "1KiB1B"]
        {
            assert!(refused(text).contains("expected a size"), "{text}");
        }
        assert!(refused("99999999TiB").contains("64 bits"));
    }

    #[test]
    fn prints_what_it_reads() {
        for text in ["0B", "1B", "1000B", "1025B", "64KiB", "10MiB", "1500KB", "3TB", "2TiB"] {
            let size: ByteSize = text.parse().unwrap();
            assert_eq!(size.to_string().parse(), Ok(size), "{text}");
        }
        assert_eq!(ByteSize(1000).to_string(), "1KB");
        assert_eq!(ByteSize(1 << 20).to_string(), "1MiB");
        assert_eq!(ByteSize(u64::MAX).to_string().parse(), Ok(ByteSize(u64::MAX)));
    }
}
