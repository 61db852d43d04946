//! What breakers do, as Prometheus families. The first two are named as dashboards of others name them.

use std::sync::atomic::Ordering;

use prometheus::proto::MetricFamily;
use sluice_engine::breaker::{State, Why};

use crate::base::clock;
use crate::doors::breakers::all;
use crate::doors::shared::Status;
use crate::lasting::retained::Retained;
use crate::lasting::telemetry::families::Family;
use crate::parts::fallback::Counts;
use crate::snapshot::compile::Snapshot;

/// What was answered instead of failures.
pub(super) fn fallbacks(retained: &Retained, out: &mut Vec<MetricFamily>) {
    let mut fallbacks = Family::counter(
        "sluice_fallback_total",
        "Failures of a route that its fallback stood in for, by cause and what came of that.",
    );
    for counts in retained.all::<Counts>() {
        for (cause, outcome, count) in counts.all() {
            let labels = [("route", &*counts.route), ("cause", cause), ("outcome", outcome)];
            fallbacks.add(&labels, count);
        }
    }
    fallbacks.done(out);
}

/// What operators changed, or tried to.
pub(super) fn writes(status: &Status, out: &mut Vec<MetricFamily>) {
    let mut writes = Family::counter(
        "sluice_admin_writes_total",
        "Changes that operators asked for on the admin address, by what came of them.",
    );
    for (outcome, count) in [
        ("done", &status.writes),
        ("refused", &status.writes_refused),
        ("denied", &status.writes_denied),
    ] {
        writes.add(&[("outcome", outcome)], count.load(Ordering::Relaxed));
    }
    writes.done(out);
}

pub(super) fn breakers(snapshot: &Snapshot, out: &mut Vec<MetricFamily>) {
    let mut state =
        Family::gauge("circuitbreaker_state", "1 for the state a breaker is in, else 0.");
    let mut rate = Family::gauge(
        "circuitbreaker_failure_rate",
        "Share of failed calls in the window, 0 to 1.",
    );
    let mut slow = Family::gauge(
        "circuitbreaker_slow_call_rate",
        "Share of slow calls in the window, 0 to 1.",
    );
    let mut forced =
        Family::gauge("sluice_breaker_forced", "Whether an operator holds a breaker in its state.");
    let mut transitions = Family::counter(
        "sluice_breaker_transitions_total",
        "Changes of a breaker's state, by the state they led to and the reason.",
    );
    let mut rejected =
        Family::counter("sluice_breaker_rejected_total", "Calls that a breaker refused.");
    let now = clock::now();
    for breaker in all(snapshot) {
        let (view, own) = (breaker.view(now), breaker.labels());
        let with = |more: &[(&'static str, &'static str)]| {
            own.iter().copied().chain(more.iter().copied()).collect::<Vec<_>>()
        };
        for known in State::ALL {
            let on = u64::from(view.state == known);
            state.add(&with(&[("state", known.as_str())]), on);
        }
        rate.add_float(&own, view.window.failure_rate());
        slow.add_float(&own, view.window.slow_rate());
        forced.add(&own, u64::from(view.held_until.is_some()));
        rejected.add(&own, view.refused);
        for (why, counts) in Why::ALL.into_iter().zip(view.transitions) {
            for (to, count) in State::ALL.into_iter().zip(counts) {
                if count > 0 || why.leads_to() == Some(to) {
                    let labels = with(&[("to", to.as_str()), ("reason", why.as_str())]);
                    transitions.add(&labels, count);
                }
            }
        }
    }
    [state, rate, slow, forced, transitions, rejected]
        .into_iter()
        .for_each(|family| family.done(out));
}
