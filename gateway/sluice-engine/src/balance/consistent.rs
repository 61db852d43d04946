//! Consistent hashing: a key belongs to an endpoint, the same on every instance and after every restart,
//! and stays there when others come or go.
//!
//! It is rendezvous hashing (Thaler and Ravishankar), weighted as Schindelhauer and Schomaker do: every
//! endpoint draws a number from its name and the key, and the best draw wins. Against a ring or Maglev's
//! table it has exact shares without thousands of points, moves the keys of the endpoint that left and no
//! others, and when somebody is out of use it needs no table anew: the second best draw wins, and two
//! instances that disagree about one endpoint agree about all keys of the others. It costs a few
//! nanoseconds for each endpoint, so it is for hundreds of them and not for tens of thousands.
//!
//! The one rule: what a draw is made of never changes, not with the list and not between versions.

use super::{Endpoints, WARM, mixed};

/// The endpoints of a tier, with what they draw from.
#[derive(Clone, Debug, Default)]
pub(super) struct Members {
    members: Vec<Member>,
    /// Whether all have the same weight, so that the best draw is the largest.
    equal: bool,
}

#[derive(Clone, Copy, Debug)]
struct Member {
    index: usize,
    name: u64,
    weight: u32,
}

impl Members {
    /// `indices` all have a weight.
    pub(super) fn new(indices: &[usize], endpoints: &dyn Endpoints) -> Self {
        let member = |index: &usize| Member {
            index: *index,
            name: endpoints.name(*index),
            weight: endpoints.weight(*index),
        };
        let members: Vec<Member> = indices.iter().map(member).collect();
        let equal = members.windows(2).all(|two| matches!(two, [a, b] if a.weight == b.weight));
        Self { members, equal }
    }

    /// The member that `key` belongs to among those that are ready. With `max_load`, who has more than so
    /// many percent of its share under way counts only when all others have too.
    pub(super) fn pick(
        &self,
        endpoints: &impl Endpoints,
        ready: &impl Fn(usize) -> bool,
        key: u64,
        max_load: Option<u32>,
    ) -> Option<usize> {
        match max_load {
            None => self.best(endpoints, ready, key),
            Some(percent) => {
                let bound = self.bound(endpoints, ready, percent);
                let within = |index: usize| ready(index) && bound.admits(endpoints, index);
                self.best(endpoints, &within, key).or_else(|| self.best(endpoints, ready, key))
            }
        }
    }

    fn best(
        &self,
        endpoints: &impl Endpoints,
        ready: &impl Fn(usize) -> bool,
        key: u64,
    ) -> Option<usize> {
        let ready = || self.members.iter().filter(|member| ready(member.index));
        if self.equal && ready().all(|member| endpoints.warmth(member.index) >= WARM) {
            return ready().max_by_key(|member| member.draw(key)).map(|member| member.index);
        }
        let mut best: Option<(f64, usize)> = None;
        for member in ready() {
            let score = member.score(key, endpoints.warmth(member.index));
            if best.is_none_or(|(least, _)| score < least) {
                best = Some((score, member.index));
            }
        }
        best.map(|(_, index)| index)
    }

    /// Bounded loads (Mirrokni, Thorup and Zadimoghaddam): the share of each in what is under way.
    fn bound(
        &self,
        endpoints: &impl Endpoints,
        ready: &impl Fn(usize) -> bool,
        percent: u32,
    ) -> Bound {
        let mut bound = Bound { percent, requests: 1, weights: 0 };
        for member in self.members.iter().filter(|member| ready(member.index)) {
            bound.requests += u64::from(endpoints.in_flight(member.index));
            bound.weights += u64::from(member.weight);
        }
        bound
    }
}

/// What all together have under way, the request being placed included.
struct Bound {
    percent: u32,
    requests: u64,
    weights: u64,
}

impl Bound {
    /// Whether one more is within the bound, rounded up.
    fn admits(&self, endpoints: &impl Endpoints, index: usize) -> bool {
        let own = u128::from(endpoints.in_flight(index)) * u128::from(self.weights) * 100;
        let share = u128::from(self.requests) * u128::from(endpoints.weight(index));
        own < share * u128::from(self.percent)
    }
}

impl Member {
    /// 53 bits, so that [`Member::score`] orders them alike.
    fn draw(&self, key: u64) -> u64 {
        mixed(self.name ^ key) >> 11
    }

    /// How long until an event that comes at a rate of the weight: the first one wins, each as likely as
    /// its weight says. Logarithms may differ in their last bit between machines, which matters to one
    /// key in 10^15.
    fn score(&self, key: u64, warmth: u32) -> f64 {
        #[expect(clippy::cast_precision_loss, reason = "53 bits fit")]
        let drawn = (self.draw(key) as f64 + 0.5) / (1_u64 << 53) as f64;
        -drawn.ln() / (f64::from(self.weight) * f64::from(warmth.max(1)))
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::Fake;
    use super::super::{Cell, Chooser, Draw, Policy, WARM, mixed};

    fn owners(list: &Vec<Fake>, max_load: Option<u32>) -> Vec<usize> {
        let (cell, chooser) = (Cell::default(), Chooser::new(Policy::Hash, list, 0, max_load));
        let draw = |at: u64| Draw { key: Some(mixed(at)), ..Draw::new(at) };
        (0..6_000).map(|at| chooser.pick(&cell, list, &draw(at)).unwrap()).collect()
    }

    fn count(owners: &[usize], index: usize) -> usize {
        owners.iter().filter(|owner| **owner == index).count()
    }

    /// These were printed once. If this fails, instances of two versions do not agree.
    #[test]
    fn the_order_never_changes() {
        let list = Fake::list(&[1, 1, 1, 1]);
        let mut weighted = list.clone();
        weighted[2].weight = 3;
        let first = |list: &Vec<Fake>| {
            owners(list, None)[..24].iter().map(ToString::to_string).collect::<String>()
        };
        assert_eq!(first(&list), "122003202302102133012301");
        assert_eq!(first(&weighted), "122203202322222233022302");
    }

    #[test]
    fn shares_follow_weights() {
        let owners = owners(&Fake::list(&[1, 2, 3]), None);
        for (index, wanted) in [(0, 1_000), (1, 2_000), (2, 3_000)] {
            assert!(count(&owners, index).abs_diff(wanted) < 150, "{index}");
        }
    }

    #[test]
    fn who_comes_back_slowly_takes_its_keys_step_by_step() {
        let mut list = Fake::list(&[1, 1, 1]);
        let whole = owners(&list, None);
        let mut before = 0;
        for warmth in [1, 100, 400, 800, WARM] {
            list[1].warmth = warmth;
            let now = owners(&list, None);
            for (now, whole) in now.iter().zip(&whole) {
                assert!(now == whole || *whole == 1, "a key of another has moved");
            }
            assert!(count(&now, 1) >= before);
            before = count(&now, 1);
        }
        assert_eq!(before, count(&whole, 1));
    }

    #[test]
    fn a_key_that_everybody_asks_for_does_not_crush_its_endpoint() {
        let mut list = Fake::list(&[1, 1, 1]);
        let (cell, chooser) = (Cell::default(), Chooser::new(Policy::Hash, &list, 0, Some(150)));
        let draw = Draw { key: Some(7), ..Draw::default() };
        for _ in 0..300 {
            let picked = chooser.pick(&cell, &list, &draw).unwrap();
            list[picked].in_flight += 1;
        }
        let most = list.iter().map(|one| one.in_flight).max();
        assert_eq!(most, Some(150), "half more than a third");
        list.iter_mut().for_each(|one| one.in_flight = 0);
        assert_eq!(owners(&list, Some(100)), owners(&list, None), "without load all are at home");
    }
}
