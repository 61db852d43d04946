//! What the log is told of refusals: who was refused by which limit (its name begins with the route's), but no more than a line a second for
//! each limit of a worker, with the number of those that were passed over.

use std::cell::RefCell;
use std::collections::HashMap;
use std::time::Duration;

use super::rules::Rules;
use crate::base::clock::{self, Moment};
use crate::base::cx::Cx;
use crate::lasting::decisions::Mode;

const EVERY: Duration = Duration::from_secs(1);
/// Limits remembered; when there are more, all are forgotten, and told of anew.
const MOST: usize = 10_000;

thread_local! {
    static TOLD: RefCell<HashMap<String, Told>> = RefCell::default();
}

struct Told {
    at: Moment,
    since: u64,
}

/// Tells of a refusal, or counts it.
pub(super) fn refusal(limit: &str, rules: &Rules, mode: Mode, cx: &Cx) {
    let Some(passed_over) = TOLD.with_borrow_mut(|told| due(told, limit, clock::now())) else {
        return;
    };
    tracing::info!(
        limit,
        algorithm = rules.algorithm(),
        admits = rules.limit(),
        mode = mode.as_str(),
        client_ip = %cx.client,
        passed_over,
        "calls are refused by a limit"
    );
}

/// How many were passed over, if it is time to tell.
fn due(told: &mut HashMap<String, Told>, limit: &str, now: Moment) -> Option<u64> {
    if let Some(known) = told.get_mut(limit) {
        if now.saturating_since(known.at) < EVERY {
            known.since += 1;
            return None;
        }
        known.at = now;
        return Some(std::mem::take(&mut known.since));
    }
    if told.len() >= MOST {
        told.clear();
    }
    told.insert(limit.to_owned(), Told { at: now, since: 0 });
    Some(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_is_told_of_once_a_second() {
        let at = |millis: u64| Moment::from_nanos(millis * 1_000_000);
        let mut told = HashMap::new();
        assert_eq!(due(&mut told, "a", at(0)), Some(0));
        assert_eq!(due(&mut told, "b", at(0)), Some(0));
        assert!((1..10).all(|n| due(&mut told, "a", at(n * 100)).is_none()));
        assert_eq!(due(&mut told, "a", at(1_000)), Some(9));
        assert_eq!(due(&mut told, "a", at(2_000)), Some(0));
    }
}
