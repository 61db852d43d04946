//! What is counted about sets of keys that come from issuers. A label is scheme, host and path of the
//! source; two sources that differ elsewhere are told apart by a mark behind it.

use std::collections::BTreeSet;

use prometheus::proto::MetricFamily;

use crate::doors::shared::Shared;
use crate::lasting::telemetry::families::Family;
use crate::parts::filters::{KeyOutcome, KeySet};

pub(super) fn sets(shared: &Shared, out: &mut Vec<MetricFamily>) {
    let mut fetches =
        Family::counter("sluice_jwks_fetches_total", "Looks at an issuer's keys, by outcome.");
    let mut success = Family::gauge(
        "sluice_jwks_last_success_timestamp_seconds",
        "When the keys in use were last seen at their issuer; 0 if there are none.",
    );
    let mut keys = Family::gauge("sluice_jwks_keys", "Keys of an issuer that are in use.");
    let mut seen = BTreeSet::new();
    for set in shared.workshop.retained.all::<KeySet>() {
        let label = if seen.insert(set.label.clone()) {
            set.label.clone()
        } else {
            format!("{}#{}", set.label, set.mark)
        };
        let label = ("key_set", label.as_str());
        for outcome in KeyOutcome::ALL {
            fetches.add(&[label, ("outcome", outcome.as_str())], set.count(outcome));
        }
        success.add(&[label], set.fetched_at());
        keys.add(&[label], set.keys() as u64);
    }
    [fetches, success, keys].into_iter().for_each(|family| family.done(out));
}
