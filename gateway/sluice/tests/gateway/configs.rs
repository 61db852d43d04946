//! Config texts that several stories use.

use std::net::SocketAddr;

/// Everything goes to one service at `addr`.
pub(crate) fn passing(addr: SocketAddr) -> String {
    passing_with(addr, "", "")
}

/// The same with further keys of the upstream and of the route, each ending in a comma.
pub(crate) fn passing_with(addr: SocketAddr, upstream: &str, route: &str) -> String {
    format!(
        r#"
upstreams:
  service: {{ {upstream} endpoints: [ {{ address: "{addr}" }} ] }}
routes:
  - {{ id: all, match: {{ path: "/**" }}, {route} upstream: service }}
"#
    )
}
