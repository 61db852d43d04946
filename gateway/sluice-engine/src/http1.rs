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

/// The largest length HTTP libraries can count to.
const MAX_LENGTH: u64 = u64::MAX - 2;

/// A `Content-Length`: digits and nothing else, no sign and no list (RFC 9110 section 8.6).
#[must_use]
pub fn content_length(value: &[u8]) -> Option<u64> {
    if !value.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let number = std::str::from_utf8(value).ok()?.parse().ok()?;
    (number <= MAX_LENGTH).then_some(number)
}
