//! Floor 2: what outlives a reload. Cells hold observations only; their rules come with each snapshot.

pub(crate) mod broker;
pub(crate) mod bulkhead;
pub(crate) mod decisions;
pub(crate) mod fetch;
pub(crate) mod limits;
pub(crate) mod link;
pub(crate) mod login;
pub(crate) mod nonces;
pub(crate) mod places;
pub(crate) mod pool;
pub(crate) mod redis;
pub(crate) mod resolver;
pub(crate) mod retained;
pub(crate) mod revocations;
pub(crate) mod tasks;
pub(crate) mod telemetry;
pub(crate) mod vault;
