//! Who changed what, and who was not let: the last entries, each a line of the gateway's log as well.
//! Attempts without the token are counted, and written down a few times a minute only.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Duration;

use serde_json::{Value, json};

use crate::base::clock::{self, Moment};

/// Entries kept.
const ENTRIES: usize = 256;
/// Attempts without the token that are answered and written down in a [`MINUTE`].
const DENIALS: u32 = 5;
const MINUTE: Duration = Duration::from_secs(60);

/// The last entries.
#[derive(Debug, Default)]
pub(super) struct Audit {
    entries: VecDeque<Value>,
    /// The present minute, and the denials in it.
    minute: Moment,
    denials: u32,
    /// Denials that were not written down since the last one that was.
    untold: u64,
}

/// An attempt to change something.
#[derive(Debug)]
pub(super) struct Attempt<'a> {
    pub(super) peer: SocketAddr,
    /// The fingerprint of the token, if it was the right one.
    pub(super) token: Option<&'a str>,
    pub(super) action: &'static str,
    /// What it was about: the path, for whatever it names.
    pub(super) target: &'a str,
    /// What was asked for, once that was understood.
    pub(super) asked: Option<String>,
}

impl Audit {
    /// Notes what came of an attempt of somebody with the token.
    pub(super) fn note(&mut self, attempt: &Attempt<'_>, outcome: &str) {
        let Attempt { peer, token, action, target, asked } = attempt;
        let target = shortened(target);
        tracing::warn!(%peer, token, action, target, asked, outcome, "admin write");
        self.keep(attempt, outcome);
    }

    /// Notes an attempt of somebody without it; false if there were too many to be answered.
    #[must_use]
    pub(super) fn deny(&mut self, attempt: &Attempt<'_>, why: &str, now: Moment) -> bool {
        if now.saturating_since(self.minute) >= MINUTE || self.denials == 0 {
            (self.minute, self.denials) = (now, 0);
        }
        if self.denials >= DENIALS {
            self.untold += 1;
            return false;
        }
        self.denials += 1;
        let Attempt { peer, action, target, .. } = attempt;
        let (target, untold) = (shortened(target), std::mem::take(&mut self.untold));
        tracing::warn!(%peer, action, target, untold, outcome = why, "admin write denied");
        self.keep(attempt, why);
        true
    }

    /// When those without the token are answered again.
    pub(super) fn patience(&self, now: Moment) -> Duration {
        self.minute.after(MINUTE).saturating_since(now)
    }

    fn keep(&mut self, attempt: &Attempt<'_>, outcome: &str) {
        if self.entries.len() >= ENTRIES {
            self.entries.pop_front();
        }
        let at = jiff::Timestamp::try_from(clock::wall()).unwrap_or_default();
        self.entries.push_back(json!({
            "at": format!("{at:.3}"),
            "peer": attempt.peer.to_string(),
            "token": attempt.token,
            "action": attempt.action,
            "target": shortened(attempt.target),
            "asked": attempt.asked,
            "outcome": outcome,
        }));
    }

    /// The oldest first.
    pub(super) fn show(&self) -> Value {
        json!({ "entries": self.entries, "denials_untold": self.untold })
    }
}

/// What strangers write is not kept at any length.
fn shortened(text: &str) -> String {
    text.chars().take(200).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attempt(target: &str) -> Attempt<'_> {
        let peer = SocketAddr::from(([127, 0, 0, 1], 1));
        Attempt { peer, token: None, action: "force", target, asked: None }
    }

    fn at(seconds: u64) -> Moment {
        Moment::from_nanos(seconds * 1_000_000_000)
    }

    #[test]
    fn strangers_are_answered_a_few_times_a_minute() {
        let mut audit = Audit::default();
        let answered = |audit: &mut Audit, second: u64| {
            (0..100).filter(|_| audit.deny(&attempt("/x"), "no", at(second))).count()
        };
        assert_eq!(answered(&mut audit, 100), 5);
        assert_eq!(answered(&mut audit, 159), 0);
        assert_eq!(audit.patience(at(159)), Duration::from_secs(1));
        assert_eq!(audit.show()["denials_untold"], 195);
        assert_eq!(answered(&mut audit, 160), 5);
        assert_eq!(audit.show()["entries"].as_array().unwrap().len(), 10);
    }

    #[test]
    fn it_has_an_end() {
        let mut audit = Audit::default();
        let long = "x".repeat(10_000);
        for _ in 0..1000 {
            audit.note(&attempt(&long), "done");
        }
        let shown = audit.show();
        assert_eq!(shown["entries"].as_array().unwrap().len(), ENTRIES);
        assert_eq!(shown["entries"][0]["target"].as_str().unwrap().len(), 200);
    }
}
