//! What is counted of access tokens and of calls that are made with them. Labels are ids of apps and fixed
//! words.

use std::sync::atomic::Ordering;

use prometheus::proto::MetricFamily;
use sluice_engine::breaker::State;

use crate::base::clock;
use crate::doors::shared::Shared;
use crate::lasting::broker::Refresh;
use crate::lasting::telemetry::families::Family;
use crate::snapshot::compile::Snapshot;

pub(super) fn calls(shared: &Shared, snapshot: &Snapshot, out: &mut Vec<MetricFamily>) {
    let Some(broker) = &snapshot.broker else { return };
    let mut ends = Family::counter(
        "sluice_broker_requests_total",
        "Requests of services to the token broker, by app and by how they ended.",
    );
    let mut took = Family::histogram(
        "sluice_broker_call_duration_seconds",
        "How long platforms took for calls between servers.",
    );
    let mut open = Family::gauge("sluice_broker_breaker_open", "1 while a platform is not called.");
    let mut tokens = Family::counter(
        "sluice_broker_tokens_total",
        "Access tokens that were wanted, by app and by where they came from.",
    );
    let mut left = Family::gauge(
        "sluice_broker_token_seconds",
        "How long the access token of an app is good for.",
    );
    for app in &broker.apps {
        let (id, desk) = (&*app.id, &app.cell.desk);
        for (result, count) in desk.outcomes() {
            ends.add(&[("app", id), ("result", result)], count);
        }
        let (counts, sum) = desk.latency();
        took.add_histogram(&[("app", id)], &counts, sum);
        let state = desk.breaker.snapshot(&app.breaker, clock::now()).state;
        open.add(&[("app", id)], u64::from(state == State::Open));
        for (kind, count) in Refresh::ALL.iter().zip(&app.cell.refreshes) {
            let labels = [("app", id), ("from", kind.as_str())];
            tokens.add(&labels, count.load(Ordering::Relaxed));
        }
        let until = app.cell.kept().until;
        left.add(&[("app", id)], until.saturating_sub(clock::unix_seconds()));
    }
    let mut denied = Family::counter(
        "sluice_broker_denied_total",
        "Requests and connections of services that showed no token, or came from elsewhere.",
    );
    denied.add(&[], shared.status.broker_denied.load(Ordering::Relaxed));
    [ends, took, open, tokens, left, denied].into_iter().for_each(|family| family.done(out));
}
