//! PROXY headers: what is written is read, in whatever pieces it comes, and nothing else passes.

use std::net::{IpAddr, SocketAddr};

use proptest::prelude::*;
use sluice_engine::proxy_protocol::{Carried, MAX, Read, read};

fn ends() -> impl Strategy<Value = Carried> {
    let four = (any::<[u8; 4]>(), any::<[u8; 4]>()).prop_map(|(a, b)| (a.into(), b.into()));
    let six = (any::<[u8; 16]>(), any::<[u8; 16]>()).prop_map(|(a, b)| (a.into(), b.into()));
    let ips = prop_oneof![four, six];
    (ips, any::<u16>(), any::<u16>()).prop_map(
        |((from, to), port, own): ((IpAddr, IpAddr), _, _)| Carried {
            source: SocketAddr::new(from, port),
            destination: SocketAddr::new(to, own),
        },
    )
}

fn line(ends: &Carried) -> Vec<u8> {
    let Carried { source, destination } = ends;
    let family = if source.is_ipv4() { 4 } else { 6 };
    let (from, to) = (source.ip(), destination.ip());
    format!("PROXY TCP{family} {from} {to} {} {}\r\n", source.port(), destination.port())
        .into_bytes()
}

fn binary(ends: &Carried, extensions: &[(u8, Vec<u8>)]) -> Vec<u8> {
    let Carried { source, destination } = ends;
    let octets = |ip: IpAddr| match ip {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    };
    let mut rest = [octets(source.ip()), octets(destination.ip())].concat();
    rest.extend(source.port().to_be_bytes());
    rest.extend(destination.port().to_be_bytes());
    for (kind, value) in extensions {
        rest.push(*kind);
        rest.extend(u16::try_from(value.len()).unwrap().to_be_bytes());
        rest.extend(value);
    }
    let family = if source.is_ipv4() { 0x11 } else { 0x21 };
    let mut bytes = b"\r\n\r\n\0\r\nQUIT\n\x21".to_vec();
    bytes.push(family);
    bytes.extend(u16::try_from(rest.len()).unwrap().to_be_bytes());
    bytes.extend(rest);
    bytes
}

fn extensions() -> impl Strategy<Value = Vec<(u8, Vec<u8>)>> {
    // 3 is a checksum, which has a test of its own.
    let kind = any::<u8>().prop_filter("a checksum", |kind| *kind != 3);
    prop::collection::vec((kind, prop::collection::vec(any::<u8>(), 0..40)), 0..5)
}

fn header() -> impl Strategy<Value = (Vec<u8>, Carried)> {
    prop_oneof![
        ends().prop_map(|ends| (line(&ends), ends)),
        (ends(), extensions()).prop_map(|(ends, more)| (binary(&ends, &more), ends)),
    ]
}

/// The verdict on a stream that is read byte by byte.
fn in_pieces(bytes: &[u8]) -> Read {
    (0..=bytes.len())
        .map(|cut| read(&bytes[..cut]))
        .find(|told| *told != Read::More)
        .unwrap_or(Read::More)
}

proptest! {
    #[test]
    fn what_is_written_is_read((bytes, ends) in header(), behind in any::<Vec<u8>>()) {
        let expected = Read::Header { length: bytes.len(), carried: Some(ends) };
        prop_assert_eq!(read(&[&bytes[..], &behind].concat()), expected);
        prop_assert_eq!(in_pieces(&bytes), expected);
    }

    #[test]
    fn a_verdict_never_changes_with_what_follows(
        (mut bytes, _) in header(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
        behind in prop::collection::vec(any::<u8>(), 0..200),
    ) {
        for (at, byte) in changes {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        bytes.extend(behind);
        let whole = read(&bytes);
        let pieces = in_pieces(&bytes);
        prop_assert_eq!(whole, pieces);
        if let Read::Header { length, .. } = whole {
            prop_assert!(length <= bytes.len());
            prop_assert_eq!(read(&bytes[..length]), whole);
        }
    }

    #[test]
    fn any_bytes_are_judged(start in prop::sample::select(vec![&b""[..], b"PROXY ", b"\r\n\r\n\0\r\nQUIT\n!"]),
        bytes in prop::collection::vec(any::<u8>(), MAX..MAX + 10),
    ) {
        prop_assert_ne!(read(&[start, &bytes].concat()), Read::More);
    }
}
