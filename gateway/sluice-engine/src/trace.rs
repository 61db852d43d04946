//! The `traceparent` field of W3C Trace Context, level 2.
//!
//! Making ids, `tracestate`, and deciding what to sample are left to the caller. The one rule: a
//! value that breaks the format in any way is not repaired, since the specification asks for a new
//! trace then.

use std::fmt;
use std::ops::Range;

use crate::canon::hex;

/// The length of the field in version 00.
pub const LENGTH: usize = 55;
/// Where the trace id stands in it.
pub const TRACE_ID: Range<usize> = 3..35;
/// Where the parent id stands in it.
pub const PARENT_ID: Range<usize> = 36..52;

/// One position in a trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TraceParent {
    /// The whole trace; never all zero when parsed.
    pub trace_id: [u8; 16],
    /// The calling span; never all zero when parsed.
    pub parent_id: [u8; 8],
    /// Bit 0: sampled. Bit 1: the trace id is random. Others are neither kept nor written.
    pub flags: u8,
}

/// The bits that level 2 defines.
const KNOWN_FLAGS: u8 = 0b11;
const SAMPLED: u8 = 0b01;

impl TraceParent {
    /// Reads a field value (section 3.2). Version 00 has to fit exactly. A higher version may go on
    /// after another dash, and only its sampled bit is believed. Version ff, ids of zeros and
    /// capital letters are refused.
    #[must_use]
    pub fn parse(value: &str) -> Option<Self> {
        let (known, rest) = value.as_bytes().split_at_checked(LENGTH)?;
        let [version, trace_id, parent_id, flags] = fields(known)?;
        let version: [u8; 1] = read(version)?;
        let trace_id: [u8; 16] = read(trace_id)?;
        let parent_id: [u8; 8] = read(parent_id)?;
        let [flags] = read(flags)?;
        let flags = match (version, rest) {
            ([0], []) => flags & KNOWN_FLAGS,
            ([0 | 0xff], _) => return None,
            (_, [] | [b'-', ..]) => flags & SAMPLED,
            _ => return None,
        };
        let zero = trace_id == [0; 16] || parent_id == [0; 8];
        (!zero).then_some(Self { trace_id, parent_id, flags })
    }

    /// Whether the caller records this trace.
    #[must_use]
    pub const fn sampled(&self) -> bool {
        self.flags & SAMPLED != 0
    }

    /// Writes the field value in version 00 into `out` and returns it as text.
    pub fn write<'a>(&self, out: &'a mut [u8; LENGTH]) -> &'a str {
        *out = *b"00-00000000000000000000000000000000-0000000000000000-00";
        let (trace_id, rest) = out.split_at_mut(TRACE_ID.end);
        let (parent_id, flags) = rest.split_at_mut(PARENT_ID.end - TRACE_ID.end);
        write_hex(&self.trace_id, trace_id.split_at_mut(TRACE_ID.start).1);
        write_hex(&self.parent_id, parent_id.split_at_mut(1).1);
        write_hex(&[self.flags & KNOWN_FLAGS], flags.split_at_mut(1).1);
        std::str::from_utf8(out).unwrap_or_default()
    }
}

impl fmt::Display for TraceParent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.write(&mut [0; LENGTH]))
    }
}

/// The four fields between dashes at their fixed places.
fn fields(known: &[u8]) -> Option<[&[u8]; 4]> {
    let mut parts = known.split(|byte| *byte == b'-');
    let fields = [parts.next()?, parts.next()?, parts.next()?, parts.next()?];
    parts.next().is_none().then_some(fields)
}

/// `N` bytes out of exactly `2 * N` lower-case digits.
fn read<const N: usize>(digits: &[u8]) -> Option<[u8; N]> {
    if digits.len() != 2 * N || digits.iter().any(u8::is_ascii_uppercase) {
        return None;
    }
    let mut out = [0; N];
    for (byte, pair) in out.iter_mut().zip(digits.chunks_exact(2)) {
        let [high, low] = pair else { return None };
        *byte = hex(*high)? << 4 | hex(*low)?;
    }
    Some(out)
}

/// Writes two lower-case digits for each byte, as many as there is room for.
pub fn write_hex(bytes: &[u8], out: &mut [u8]) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digit = |value: u8| DIGITS.get(usize::from(value)).copied().unwrap_or(b'0');
    for (pair, byte) in out.chunks_exact_mut(2).zip(bytes) {
        pair.copy_from_slice(&[digit(byte >> 4), digit(byte & 15)]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn a_good_value_survives_the_round() {
        let parent = TraceParent::parse(GOOD).unwrap();
        assert_eq!(parent.parent_id, [0, 0xf0, 0x67, 0xaa, 0x0b, 0xa9, 0x02, 0xb7]);
        assert!(parent.sampled());
        assert_eq!(parent.to_string(), GOOD);
        assert_eq!(parent.write(&mut [0; LENGTH]), GOOD);
    }

    #[test]
    fn unknown_flags_are_dropped() {
        let value = GOOD.replace("-01", "-fe");
        let parent = TraceParent::parse(&value).unwrap();
        assert!(!parent.sampled());
        assert_eq!(parent.flags, 2);
        let loud = TraceParent { flags: 0xff, ..parent };
        assert!(loud.to_string().ends_with("-03"));
    }

    #[test]
    fn higher_versions_are_read_as_far_as_known() {
        for value in [
            GOOD.replacen("00", "01", 1),
            format!("{}-what-comes", GOOD.replacen("00", "cc", 1)),
            format!("{}-", GOOD.replacen("00", "cc", 1)),
            GOOD.replacen("00", "cc", 1).replace("-01", "-03"),
        ] {
            assert_eq!(TraceParent::parse(&value).unwrap().flags, 1, "{value}");
        }
        assert_eq!(TraceParent::parse(&format!("{}x", GOOD.replacen("00", "01", 1))), None);
    }

    #[test]
    fn everything_else_is_refused() {
        for value in [
            String::new(),
            format!("{GOOD}-"),
            format!("{GOOD} "),
            GOOD.replacen("00", "ff", 1),
            GOOD.to_uppercase(),
            GOOD.replace('4', "g"),
            GOOD.replacen('-', "_", 1),
            GOOD.replace("4bf92f3577b34da6a3ce929d0e0e4736", &"0".repeat(32)),
            GOOD.replace("00f067aa0ba902b7", &"0".repeat(16)),
            GOOD.get(..54).unwrap().to_owned(),
            "\u{e9}".repeat(55),
        ] {
            assert_eq!(TraceParent::parse(&value), None, "{value}");
        }
    }
}
