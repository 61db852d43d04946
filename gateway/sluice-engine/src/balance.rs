//! Choosing an endpoint: `rules × cell × view of the endpoints → index`.
//!
//! Health, breakers and connections are the caller's; they reach this file as
//! [`Endpoints::available`]. The one rule: a [`Chooser`] is asked about the very list it was made
//! from, in the same order, because it remembers indices.
//!
//! Endpoints come in three tiers, tried in this order: primaries, backups, and last the endpoint
//! that the caller wants to avoid because it has just failed. An endpoint of weight 0 is never
//! chosen. A request that belongs to an endpoint goes there as long as it is ready and its tier's turn.
//!
//! When too few primaries are available and no backup is, who is available counts no more: a share
//! of requests may fail, but those that are left are not crushed by the load of all (a *panic*).

mod chance;
mod consistent;
mod latency;
mod lightest;
mod round_robin;
mod slow_start;

use std::cell::OnceCell;
use std::sync::atomic::AtomicU64;

use consistent::Members;
pub use latency::Latency;
use lightest::Load;
pub use round_robin::Schedule;
pub use slow_start::SlowStart;

/// The warmth of an endpoint that bears its whole weight.
pub const WARM: u32 = 1024;

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
    /// A hash of what it is called everywhere, for [`Policy::Hash`]. Fixed when compiled.
    fn name(&self, index: usize) -> u64;
    /// Nanoseconds that a request is expected to take; 0 where nobody knows. For [`Policy::Fastest`].
    fn latency(&self, _index: usize) -> u64 {
        0
    }
    /// How much of its weight it may bear, of [`WARM`]; at least 1.
    fn warmth(&self, _index: usize) -> u32 {
        WARM
    }
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
    /// The one where the requests under way take the least time.
    Fastest,
    /// Any, each as likely as its weight says.
    Random,
    /// The one that the request's key belongs to.
    Hash,
}

/// One request that wants an endpoint.
#[derive(Clone, Copy, Debug, Default)]
pub struct Draw {
    /// 64 random bits.
    pub random: u64,
    /// The hash of what keeps it together with others. A request that has one is given the endpoint
    /// its key belongs to.
    pub key: Option<u64>,
    /// The endpoint it belongs to, if that is known already.
    pub own: Option<usize>,
    /// Chosen only when nothing else is available.
    pub avoid: Option<usize>,
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
    /// How much more than its share, in percent, an endpoint may have under way of requests with keys.
    max_load: Option<u32>,
}

/// A tier compiled for its policy.
#[derive(Clone, Debug)]
struct Tier {
    order: Order,
    /// For requests with a key.
    members: Members,
}

#[derive(Clone, Debug)]
enum Order {
    RoundRobin(Schedule),
    LeastRequest(Vec<usize>),
    Fastest(Vec<usize>),
    Random(Vec<usize>),
    Hash,
}

impl Draw {
    /// A request without a key.
    #[must_use]
    pub fn new(random: u64) -> Self {
        Self { random, ..Self::default() }
    }
}

impl Chooser {
    /// Compiles the weights and tiers of `endpoints`. When fewer than `panic_percent` of 100 primaries
    /// are available, all of them are used; 0 for never. With `max_load`, requests with keys go to the
    /// next endpoint of their order when theirs has more than so many percent of its share under way.
    #[must_use]
    pub fn new(
        policy: Policy,
        endpoints: &dyn Endpoints,
        panic_percent: u8,
        max_load: Option<u32>,
    ) -> Self {
        Self {
            primaries: Tier::new(policy, endpoints, false),
            backups: Tier::new(policy, endpoints, true),
            panic_percent,
            max_load,
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
    pub fn pick(&self, cell: &Cell, endpoints: &impl Endpoints, draw: &Draw) -> Option<usize> {
        // Asked only where somebody is not available, so that it costs nothing as long as all are.
        let panic = OnceCell::new();
        let usable = |index: usize| {
            endpoints.available(index)
                || !endpoints.backup(index) && *panic.get_or_init(|| self.panics(endpoints))
        };
        let ready = |index: usize| Some(index) != draw.avoid && usable(index);
        let counts = |index: &usize| *index < endpoints.len() && endpoints.weight(*index) > 0;
        let own = |backup: bool| {
            let own = draw.own.filter(counts);
            own.filter(|index| endpoints.backup(*index) == backup && ready(*index))
        };
        own(false)
            .or_else(|| self.primaries.pick(cell, endpoints, &ready, draw, self.max_load))
            .or_else(|| own(true))
            .or_else(|| self.backups.pick(cell, endpoints, &ready, draw, self.max_load))
            .or_else(|| draw.avoid.filter(counts).filter(|index| usable(*index)))
    }
}

impl Tier {
    fn new(policy: Policy, endpoints: &dyn Endpoints, backup: bool) -> Self {
        let weight =
            |index| if endpoints.backup(index) == backup { endpoints.weight(index) } else { 0 };
        let members =
            || (0..endpoints.len()).filter(|index| weight(*index) > 0).collect::<Vec<usize>>();
        let order = match policy {
            Policy::RoundRobin => {
                let weights: Vec<u32> = (0..endpoints.len()).map(weight).collect();
                Order::RoundRobin(Schedule::new(&weights))
            }
            Policy::LeastRequest => Order::LeastRequest(members()),
            Policy::Fastest => Order::Fastest(members()),
            Policy::Random => Order::Random(members()),
            Policy::Hash => Order::Hash,
        };
        Self { order, members: Members::new(&members(), endpoints) }
    }

    fn pick(
        &self,
        cell: &Cell,
        endpoints: &impl Endpoints,
        ready: &impl Fn(usize) -> bool,
        draw: &Draw,
        max_load: Option<u32>,
    ) -> Option<usize> {
        let (position, random) = (&cell.position, draw.random);
        match (&self.order, draw.key) {
            (_, Some(key)) => self.members.pick(endpoints, ready, key, max_load),
            (Order::Hash, None) => self.members.pick(endpoints, ready, random, max_load),
            (Order::RoundRobin(schedule), None) => {
                // Who has just come lets a part of its turns pass, which the others take.
                let bears = |index: usize| chance::bears(endpoints, index, random);
                schedule
                    .pick(position, &|index| ready(index) && bears(index))
                    .or_else(|| schedule.pick(position, ready))
            }
            (Order::LeastRequest(members), None) => {
                let load = |index| Load::requests(endpoints, index);
                lightest::pick(members, position, &load, ready, random)
            }
            (Order::Fastest(members), None) => {
                let load = |index| Load::time(endpoints, index);
                lightest::pick(members, position, &load, ready, random)
            }
            (Order::Random(members), None) => chance::pick(members, endpoints, ready, random),
        }
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
pub(crate) mod tests {
    use super::*;

    /// Endpoints made of open fields.
    #[derive(Clone, Debug)]
    pub(crate) struct Fake {
        pub(crate) weight: u32,
        pub(crate) in_flight: u32,
        pub(crate) backup: bool,
        pub(crate) available: bool,
        pub(crate) latency: u64,
        pub(crate) warmth: u32,
    }

    impl Fake {
        pub(crate) fn list(weights: &[u32]) -> Vec<Self> {
            let fake = |weight| Self {
                weight,
                in_flight: 0,
                backup: false,
                available: true,
                latency: 0,
                warmth: WARM,
            };
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
        fn name(&self, index: usize) -> u64 {
            mixed(index as u64 ^ 0x5eed)
        }
        fn latency(&self, index: usize) -> u64 {
            self[index].latency
        }
        fn warmth(&self, index: usize) -> u32 {
            self[index].warmth
        }
    }

    const POLICIES: [Policy; 5] =
        [Policy::RoundRobin, Policy::LeastRequest, Policy::Fastest, Policy::Random, Policy::Hash];

    fn avoiding(avoid: usize, random: u64) -> Draw {
        Draw { avoid: Some(avoid), ..Draw::new(random) }
    }

    #[test]
    fn tiers_are_tried_in_order() {
        for policy in POLICIES {
            let mut list = Fake::list(&[1, 1, 1]);
            list[2].backup = true;
            let (cell, chooser) = (Cell::default(), Chooser::new(policy, &list, 0, None));
            for random in 0..20 {
                let picked = chooser.pick(&cell, &list, &avoiding(0, random));
                assert_eq!(picked, Some(1), "{policy:?}");
            }
            list[1].available = false;
            assert_eq!(chooser.pick(&cell, &list, &Draw::new(7)), Some(0));
            assert_eq!(chooser.pick(&cell, &list, &avoiding(0, 7)), Some(2));
            list[2].available = false;
            assert_eq!(chooser.pick(&cell, &list, &avoiding(0, 7)), Some(0));
            list[0].available = false;
            assert_eq!(chooser.pick(&cell, &list, &avoiding(0, 7)), None);
            assert_eq!(chooser.pick(&cell, &list, &avoiding(99, 7)), None);
        }
    }

    #[test]
    fn nothing_and_weightless_endpoints_are_never_chosen() {
        for policy in POLICIES {
            let none = Fake::list(&[]);
            assert!(none.is_empty());
            assert_eq!(
                Chooser::new(policy, &none, 50, None).pick(&Cell::default(), &none, &Draw::new(1)),
                None
            );
            let drained = Fake::list(&[0, 0]);
            let chooser = Chooser::new(policy, &drained, 50, None);
            assert_eq!(chooser.pick(&Cell::default(), &drained, &avoiding(1, 1)), None);
        }
    }

    #[test]
    fn too_few_are_as_good_as_none_unless_a_backup_is_there() {
        for policy in POLICIES {
            let mut list = Fake::list(&[1, 1, 1, 0]);
            list.iter_mut().for_each(|one| one.available = false);
            let chooser = Chooser::new(policy, &list, 50, None);
            let picks = |list: &Vec<Fake>, avoid| {
                let cell = Cell::default();
                let draw = |at: u64| Draw { avoid, ..Draw::new(mixed(at)) };
                let picks = (0..60).filter_map(|at| chooser.pick(&cell, list, &draw(at)));
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
            let chooser = Chooser::new(policy, &list, 50, None);
            assert_eq!(chooser.pick(&Cell::default(), &list, &Draw::new(1)), Some(1));
            list[1].available = false;
            assert_eq!(chooser.pick(&Cell::default(), &list, &Draw::new(1)), Some(0));
        }
    }

    #[test]
    fn a_request_goes_to_its_own_while_its_turn_lasts() {
        for policy in POLICIES {
            let mut list = Fake::list(&[1, 1, 1, 0]);
            list[2].backup = true;
            let (cell, chooser) = (Cell::default(), Chooser::new(policy, &list, 0, None));
            let pick = |list: &Vec<Fake>, own, avoid| {
                let draw = |at: u64| Draw { own: Some(own), avoid, ..Draw::new(mixed(at)) };
                let picks = (0..40).filter_map(|at| chooser.pick(&cell, list, &draw(at)));
                picks.collect::<std::collections::BTreeSet<usize>>()
            };
            assert_eq!(pick(&list, 1, None), [1].into(), "{policy:?}");
            assert_eq!(pick(&list, 1, Some(1)), [0].into(), "it has just failed");
            assert_eq!(pick(&list, 2, None), [0, 1].into(), "a backup while primaries are up");
            assert_eq!(pick(&list, 3, None), [0, 1].into(), "weight 0");
            assert_eq!(pick(&list, 99, None), [0, 1].into(), "gone");
            (list[0].available, list[1].available) = (false, false);
            assert_eq!(pick(&list, 2, None), [2].into());
            assert_eq!(pick(&list, 0, None), [2].into(), "down");
        }
    }
}
