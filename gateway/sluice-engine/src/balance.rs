//! Choosing an endpoint: `rules × cell × view of the endpoints → index`.
//!
//! Health, breakers and connections are the caller's; they reach this file as
//! [`Endpoints::available`]. The one rule: a [`Chooser`] is asked about the very list it was made
//! from, in the same order, because it remembers indices.
//!
//! Endpoints come in three tiers, tried in this order: primaries, backups, and last the endpoint
//! that the caller wants to avoid because it has just failed. An endpoint of weight 0 is never
//! chosen.

mod least_request;
mod round_robin;

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
}

/// A tier compiled for its policy.
#[derive(Clone, Debug)]
enum Tier {
    RoundRobin(Schedule),
    LeastRequest(Vec<usize>),
}

impl Chooser {
    /// Compiles the weights and tiers of `endpoints`.
    #[must_use]
    pub fn new(policy: Policy, endpoints: &dyn Endpoints) -> Self {
        Self {
            primaries: Tier::new(policy, endpoints, false),
            backups: Tier::new(policy, endpoints, true),
        }
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
        let ready = |index: usize| Some(index) != avoid && endpoints.available(index);
        self.primaries
            .pick(cell, endpoints, &ready, random)
            .or_else(|| self.backups.pick(cell, endpoints, &ready, random))
            .or_else(|| avoid.filter(|index| usable(endpoints, *index)))
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

fn usable(endpoints: &impl Endpoints, index: usize) -> bool {
    index < endpoints.len() && endpoints.weight(index) > 0 && endpoints.available(index)
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
            let (cell, chooser) = (Cell::default(), Chooser::new(policy, &list));
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
            assert_eq!(Chooser::new(policy, &none).pick(&Cell::default(), &none, None, 1), None);
            let drained = Fake::list(&[0, 0]);
            let chooser = Chooser::new(policy, &drained);
            assert_eq!(chooser.pick(&Cell::default(), &drained, Some(1), 1), None);
        }
    }
}
