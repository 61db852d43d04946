//! What the gateway tells of itself: counters that each worker keeps for itself and the scrape adds
//! up ([`metrics`]), and the access log ([`access`]) behind its mask ([`privacy`]).

pub(crate) mod access;
pub(crate) mod families;
pub(crate) mod metrics;
pub(crate) mod privacy;
