//! A set of keys that comes over the network, as it is known now: one cell for each distinct source,
//! shared by routes and kept over reloads. Requests read it without a lock; who does not find its key
//! may ask for another look, which one task takes for all. The one rule: what is known is replaced by
//! something better, or given up when it has become too old, and by nothing else.

use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use serde_json::json;
use tokio::sync::{Notify, watch};

use super::keys::Keys;
use crate::base::clock::{self, Moment};

/// Requests that may wait for one look at the source.
const MAX_WAITING: usize = 1000;

/// How a look at the source ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    Changed,
    Unchanged,
    /// No address, no connection, no TLS.
    Unreachable,
    Timeout,
    /// Any status but 200.
    Status,
    TooLarge,
    /// It is no set of keys, or one that contradicts itself.
    Invalid,
    /// There is no usable key in it.
    Empty,
}

const OUTCOMES: usize = 8;

impl Outcome {
    pub(crate) const ALL: [Self; OUTCOMES] = [
        Self::Changed,
        Self::Unchanged,
        Self::Unreachable,
        Self::Timeout,
        Self::Status,
        Self::TooLarge,
        Self::Invalid,
        Self::Empty,
    ];

    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Changed => "changed",
            Self::Unchanged => "unchanged",
            Self::Unreachable => "unreachable",
            Self::Timeout => "timeout",
            Self::Status => "status",
            Self::TooLarge => "too_large",
            Self::Invalid => "invalid",
            Self::Empty => "empty",
        }
    }

    fn is_good(self) -> bool {
        matches!(self, Self::Changed | Self::Unchanged)
    }
}

/// Keys of one generation.
#[derive(Debug)]
pub(super) struct Known {
    pub(super) keys: Keys,
    pub(super) generation: u64,
}

/// What came of asking for another look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Looked {
    /// The source has just been asked; the key may be there now.
    Again,
    /// The source was asked a short while ago, and has answered.
    Recently,
    /// The source does not answer, or not in time.
    InVain,
}

/// The cell.
pub(crate) struct KeySet {
    /// Scheme, host and path of the source.
    pub(crate) label: String,
    /// Tells two sources of one label apart.
    pub(crate) mark: String,
    current: ArcSwapOption<Known>,
    /// Grows with every change of the keys.
    generation: AtomicU64,
    /// Seconds since 1970 when the source last had these keys; 0 if there are none.
    fetched_at: AtomicU64,
    /// Until when they may be used, in nanoseconds of the monotonic clock.
    usable_until: AtomicU64,
    attempts: Attempts,
    /// Requests that wait for an attempt.
    waiting: AtomicUsize,
    /// Somebody would like a look at the source.
    wanted: Notify,
    /// One attempt at a time, also while one snapshot takes over from another.
    pub(super) turn: tokio::sync::Mutex<()>,
}

/// The looks at the source.
struct Attempts {
    /// When the last one ended, in nanoseconds of the monotonic clock plus one; 0 if there was none.
    ended: AtomicU64,
    good: AtomicBool,
    running: AtomicBool,
    failures: AtomicU32,
    counts: [AtomicU64; OUTCOMES],
    /// Position of the last outcome, and what was wrong, for operators only.
    last: AtomicU8,
    problem: Mutex<Option<String>>,
    done: watch::Sender<u64>,
}

/// An attempt that is under way until this is dropped.
pub(super) struct Running<'s> {
    set: &'s KeySet,
    ended: bool,
}

impl Running<'_> {
    /// Notes how the attempt has ended, and wakes who waits for it.
    pub(super) fn end(mut self, outcome: Outcome, problem: Option<String>, now: Moment) {
        self.ended = true;
        let set = self.set;
        // First, so that whoever still sees it running is woken below.
        drop(self);
        set.end(outcome, problem, now);
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.set.attempts.running.store(false, Ordering::Release);
        if !self.ended {
            // Who waits for an attempt that was broken off waits for the next task's.
            self.set.wanted.notify_one();
        }
    }
}

/// A request that waits.
struct Waiting<'s>(&'s AtomicUsize);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl std::fmt::Debug for KeySet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("KeySet").field(&self.label).finish()
    }
}

// === For requests ===

impl KeySet {
    pub(super) fn new(label: String, mark: String) -> Self {
        Self {
            label,
            mark,
            current: ArcSwapOption::empty(),
            generation: AtomicU64::new(0),
            fetched_at: AtomicU64::new(0),
            usable_until: AtomicU64::new(0),
            attempts: Attempts {
                ended: AtomicU64::new(0),
                good: AtomicBool::new(false),
                running: AtomicBool::new(false),
                failures: AtomicU32::new(0),
                counts: [const { AtomicU64::new(0) }; OUTCOMES],
                last: AtomicU8::new(0),
                problem: Mutex::default(),
                done: watch::Sender::new(0),
            },
            waiting: AtomicUsize::new(0),
            wanted: Notify::new(),
            turn: tokio::sync::Mutex::default(),
        }
    }

    /// Tells whether keys may have changed since it was another number.
    pub(super) fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// The keys; `None` while there are none.
    pub(super) fn known(&self) -> arc_swap::Guard<Option<std::sync::Arc<Known>>> {
        self.current.load()
    }

    /// Asks for a look at the source, unless there was one within `cooldown`, and waits for its end, or
    /// for that of the one under way, for `wait` at most.
    pub(super) async fn look_again(&self, cooldown: Duration, wait: Duration) -> Looked {
        let mut done = self.attempts.done.subscribe();
        if !self.attempts.running.load(Ordering::Acquire) {
            if !self.may_look(clock::now(), cooldown) {
                return self.last_look();
            }
            self.wanted.notify_one();
        }
        if self.waiting.fetch_add(1, Ordering::Relaxed) >= MAX_WAITING {
            drop(Waiting(&self.waiting));
            return Looked::InVain;
        }
        let _waiting = Waiting(&self.waiting);
        let limit = clock::deadline(clock::now().after(wait));
        match tokio::time::timeout_at(limit, done.changed()).await {
            Ok(Ok(())) if self.attempts.good.load(Ordering::Acquire) => Looked::Again,
            _ => Looked::InVain,
        }
    }

    fn last_look(&self) -> Looked {
        if self.attempts.good.load(Ordering::Acquire) { Looked::Recently } else { Looked::InVain }
    }

    /// Whether the last look is so long ago that another one may be taken for a request.
    pub(super) fn may_look(&self, now: Moment, cooldown: Duration) -> bool {
        self.last_attempt().is_none_or(|last| now.saturating_since(last) >= cooldown)
    }
}

// === For the task that looks ===

impl KeySet {
    pub(super) async fn wanted(&self) {
        self.wanted.notified().await;
    }

    pub(super) fn last_attempt(&self) -> Option<Moment> {
        self.attempts.ended.load(Ordering::Acquire).checked_sub(1).map(Moment::from_nanos)
    }

    /// Attempts that have failed since the last one that did not.
    pub(super) fn failures(&self) -> u32 {
        self.attempts.failures.load(Ordering::Relaxed)
    }

    pub(super) fn is_known(&self) -> bool {
        self.current.load().is_some()
    }

    pub(super) fn usable_until(&self) -> Moment {
        Moment::from_nanos(self.usable_until.load(Ordering::Relaxed))
    }

    pub(super) fn begin(&self) -> Running<'_> {
        self.attempts.running.store(true, Ordering::Release);
        Running { set: self, ended: false }
    }

    /// Takes keys that the source had at `fetched_at`; says whether they are others than before.
    pub(super) fn take(&self, keys: Keys, fetched_at: u64, usable_until: Moment) -> bool {
        self.fetched_at.store(fetched_at, Ordering::Relaxed);
        self.usable_until.store(usable_until.nanos(), Ordering::Relaxed);
        let same = self.current.load().as_ref().is_some_and(|known| known.keys.same_as(&keys));
        if !same {
            self.replace(Some(keys));
        }
        !same
    }

    /// Gives up keys that are too old; says whether there were any.
    pub(super) fn expire(&self, now: Moment) -> bool {
        let expired = self.is_known() && now >= self.usable_until();
        if expired {
            self.fetched_at.store(0, Ordering::Relaxed);
            self.replace(None);
        }
        expired
    }

    /// The keys come first: who sees the new generation sees the new keys.
    fn replace(&self, keys: Option<Keys>) {
        let generation = self.generation() + 1;
        self.current.store(keys.map(|keys| Known { keys, generation }.into()));
        self.generation.store(generation, Ordering::Release);
    }

    fn end(&self, outcome: Outcome, problem: Option<String>, now: Moment) {
        let attempts = &self.attempts;
        if let Some(count) = attempts.counts.get(outcome as usize) {
            count.fetch_add(1, Ordering::Relaxed);
        }
        if outcome.is_good() {
            attempts.failures.store(0, Ordering::Relaxed);
        } else {
            attempts.failures.fetch_add(1, Ordering::Relaxed);
        }
        attempts.last.store(outcome as u8, Ordering::Relaxed);
        *attempts.problem.lock().unwrap_or_else(PoisonError::into_inner) = problem;
        attempts.good.store(outcome.is_good(), Ordering::Release);
        attempts.ended.store(now.nanos().saturating_add(1), Ordering::Release);
        attempts.done.send_modify(|count| *count += 1);
    }
}

// === For operators ===

impl KeySet {
    pub(crate) fn count(&self, outcome: Outcome) -> u64 {
        self.attempts.counts.get(outcome as usize).map_or(0, |count| count.load(Ordering::Relaxed))
    }

    pub(crate) fn keys(&self) -> usize {
        self.current.load().as_ref().map_or(0, |known| known.keys.all().count())
    }

    /// Seconds since 1970; 0 if there are no keys.
    pub(crate) fn fetched_at(&self) -> u64 {
        self.fetched_at.load(Ordering::Relaxed)
    }

    /// What an operator may know of it: no key, no query, no header field.
    pub(crate) fn outline(&self) -> serde_json::Value {
        let known = self.current.load();
        let mut keys: Vec<_> = known
            .iter()
            .flat_map(|known| known.keys.all())
            .map(|(kid, key)| (kid.map(str::to_owned), format!("{:?}", key.algs())))
            .collect();
        keys.sort();
        let keys: Vec<_> =
            keys.into_iter().map(|(kid, algs)| json!({ "kid": kid, "algorithms": algs })).collect();
        let attempts = &self.attempts;
        let last = Outcome::ALL.get(usize::from(attempts.last.load(Ordering::Relaxed)));
        let last = last.filter(|_| self.last_attempt().is_some()).map(|last| last.as_str());
        let now = clock::now();
        let since = |moment: Moment| now.saturating_since(moment).as_secs();
        json!({
            "source": self.label,
            "keys": keys,
            "fetched_at": Some(self.fetched_at()).filter(|at| *at > 0),
            "usable_for_seconds":
                self.is_known().then(|| self.usable_until().saturating_since(now).as_secs()),
            "last_attempt": last,
            "last_attempt_seconds_ago": self.last_attempt().map(since),
            "problem": *attempts.problem.lock().unwrap_or_else(PoisonError::into_inner),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::parts::filters::jwt::jwk;

    const DAY: Duration = Duration::from_secs(86_400);

    fn keys(kids: &[&str]) -> Keys {
        let key = |kid: &&str| {
            let secret = "c2VjcmV0LXNlY3JldC1zZWNyZXQtc2VjcmV0LXNlY3JldA";
            format!(r#"{{"kty":"oct","alg":"HS256","k":"{secret}","kid":"{kid}"}}"#)
        };
        let all: Vec<String> = kids.iter().map(key).collect();
        let text = format!("{{\"keys\":[{}]}}", all.join(","));
        jwk::read(text.as_bytes(), &[], true).unwrap().keys
    }

    fn at(seconds: u64) -> Moment {
        Moment::from_nanos(0).after(Duration::from_secs(seconds))
    }

    #[test]
    fn a_generation_is_one_set_of_keys() {
        let set = KeySet::new("s".to_owned(), String::new());
        assert!(!set.is_known() && set.generation() == 0);
        assert!(set.take(keys(&["a", "b"]), 1, at(100)));
        assert!(!set.take(keys(&["b", "a"]), 2, at(200)), "the order does not matter");
        assert_eq!((set.generation(), set.fetched_at(), set.usable_until()), (1, 2, at(200)));
        let known = set.known();
        let id =
            known.as_ref().unwrap().keys.all().find(|(kid, _)| *kid == Some("a")).unwrap().1.id;
        assert!(set.take(keys(&["a", "c"]), 3, at(300)));
        assert!(set.known().as_ref().unwrap().keys.has(id), "the same key in another set");
        assert!(set.take(keys(&["c"]), 4, at(300)));
        assert!(!set.known().as_ref().unwrap().keys.has(id));
        assert!(!set.expire(at(299)) && set.expire(at(300)) && !set.expire(at(301)));
        assert_eq!((set.generation(), set.keys(), set.fetched_at()), (4, 0, 0));
    }

    #[tokio::test]
    async fn who_misses_a_key_waits_for_one_look_and_not_for_long() {
        let set = Arc::new(KeySet::new("s".to_owned(), String::new()));
        let (cooldown, wait) = (DAY, Duration::from_millis(50));
        assert_eq!(set.look_again(cooldown, wait).await, Looked::InVain, "nobody looks");
        let ask = || set.look_again(cooldown, DAY);
        let look = async {
            set.wanted().await;
            // A task that is stopped amid its attempt leaves it to the next one.
            drop(set.begin());
            set.wanted().await;
            let running = set.begin();
            tokio::task::yield_now().await;
            running.end(Outcome::Changed, None, clock::now());
        };
        let (one, other, ()) = tokio::join!(ask(), ask(), look);
        assert_eq!((one, other), (Looked::Again, Looked::Again));
        assert_eq!(set.look_again(cooldown, wait).await, Looked::Recently);
        assert_eq!(set.waiting.load(Ordering::Relaxed), 0);
        set.end(Outcome::Timeout, Some("slow".to_owned()), clock::now());
        assert_eq!(set.look_again(cooldown, wait).await, Looked::InVain);
        assert_eq!((set.failures(), set.count(Outcome::Timeout)), (1, 1));
        let _running = set.begin();
        set.waiting.store(MAX_WAITING, Ordering::Relaxed);
        assert_eq!(set.look_again(cooldown, DAY).await, Looked::InVain, "too many wait already");
        assert_eq!(set.waiting.load(Ordering::Relaxed), MAX_WAITING);
    }
}
