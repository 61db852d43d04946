//! What the breakers of endpoints have to say when one is chosen. An open one votes its endpoint out, as a
//! health check and an ejection do; but unlike those it holds even when most endpoints are out and all of
//! them are chosen from.

use super::{Endpoint, EndpointSet};
use crate::base::clock::Moment;

impl EndpointSet {
    /// Whether the breaker of an endpoint would not let a request through.
    pub(crate) fn is_tripped(&self, endpoint: &Endpoint, now: Moment) -> bool {
        self.breaker.as_ref().is_some_and(|rules| {
            !endpoint.target.breaker.would_admit(rules, now, fastrand::u64(..))
        })
    }

    /// Who could be asked where the breaker of `refusing` does not let a request through: first those
    /// that are up, then the rest.
    pub(crate) fn others(&self, refusing: usize, now: Moment) -> impl Iterator<Item = usize> {
        let usable = move |index: &usize| {
            let endpoint = self.endpoints.get(*index);
            *index != refusing
                && endpoint.is_some_and(|it| it.weight > 0 && !self.is_tripped(it, now))
        };
        let up = move |index: &usize| {
            let endpoint = self.endpoints.get(*index);
            endpoint.is_some_and(|it| it.target.is_up() && !self.is_ejected(it, now))
        };
        let all = 0..self.endpoints.len();
        let (first, rest) = (all.clone().filter(up), all.filter(move |index| !up(index)));
        first.chain(rest).filter(usable)
    }
}
