//! Sessions that were found alive a moment ago, so that each is looked up once a second and not for every
//! request.

use std::time::Duration;

use dashmap::DashMap;
use foldhash::fast::RandomState;

use crate::base::clock::Moment;

/// How long a session is believed to be alive.
const FRESH: Duration = Duration::from_secs(1);
/// Sessions at most; beyond it all are looked up anew.
const MOST: usize = 100_000;

#[derive(Default)]
pub(crate) struct Seen(DashMap<Box<str>, Moment, RandomState>);

impl Seen {
    pub(crate) fn is_fresh(&self, sid: &str, now: Moment) -> bool {
        self.0.get(sid).is_some_and(|seen| now.saturating_since(*seen) < FRESH)
    }

    pub(crate) fn note(&self, sid: &str, now: Moment) {
        if self.0.len() >= MOST {
            self.0.clear();
        }
        self.0.insert(sid.into(), now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_is_believed_for_a_second() {
        let seen = Seen::default();
        let at = |ms: u64| Moment::default().after(Duration::from_millis(ms));
        assert!(!seen.is_fresh("a", at(0)));
        seen.note("a", at(0));
        assert!(seen.is_fresh("a", at(999)) && !seen.is_fresh("b", at(0)));
        assert!(!seen.is_fresh("a", at(1000)));
    }

    #[test]
    fn there_are_only_so_many() {
        let seen = Seen::default();
        for n in 0..=MOST {
            seen.note(&n.to_string(), Moment::default());
        }
        assert_eq!(seen.0.len(), 1);
    }
}
