//! The header by which a proxy in front tells, before anything else, whose connection it passes on: the
//! PROXY protocol, versions 1 and 2 (haproxy.org, `proxy-protocol.txt`, 2020/03/05).
//!
//! Whether the sender may say so is for the caller to judge. The one rule: a header is read whole or not
//! at all, and the verdict on some bytes never changes with the bytes that follow.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// Longest header that is read, bytes: what version 2 needs for addresses, and some for its extensions.
pub const MAX: usize = 16 + MAX_REST;
/// Longest header of version 1, its line end included (section 2.1).
const MAX_LINE: usize = 107;
/// What may follow the fixed part of version 2.
const MAX_REST: usize = 2_048;
const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
const WORD: &[u8; 6] = b"PROXY ";
/// The extension that holds a CRC-32C of the header (section 2.2.3).
const CRC32C: u8 = 0x03;

/// What the first bytes of a connection are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Read {
    /// The beginning of a header.
    More,
    /// A whole header of `length` bytes.
    Header {
        /// How many bytes to take from the stream.
        length: usize,
        /// Whose connection this is; nothing where the sender speaks for itself, or of something that
        /// is no TCP connection: then the connection's own address counts.
        carried: Option<Carried>,
    },
    /// No header at all.
    Missing,
    /// A header that breaks the rules, and which.
    Malformed(&'static str),
}

/// The two ends of the connection that is passed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Carried {
    /// The client.
    pub source: SocketAddr,
    /// The address it connected to.
    pub destination: SocketAddr,
}

/// Reads a header from the first bytes of a connection. With [`MAX`] bytes the answer is never
/// [`Read::More`].
#[must_use]
pub fn read(bytes: &[u8]) -> Read {
    if begins(bytes, SIGNATURE) {
        binary(bytes)
    } else if begins(bytes, WORD) {
        line(bytes)
    } else {
        Read::Missing
    }
}

/// Whether bytes begin with a word, or are the beginning of it.
fn begins(bytes: &[u8], word: &[u8]) -> bool {
    bytes.iter().zip(word).all(|(byte, wanted)| byte == wanted)
}

// === Version 1 ===

fn line(bytes: &[u8]) -> Read {
    let seen = bytes.get(..MAX_LINE).unwrap_or(bytes);
    let is_text = |byte: &u8| byte.is_ascii_graphic() || *byte == b' ';
    let end = seen.iter().position(|byte| !is_text(byte)).unwrap_or(seen.len());
    let (text, after) = seen.split_at_checked(end).unwrap_or((seen, &[]));
    match after {
        [b'\r', b'\n', ..] => {}
        [] | [b'\r'] if seen.len() < MAX_LINE => return Read::More,
        [] | [b'\r'] => return Read::Malformed("a line without end"),
        _ => return Read::Malformed("a line that does not end in CR LF"),
    }
    let text = std::str::from_utf8(text).unwrap_or_default();
    let mut words = text.split(' ').skip(1);
    let carried = match words.next() {
        // Whatever follows is to be ignored.
        Some("UNKNOWN") => None,
        Some("TCP4") => match ends::<Ipv4Addr>(words) {
            Some(carried) => Some(carried),
            None => return Read::Malformed("addresses of TCP4"),
        },
        Some("TCP6") => match ends::<Ipv6Addr>(words) {
            Some(carried) => Some(carried),
            None => return Read::Malformed("addresses of TCP6"),
        },
        _ => return Read::Malformed("an unknown protocol"),
    };
    Read::Header { length: end + 2, carried }
}

fn ends<'a, A>(mut words: impl Iterator<Item = &'a str>) -> Option<Carried>
where
    A: std::str::FromStr + Into<IpAddr>,
{
    let source: A = words.next()?.parse().ok()?;
    let destination: A = words.next()?.parse().ok()?;
    let carried = Carried {
        source: SocketAddr::new(source.into(), port(words.next()?)?),
        destination: SocketAddr::new(destination.into(), port(words.next()?)?),
    };
    words.next().is_none().then_some(carried)
}

/// Decimal digits without leading zeros.
fn port(text: &str) -> Option<u16> {
    let plain = text.bytes().all(|byte| byte.is_ascii_digit());
    let short = text == "0" || !text.starts_with('0');
    (plain && short).then(|| text.parse().ok()).flatten()
}

// === Version 2 ===

fn binary(bytes: &[u8]) -> Read {
    let Some((fixed, rest)) = bytes.split_first_chunk::<16>() else { return Read::More };
    let [.., command, family, high, low] = *fixed;
    let rest_length = usize::from(u16::from_be_bytes([high, low]));
    if command >> 4 != 2 {
        return Read::Malformed("a version that is not 2");
    }
    if rest_length > MAX_REST {
        return Read::Malformed("a header that is too long");
    }
    let length = fixed.len() + rest_length;
    let (Some(rest), Some(whole)) = (rest.get(..rest_length), bytes.get(..length)) else {
        return Read::More;
    };
    let carried = match command & 0x0f {
        // The sender's own connection, such as a health check: nothing in it is to be believed.
        0 => Ok(None),
        1 => addresses(family, rest).and_then(|(carried, extensions)| {
            extensions_are_whole(whole, extensions).map(|()| carried)
        }),
        _ => Err("an unknown command"),
    };
    match carried {
        Ok(carried) => Read::Header { length, carried },
        Err(why) => Read::Malformed(why),
    }
}

/// The addresses and what follows them.
fn addresses(family: u8, rest: &[u8]) -> Result<(Option<Carried>, &[u8]), &'static str> {
    const SHORT: &str = "addresses that are cut short";
    match (family >> 4, family & 0x0f) {
        (0, 0..=2) | (1..=3, 0) => Ok((None, &[])),
        (1, protocol @ 1..=2) => {
            let (block, extensions) = rest.split_first_chunk::<12>().ok_or(SHORT)?;
            let [a, b, c, d, e, f, g, h, ports @ ..] = *block;
            let (from, to) = (Ipv4Addr::new(a, b, c, d), Ipv4Addr::new(e, f, g, h));
            Ok((tcp(protocol, from.into(), to.into(), ports), extensions))
        }
        (2, protocol @ 1..=2) => {
            let (from, more) = rest.split_first_chunk::<16>().ok_or(SHORT)?;
            let (to, more) = more.split_first_chunk::<16>().ok_or(SHORT)?;
            let (ports, extensions) = more.split_first_chunk::<4>().ok_or(SHORT)?;
            let (from, to) = (Ipv6Addr::from(*from), Ipv6Addr::from(*to));
            Ok((tcp(protocol, from.into(), to.into(), *ports), extensions))
        }
        (3, 1..=2) => {
            let (_, extensions) = rest.split_first_chunk::<216>().ok_or(SHORT)?;
            Ok((None, extensions))
        }
        _ => Err("an unknown family of addresses"),
    }
}

/// Datagrams are passed on by no connection of ours.
fn tcp(protocol: u8, from: IpAddr, to: IpAddr, ports: [u8; 4]) -> Option<Carried> {
    let [a, b, c, d] = ports;
    (protocol == 1).then(|| Carried {
        source: SocketAddr::new(from, u16::from_be_bytes([a, b])),
        destination: SocketAddr::new(to, u16::from_be_bytes([c, d])),
    })
}

/// Passes over the extensions, and compares the checksum if there is one.
fn extensions_are_whole(whole: &[u8], mut left: &[u8]) -> Result<(), &'static str> {
    const CUT: &str = "an extension that is cut short";
    while !left.is_empty() {
        let (&[kind, high, low], value) = left.split_first_chunk::<3>().ok_or(CUT)?;
        let length = usize::from(u16::from_be_bytes([high, low]));
        let (value, more) = value.split_at_checked(length).ok_or(CUT)?;
        if kind == CRC32C {
            let told = <[u8; 4]>::try_from(value).map_err(|_| CUT)?;
            // Taken over the header with zeros in its own place, which ends where the rest begins.
            let at = whole.len() - more.len() - told.len();
            let (before, after) = (whole.get(..at), whole.get(at + told.len()..));
            let parts = [before.unwrap_or(&[]), &[0; 4], after.unwrap_or(&[])];
            if crc32c(parts.iter().flat_map(|part| part.iter())) != u32::from_be_bytes(told) {
                return Err("a checksum that is wrong");
            }
        }
        left = more;
    }
    Ok(())
}

/// CRC-32C (RFC 3720 appendix B.4), bit by bit: it is asked for once in a connection, if at all.
fn crc32c<'a>(bytes: impl Iterator<Item = &'a u8>) -> u32 {
    !bytes.fold(!0, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| {
            if crc & 1 == 1 { (crc >> 1) ^ 0x82f6_3b78 } else { crc >> 1 }
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn carried(source: &str, destination: &str) -> Option<Carried> {
        Some(Carried { source: source.parse().unwrap(), destination: destination.parse().unwrap() })
    }

    fn second(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
        let length = u16::try_from(rest.len()).unwrap().to_be_bytes();
        [&SIGNATURE[..], &[command, family], &length, rest].concat()
    }

    const FOUR: [u8; 12] = [192, 0, 2, 1, 198, 51, 100, 2, 0xdb, 0xba, 0x01, 0xbb];

    #[test]
    fn lines_are_read() {
        for (line, expected) in [
            (
                "TCP4 192.0.2.1 198.51.100.2 56250 443",
                carried("192.0.2.1:56250", "198.51.100.2:443"),
            ),
            ("TCP6 2001:db8::1 ::1 0 65535", carried("[2001:db8::1]:0", "[::1]:65535")),
            ("UNKNOWN", None),
            ("UNKNOWN ffff:: 1 and so on", None),
        ] {
            let bytes = format!("PROXY {line}\r\n");
            let length = bytes.len();
            let header = Read::Header { length, carried: expected };
            assert_eq!(read(format!("{bytes}GET / HTTP").as_bytes()), header, "{line}");
            for cut in 0..length {
                assert_eq!(read(&bytes.as_bytes()[..cut]), Read::More, "{line} cut at {cut}");
            }
        }
    }

    #[test]
    fn lines_that_are_none_are_refused() {
        for line in [
            "TCP4 192.0.2.1 198.51.100.2 56250 443 \r\n",
            "TCP4 192.0.2.1  198.51.100.2 56250 443\r\n",
            "TCP4 192.0.2.1 198.51.100.2 56250\r\n",
            "TCP4 192.0.2.1 198.51.100.2 056250 443\r\n",
            "TCP4 192.0.2.1 198.51.100.2 +1 443\r\n",
            "TCP4 192.0.2.1 198.51.100.2 65536 443\r\n",
            "TCP4 192.0.2.01 198.51.100.2 1 443\r\n",
            "TCP4 ::1 ::1 1 443\r\n",
            "TCP6 192.0.2.1 198.51.100.2 1 443\r\n",
            "TCP4 192.0.2.1 198.51.100.2 1 443\n",
            "UDP4 192.0.2.1 198.51.100.2 1 443\r\n",
            "unknown\r\n",
            "\r\n",
            "UNKNOWN\rX",
            "UNKNOWN\0",
        ] {
            let told = read(format!("PROXY {line}").as_bytes());
            assert!(matches!(told, Read::Malformed(_)), "{line:?}: {told:?}");
        }
        let long = format!("PROXY UNKNOWN {}", "x".repeat(200));
        assert_eq!(read(long.as_bytes()), Read::Malformed("a line without end"));
        assert_eq!(read(&long.as_bytes()[..106]), Read::More);
        let longest = format!("PROXY UNKNOWN {}\r\n", "x".repeat(91));
        assert_eq!(read(longest.as_bytes()), Read::Header { length: 107, carried: None });
    }

    #[test]
    fn what_begins_otherwise_has_none() {
        for bytes in
            ["GET / HTTP/1.1\r\n", "PRI * HTTP/2.0", "proxy tcp4", "\x16\x03\x01", "\r\n\r\nG"]
        {
            assert_eq!(read(bytes.as_bytes()), Read::Missing, "{bytes:?}");
        }
        assert_eq!(read(b""), Read::More);
        // HTTP/2's preface parts from version 1 at its third byte only.
        assert_eq!(read(b"PR"), Read::More);
    }

    #[test]
    fn binary_headers_are_read() {
        let six = [&[0x20, 1, 0xd, 0xb8][..], &[0; 11], &[1], &[0; 15], &[1], &[0, 80, 1, 187]];
        let six = six.concat();
        let extended = [&FOUR[..], &[0x04, 0, 2, 9, 9], &[0xe0, 0, 0]].concat();
        let unix = [0; 216];
        for (command, family, rest, expected) in [
            (0x21, 0x11, &FOUR[..], carried("192.0.2.1:56250", "198.51.100.2:443")),
            (0x21, 0x21, &six, carried("[2001:db8::1]:80", "[::1]:443")),
            (0x21, 0x11, &extended, carried("192.0.2.1:56250", "198.51.100.2:443")),
            (0x21, 0x12, &FOUR, None),
            (0x21, 0x31, &unix, None),
            (0x21, 0x00, &[], None),
            (0x21, 0x00, &FOUR, None),
            (0x20, 0x00, &[], None),
            (0x20, 0x11, &FOUR, None),
            (0x20, 0xff, b"anything", None),
        ] {
            let bytes = second(command, family, rest);
            let header = Read::Header { length: bytes.len(), carried: expected };
            assert_eq!(read(&[&bytes, &b"\x16\x03"[..]].concat()), header);
            for cut in 0..bytes.len() {
                assert_eq!(read(&bytes[..cut]), Read::More, "{command:x} {family:x} cut at {cut}");
            }
        }
    }

    #[test]
    fn binary_headers_that_are_none_are_refused() {
        let cut = [&FOUR[..], &[4, 0, 2, 9]].concat();
        for (command, family, rest) in [
            (0x11, 0x11, &FOUR[..]),
            (0x31, 0x11, &FOUR),
            (0x22, 0x11, &FOUR),
            (0x21, 0x13, &FOUR),
            (0x21, 0x41, &FOUR),
            (0x21, 0x11, &FOUR[..11]),
            (0x21, 0x21, &FOUR),
            (0x21, 0x31, &FOUR),
            (0x21, 0x11, &cut),
        ] {
            let told = read(&second(command, family, rest));
            assert!(matches!(told, Read::Malformed(_)), "{command:x} {family:x}: {told:?}");
        }
        let long = second(0x21, 0x11, &[0; MAX_REST + 1]);
        assert_eq!(read(&long[..16]), Read::Malformed("a header that is too long"));
    }

    #[test]
    fn checksums_are_compared() {
        // "123456789", as every catalogue of checksums has it.
        assert_eq!(crc32c(b"123456789".iter()), 0xe306_9283);
        let with = |crc: u32| {
            let rest = [&FOUR[..], &[CRC32C, 0, 4], &crc.to_be_bytes(), &[4, 0, 1, 7]].concat();
            second(0x21, 0x11, &rest)
        };
        let right = crc32c(with(0).iter());
        let length = with(0).len();
        let expected = carried("192.0.2.1:56250", "198.51.100.2:443");
        assert_eq!(read(&with(right)), Read::Header { length, carried: expected });
        assert_eq!(read(&with(!right)), Read::Malformed("a checksum that is wrong"));
    }
}
