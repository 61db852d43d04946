//! The endpoint with the smallest load: by a full scan of a short list, by two random candidates of a
//! long one (Mitzenmacher, "The Power of Two Choices in Randomized Load Balancing").
//!
//! Tiers are left to `balance`. The one rule: loads are fractions, compared by multiplying crosswise, so
//! that the comparison is exact. What is burdened is `in flight + 1`: the one added is the request being
//! placed. For the fastest it is counted in the time that each request takes there.

use std::cmp::Ordering as Order;
use std::sync::atomic::{AtomicU64, Ordering};

use super::{Endpoints, below, mixed};

/// Up to this many endpoints are all looked at.
const SCAN_LIMIT: usize = 16;
/// How often chance is asked for a ready candidate before the list is walked instead.
const DRAWS: u32 = 8;

/// The member to use, or `None` when none is ready. `members` all have a weight.
pub(super) fn pick(
    members: &[usize],
    position: &AtomicU64,
    load: &impl Fn(usize) -> Load,
    ready: &impl Fn(usize) -> bool,
    random: u64,
) -> Option<usize> {
    if members.len() <= SCAN_LIMIT {
        scan(members, position, load, ready)
    } else {
        two_choices(members, load, ready, random)
    }
}

/// Collects all that share the least load and takes them in turn. The turn goes over the tied ones
/// only; a turn over all members would favour whoever stands behind a busy or dead one.
fn scan(
    members: &[usize],
    position: &AtomicU64,
    load: &impl Fn(usize) -> Load,
    ready: &impl Fn(usize) -> bool,
) -> Option<usize> {
    let mut tied = [0_usize; SCAN_LIMIT];
    let mut count = 0;
    let mut least = None;
    for index in members.iter().copied().filter(|index| ready(*index)) {
        let own = load(index);
        match least.map_or(Order::Less, |least| own.cmp(&least)) {
            Order::Greater => continue,
            Order::Less => {
                least = Some(own);
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
    load: &impl Fn(usize) -> Load,
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
            Some(first) => return Some(lighter(load, first, drawn)),
        }
    }
    // Few are ready. Walk from a random place, for at most one more candidate than chance gave.
    let (before, from) = members.split_at_checked(below(bits, members.len()))?;
    let mut walk = from.iter().chain(before).copied();
    let mut next = || walk.find(|index| ready(*index));
    let first = first.or_else(&mut next)?;
    match walk.find(|index| *index != first && ready(*index)) {
        Some(second) => Some(lighter(load, first, second)),
        None => Some(first),
    }
}

fn lighter(load: &impl Fn(usize) -> Load, first: usize, second: usize) -> usize {
    match load(second).cmp(&load(first)) {
        Order::Less => second,
        _ => first,
    }
}

/// A load as a fraction that is read from the endpoints once. Two 64-bit numbers, so that a product is one
/// multiplication.
#[derive(Clone, Copy)]
pub(super) struct Load {
    burden: u64,
    weight: u64,
}

/// More requests than this, and longer ones, all count alike, so that their product has 64 bits.
const MAX_REQUESTS: u64 = (1 << 24) - 1;
/// 18 minutes.
const MAX_NANOS: u64 = (1 << 40) - 1;

impl Load {
    /// Requests, each as good as any other.
    pub(super) fn requests(endpoints: &impl Endpoints, index: usize) -> Self {
        let burden = u64::from(endpoints.in_flight(index)) + 1;
        Self { burden, weight: weight(endpoints, index) }
    }

    /// Requests, each as long as they take here.
    pub(super) fn time(endpoints: &impl Endpoints, index: usize) -> Self {
        let requests = u64::from(endpoints.in_flight(index)) + 1;
        let burden = requests.min(MAX_REQUESTS) * endpoints.latency(index).min(MAX_NANOS);
        Self { burden, weight: weight(endpoints, index) }
    }

    fn cmp(&self, other: &Self) -> Order {
        let product = |one: u64, other: u64| u128::from(one) * u128::from(other);
        product(self.burden, other.weight).cmp(&product(other.burden, self.weight))
    }
}

fn weight(endpoints: &impl Endpoints, index: usize) -> u64 {
    u64::from(endpoints.weight(index)) * u64::from(endpoints.warmth(index))
}

#[cfg(test)]
mod tests {
    use super::super::tests::Fake;
    use super::super::{Cell, Chooser, Draw, Policy, WARM};

    fn picks(list: &Vec<Fake>, count: u64) -> Vec<usize> {
        let (cell, chooser) = (Cell::default(), Chooser::new(Policy::LeastRequest, list, 0, None));
        (0..count).filter_map(|random| chooser.pick(&cell, list, &Draw::new(random))).collect()
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
    fn the_fastest_is_the_one_whose_queue_takes_least_time() {
        let mut list = Fake::list(&[1, 1]);
        (list[0].latency, list[1].latency) = (2_000_000, 20_000_000);
        let (cell, chooser) = (Cell::default(), Chooser::new(Policy::Fastest, &list, 0, None));
        let pick = |list: &mut Vec<Fake>| {
            let picked = chooser.pick(&cell, list, &Draw::new(0)).unwrap();
            list[picked].in_flight += 1;
            picked
        };
        // Ten requests wait as long at the fast one as one does at the slow one.
        assert!((0..9).all(|_| pick(&mut list) == 0));
        assert!([0, 1].contains(&pick(&mut list)));
        assert_eq!(list[0].in_flight + list[1].in_flight, 10);
        assert!((0..11).map(|_| pick(&mut list)).any(|picked| picked == 1));
    }

    #[test]
    fn who_has_just_come_bears_less() {
        let mut list = Fake::list(&[1, 1]);
        list[0].warmth = WARM / 10;
        (list[0].in_flight, list[1].in_flight) = (0, 8);
        assert_eq!(picks(&list, 1), [1]);
        list[1].in_flight = 10;
        assert_eq!(picks(&list, 1), [0]);
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
