//! Which route a request takes, and what predicates are told of it for that.

use http::request::Parts;
use http::{HeaderMap, Response};
use sluice_engine::matcher::{self, Found, Match};
use sluice_engine::mini::Client;

use super::record::Record;
use crate::base::body::Body;
use crate::base::cx::Cx;
use crate::base::fault::Fault;
use crate::parts::filters::preflight;
use crate::snapshot::compile::Snapshot;

/// Finds the route. Requests without one still pass the global filters, so that their refusal is
/// limited, named and readable like any other.
pub(super) fn find(record: &mut Record, head: &Parts) -> Result<(), Fault> {
    match found(&record.view, &record.cx, head, head.method.as_str()) {
        Found::Route(matched) => {
            take_captures(&mut record.cx, &matched, head.uri.path());
            record.route = Some(matched.route);
            Ok(())
        }
        Found::MethodNotAllowed(allow) => {
            record.cx.allow = Some(allow);
            Err(Fault::MethodNotAllowed)
        }
        Found::NoRoute => Err(Fault::NoRoute),
    }
}

/// What the router says to a request, or to one like it with another method.
pub(crate) fn found(snapshot: &Snapshot, cx: &Cx, head: &Parts, method: &str) -> Found {
    let facts = Facts {
        headers: &head.headers,
        query: head.uri.query(),
        client: cx.client,
        mini: cx.mini.as_deref(),
    };
    let (host, path) = (cx.host_name(), head.uri.path());
    snapshot.router.find(&matcher::Request { host, method, path, facts: &facts })
}

pub(crate) fn take_captures(cx: &mut Cx, matched: &Match, path: &str) {
    let mut at = 0;
    while let Some(text) = matched.captures.get(at, path) {
        cx.captures.push(text.into());
        at += 1;
    }
}

/// Browsers ask before they call. The route is the one of the call they announce, and its CORS filter
/// answers before anything asks who they are.
pub(super) fn answer_preflight(record: &mut Record, head: &Parts) -> Option<Response<Body>> {
    let method = preflight(head)?;
    let found = found(&record.view, &record.cx, head, method);
    let Found::Route(matched) = found else { return None };
    let route = record.view.routes.get(matched.route)?;
    let answer = route.chain.iter().find_map(|filter| filter.as_cors())?.answer(head);
    record.route = Some(matched.route);
    Some(answer)
}

/// What predicates ask of a request.
struct Facts<'a> {
    headers: &'a HeaderMap,
    query: Option<&'a str>,
    client: std::net::IpAddr,
    mini: Option<&'a Client>,
}

impl matcher::Facts for Facts<'_> {
    fn each_header(&self, name: &str, f: &mut dyn FnMut(&[u8])) {
        self.headers.get_all(name).iter().for_each(|value| f(value.as_bytes()));
    }

    fn query(&self) -> &str {
        self.query.unwrap_or("")
    }

    fn client(&self) -> std::net::IpAddr {
        self.client
    }

    fn mini(&self) -> Option<&Client> {
        self.mini
    }
}
