//! Numbers that grow with time and differ between gateways: 41 bits of milliseconds since 2020, 10
//! bits of node, 12 bits of sequence (the layout Twitter published as Snowflake).

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::UNIX_EPOCH;

use crate::base::clock;

/// 2020-01-01T00:00:00Z in milliseconds since 1970.
const EPOCH: u64 = 1_577_836_800_000;
const SEQUENCE_BITS: u32 = 12;
const NODE_BITS: u32 = 10;

/// One gateway's source of numbers.
#[derive(Debug)]
pub(super) struct Node {
    node: u64,
    /// Time and sequence of the last number, as one integer.
    last: AtomicU64,
}

impl Node {
    /// A node number is drawn at start: two gateways share one with a probability of 1 in 1,024,
    /// and then still differ unless they count alike within the same millisecond.
    pub(super) fn new() -> Self {
        Self { node: fastrand::u64(..1 << NODE_BITS), last: AtomicU64::new(0) }
    }

    pub(super) fn next(&self) -> u64 {
        let millis = clock::wall()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(0));
        self.after(millis.saturating_sub(EPOCH) << SEQUENCE_BITS)
    }

    /// The next number not below `floor`: a clock that jumps back does not repeat numbers, and a
    /// sequence that runs over borrows from the next millisecond.
    fn after(&self, floor: u64) -> u64 {
        let previous = self
            .last
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |last| Some(floor.max(last + 1)))
            .unwrap_or(floor);
        let ticket = floor.max(previous + 1);
        let (time, sequence) = (ticket >> SEQUENCE_BITS, ticket & ((1 << SEQUENCE_BITS) - 1));
        ((time << (NODE_BITS + SEQUENCE_BITS)) | (self.node << SEQUENCE_BITS) | sequence)
            & (u64::MAX >> 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_grow_even_when_the_clock_does_not() {
        let node = Node::new();
        let mut last = 0;
        for floor in [5 << 12, 5 << 12, 4 << 12, 6 << 12] {
            let next = node.after(floor);
            assert!(next > last);
            last = next;
        }
        let burst: std::collections::BTreeSet<u64> = (0..10_000).map(|_| node.next()).collect();
        assert_eq!(burst.len(), 10_000);
    }
}
