//! What the gateway tells of itself: counters that each worker keeps for itself and the scrape adds
//! up ([`metrics`]), the access log ([`access`]), the gateway's
//! own log ([`journal`]), and the mask in front of both ([`privacy`]).

pub(crate) mod access;
pub(crate) mod apps;
pub(crate) mod families;
pub(crate) mod journal;
pub(crate) mod metrics;
pub(crate) mod privacy;
pub(crate) mod reasons;
