//! Weighted turns: a fixed order in which each endpoint stands as often as its weight says, spread
//! as evenly as the smooth weighted method of nginx spreads it.
//!
//! Tiers and what is available are left to `balance`. The one rule: a turn that falls on an endpoint
//! that is not ready passes to the next one in the order *and* moves the position along, so that the
//! endpoint after a dead one does not get its share.

use std::sync::atomic::{AtomicU64, Ordering};

/// The longest order that weights may ask for. Finer weights are rounded to it.
const MAX_SLOTS: u64 = 1024;

/// One round of turns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Schedule {
    slots: Vec<usize>,
}

impl Schedule {
    /// The order for endpoints of these weights, by index. Weights are divided by their greatest
    /// common divisor; when the sum is still over 1024 they are scaled down in proportion, each
    /// keeping at least one turn. Weight 0 gets no turn. With 1024 endpoints or more, all take one
    /// turn each.
    #[must_use]
    pub fn new(weights: &[u32]) -> Self {
        let members = weights.iter().enumerate().filter(|(_, weight)| **weight > 0);
        let (indices, weights): (Vec<usize>, Vec<u64>) =
            members.map(|(index, weight)| (index, u64::from(*weight))).unzip();
        let turns = scaled(&weights);
        Self { slots: smooth(&indices, &turns) }
    }

    /// One whole round, as endpoint indices.
    #[must_use]
    pub fn slots(&self) -> &[usize] {
        &self.slots
    }

    /// The next endpoint that is ready, beginning at `position`, which moves past it.
    pub(super) fn pick(
        &self,
        position: &AtomicU64,
        ready: &impl Fn(usize) -> bool,
    ) -> Option<usize> {
        let count = self.slots.len() as u64;
        let start = position.fetch_add(1, Ordering::Relaxed).checked_rem(count)?;
        let start = usize::try_from(start).unwrap_or_default();
        let (before, from) = self.slots.split_at_checked(start)?;
        let (skipped, found) =
            from.iter().chain(before).enumerate().find(|(_, index)| ready(**index))?;
        if skipped > 0 {
            position.fetch_add(skipped as u64, Ordering::Relaxed);
        }
        Some(*found)
    }
}

/// Turns in one round for each weight; none of the weights is zero.
fn scaled(weights: &[u64]) -> Vec<u64> {
    let divisor = weights.iter().copied().fold(0, gcd).max(1);
    let reduced: Vec<u64> = weights.iter().map(|weight| weight / divisor).collect();
    let total: u64 = reduced.iter().sum();
    if total <= MAX_SLOTS {
        return reduced;
    }
    if reduced.len() as u64 >= MAX_SLOTS {
        return vec![1; reduced.len()];
    }
    rounded(&reduced, total)
}

/// Scales to [`MAX_SLOTS`] by the largest remainders. `total` is above it.
fn rounded(weights: &[u64], total: u64) -> Vec<u64> {
    let exact = |weight: u64| (weight * MAX_SLOTS / total, weight * MAX_SLOTS % total);
    let mut turns: Vec<u64> = weights.iter().map(|weight| exact(*weight).0.max(1)).collect();
    let mut sum: u64 = turns.iter().sum();
    while sum > MAX_SLOTS {
        // The small ones were rounded up to one turn; the largest feels the loss least.
        if let Some(largest) = turns.iter_mut().max() {
            *largest -= 1;
        }
        sum -= 1;
    }
    let mut by_remainder: Vec<usize> = (0..weights.len()).collect();
    let remainder = |at: &usize| weights.get(*at).map_or(0, |weight| exact(*weight).1);
    by_remainder.sort_by_key(|at| std::cmp::Reverse(remainder(at)));
    for at in by_remainder {
        match turns.get_mut(at) {
            // A share below one turn was rounded up already.
            Some(turn) if sum < MAX_SLOTS && weights.get(at).is_some_and(|w| exact(*w).0 > 0) => {
                *turn += 1;
                sum += 1;
            }
            _ => {}
        }
    }
    turns
}

/// Each step every endpoint gains its turns as credit, and the richest pays a whole round to move.
fn smooth(indices: &[usize], turns: &[u64]) -> Vec<usize> {
    if turns.iter().all(|turn| *turn == 1) {
        return indices.to_vec();
    }
    let total: u64 = turns.iter().sum();
    let gains: Vec<i64> = turns.iter().map(|turn| i64::try_from(*turn).unwrap_or(1)).collect();
    let round = i64::try_from(total).unwrap_or(1);
    let mut credit = vec![0_i64; gains.len()];
    let mut slots = Vec::new();
    for _ in 0..total {
        let mut richest: Option<(&mut i64, usize)> = None;
        for ((credit, gain), index) in credit.iter_mut().zip(&gains).zip(indices) {
            *credit += gain;
            if richest.as_ref().is_none_or(|(most, _)| *credit > **most) {
                richest = Some((credit, *index));
            }
        }
        if let Some((credit, index)) = richest {
            *credit -= round;
            slots.push(index);
        }
    }
    slots
}

fn gcd(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { gcd(b, a % b) }
}

#[cfg(test)]
mod tests {
    use super::super::tests::Fake;
    use super::super::{Cell, Chooser, Draw, Policy};
    use super::*;

    #[test]
    fn the_order_interleaves() {
        assert_eq!(Schedule::new(&[5, 1, 1]).slots(), [0, 0, 1, 0, 2, 0, 0]);
        assert_eq!(Schedule::new(&[10, 10, 20]).slots().len(), 4);
        assert_eq!(Schedule::new(&[7, 7]).slots(), [0, 1]);
        assert_eq!(Schedule::new(&[0, 3, 0]).slots(), [1]);
        assert!(Schedule::new(&[]).slots().is_empty());
    }

    #[test]
    fn fine_weights_are_rounded() {
        let slots = Schedule::new(&[1_000_000, 1, 999_999]);
        let turns = |index| slots.slots().iter().filter(|slot| **slot == index).count();
        assert_eq!(slots.slots().len(), 1024);
        assert_eq!(turns(1), 1);
        assert!(turns(0).abs_diff(turns(2)) <= 1);
        let many = Schedule::new(&vec![u32::MAX; 2_000]);
        assert_eq!(many.slots().len(), 2_000);
        let mut uneven = vec![1; 1_000];
        uneven.push(u32::MAX);
        assert_eq!(Schedule::new(&uneven).slots().len(), 1024);
    }

    #[test]
    fn a_dead_endpoint_does_not_burden_its_neighbour() {
        let mut list = Fake::list(&[1, 1, 1]);
        list[1].available = false;
        let (cell, chooser) = (Cell::default(), Chooser::new(Policy::RoundRobin, &list, 0, None));
        let picks: Vec<_> =
            (0..6).filter_map(|_| chooser.pick(&cell, &list, &Draw::new(0))).collect();
        assert_eq!(picks, [0, 2, 0, 2, 0, 2]);
    }

    #[test]
    fn the_position_wraps() {
        let list = Fake::list(&[1, 1]);
        let cell = Cell { position: AtomicU64::new(u64::MAX) };
        let chooser = Chooser::new(Policy::RoundRobin, &list, 0, None);
        let picks: Vec<_> =
            (0..3).filter_map(|_| chooser.pick(&cell, &list, &Draw::new(0))).collect();
        assert_eq!(picks, [1, 0, 1]);
    }
}
