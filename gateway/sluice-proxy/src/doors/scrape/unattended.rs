//! Writes that went on without their clients.

use prometheus::proto::MetricFamily;

use crate::lasting::telemetry::families::Family;
use crate::lasting::telemetry::metrics::Metrics;
use crate::lasting::telemetry::reasons::Unattended;

pub(super) fn writes(metrics: &Metrics, out: &mut Vec<MetricFamily>) {
    let mut open = Family::gauge(
        "sluice_unattended_requests",
        "Writes that are under way although their clients have left.",
    );
    open.add(&[], metrics.open_unattended());
    open.done(out);
    let mut ends = Family::counter(
        "sluice_unattended_requests_total",
        "Writes whose client left before the answer, by what became of them.",
    );
    for what in Unattended::ALL {
        ends.add(&[("outcome", what.as_str())], metrics.unattended(what));
    }
    ends.done(out);
}
