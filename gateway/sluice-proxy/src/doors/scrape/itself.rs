//! What is counted about the process itself, its own log, and the Redis beside it.

use std::sync::atomic::Ordering;

use prometheus::proto::MetricFamily;

use super::Shared;
use crate::base::deadline;
use crate::lasting::decisions::{Decisions, Mode};
use crate::lasting::redis::{Target, Why};
use crate::lasting::tasks::{self, Kind as TaskKind};
use crate::lasting::telemetry::families::Family;
use crate::lasting::telemetry::journal;
use crate::lasting::telemetry::reasons::BatchItem;

pub(super) fn process(shared: &Shared, out: &mut Vec<MetricFamily>) {
    let mut tasks = Family::gauge("sluice_tasks", "Tasks alive, by kind.");
    for kind in TaskKind::ALL {
        tasks.add(&[("kind", kind.as_str())], kind.alive() as u64);
    }
    tasks.done(out);
    let mut limits = Family::gauge("sluice_ratelimit_keys", "Keys held by limits in this process.");
    limits.add(&[], crate::lasting::limits::keys(&shared.workshop.retained));
    limits.done(out);
    decisions(shared, out);
    let mut held = Family::gauge(
        "sluice_held_body_bytes",
        "Bytes of request bodies that filters have read and that are not sent yet.",
    );
    held.add(&[], crate::base::inlet::held());
    held.done(out);
    let mut calls =
        Family::counter("sluice_batch_items_total", "Calls of batches, by what became of them.");
    for what in BatchItem::ALL {
        calls.add(&[("result", what.as_str())], shared.workshop.metrics.batch_items(what));
    }
    calls.done(out);
    redis(shared, out);
    let mut build = Family::gauge("sluice_build_info", "The gateway.");
    build.add(&[("version", env!("CARGO_PKG_VERSION"))], 1);
    build.done(out);
    let mut missing = Family::counter(
        "sluice_own_log_dropped_total",
        "Lines of the gateway's own log that were left out or could not be written.",
    );
    for (reason, count) in journal::missing() {
        missing.add(&[("reason", reason)], count);
    }
    missing.done(out);
    for (name, help, count) in [
        (
            "sluice_worker_stalls_total",
            "Times that a worker did not run for half a second or more.",
            deadline::stalls(),
        ),
        (
            "sluice_tasks_restarted_total",
            "Tasks of the gateway that panicked and were started anew.",
            tasks::restarted(),
        ),
    ] {
        let mut family = Family::counter(name, help);
        family.add(&[], count);
        family.done(out);
    }
}

fn decisions(shared: &Shared, out: &mut Vec<MetricFamily>) {
    let mut decided = Family::counter(
        "sluice_ratelimit_decisions_total",
        "Calls that limits admitted and refused, by where they were counted.",
    );
    for decisions in shared.workshop.retained.all::<Decisions>() {
        for mode in Mode::ALL {
            for (decision, admitted) in [("admitted", true), ("refused", false)] {
                let count = decisions.sum(mode, admitted);
                if count > 0 {
                    let limit = decisions.limit.as_str();
                    let labels =
                        [("limit", limit), ("mode", mode.as_str()), ("decision", decision)];
                    decided.add(&labels, count);
                }
            }
        }
    }
    decided.done(out);
}

fn redis(shared: &Shared, out: &mut Vec<MetricFamily>) {
    let mut up = Family::gauge(
        "sluice_redis_connections",
        "Connections to Redis that answer, of all workers.",
    );
    let mut commands = Family::counter("sluice_redis_commands_total", "Commands sent to Redis.");
    let mut errors =
        Family::counter("sluice_redis_errors_total", "Commands that failed or took too long.");
    let mut connects = Family::counter(
        "sluice_redis_connect_errors_total",
        "Connections to Redis that could not be made, or are over.",
    );
    let mut gateways = Family::gauge("sluice_redis_gateways", "Gateways that share this Redis.");
    for target in shared.workshop.retained.all::<Target>() {
        let address = target.address();
        let labels = [("redis", address.as_str())];
        up.add(&labels, target.connected.load(Ordering::Relaxed) as u64);
        commands.add(&labels, target.commands.load(Ordering::Relaxed));
        gateways.add(&labels, target.gateways());
        for why in Why::ALL {
            let labels = [("redis", address.as_str()), ("kind", why.as_str())];
            errors.add(&labels, target.failures.count(why));
            connects.add(&labels, target.connect_failures.count(why));
        }
    }
    [up, commands, errors, connects, gateways].into_iter().for_each(|family| family.done(out));
}
