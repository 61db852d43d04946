//! A set of endpoints at one moment, as the engine sees it when it chooses.

use sluice_engine::balance::{Endpoints, SlowStart, WARM};
use sluice_engine::breaker;

use super::Endpoint;
use crate::base::clock::Moment;

/// The set and the moment.
pub(super) struct View<'a> {
    pub(super) endpoints: &'a [Endpoint],
    pub(super) now: Moment,
    /// Whether ejections count.
    pub(super) ejects: bool,
    pub(super) slow_start: Option<&'a SlowStart>,
    /// The rules of the endpoints' breakers, if they have any.
    pub(super) breaker: Option<&'a breaker::Rules>,
}

impl Endpoints for View<'_> {
    fn len(&self) -> usize {
        self.endpoints.len()
    }

    fn weight(&self, index: usize) -> u32 {
        self.endpoints.get(index).map_or(0, |endpoint| endpoint.weight)
    }

    fn in_flight(&self, index: usize) -> u32 {
        self.endpoints.get(index).map_or(0, |endpoint| endpoint.target.in_flight())
    }

    fn backup(&self, index: usize) -> bool {
        self.endpoints.get(index).is_some_and(|endpoint| endpoint.backup)
    }

    fn available(&self, index: usize) -> bool {
        let Some(Endpoint { target, .. }) = self.endpoints.get(index) else { return false };
        let admits = |rules| target.breaker.would_admit(rules, self.now, fastrand::u64(..));
        target.is_up()
            && !(self.ejects && target.ejection.is_ejected(self.now))
            && self.breaker.is_none_or(admits)
    }

    fn name(&self, index: usize) -> u64 {
        self.endpoints.get(index).map_or(0, |endpoint| endpoint.name)
    }

    fn latency(&self, index: usize) -> u64 {
        self.endpoints.get(index).map_or(0, |endpoint| endpoint.target.latency.expected(self.now))
    }

    fn warmth(&self, index: usize) -> u32 {
        if self.slow_start.is_none() {
            return WARM;
        }
        self.endpoints.get(index).map_or(WARM, |endpoint| self.warmth_of(endpoint))
    }
}

impl View<'_> {
    /// How much of its weight an endpoint may bear, of [`WARM`].
    pub(super) fn warmth_of(&self, Endpoint { target, .. }: &Endpoint) -> u32 {
        let Some(rules) = self.slow_start else { return WARM };
        let ejected = self.ejects.then(|| target.ejection.ended(self.now)).flatten();
        match target.came_back().max(ejected) {
            Some(since) => rules.warmth(self.now.saturating_since(since)),
            None => WARM,
        }
    }
}
