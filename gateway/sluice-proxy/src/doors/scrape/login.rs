//! What is counted of logins. Labels are ids of apps and fixed words.

use prometheus::proto::MetricFamily;

use crate::lasting::telemetry::families::Family;
use crate::snapshot::compile::Snapshot;

pub(super) fn logins(snapshot: &Snapshot, out: &mut Vec<MetricFamily>) {
    let Some(login) = &snapshot.login else { return };
    let mut ends =
        Family::counter("sluice_mp_login_total", "Logins, by app and by how they ended.");
    let mut took = Family::histogram(
        "sluice_mp_login_duration_seconds",
        "How long platforms took to exchange a code.",
    );
    let mut open =
        Family::gauge("sluice_mp_login_breaker_open", "1 while a platform is not asked.");
    for counter in &login.apps {
        let app = &*counter.desk.app;
        for (result, count) in counter.desk.outcomes() {
            ends.add(&[("app", app), ("result", result)], count);
        }
        let (counts, sum) = counter.desk.latency();
        took.add_histogram(&[("app", app)], &counts, sum);
        let now = crate::base::clock::now();
        let state = counter.desk.breaker.snapshot(&login.breaker, now).state;
        open.add(&[("app", app)], u64::from(state == sluice_engine::breaker::State::Open));
    }
    let mut revoked = Family::gauge("sluice_mp_revocations", "What is known to be revoked.");
    revoked.add(&[], login.sessions.revocations.len() as u64);
    revoked.done(out);
    ends.done(out);
    took.done(out);
    open.done(out);
}
