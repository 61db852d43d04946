//! Keeps sets of keys in step with their issuers, on the control plane: looks regularly, sooner for a
//! token whose key is not known, and after failures with growing pauses. The one rule: a set that cannot
//! be had, or is empty or broken, never takes the place of one that was good.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, HeaderValue};
use http::{Request, StatusCode};
use tokio::sync::oneshot;

use super::jwk::{self, Set, Unusable};
use super::kept;
use super::keyset::Outcome;
use super::source::{Plan, Source};
use crate::base::clock::{self, Moment};
use crate::lasting::fetch::Failure;
use crate::lasting::tasks::{self, Owned};

/// How long start-up and reload wait for first sets before they go on without them.
const FIRST: Duration = Duration::from_secs(2);
/// Pause after the first failure while there are no keys at all.
const RETRY: Duration = Duration::from_secs(1);
/// Names of keys, and flaws, that a log line shows.
const SHOWN: usize = 10;

/// Starts following, and waits a little for sets that are not known at all, so that a fresh start does
/// not refuse its first requests.
pub(crate) async fn follow(sources: &[Arc<Source>]) {
    let mut first = Vec::new();
    for source in sources {
        let (known, is_known) = oneshot::channel();
        first.push(is_known);
        let (plan, mut known) = (Arc::clone(&source.plan), Some(known));
        let looking = tasks::supervise("key_set", move || rounds(Arc::clone(&plan), known.take()));
        if let Ok(mut background) = source.background.lock() {
            *background = Some(Owned::new(tasks::control(looking)));
        }
    }
    let all = futures_util::future::join_all(first);
    let _ = tokio::time::timeout_at(clock::deadline(clock::now().after(FIRST)), all).await;
}

impl Source {
    /// Stops following, once another snapshot does.
    pub(crate) fn retire(&self) {
        if let Ok(mut background) = self.background.lock() {
            *background = None;
        }
    }

    /// What an operator may know of it.
    pub(crate) fn outline(&self) -> serde_json::Value {
        self.plan.set.outline()
    }
}

async fn rounds(plan: Arc<Plan>, mut known: Option<oneshot::Sender<()>>) {
    let set = &plan.set;
    if !set.is_known() {
        plan.recall().await;
    }
    let mut due = set.last_attempt().map_or_else(clock::now, |last| last.after(plan.pause()));
    loop {
        if set.is_known()
            && let Some(known) = known.take()
        {
            let _ = known.send(());
        }
        if plan.is_time(due).await {
            plan.attempt().await;
            // A tenth of jitter keeps many gateways from asking in step.
            let pause = plan.pause().mul_f64(0.9 + 0.2 * fastrand::f64());
            due = clock::now().after(pause);
            if let Some(known) = known.take() {
                let _ = known.send(());
            }
        }
        if set.expire(clock::now()) {
            tracing::error!(key_set = %plan.url,
                "the issuer has not been reached for too long; its keys are given up");
        }
    }
}

impl Plan {
    /// Sleeps until something is to be done; says whether that is a look at the source.
    async fn is_time(&self, due: Moment) -> bool {
        let set = &self.set;
        let wake = if set.is_known() { due.min(set.usable_until()) } else { due };
        tokio::select! {
            () = tokio::time::sleep_until(clock::deadline(wake)) => clock::now() >= due,
            () = set.wanted() => set.may_look(clock::now(), self.rules.cooldown),
        }
    }

    /// Time from the last attempt to the next.
    fn pause(&self) -> Duration {
        let rules = &self.rules;
        match self.set.failures() {
            0 => rules.refresh,
            failures if self.set.is_known() => {
                (rules.cooldown * failures.min(1000)).min(rules.refresh)
            }
            failures => {
                (RETRY * 2_u32.pow((failures - 1).min(10))).min(rules.cooldown).min(rules.refresh)
            }
        }
    }

    async fn attempt(&self) {
        let set = &self.set;
        let before = set.last_attempt();
        let _turn = set.turn.lock().await;
        if set.last_attempt() != before {
            // The snapshot before this one has just looked.
            return;
        }
        let running = set.begin();
        let (outcome, problem) = match self.fetch().await {
            Ok((found, text)) => (self.take(found, text).await, None),
            Err((outcome, why)) => {
                let keys = set.keys();
                tracing::warn!(key_set = %self.url, outcome = outcome.as_str(), why, keys,
                    "no new keys from the issuer; those that are known stay");
                (outcome, Some(why))
            }
        };
        running.end(outcome, problem, clock::now());
    }

    async fn fetch(&self) -> Result<(Set, String), (Outcome, String)> {
        let mut request = Request::new(Bytes::new());
        *request.headers_mut() = self.headers.clone();
        let accept = HeaderValue::from_static("application/jwk-set+json, application/json");
        request.headers_mut().insert(ACCEPT, accept);
        let answer = self.client.ask(&self.url, request).await.map_err(|failure| {
            let outcome = match &failure {
                Failure::Name(_) | Failure::Connect(_) | Failure::Tls(_) => Outcome::Unreachable,
                Failure::Timeout => Outcome::Timeout,
                Failure::TooLarge => Outcome::TooLarge,
                Failure::Broken(_) => Outcome::Invalid,
            };
            (outcome, failure.to_string())
        })?;
        if answer.status() != StatusCode::OK {
            return Err((Outcome::Status, format!("status {}", answer.status().as_u16())));
        }
        let set = jwk::read(answer.body(), &self.algorithms, false).map_err(|unusable| {
            let outcome = match &unusable {
                Unusable::Empty(_) => Outcome::Empty,
                Unusable::Flawed(_) => Outcome::Invalid,
            };
            (outcome, shortened(&unusable.to_string()))
        })?;
        Ok((set, String::from_utf8_lossy(answer.body()).into_owned()))
    }

    async fn take(&self, found: Set, text: String) -> Outcome {
        let (now, wall) = (clock::now(), clock::unix_seconds());
        let kids: Vec<_> = found.keys.all().filter_map(|(kid, _)| kid).take(SHOWN).collect();
        let (kids, keys) = (format!("{kids:?}"), found.keys.all().count());
        let flaws: Vec<_> = found.flaws.iter().take(SHOWN).map(ToString::to_string).collect();
        let changed = self.set.take(found.keys, wall, now.after(self.rules.max_stale));
        if changed {
            tracing::info!(key_set = %self.url, keys, %kids, "keys changed");
            if !flaws.is_empty() {
                tracing::warn!(key_set = %self.url, flaws = %shortened(&flaws.join("; ")),
                    "some of the issuer's keys are not used");
            }
        }
        self.keep(wall, text).await;
        if changed { Outcome::Changed } else { Outcome::Unchanged }
    }

    // === On disk ===

    async fn keep(&self, wall: u64, text: String) {
        let Some(path) = self.cache_file.clone() else { return };
        let identity = self.identity.clone();
        let write = move || kept::write(&path, &identity, wall, text);
        if let Ok(Err(error)) = tokio::task::spawn_blocking(write).await {
            tracing::warn!(key_set = %self.url, %error, "the keys cannot be kept on disk");
        }
    }

    /// Takes what an earlier process has kept, as old as it is.
    async fn recall(&self) {
        let Some(path) = self.cache_file.clone() else { return };
        let (identity, wall) = (self.identity.clone(), clock::unix_seconds());
        let read = move || kept::read(&path, &identity, wall);
        let (text, age) = match tokio::task::spawn_blocking(read).await {
            Ok(Ok(found)) => found,
            Ok(Err(Some(why))) => {
                tracing::warn!(key_set = %self.url, why, "the keys kept on disk are not used");
                return;
            }
            _ => return,
        };
        let Some(left) = self.rules.max_stale.checked_sub(Duration::from_secs(age)) else {
            tracing::warn!(key_set = %self.url, age, "the keys kept on disk are too old");
            return;
        };
        match jwk::read(text.as_bytes(), &self.algorithms, false) {
            Ok(found) => {
                let keys = found.keys.all().count();
                self.set.take(found.keys, wall.saturating_sub(age), clock::now().after(left));
                tracing::info!(key_set = %self.url, keys, age, "keys of an earlier run are used");
            }
            Err(unusable) => {
                let why = shortened(&unusable.to_string());
                tracing::warn!(key_set = %self.url, why, "the keys kept on disk are not used");
            }
        }
    }
}

/// What an issuer sent stands in logs in part only.
fn shortened(text: &str) -> String {
    text.chars().take(400).collect()
}
