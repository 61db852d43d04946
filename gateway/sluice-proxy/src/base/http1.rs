//! The exchange with a service over HTTP/1.1: our own client side of the protocol, run in the task of
//! the request it serves. Nothing is handed between tasks, a request's head is written straight from
//! its parts, and it is known for certain whether a byte of an answer was seen.
//!
//! It is strict: an answer that two readers could read differently is an error (RFC 9112 section 6.3
//! and `docs/decisions/0005-own-upstream-codec.md`). Choosing, keeping and counting connections is
//! left to the pool. The one rule: a connection is used again only when [`Exchange::is_clean`] says so.

mod answer;
mod exchange;
mod incoming;
mod outgoing;
mod sending;
mod stream;

pub(crate) use exchange::{Exchange, Failure, Lost};
pub(crate) use incoming::Incoming;
pub(crate) use outgoing::{Added, Head};
pub(crate) use stream::Stream;
