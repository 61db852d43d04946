//! Floor 5: a request's way. Read `pipeline` first.

pub(crate) mod admission;
mod batch;
pub(crate) mod builtin;
pub(crate) mod forward;
pub(crate) mod login;
pub(crate) mod lookup;
pub(crate) mod overload;
mod permit;
pub(crate) mod pipeline;
mod push;
pub(crate) mod record;
mod remaining;
pub(crate) mod survey;
mod target;
pub(crate) mod unattended;
pub(crate) mod worker;
