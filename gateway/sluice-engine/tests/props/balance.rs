//! Balancing: exact shares, even spreading, and tiers kept whatever is down.

use proptest::prelude::*;
use sluice_engine::balance::{Cell, Chooser, Draw, Endpoints, Policy, Schedule, WARM};

#[derive(Clone, Debug)]
struct One {
    weight: u32,
    in_flight: u32,
    backup: bool,
    available: bool,
    latency: u64,
    warmth: u32,
    name: u64,
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
    fn name(&self, index: usize) -> u64 {
        self.0[index].name
    }
    fn latency(&self, index: usize) -> u64 {
        self.0[index].latency
    }
    fn warmth(&self, index: usize) -> u32 {
        self.0[index].warmth
    }
}

fn list(longest: usize) -> impl Strategy<Value = List> {
    let rates = (any::<u64>(), prop_oneof![Just(WARM), 1..=WARM], any::<u64>());
    let one = (0_u32..9, 0_u32..20, any::<bool>(), any::<bool>(), rates).prop_map(
        |(weight, in_flight, backup, available, (latency, warmth, name))| One {
            weight,
            in_flight,
            backup,
            available,
            latency,
            warmth,
            name,
        },
    );
    proptest::collection::vec(one, 0..longest).prop_map(List)
}

fn idle(weights: &[u32]) -> List {
    let one = |(index, weight): (usize, &u32)| One {
        weight: *weight,
        in_flight: 0,
        backup: false,
        available: true,
        latency: 0,
        warmth: WARM,
        name: (index as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15),
    };
    List(weights.iter().enumerate().map(one).collect())
}

fn policy() -> impl Strategy<Value = Policy> {
    prop_oneof![
        Just(Policy::RoundRobin),
        Just(Policy::LeastRequest),
        Just(Policy::Fastest),
        Just(Policy::Random),
        Just(Policy::Hash),
    ]
}

/// Who owns each of a thousand keys.
fn owners(list: &List) -> Vec<Option<usize>> {
    let (cell, chooser) = (Cell::default(), Chooser::new(Policy::Hash, list, 0, None));
    let key = |at: u64| Draw { key: Some(at.wrapping_mul(0xd134_2543_de82_ef95)), ..Draw::new(at) };
    (0..1_000).map(|at| chooser.pick(&cell, list, &key(at))).collect()
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
        let (cell, chooser) = (Cell::default(), Chooser::new(Policy::RoundRobin, &list, 0, None));
        let next = || chooser.pick(&cell, &list, &Draw::new(0)).unwrap();
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
        policy in policy(),
        key in proptest::option::of(any::<u64>()),
    ) {
        let (cell, chooser) = (Cell::default(), Chooser::new(policy, &list, 0, None));
        let usable = |index: &usize| list.0[*index].available && list.0[*index].weight > 0;
        let tier = |backup: bool| -> Vec<usize> {
            let own = |index: &usize| list.0[*index].backup == backup && Some(*index) != avoid;
            (0..list.len()).filter(usable).filter(own).collect()
        };
        let last: Vec<usize> = avoid.into_iter().filter(|at| *at < list.len()).filter(usable).collect();
        let best = [tier(false), tier(true), last].into_iter().find(|tier| !tier.is_empty());
        for turn in 0..turns {
            let picked = chooser.pick(&cell, &list, &Draw { avoid, key, ..Draw::new(random.wrapping_add(turn as u64)) });
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
        policy in policy(),
        key in proptest::option::of(any::<u64>()),
    ) {
        let chooser = Chooser::new(policy, &list, percent, None);
        let members = || list.0.iter().filter(|one| one.weight > 0);
        let all = members().filter(|one| !one.backup).count();
        let up = members().filter(|one| !one.backup && one.available).count();
        let saved = members().any(|one| one.backup && one.available);
        let panic = !saved && up * 100 < all * usize::from(percent);
        prop_assert_eq!(chooser.panics(&list), panic);
        let picked = chooser.pick(&Cell::default(), &list, &Draw { key, ..Draw::new(random) }).map(|at| &list.0[at]);
        match picked {
            Some(one) if panic => prop_assert!(!one.backup && one.weight > 0),
            Some(one) => prop_assert!(one.available && one.weight > 0),
            None => prop_assert!(!panic && up == 0 && !saved),
        }
    }

    /// In a short list nobody has a smaller load for its weight than the one picked.
    #[test]
    fn the_least_loaded_is_picked(list in list(16), random in any::<u64>()) {
        let (cell, chooser) = (Cell::default(), Chooser::new(Policy::LeastRequest, &list, 0, None));
        if let Some(picked) = chooser.pick(&cell, &list, &Draw::new(random)) {
            let picked = &list.0[picked];
            let load = |one: &One| f64::from(one.in_flight + 1) / f64::from(one.weight) / f64::from(one.warmth);
            let rivals = list.0.iter().filter(|one| {
                one.available && one.weight > 0 && one.backup == picked.backup
            });
            for rival in rivals {
                prop_assert!(load(picked) <= load(rival) * (1.0 + 1e-9));
            }
        }
    }

    /// When an endpoint goes, its keys move and no others, whatever the weights; in whatever order the
    /// others stand, since every instance may list them in its own.
    #[test]
    fn only_the_keys_of_who_goes_move(
        weights in proptest::collection::vec(1_u32..5, 2..12),
        gone in any::<prop::sample::Index>(),
        turn in any::<prop::sample::Index>(),
    ) {
        let list = idle(&weights);
        let gone = gone.index(weights.len());
        let before = owners(&list);
        let mut down = list.clone();
        down.0[gone].available = false;
        for (before, after) in before.iter().zip(owners(&down)) {
            prop_assert!(*before == after || *before == Some(gone));
        }
        // Out of the list altogether, and the list turned round.
        let mut left = list.clone();
        left.0.remove(gone);
        let turn = turn.index(left.0.len());
        left.0.rotate_left(turn);
        let named = |list: &List, owner: Option<usize>| owner.map(|index| list.0[index].name);
        for (before, after) in owners(&down).into_iter().zip(owners(&left)) {
            prop_assert_eq!(named(&down, before), named(&left, after));
        }
    }

    /// Each endpoint's share of the keys is its share of the weights, within what chance allows.
    #[test]
    fn keys_are_shared_by_weight(weights in proptest::collection::vec(1_u32..5, 1..9)) {
        let owners = owners(&idle(&weights));
        let total: u32 = weights.iter().sum();
        for (index, weight) in weights.iter().enumerate() {
            let got = owners.iter().filter(|owner| **owner == Some(index)).count() as f64;
            let share = f64::from(*weight) / f64::from(total);
            let deviation = (1_000.0 * share * (1.0 - share)).sqrt();
            prop_assert!((got - 1_000.0 * share).abs() <= 6.0 * deviation + 1.0, "{got} of {share}");
        }
    }

    /// With bounded loads nobody is given more than the bound, rounded up.
    #[test]
    fn loads_with_keys_are_bounded(
        weights in proptest::collection::vec(1_u32..5, 1..9),
        keys in proptest::collection::vec(0_u64..4, 1..200),
        percent in 100_u32..300,
    ) {
        let mut list = idle(&weights);
        let (cell, chooser) = (Cell::default(), Chooser::new(Policy::Hash, &list, 0, Some(percent)));
        let total: u64 = weights.iter().map(|weight| u64::from(*weight)).sum();
        for (placed, key) in keys.into_iter().enumerate() {
            let draw = Draw { key: Some(key), ..Draw::default() };
            let picked = chooser.pick(&cell, &list, &draw).unwrap();
            list.0[picked].in_flight += 1;
            let requests = placed as u64 + 1;
            let bound = (requests * u64::from(list.0[picked].weight) * u64::from(percent))
                .div_ceil(100 * total);
            prop_assert!(u64::from(list.0[picked].in_flight) <= bound);
        }
    }
}
