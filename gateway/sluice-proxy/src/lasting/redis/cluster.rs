//! Which node of a cluster holds a key: the slots, who has them, and what nodes say about keys that they do
//! not have.
//!
//! Source: the Redis cluster specification.

use super::address::Address;
use super::resp::Reply;

const SLOTS: u16 = 16_384;
/// Ranges that are believed; a cluster has hundreds when it is very fragmented.
const RANGES: usize = 16_384;

/// Who has which slots.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Slots {
    /// First slot, last slot, node; in order.
    ranges: Vec<(u16, u16, Address)>,
}

/// What a node says of a key that it does not have.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Elsewhere {
    /// Another one has it.
    Moved(Address),
    /// It is being moved: this once the other one has to be asked.
    Ask(Address),
}

impl Slots {
    /// Reads the reply to `CLUSTER SLOTS` of a node.
    pub(super) fn read(reply: &Reply, asked: &Address) -> Option<Self> {
        let mut ranges = Vec::new();
        for range in reply.items().iter().take(RANGES) {
            let [first, last, master, ..] = range.items() else { return None };
            let [host, port, ..] = master.items() else { return None };
            let slot = |reply: &Reply| reply.number().and_then(|n| u16::try_from(n).ok());
            let text = format!("{}:{}", host.text().unwrap_or_default(), port.number()?);
            ranges.push((slot(first)?, slot(last)?, Address::told(&text, asked)?));
        }
        ranges.sort_unstable_by_key(|&(first, ..)| first);
        (!ranges.is_empty()).then_some(Self { ranges })
    }

    /// Who has a slot, as far as is known.
    pub(super) fn node(&self, slot: u16) -> Option<&Address> {
        let after = self.ranges.partition_point(|&(first, ..)| first <= slot);
        let (_, last, node) = self.ranges.get(after.checked_sub(1)?)?;
        (slot <= *last).then_some(node)
    }

    /// The nodes that have slots; one that has several ranges comes several times.
    pub(super) fn nodes(&self) -> impl Iterator<Item = &Address> {
        self.ranges.iter().map(|(.., node)| node)
    }
}

impl Elsewhere {
    /// Reads an error.
    pub(super) fn read(error: &str, asked: &Address) -> Option<Self> {
        let mut words = error.split(' ');
        let (kind, _slot, node) = (words.next()?, words.next()?, words.next()?);
        let node = Address::told(node, asked)?;
        match kind {
            "MOVED" => Some(Self::Moved(node)),
            "ASK" => Some(Self::Ask(node)),
            _ => None,
        }
    }
}

/// The slot of a key: of what stands in its first braces, if something does.
pub(super) fn slot(key: &[u8]) -> u16 {
    let tag = memchr::memchr(b'{', key)
        .and_then(|open| key.get(open + 1..))
        .and_then(|rest| rest.get(..memchr::memchr(b'}', rest)?))
        .filter(|tag| !tag.is_empty());
    crc16(tag.unwrap_or(key)) % SLOTS
}

/// CRC-16/XMODEM.
fn crc16(bytes: &[u8]) -> u16 {
    bytes.iter().fold(0, |crc: u16, &byte| {
        (0..8).fold(crc ^ (u16::from(byte) << 8), |crc, _| {
            let shifted = crc << 1;
            if crc & 0x8000 == 0 { shifted } else { shifted ^ 0x1021 }
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(port: u16) -> Address {
        Address::Tcp("127.0.0.1".to_owned(), port)
    }

    /// The examples of the specification.
    #[test]
    fn slots_are_those_of_the_specification() {
        assert_eq!(crc16(b"123456789"), 0x31c3);
        assert_eq!(slot(b"{user1000}.following"), slot(b"{user1000}.followers"));
        assert_eq!(slot(b"foo{}{bar}"), crc16(b"foo{}{bar}") % SLOTS);
        assert_eq!(slot(b"foo{{bar}}zap"), crc16(b"{bar") % SLOTS);
        assert_eq!(slot(b"foo{bar}{zap}"), slot(b"bar"));
    }

    #[test]
    fn a_table_of_slots_is_read_and_asked() {
        let range = |first, last, host: &str, port| {
            let (host, id) = (Reply::Text(host.into()), Reply::Text(b"id".to_vec()));
            let master = Reply::Items(vec![host, Reply::Number(port), id]);
            Reply::Items(vec![Reply::Number(first), Reply::Number(last), master.clone(), master])
        };
        let reply = Reply::Items(vec![
            range(5_461, 10_922, "127.0.0.1", 7_001),
            range(0, 5_460, "", 7_000),
            range(11_000, 16_383, "127.0.0.1", 7_002),
        ]);
        let slots = Slots::read(&reply, &node(1)).unwrap();
        assert_eq!(slots.node(0), Some(&node(7_000)));
        assert_eq!(slots.node(5_460), Some(&node(7_000)));
        assert_eq!(slots.node(5_461), Some(&node(7_001)));
        assert_eq!(slots.node(10_999), None, "nobody has it");
        assert_eq!(slots.node(16_383), Some(&node(7_002)));
        assert_eq!(slots.nodes().count(), 3);
        for odd in [Reply::Nothing, Reply::Items(vec![]), Reply::Items(vec![Reply::Number(1)])] {
            assert_eq!(Slots::read(&odd, &node(1)), None);
        }
    }

    #[test]
    fn errors_tell_where_else_to_ask() {
        let asked = node(1);
        let moved = Elsewhere::read("MOVED 3999 127.0.0.1:7001", &asked);
        assert_eq!(moved, Some(Elsewhere::Moved(node(7_001))));
        assert_eq!(Elsewhere::read("ASK 3999 :7001", &asked), Some(Elsewhere::Ask(node(7_001))));
        for other in ["CLUSTERDOWN The cluster is down", "MOVED 3999", "ERR a b:1"] {
            assert_eq!(Elsewhere::read(other, &asked), None, "{other}");
        }
    }
}
