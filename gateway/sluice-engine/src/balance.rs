//! Choosing an endpoint: `rules × cell × view of the endpoints → index`.
//!
//! Health, breakers and connections are the caller's; they reach this file as
//! [`Endpoints::available`]. The one rule: a [`Chooser`] is asked about the very list it was made
//! from, in the same order, because it remembers indices.
//!
//! Endpoints come in three tiers, tried in this order: primaries, backups, and last the endpoint
//! that the caller wants to avoid because it has just failed. An endpoint of weight 0 is never
//! chosen.
//!
//! When too few primaries are available and no backup is, who is available counts no more: a share
//! of requests may fail, but those that are left are not crushed by the load of all (a *panic*).

mod least_request;
mod round_robin;

use std::cell::OnceCell;
use std::sync::atomic::AtomicU64;

pub use round_robin::Schedule;

/// The caller's view of its endpoints; indices run from 0 to `len`.
pub trait Endpoints {
    /// How many there are.
    fn len(&self) -> usize;
    /// The share of traffic in proportion to the others; 0 for none. Fixed when compiled.
    fn weight(&self, index: usize) -> u32;
    /// Requests under way right now.
    fn in_flight(&self, index: usize) -> u32;
    /// Whether it is kept for when no primary is available. Fixed when compiled.
    fn backup(&self, index: usize) -> bool;
    /// Whether it may be chosen right now.
    fn available(&self, index: usize) -> bool;
    /// Whether there are none.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// The way of choosing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Policy {
    /// In turn, each as often as its weight says.
    RoundRobin,
    /// The one with the fewest requests under way for its weight.
    LeastRequest,
}

/// The lasting position in the turn. Survives reloads with other endpoints.
#[derive(Debug, Default)]
pub struct Cell {
    position: AtomicU64,
}

/// The compiled way of choosing among one list of endpoints.
#[derive(Clone, Debug)]
pub struct Chooser {
    primaries: Tier,
    backups: Tier,
    /// Fewer available primaries than so many of 100 are too few.
    panic_percent: u8,
}

/// A tier compiled for its policy.
#[derive(Clone, Debug)]
enum Tier {
    RoundRobin(Schedule),
    LeastRequest(Vec<usize>),
}

impl Chooser {
    /// Compiles the weights and tiers of `endpoints`. When fewer than `panic_percent` of 100 primaries
    /// are available, all of them are used; 0 for never.
    #[must_use]
    pub fn new(policy: Policy, endpoints: &dyn Endpoints, panic_percent: u8) -> Self {
        Self {
            primaries: Tier::new(policy, endpoints, false),
            backups: Tier::new(policy, endpoints, true),
            panic_percent,
        }
    }

    /// Whether too few are available, so that all primaries are used.
    pub fn panics(&self, endpoints: &impl Endpoints) -> bool {
        if self.panic_percent == 0 {
            return false;
        }
        let (mut all, mut available) = (0_u64, 0_u64);
        for index in (0..endpoints.len()).filter(|index| endpoints.weight(*index) > 0) {
            match (endpoints.backup(index), endpoints.available(index)) {
                (true, true) => return false,
                (true, false) => {}
                (false, up) => {
                    all += 1;
                    available += u64::from(up);
                }
            }
        }
        available * 100 < all * u64::from(self.panic_percent)
    }

    /// Chooses an endpoint, or `None` when none is available.
    ///
    /// `avoid` is chosen only when nothing else is available. `random` is 64 random bits; only
    /// [`Policy::LeastRequest`] among many endpoints uses them.
    pub fn pick(
        &self,
        cell: &Cell,
        endpoints: &impl Endpoints,
        avoid: Option<usize>,
        random: u64,
    ) -> Option<usize> {
        // Asked only where somebody is not available, so that it costs nothing as long as all are.
        let panic = OnceCell::new();
        let usable = |index: usize| {
            endpoints.available(index)
                || !endpoints.backup(index) && *panic.get_or_init(|| self.panics(endpoints))
        };
        let ready = |index: usize| Some(index) != avoid && usable(index);
        self.primaries
            .pick(cell, endpoints, &ready, random)
            .or_else(|| self.backups.pick(cell, endpoints, &ready, random))
            .or_else(|| {
                avoid.filter(|index| {
                    *index < endpoints.len() && endpoints.weight(*index) > 0 && usable(*index)
                })
            })
    }
}

impl Tier {
    fn new(policy: Policy, endpoints: &dyn Endpoints, backup: bool) -> Self {
        let weight =
            |index| if endpoints.backup(index) == backup { endpoints.weight(index) } else { 0 };
        match policy {
            Policy::RoundRobin => {
                let weights: Vec<u32> = (0..endpoints.len()).map(weight).collect();
                Self::RoundRobin(Schedule::new(&weights))
            }
            Policy::LeastRequest => Self::LeastRequest(
                (0..endpoints.len()).filter(|index| weight(*index) > 0).collect(),
            ),
        }
    }

    fn pick(
        &self,
        cell: &Cell,
        endpoints: &impl Endpoints,
        ready: &impl Fn(usize) -> bool,
        random: u64,
    ) -> Option<usize> {
        match self {
            Self::RoundRobin(schedule) => schedule.pick(&cell.position, ready),
            Self::LeastRequest(members) => {
                least_request::pick(members, &cell.position, endpoints, ready, random)
            }
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Endpoints made of open fields.
    #[derive(Clone, Debug)]
    pub(crate) struct Fake {
        pub(crate) weight: u32,
        pub(crate) in_flight: u32,
        pub(crate) backup: bool,
        pub(crate) available: bool,
    }

    impl Fake {
        pub(crate) fn list(weights: &[u32]) -> Vec<Self> {
            let fake = |weight| Self { weight, in_flight: 0, backup: false, available: true };
            weights.iter().copied().map(fake).collect()
        }
    }

    impl Endpoints for Vec<Fake> {
        fn len(&self) -> usize {
            self.as_slice().len()
        }
        fn weight(&self, index: usize) -> u32 {
            self[index].weight
        }
        fn in_flight(&self, index: usize) -> u32 {
            self[index].in_flight
        }
        fn backup(&self, index: usize) -> bool {
            self[index].backup
        }
        fn available(&self, index: usize) -> bool {
            self[index].available
        }
    }

    const POLICIES: [Policy; 2] = [Policy::RoundRobin, Policy::LeastRequest];

    #[test]
    fn tiers_are_tried_in_order() {
        for policy in POLICIES {
            let mut list = Fake::list(&[1, 1, 1]);
            list[2].backup = true;
            let (cell, chooser) = (Cell::default(), Chooser::new(policy, &list, 0));
            for random in 0..20 {
                let picked = chooser.pick(&cell, &list, Some(0), random);
                assert_eq!(picked, Some(1), "{policy:?}");
            }
            list[1].available = false;
            assert_eq!(chooser.pick(&cell, &list, None, 7), Some(0));
            assert_eq!(chooser.pick(&cell, &list, Some(0), 7), Some(2));
            list[2].available = false;
            assert_eq!(chooser.pick(&cell, &list, Some(0), 7), Some(0));
            list[0].available = false;
            assert_eq!(chooser.pick(&cell, &list, Some(0), 7), None);
            assert_eq!(chooser.pick(&cell, &list, Some(99), 7), None);
        }
    }

    #[test]
    fn nothing_and_weightless_endpoints_are_never_chosen() {
        for policy in POLICIES {
            let none = Fake::list(&[]);
            assert!(none.is_empty());
            assert_eq!(
                Chooser::new(policy, &none, 50).pick(&Cell::default(), &none, None, 1),
                None
            );
            let drained = Fake::list(&[0, 0]);
            let chooser = Chooser::new(policy, &drained, 50);
            assert_eq!(chooser.pick(&Cell::default(), &drained, Some(1), 1), None);
        }
    }

    #[test]
    fn too_few_are_as_good_as_none_unless_a_backup_is_there() {
        for policy in POLICIES {
            let mut list = Fake::list(&[1, 1, 1, 0]);
            list.iter_mut().for_each(|one| one.available = false);
            let chooser = Chooser::new(policy, &list, 50);
            let picks = |list: &Vec<Fake>, avoid| {
                let cell = Cell::default();
                let picks = (0..30).filter_map(|random| chooser.pick(&cell, list, avoid, random));
                picks.collect::<std::collections::BTreeSet<usize>>()
            };
            assert_eq!(picks(&list, None), [0, 1, 2].into(), "{policy:?}");
            assert_eq!(picks(&list, Some(1)), [0, 2].into(), "{policy:?}");
            list[0].available = true;
            assert!(chooser.panics(&list));
            assert_eq!(picks(&list, None), [0, 1, 2].into(), "{policy:?}");
            list[1].available = true;
            assert!(!chooser.panics(&list));
            assert_eq!(picks(&list, None), [0, 1].into(), "{policy:?}");

            let mut list = Fake::list(&[1, 1]);
            list[0].available = false;
            list[1].backup = true;
            let chooser = Chooser::new(policy, &list, 50);
            assert_eq!(chooser.pick(&Cell::default(), &list, None, 1), Some(1));
            list[1].available = false;
            assert_eq!(chooser.pick(&Cell::default(), &list, None, 1), Some(0));
        }
    }
}
