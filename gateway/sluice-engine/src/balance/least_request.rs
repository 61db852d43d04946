//! The least loaded endpoint: by a full scan of a short list, by two random candidates of a long
//! one (Mitzenmacher, "The Power of Two Choices in Randomized Load Balancing").
//!
//! Tiers are left to `balance`. The one rule: load is `(in flight + 1) / weight`, compared by
//! multiplying crosswise, so that it is exact. The one added is the request being placed.

use std::cmp::Ordering as Order;
use std::sync::atomic::{AtomicU64, Ordering};

use super::Endpoints;

/// Up to this many endpoints are all looked at.
const SCAN_LIMIT: usize = 16;
/// How often chance is asked for a ready candidate before the list is walked instead.
const DRAWS: u32 = 8;

/// The member to use, or `None` when none is ready. `members` all have a weight.
pub(super) fn pick(
    members: &[usize],
    position: &AtomicU64,
    endpoints: &impl Endpoints,
    ready: &impl Fn(usize) -> bool,
    random: u64,
) -> Option<usize> {
    if members.len() <= SCAN_LIMIT {
        scan(members, position, endpoints, ready)
    } else {
        two_choices(members, endpoints, ready, random)
    }
}

/// Collects all that share the least load and takes them in turn. The turn goes over the tied ones
/// only; a turn over all members would favour whoever stands behind a busy or dead one.
fn scan(
    members: &[usize],
    position: &AtomicU64,
    endpoints: &impl Endpoints,
    ready: &impl Fn(usize) -> bool,
) -> Option<usize> {
    let mut tied = [0_usize; SCAN_LIMIT];
    let mut count = 0;
    let mut least = None;
    for index in members.iter().copied().filter(|index| ready(*index)) {
        let load = Load::of(endpoints, index);
        match least.map_or(Order::Less, |least| load.cmp(&least)) {
            Order::Greater => continue,
            Order::Less => {
                least = Some(load);
                count = 0;
            }
            Order::Equal => {}
        }
        if let Some(slot) = tied.get_mut(count) {
            *slot = index;
            count += 1;
        }
    }
    if count < 2 {
        return tied.get(..count)?.first().copied();
    }
    let turn = position.fetch_add(1, Ordering::Relaxed) % count as u64;
    tied.get(usize::try_from(turn).unwrap_or_default()).copied()
}

fn two_choices(
    members: &[usize],
    endpoints: &impl Endpoints,
    ready: &impl Fn(usize) -> bool,
    random: u64,
) -> Option<usize> {
    let mut first = None;
    let mut bits = random;
    for _ in 0..DRAWS {
        bits = mixed(bits);
        let drawn = members.get(below(bits, members.len())).copied();
        let Some(drawn) = drawn.filter(|index| Some(*index) != first && ready(*index)) else {
            continue;
        };
        match first {
            None => first = Some(drawn),
            Some(first) => return Some(lighter(endpoints, first, drawn)),
        }
    }
    // Few are ready. Walk from a random place, for at most one more candidate than chance gave.
    let (before, from) = members.split_at_checked(below(bits, members.len()))?;
    let mut walk = from.iter().chain(before).copied();
    let mut next = || walk.find(|index| ready(*index));
    let first = first.or_else(&mut next)?;
    match walk.find(|index| *index != first && ready(*index)) {
        Some(second) => Some(lighter(endpoints, first, second)),
        None => Some(first),
    }
}

fn lighter(endpoints: &impl Endpoints, first: usize, second: usize) -> usize {
    match Load::of(endpoints, second).cmp(&Load::of(endpoints, first)) {
        Order::Less => second,
        _ => first,
    }
}

/// A load as a fraction that is read from the endpoints once.
#[derive(Clone, Copy)]
struct Load {
    requests: u64,
    weight: u64,
}

impl Load {
    fn of(endpoints: &impl Endpoints, index: usize) -> Self {
        Self {
            requests: u64::from(endpoints.in_flight(index)) + 1,
            weight: u64::from(endpoints.weight(index)),
        }
    }

    fn cmp(&self, other: &Self) -> Order {
        // Both factors fit 33 bits at most, so the products need 65.
        let (left, right) = (u128::from(self.requests), u128::from(other.requests));
        (left * u128::from(other.weight)).cmp(&(right * u128::from(self.weight)))
    }
}

/// A number below `len` (which is not zero) out of the upper bits.
fn below(bits: u64, len: usize) -> usize {
    let scaled = (u128::from(bits) * len as u128) >> 64;
    usize::try_from(scaled).unwrap_or_default()
}

/// The next of a series of well-spread numbers (the finisher of Steele's SplitMix64).
const fn mixed(bits: u64) -> u64 {
    let bits = bits.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}

#[cfg(test)]
mod tests {
    use super::super::tests::Fake;
    use super::super::{Cell, Chooser, Policy};

    fn picks(list: &Vec<Fake>, count: u64) -> Vec<usize> {
        let (cell, chooser) = (Cell::default(), Chooser::new(Policy::LeastRequest, list, 0));
        (0..count).filter_map(|random| chooser.pick(&cell, list, None, random)).collect()
    }

    #[test]
    fn the_least_loaded_for_its_weight_is_chosen() {
        let mut list = Fake::list(&[1, 1, 4]);
        list[0].in_flight = 2;
        list[1].in_flight = 1;
        list[2].in_flight = 6;
        assert_eq!(picks(&list, 2), [2, 2]);
        list[2].in_flight = 8;
        assert_eq!(picks(&list, 2), [1, 1]);
    }

    #[test]
    fn ties_take_turns_without_burdening_a_neighbour() {
        let mut list = Fake::list(&[1, 1, 1]);
        list[1].available = false;
        assert_eq!(picks(&list, 4), [0, 2, 0, 2]);
    }

    #[test]
    fn the_extremes_compare() {
        let mut list = Fake::list(&[u32::MAX, 1]);
        list[0].in_flight = u32::MAX;
        assert_eq!(picks(&list, 1), [1]);
    }

    #[test]
    fn two_choices_reach_everybody_and_prefer_the_idle() {
        let mut list = Fake::list(&[1; 40]);
        for busy in &mut list[..20] {
            busy.in_flight = 9;
        }
        let picks = picks(&list, 4_000);
        assert_eq!(picks.len(), 4_000);
        let idle = picks.iter().filter(|index| **index >= 20).count();
        assert!((2_800..3_200).contains(&idle), "three of four draws see an idle one: {idle}");
        for index in 0..40 {
            assert!(picks.contains(&index), "{index}");
        }
    }

    #[test]
    fn two_choices_find_the_only_one() {
        let mut list = Fake::list(&[1; 100]);
        for fake in &mut list {
            fake.available = false;
        }
        assert!(picks(&list, 50).is_empty());
        list[37].available = true;
        assert_eq!(picks(&list, 50), [37; 50]);
        list[38].available = true;
        list[37].in_flight = 1;
        assert_eq!(picks(&list, 50), [38; 50]);
    }
}
