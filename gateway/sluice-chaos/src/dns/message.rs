//! DNS messages of RFC 1035 section 4, as far as addresses need them.
//!
//! The one rule: a name is bounded by its own lengths and by the message, and pointers in questions
//! are refused, so that reading always ends.

use std::net::IpAddr;

/// Asks for addresses of version 4.
pub const A: u16 = 1;
/// Asks for addresses of version 6 (RFC 3596).
pub const AAAA: u16 = 28;

pub(super) const NO_ERROR: u8 = 0;
pub(super) const SERV_FAIL: u8 = 2;
pub(super) const NX_DOMAIN: u8 = 3;

/// Queries are far shorter; EDNS allows them this.
pub(super) const LARGEST: usize = 4096;

const HEAD: usize = 12;
const LONGEST_NAME: usize = 255;
/// The class of the Internet.
const IN: u16 = 1;
/// Points to the name of the question, right behind the head.
const SAME_NAME: [u8; 2] = [0xc0, 12];

/// The first question of a query, with what a reply must repeat.
pub(super) struct Question {
    id: [u8; 2],
    /// Opcode and "recursion desired" of the query.
    flags: u8,
    /// Name, type and class as they came; a resolver may have mixed the case to test us.
    raw: Vec<u8>,
    pub(super) name: String,
    pub(super) kind: u16,
}

impl Question {
    pub(super) fn parse(message: &[u8]) -> Option<Self> {
        let (head, rest) = message.split_at_checked(HEAD)?;
        let [i0, i1, flags, _, q0, q1, ..] = *head else { return None };
        let is_query = flags & 0x80 == 0;
        if !is_query || [q0, q1] != [0, 1] {
            return None;
        }
        let (name, length) = read_name(rest)?;
        let raw = rest.get(..length + 4)?.to_vec();
        let [.., k0, k1, _, _] = *raw else { return None };
        let kind = u16::from_be_bytes([k0, k1]);
        Some(Self { id: [i0, i1], flags: flags & 0x79, raw, name, kind })
    }

    /// The reply with those of the addresses that were asked for.
    pub(super) fn reply(&self, code: u8, addresses: &[IpAddr], ttl: u32) -> Vec<u8> {
        let records: Vec<Vec<u8>> = addresses.iter().filter_map(|one| self.data(*one)).collect();
        let count = u16::try_from(records.len()).expect("a handful of addresses");
        let mut out = self.id.to_vec();
        // A response, authoritative; recursion is available.
        out.extend([0x84 | self.flags, 0x80 | code, 0, 1]);
        out.extend(count.to_be_bytes());
        out.extend([0; 4]);
        out.extend(&self.raw);
        for data in records {
            out.extend(SAME_NAME);
            out.extend(self.kind.to_be_bytes());
            out.extend(IN.to_be_bytes());
            out.extend(ttl.to_be_bytes());
            out.extend(u16::try_from(data.len()).expect("an address").to_be_bytes());
            out.extend(data);
        }
        out
    }

    fn data(&self, address: IpAddr) -> Option<Vec<u8>> {
        match (address, self.kind) {
            (IpAddr::V4(four), A) => Some(four.octets().to_vec()),
            (IpAddr::V6(six), AAAA) => Some(six.octets().to_vec()),
            _ => None,
        }
    }
}

/// A name and how many bytes it takes.
fn read_name(bytes: &[u8]) -> Option<(String, usize)> {
    let mut labels = Vec::new();
    let mut at = 0;
    loop {
        let length = usize::from(*bytes.get(at)?);
        if length == 0 {
            return Some((labels.join("."), at + 1));
        }
        // Longer ones are pointers.
        if length > 63 || at > LONGEST_NAME {
            return None;
        }
        let label = bytes.get(at + 1..at + 1 + length)?;
        labels.push(String::from_utf8_lossy(label).into_owned());
        at += 1 + length;
    }
}

#[cfg(test)]
pub(super) fn query(id: u16, name: &str, kind: u16) -> Vec<u8> {
    let mut out = id.to_be_bytes().to_vec();
    out.extend([1, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
    for label in name.split('.') {
        out.push(u8::try_from(label.len()).unwrap());
        out.extend(label.as_bytes());
    }
    out.push(0);
    out.extend(kind.to_be_bytes());
    out.extend(IN.to_be_bytes());
    out
}

/// The response code and the addresses with their time to live.
#[cfg(test)]
pub(super) fn read_reply(id: u16, reply: &[u8]) -> (u8, Vec<(IpAddr, u32)>) {
    assert_eq!(reply[..2], id.to_be_bytes());
    assert_eq!(reply[2], 0x85, "a response, authoritative, that was asked to recurse");
    let (_, length) = read_name(&reply[HEAD..]).unwrap();
    let mut rest = &reply[HEAD + length + 4..];
    let mut found = Vec::new();
    for _ in 0..reply[7] {
        assert_eq!(rest[..2], SAME_NAME);
        let ttl = u32::from_be_bytes(rest[6..10].try_into().unwrap());
        let data = &rest[12..12 + usize::from(rest[11])];
        let address = match <[u8; 4]>::try_from(data) {
            Ok(four) => IpAddr::from(four),
            Err(_) => IpAddr::from(<[u8; 16]>::try_from(data).unwrap()),
        };
        found.push((address, ttl));
        rest = &rest[12 + data.len()..];
    }
    assert!(rest.is_empty());
    (reply[3] & 0x0f, found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn odd_questions_are_refused() {
        let good = query(1, "a.b", A);
        assert!(Question::parse(&good).is_some());
        for length in 0..good.len() {
            assert!(Question::parse(&good[..length]).is_none(), "{length}");
        }
        let with = |at: usize, byte: u8| {
            let mut changed = good.clone();
            changed[at] = byte;
            Question::parse(&changed).is_none()
        };
        assert!(with(2, 0x81), "a response is not a question");
        assert!(with(5, 2), "two questions");
        assert!(with(HEAD, 0xc0), "a pointer");
    }
}
