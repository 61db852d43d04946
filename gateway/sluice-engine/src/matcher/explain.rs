//! Why a route did not take a request, for people who ask.
//!
//! It asks every route, which is too slow for requests. The one rule: it agrees with the router,
//! whose answer it is given.

use super::{Found, Match, Request, RouteSpec};

/// A route whose path matches but which did not win.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Near {
    /// Its index in the specifications.
    pub route: usize,
    /// The first thing that stood in its way.
    pub lost: Lost,
}

/// What stood in a route's way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Lost {
    /// The host does not match.
    Host,
    /// The method is not among the route's.
    Method,
    /// This one of the route's predicates does not hold.
    Predicate(usize),
    /// Nothing; another route that matches comes first.
    Outranked,
}

/// The near misses of `request`, in file order, given what the router found.
pub(super) fn near(specs: &[RouteSpec], request: &Request<'_>, found: &Found) -> Vec<Near> {
    let winner = match found {
        Found::Route(Match { route, .. }) => Some(*route),
        Found::MethodNotAllowed(_) | Found::NoRoute => None,
    };
    let others = specs.iter().enumerate().filter(|(route, _)| Some(*route) != winner);
    let reached = others.filter(|(_, spec)| spec.path.matches(request.path));
    reached.map(|(route, spec)| Near { route, lost: lost(spec, request) }).collect()
}

fn lost(spec: &RouteSpec, request: &Request<'_>) -> Lost {
    if !spec.hosts.is_empty() && !spec.hosts.iter().any(|host| host.matches(request.host)) {
        return Lost::Host;
    }
    if !spec.methods.admits(request.method) {
        return Lost::Method;
    }
    let failing = spec.predicates.iter().position(|predicate| !predicate.holds(request.facts));
    failing.map_or(Lost::Outranked, Lost::Predicate)
}
