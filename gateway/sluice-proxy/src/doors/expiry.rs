//! Reminds operators, once a day, of certificates that are about to expire, have expired, or are not yet
//! valid. They are served all the same: a client that cannot connect is no better off, and clocks err.

use std::collections::HashMap;
use std::time::Duration;

use crate::base::clock::{self, Moment};
use crate::snapshot::compile::Snapshot;

/// How long before its end a certificate is told of, seconds.
const SOON: i64 = 14 * DAY;
const DAY: i64 = 86_400;
/// Certificates told of at a time; more are told of in one line.
const LINES: usize = 20;

/// Which certificates were told of, and when.
#[derive(Debug, Default)]
pub(super) struct Reminder {
    told: HashMap<Key, Moment>,
}

/// Listener, name, and the end of its time.
type Key = (String, String, i64);

/// What is wrong with a certificate's time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Concern {
    Soon { days: i64 },
    Over,
    NotYet,
}

impl Reminder {
    /// Looks at the certificates in force and writes down what was not written down today.
    pub(super) fn look(&mut self, snapshot: &Snapshot) {
        let (now, wall) = (clock::now(), clock::unix_seconds());
        let wall = i64::try_from(wall).unwrap_or(i64::MAX);
        let mut due = Vec::new();
        let mut still = HashMap::new();
        for listener in &snapshot.listeners {
            for served in listener.tls.iter().flat_map(|tls| tls.all()) {
                let Some(concern) = concern(served.not_before, served.not_after, wall) else {
                    continue;
                };
                let key = (listener.name.to_string(), served.name.clone(), served.not_after);
                let last = self.told.get(&key).copied();
                let again = last.is_none_or(|last| is_due(last, now));
                if again && !still.contains_key(&key) {
                    due.push((key.clone(), concern));
                }
                still.insert(key, last.filter(|_| !again).unwrap_or(now));
            }
        }
        self.told = still;
        for ((listener, name, _), concern) in due.iter().take(LINES) {
            match concern {
                Concern::Soon { days } => {
                    tracing::warn!(%listener, %name, days, "a certificate is about to expire");
                }
                Concern::Over => tracing::warn!(%listener, %name, "a certificate has expired"),
                Concern::NotYet => {
                    tracing::warn!(%listener, %name, "a certificate is not valid yet by this clock");
                }
            }
        }
        if due.len() > LINES {
            tracing::warn!(more = due.len() - LINES, "more certificates are like these");
        }
    }
}

fn is_due(last: Moment, now: Moment) -> bool {
    now.saturating_since(last) >= Duration::from_secs(DAY.unsigned_abs())
}

/// Judges a certificate's time; all in seconds since 1970.
fn concern(not_before: i64, not_after: i64, wall: i64) -> Option<Concern> {
    let left = not_after.saturating_sub(wall);
    if left < 0 {
        Some(Concern::Over)
    } else if wall < not_before {
        Some(Concern::NotYet)
    } else {
        (left < SOON).then_some(Concern::Soon { days: left / DAY })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_is_told_of_from_two_weeks_before_its_end() {
        let now = 1_000 * DAY;
        for (from, until, expected) in [
            (0, now + SOON, None),
            (0, now + SOON - 1, Some(Concern::Soon { days: 13 })),
            (0, now, Some(Concern::Soon { days: 0 })),
            (0, now - 1, Some(Concern::Over)),
            (now, now + 90 * DAY, None),
            (now + 1, now + 90 * DAY, Some(Concern::NotYet)),
        ] {
            assert_eq!(concern(from, until, now), expected, "{from} {until}");
        }
    }

    #[test]
    fn once_a_day_is_enough() {
        let told = Moment::from_nanos(1);
        assert!(!is_due(told, told.after(Duration::from_secs(86_399))));
        assert!(is_due(told, told.after(Duration::from_secs(86_400))));
    }
}
