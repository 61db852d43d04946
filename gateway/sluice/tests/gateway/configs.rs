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

/// What is sent to `/a` comes back, once it has passed these filters.
pub(crate) fn echoing(filters: &[String]) -> String {
    let filters: String = filters.iter().map(|filter| format!("\n      - {filter}")).collect();
    format!(
        r#"
upstreams: {{ echo: {{ builtin: echo }} }}
routes:
  - id: a
    match: {{ path: /a }}
    upstream: echo
    filters:{filters}
"#
    )
}
