//! What `/upstreams` shows: every endpoint with the votes of all who may take it out of use, each with its
//! reason and since when it holds.
//!
//! The one rule: votes are independent. None of them is derived from another, and an endpoint is chosen
//! only when nobody is against it, or in a panic.

use std::sync::atomic::Ordering;

use serde_json::{Value, json};
use sluice_engine::breaker::{State, View};

use super::super::breakers::{self, time};
use crate::base::clock::{self, Moment};
use crate::parts::upstream::endpoints::{Endpoint, EndpointSet};
use crate::parts::upstream::{Kind, Service};

pub(super) fn outline(kind: &Kind) -> Value {
    let service = match kind {
        Kind::Builtin(builtin) => {
            return json!({ "builtin": format!("{builtin:?}").to_lowercase() });
        }
        Kind::Service(service) => service,
    };
    let set = service.endpoints.load();
    let now = clock::now();
    let breaker = service
        .breaker
        .as_ref()
        .map(|breaker| breakers::standing(&breaker.cell.snapshot(&breaker.terms.rules, now), now));
    let endpoints: Vec<_> =
        set.endpoints.iter().map(|one| endpoint(service, &set, one, now)).collect();
    let missed: serde_json::Map<String, Value> = service
        .plan
        .names()
        .into_iter()
        .filter_map(|name| {
            let missed = service.plan.missed(&name)?;
            Some((name, json!({ "since": time(missed.since, now), "why": missed.why })))
        })
        .collect();
    json!({
        "endpoints": endpoints,
        "panic": set.panics(now),
        "breaker": breaker,
        "names_not_resolved": missed,
    })
}

fn endpoint(service: &Service, set: &EndpointSet, one: &Endpoint, now: Moment) -> Value {
    let link = &one.link;
    let terms = service.endpoint_breaker.as_ref();
    let own = terms.map(|terms| one.target.breaker.snapshot(&terms.rules, now));
    let breaker = service.breaker.as_ref();
    let whole = breaker.map(|breaker| breaker.cell.snapshot(&breaker.terms.rules, now));
    let mut shown = json!({
        "endpoint": &*one.label,
        "weight": one.weight,
        "backup": one.backup,
        "up": one.target.is_up(),
        "ejected": set.is_ejected(one, now),
        "tripped": set.is_tripped(one, now),
        "breaker": own.as_ref().map(|view| breakers::standing(view, now)),
        "in_flight": one.target.in_flight(),
        "connections": link.open.load(Ordering::Relaxed),
        "idle": link.idle.load(Ordering::Relaxed),
        "bears_percent": set.bears_percent(one, now),
        "votes": {
            "operator": operator(one, now),
            "discovery": discovery(service, one, now),
            "health_check": health_check(one, now),
            "ejection": ejection(service, set, one, now),
            "breaker": broken(own.as_ref(), now),
            "upstream_breaker": broken(whole.as_ref(), now),
        },
    });
    if let (true, Some(shown)) = (set.learns(), shown.as_object_mut()) {
        let millis = one.target.latency.expected(now) as f64 / 1e6;
        shown.insert("expected_ms".to_owned(), json!(millis));
    }
    shown
}

/// One vote: `for`, `against`, or `none` where nobody is asked.
fn vote(vote: &str, since: Option<Moment>, why: &str, now: Moment) -> Value {
    json!({ "vote": vote, "since": since.map(|since| time(since, now)), "why": why })
}

fn operator(one: &Endpoint, now: Moment) -> Value {
    match one.weight {
        0 => vote("against", None, "weight 0", now),
        _ => vote("for", None, "it has a weight", now),
    }
}

fn discovery(service: &Service, one: &Endpoint, now: Moment) -> Value {
    let since = Some(one.target.known);
    let Some(name) = &one.source else {
        return vote("for", since, "the config has its address", now);
    };
    match service.plan.missed(name) {
        None => vote("for", since, &format!("{name} stands for it"), now),
        Some(missed) => {
            let why = format!("{name} stood for it when it was last answered: {}", missed.why);
            vote("for", since, &why, now)
        }
    }
}

fn health_check(one: &Endpoint, now: Moment) -> Value {
    let verdict = if one.target.is_up() { "for" } else { "against" };
    match one.target.checked() {
        None if one.target.is_up() => vote("none", None, "nobody has asked", now),
        None => vote(verdict, None, "an earlier config has asked", now),
        Some(checked) => {
            let mut vote = vote(verdict, Some(checked.since), &checked.answer, now);
            if let Some(vote) = vote.as_object_mut() {
                vote.insert("asked".to_owned(), json!(time(checked.asked, now)));
                vote.insert("answers_against_it".to_owned(), json!(checked.against));
            }
            vote
        }
    }
}

fn ejection(service: &Service, set: &EndpointSet, one: &Endpoint, now: Moment) -> Value {
    if service.ejection.is_none() {
        return vote("none", None, "nobody is ejected", now);
    }
    let out = one.target.ejection.out(now).filter(|_| set.is_ejected(one, now));
    let Some(out) = out else {
        return vote("for", one.target.ejection.ended(now), "its requests do not fail", now);
    };
    let mut vote = vote("against", Some(out.since), &one.target.ejected_for(), now);
    if let Some(vote) = vote.as_object_mut() {
        vote.insert("reason".to_owned(), json!(out.reason.as_str()));
        vote.insert("until".to_owned(), json!(time(out.until, now)));
    }
    vote
}

/// The vote of an endpoint's own breaker, or of its upstream's.
fn broken(view: Option<&View>, now: Moment) -> Value {
    let Some(view) = view else { return vote("none", None, "there is none", now) };
    let verdict = if view.state == State::Open { "against" } else { "for" };
    vote(verdict, Some(view.since), &format!("it is {}", view.state.as_str()), now)
}
