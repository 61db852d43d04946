//! Balancing: exact shares, even spreading, and tiers kept whatever is down.

use proptest::prelude::*;
use sluice_engine::balance::{Cell, Chooser, Endpoints, Policy, Schedule};

#[derive(Clone, Debug)]
struct One {
    weight: u32,
    in_flight: u32,
    backup: bool,
    available: bool,
}

#[derive(Clone, Debug)]
struct List(Vec<One>);

impl Endpoints for List {
    fn len(&self) -> usize {
        self.0.len()
    }
    fn weight(&self, index: usize) -> u32 {
        self.0[index].weight
    }
    fn in_flight(&self, index: usize) -> u32 {
        self.0[index].in_flight
    }
    fn backup(&self, index: usize) -> bool {
        self.0[index].backup
    }
    fn available(&self, index: usize) -> bool {
        self.0[index].available
    }
}

fn list(longest: usize) -> impl Strategy<Value = List> {
    let one = (0_u32..9, 0_u32..20, any::<bool>(), any::<bool>()).prop_map(
        |(weight, in_flight, backup, available)| One { weight, in_flight, backup, available },
    );
    proptest::collection::vec(one, 0..longest).prop_map(List)
}

fn idle(weights: &[u32]) -> List {
    let one = |weight| One { weight, in_flight: 0, backup: false, available: true };
    List(weights.iter().copied().map(one).collect())
}

fn count(picks: &[usize], index: usize) -> u64 {
    picks.iter().filter(|pick| **pick == index).count() as u64
}

proptest! {
    /// Over one round each endpoint has its share to the last pick, wherever the round begins.
    #[test]
    fn shares_follow_weights_exactly(
        weights in proptest::collection::vec(1_u32..40, 1..12),
        offset in 0_usize..100,
    ) {
        let list = idle(&weights);
        let (cell, chooser) = (Cell::default(), Chooser::new(Policy::RoundRobin, &list, 0));
        let next = || chooser.pick(&cell, &list, None, 0).unwrap();
        for _ in 0..offset {
            next();
        }
        let round = Schedule::new(&weights).slots().len() as u64;
        let picks: Vec<usize> = (0..round).map(|_| next()).collect();
        let total: u64 = weights.iter().map(|weight| u64::from(*weight)).sum();
        for (index, weight) in weights.iter().enumerate() {
            prop_assert_eq!(count(&picks, index) * total, u64::from(*weight) * round);
        }
    }

    /// Of two endpoints the heavier one never has a longer run of picks than its weight forces, not
    /// even where one round meets the next.
    #[test]
    fn two_endpoints_alternate_as_evenly_as_can_be(weights in proptest::array::uniform2(1_u32..99)) {
        let slots = Schedule::new(&weights).slots().repeat(2);
        for index in 0..2 {
            let longest = slots.split(|pick| *pick != index).map(<[usize]>::len).max();
            let needed = count(&slots, index).div_ceil(count(&slots, 1 - index));
            prop_assert!(longest.unwrap_or(0) as u64 <= needed, "{slots:?}");
        }
    }

    /// At every place in a round, nobody is a whole pick ahead of its ideal share, nor two behind.
    #[test]
    fn picks_are_spread(weights in proptest::collection::vec(1_u32..40, 2..10)) {
        let schedule = Schedule::new(&weights);
        let slots = schedule.slots();
        let round = slots.len() as u64;
        for index in 0..weights.len() {
            let own = count(slots, index);
            for length in 1..=slots.len() {
                let ideal = length as u64 * own;
                let got = count(&slots[..length], index) * round;
                prop_assert!(got < ideal + round && ideal < got + 2 * round, "{weights:?}");
            }
        }
    }

    #[test]
    fn a_round_is_never_longer_than_its_cap(
        weights in proptest::collection::vec(any::<u32>(), 1..60),
    ) {
        let schedule = Schedule::new(&weights);
        prop_assert!(schedule.slots().len() <= 1_024);
        for (index, weight) in weights.iter().enumerate() {
            prop_assert_eq!(schedule.slots().contains(&index), *weight > 0);
        }
    }

    /// The pick is always a member of the best tier that has anybody; `None` only when nobody is
    /// left at all.
    #[test]
    fn tiers_are_kept(
        list in list(40),
        avoid in proptest::option::of(0_usize..40),
        random in any::<u64>(),
        turns in 1_usize..10,
        least in any::<bool>(),
    ) {
        let policy = if least { Policy::LeastRequest } else { Policy::RoundRobin };
        let (cell, chooser) = (Cell::default(), Chooser::new(policy, &list, 0));
        let usable = |index: &usize| list.0[*index].available && list.0[*index].weight > 0;
        let tier = |backup: bool| -> Vec<usize> {
            let own = |index: &usize| list.0[*index].backup == backup && Some(*index) != avoid;
            (0..list.len()).filter(usable).filter(own).collect()
        };
        let last: Vec<usize> = avoid.into_iter().filter(|at| *at < list.len()).filter(usable).collect();
        let best = [tier(false), tier(true), last].into_iter().find(|tier| !tier.is_empty());
        for turn in 0..turns {
            let picked = chooser.pick(&cell, &list, avoid, random.wrapping_add(turn as u64));
            match (&best, picked) {
                (Some(best), Some(picked)) => prop_assert!(best.contains(&picked)),
                (None, None) => {}
                other => prop_assert!(false, "{other:?}"),
            }
        }
    }

    /// Whether somebody is picked who is not available follows from the counts alone, and then the pick
    /// is a primary.
    #[test]
    fn a_panic_follows_from_the_counts(
        list in list(30),
        percent in 0_u8..=100,
        random in any::<u64>(),
        least in any::<bool>(),
    ) {
        let policy = if least { Policy::LeastRequest } else { Policy::RoundRobin };
        let chooser = Chooser::new(policy, &list, percent);
        let members = || list.0.iter().filter(|one| one.weight > 0);
        let all = members().filter(|one| !one.backup).count();
        let up = members().filter(|one| !one.backup && one.available).count();
        let saved = members().any(|one| one.backup && one.available);
        let panic = !saved && up * 100 < all * usize::from(percent);
        prop_assert_eq!(chooser.panics(&list), panic);
        let picked = chooser.pick(&Cell::default(), &list, None, random).map(|at| &list.0[at]);
        match picked {
            Some(one) if panic => prop_assert!(!one.backup && one.weight > 0),
            Some(one) => prop_assert!(one.available && one.weight > 0),
            None => prop_assert!(!panic && up == 0 && !saved),
        }
    }

    /// In a short list nobody has a smaller load for its weight than the one picked.
    #[test]
    fn the_least_loaded_is_picked(list in list(16), random in any::<u64>()) {
        let (cell, chooser) = (Cell::default(), Chooser::new(Policy::LeastRequest, &list, 0));
        if let Some(picked) = chooser.pick(&cell, &list, None, random) {
            let picked = &list.0[picked];
            let load = |one: &One| f64::from(one.in_flight + 1) / f64::from(one.weight);
            let rivals = list.0.iter().filter(|one| {
                one.available && one.weight > 0 && one.backup == picked.backup
            });
            for rival in rivals {
                prop_assert!(load(picked) <= load(rival) + 1e-9);
            }
        }
    }
}
