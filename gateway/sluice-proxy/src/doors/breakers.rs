//! All breakers in force by their names, for operators and metrics: those of upstreams, endpoints and
//! routes. What is shown of one, and its timeline.

use std::sync::Arc;

use serde_json::{Value, json};
use sluice_engine::breaker::{Cell, Entry, Rules, Totals, View};

use crate::base::clock::{self, Moment};
use crate::lasting::link::Target;
use crate::parts::breaker::word;
use crate::parts::upstream::{Kind, Service};
use crate::snapshot::compile::Snapshot;

/// A breaker in force.
pub(super) struct Listed {
    /// `upstream:users`, `endpoint:users/10.0.0.11:8080` or `route:pay`.
    pub(super) name: String,
    pub(super) scope: Scope,
    pub(super) rules: Rules,
    cell: Held,
}

/// Whose it is.
pub(super) enum Scope {
    Upstream(String),
    Endpoint { upstream: String, endpoint: Arc<str> },
    Route(Arc<str>),
}

/// What keeps the cell alive.
enum Held {
    Own(Arc<Cell>),
    Target(Arc<Target>),
}

impl Listed {
    pub(super) fn cell(&self) -> &Cell {
        match &self.cell {
            Held::Own(cell) => cell,
            Held::Target(target) => &target.breaker,
        }
    }

    pub(super) fn view(&self, now: Moment) -> View {
        self.cell().snapshot(&self.rules, now)
    }

    /// The labels of its series.
    pub(super) fn labels(&self) -> Vec<(&str, &str)> {
        match &self.scope {
            Scope::Upstream(upstream) => vec![("scope", "upstream"), ("upstream", upstream)],
            Scope::Endpoint { upstream, endpoint } => {
                vec![("scope", "endpoint"), ("upstream", upstream), ("endpoint", endpoint)]
            }
            Scope::Route(route) => vec![("scope", "route"), ("route", route)],
        }
    }

    /// How it stands, and the last transition.
    pub(super) fn summary(&self, now: Moment) -> Value {
        let mut shown = standing(&self.view(now), now);
        if let (Value::Object(fields), Some(last)) = (&mut shown, self.cell().last_entry()) {
            fields.insert("last_transition".to_owned(), transition(&last, now));
        }
        shown
    }

    /// How it stands, and how it came to that.
    pub(super) fn timeline(&self, now: Moment) -> Value {
        let entries = self.cell().history();
        let mut shown = standing(&self.view(now), now);
        if let Value::Object(fields) = &mut shown {
            let timeline = entries.iter().map(|entry| transition(entry, now)).collect();
            fields.insert("name".to_owned(), self.name.clone().into());
            fields.insert("timeline".to_owned(), Value::Array(timeline));
        }
        shown
    }
}

/// All of them: upstreams with their endpoints, then routes.
pub(super) fn all(snapshot: &Snapshot) -> Vec<Listed> {
    let services = snapshot.upstreams.iter().filter_map(|(name, upstream)| match &upstream.kind {
        Kind::Service(service) => Some((name, &**service)),
        Kind::Builtin(_) => None,
    });
    let mut found = Vec::new();
    for (name, service) in services {
        of_service(name, service, &mut found);
    }
    for route in &snapshot.routes {
        if let Some(breaker) = &route.breaker {
            found.push(Listed {
                name: breaker.name.to_string(),
                scope: Scope::Route(Arc::clone(&route.id)),
                rules: breaker.terms.rules,
                cell: Held::Own(Arc::clone(&breaker.cell)),
            });
        }
    }
    found
}

fn of_service(name: &str, service: &Service, found: &mut Vec<Listed>) {
    if let Some(breaker) = &service.breaker {
        found.push(Listed {
            name: breaker.name.to_string(),
            scope: Scope::Upstream(name.to_owned()),
            rules: breaker.terms.rules,
            cell: Held::Own(Arc::clone(&breaker.cell)),
        });
    }
    let Some(terms) = &service.endpoint_breaker else { return };
    let mut seen = std::collections::BTreeSet::new();
    for endpoint in &service.endpoints.load().endpoints {
        let own_name = endpoint.breaker_name();
        if seen.insert(own_name.clone()) {
            let (upstream, endpoint_label) = (name.to_owned(), Arc::clone(&endpoint.label));
            found.push(Listed {
                name: own_name,
                scope: Scope::Endpoint { upstream, endpoint: endpoint_label },
                rules: terms.rules,
                cell: Held::Target(Arc::clone(&endpoint.target)),
            });
        }
    }
}

/// How a breaker stands, as operators read it.
pub(super) fn standing(view: &View, now: Moment) -> Value {
    let mut shown = window(&view.window);
    if let Value::Object(fields) = &mut shown {
        let mut add = |key: &str, value: Value| fields.insert(key.to_owned(), value);
        add("state", view.state.as_str().into());
        add("since", time(view.since, now).into());
        add("failures_in_a_row", view.streak.into());
        add("refused", view.refused.into());
        if let Some(due) = view.due {
            add("tries_again_at", time(due, now).into());
        }
        if let Some(until) = view.held_until {
            add("forced_until", time(until, now).into());
        }
        if let Some(share) = view.share {
            add("share_let_through", rounded(share).into());
        }
    }
    shown
}

fn transition(entry: &Entry, now: Moment) -> Value {
    let samples: Vec<Value> = entry
        .samples
        .iter()
        .map(|it| json!({ "trace_id": format!("{:032x}", it.id), "reason": word(it.kind) }))
        .collect();
    json!({
        "at": time(entry.at, now),
        "from": entry.from.as_str(),
        "to": entry.to.as_str(),
        "why": entry.why.as_str(),
        "window": window(&entry.window),
        "failures_in_a_row": entry.streak,
        "top_reason": entry.window.top_kind().map(|kind| word(Some(kind))),
        "samples": samples,
        "open_for_seconds": entry.open_for.map(|long| rounded(long.as_secs_f64())),
    })
}

fn window(totals: &Totals) -> Value {
    let reasons: serde_json::Map<String, Value> = (0_u8..)
        .zip(totals.kinds)
        .filter(|(_, count)| *count > 0)
        .map(|(kind, count)| (word(Some(kind)).to_owned(), count.into()))
        .collect();
    json!({
        "requests": totals.calls,
        "failures": totals.failures,
        "slow": totals.slow,
        "failure_rate": rounded(totals.failure_rate()),
        "slow_rate": rounded(totals.slow_rate()),
        "reasons": reasons,
    })
}

/// A moment by the wall clock, as far as that has not been set meanwhile.
pub(super) fn time(moment: Moment, now: Moment) -> String {
    let (ago, ahead) = (now.saturating_since(moment), moment.saturating_since(now));
    let wall = clock::wall().checked_sub(ago).and_then(|wall| wall.checked_add(ahead));
    let at = wall.and_then(|wall| jiff::Timestamp::try_from(wall).ok()).unwrap_or_default();
    format!("{at:.3}")
}

fn rounded(value: f64) -> f64 {
    (value * 1000.0).round() / 1000.0
}
