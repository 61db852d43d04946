//! HTTP/1.1 on the wire, as far as it needs no sockets and no header map.
//!
//! | module | decides |
//! |---|---|
//! | [`chunked`] | which bytes of a chunked body are body |
//! | [`request_head`] | where a request's head ends, what follows it, and whether it may pass |
//!
//! The one rule: what two readers could read differently is refused, not repaired.

pub mod chunked;
pub mod request_head;
