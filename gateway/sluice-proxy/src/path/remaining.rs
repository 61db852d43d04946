//! How long the client waits, where it says so in `grpc-timeout` or `X-Request-Timeout`; and what a
//! service is told of it, which is what is left. A client can shorten the time limits by this, and never
//! lengthen them, so it is heard from anybody.

use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue};
use sluice_engine::timeout::Timeout;

use crate::base::clock::Moment;

static GRPC_TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");
static REQUEST_TIMEOUT: HeaderName = HeaderName::from_static("x-request-timeout");

type Read = fn(&str) -> Option<Timeout>;

/// The fields, and how each is read.
fn fields() -> [(&'static HeaderName, Read); 2] {
    [(&GRPC_TIMEOUT, Timeout::grpc), (&REQUEST_TIMEOUT, Timeout::plain)]
}

/// When the client gives up, by the strictest of what it says. What cannot be read says nothing.
pub(super) fn read(headers: &HeaderMap, started: Moment) -> Option<Moment> {
    let said = fields().into_iter().flat_map(|(name, read)| {
        let texts = headers.get_all(name).into_iter().filter_map(|value| value.to_str().ok());
        texts.filter_map(read)
    });
    said.map(|timeout| started.after(timeout.wait)).min()
}

/// Whether so little is left of the time at `now` that nobody is asked any more: less than the `floor`.
pub(super) fn is_doomed(limit: Option<Moment>, floor: Duration, now: Moment) -> bool {
    limit.is_some_and(|limit| limit < now.after(floor))
}

/// Tells a service how long an answer is of use, in the fields in which the client has; and where it has
/// in none, in the one for callers of gRPC (`unasked` is true) or for others (false).
pub(super) fn write(headers: &mut HeaderMap, left: Duration, unasked: Option<bool>) {
    let mut told = false;
    for (name, read) in fields() {
        let said = headers.get(name).and_then(|value| value.to_str().ok()).and_then(read);
        let shorter = said.map(|timeout| HeaderValue::try_from(timeout.shortened(left)));
        if let Some(Ok(value)) = shorter {
            headers.insert(name, value);
            told = true;
        }
    }
    let Some(grpc) = unasked.filter(|_| !told) else { return };
    let (name, timeout) = match grpc {
        true => (&GRPC_TIMEOUT, Timeout::grpc_of(left)),
        false => (&REQUEST_TIMEOUT, Timeout::plain_of(left)),
    };
    if let Ok(value) = HeaderValue::try_from(timeout.shortened(left)) {
        headers.insert(name, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(fields: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(*name, HeaderValue::from_static(value));
        }
        headers
    }

    #[test]
    fn the_strictest_counts() {
        let started = Moment::from_nanos(7);
        let millis = |fields: &[_]| {
            read(&headers(fields), started).map(|at| at.saturating_since(started).as_millis())
        };
        assert_eq!(millis(&[("grpc-timeout", "3S")]), Some(3_000));
        assert_eq!(millis(&[("grpc-timeout", "3S"), ("x-request-timeout", "2")]), Some(2_000));
        assert_eq!(
            millis(&[("x-request-timeout", "soon"), ("x-request-timeout", "5s")]),
            Some(5_000)
        );
        assert_eq!(millis(&[("x-request-timeout", "soon")]), None);
        assert_eq!(millis(&[]), None);
    }

    #[test]
    fn only_what_was_said_is_told_on() {
        let mut map = headers(&[("grpc-timeout", "3S"), ("x-request-timeout", "soon")]);
        write(&mut map, Duration::from_millis(1_500), None);
        assert_eq!(
            (&map["grpc-timeout"], &map["x-request-timeout"]),
            (&HeaderValue::from_static("1500m"), &HeaderValue::from_static("soon"))
        );
        let mut map = headers(&[("x-request-timeout", "9"), ("x-request-timeout", "8")]);
        write(&mut map, Duration::from_millis(1_500), None);
        let told: Vec<_> = map.get_all("x-request-timeout").into_iter().collect();
        assert_eq!(told, ["1.500"]);
    }

    #[test]
    fn what_nobody_said_is_told_in_the_callers_own_field() {
        for (said, grpc, name, value) in [
            ([].as_slice(), false, "x-request-timeout", "1500ms"),
            (&[], true, "grpc-timeout", "1500m"),
            // What cannot be read makes room.
            (&[("x-request-timeout", "soon")], false, "x-request-timeout", "1500ms"),
            (&[("x-request-timeout", "9s")], true, "x-request-timeout", "1.500s"),
        ] {
            let mut map = headers(said);
            write(&mut map, Duration::from_millis(1_500), Some(grpc));
            assert_eq!((map.len(), &map[name]), (1, &HeaderValue::from_static(value)));
        }
    }

    #[test]
    fn what_is_shorter_than_the_floor_is_doomed() {
        let (now, floor) = (Moment::from_nanos(0), Duration::from_millis(5));
        let at = |millis: u64| Some(Moment::from_nanos(millis * 1_000_000));
        assert!(is_doomed(at(0), floor, now) && is_doomed(at(4), floor, now));
        assert!(!is_doomed(at(5), floor, now) && !is_doomed(None, floor, now));
    }
}
