//! Tokens that are not good any more though they look so: by their own id, by their session, or by a user's
//! version. Gateways tell each other through a log in Redis, which each reads four times a second; the
//! request path only looks into this process.
//!
//! The one rule: an entry is kept for as long as a token that it means can live, and no longer.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use dashmap::DashMap;
use foldhash::fast::RandomState;

use super::redis::{Gone, Target};
use crate::base::clock::{self, Moment};

/// What is not good any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum What<'a> {
    /// One token, by its `jti`.
    Token(&'a str),
    /// One session, by its `sid`.
    Session(&'a str),
    /// Tokens of a user whose version is below this, by `sub`.
    User(&'a str, u64),
}

/// Why, for the answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Why {
    /// Somebody wanted that.
    Revoked,
    /// A newer login has taken its place.
    Kicked,
}

/// What a token says of itself.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Told<'a> {
    pub(crate) jti: Option<&'a str>,
    pub(crate) sid: Option<&'a str>,
    pub(crate) sub: Option<&'a str>,
    pub(crate) sv: u64,
}

#[derive(Debug, Clone, Copy)]
struct Entry {
    /// Seconds since 1970.
    until: u64,
    why: Why,
    below: u64,
}

/// Entries at most; beyond it those go that would go first. Each lives for as long as a token may, so this
/// is enough for 140,000 ends a day.
const MOST: usize = 1_000_000;
/// The log in Redis, and what is read of it at a time.
pub(crate) const LOG: &str = "sluice:login:revoked";
const BATCH: u64 = 1_000;
/// Who has not read for so long does not know.
const STALE: Duration = Duration::from_secs(2);
/// Clocks of gateways and of Redis may differ by so much.
const SKEW: Duration = Duration::from_secs(3600);

/// Kept over reloads.
pub(crate) struct Revocations {
    entries: DashMap<Box<str>, Entry, RandomState>,
    /// Entries, or a few more.
    held: AtomicUsize,
    /// When the log was read last, in nanoseconds; 0 if never.
    read: AtomicU64,
    reading: AtomicBool,
    /// The id of the last line that was read. Held for a line.
    cursor: Mutex<String>,
}

impl Default for Revocations {
    fn default() -> Self {
        Self {
            entries: DashMap::with_hasher(RandomState::default()),
            held: AtomicUsize::new(0),
            read: AtomicU64::new(0),
            reading: AtomicBool::new(false),
            cursor: Mutex::default(),
        }
    }
}

impl What<'_> {
    fn key(self) -> String {
        match self {
            Self::Token(jti) => format!("j:{jti}"),
            Self::Session(sid) => format!("s:{sid}"),
            Self::User(sub, _) => format!("u:{sub}"),
        }
    }

    fn below(self) -> u64 {
        match self {
            Self::User(_, below) => below,
            _ => 0,
        }
    }
}

impl Why {
    fn as_str(self) -> &'static str {
        match self {
            Self::Revoked => "revoked",
            Self::Kicked => "kicked",
        }
    }
}

impl Revocations {
    /// Whether a token is good no more, and why.
    pub(crate) fn judge(&self, told: Told<'_>, now: u64) -> Option<Why> {
        if self.held.load(Ordering::Relaxed) == 0 {
            return None;
        }
        let look = |prefix: &str, id: Option<&str>| {
            let entry = *self.entries.get(format!("{prefix}{}", id?).as_str())?;
            (entry.until > now).then_some(entry)
        };
        let user = look("u:", told.sub).filter(|entry| told.sv < entry.below);
        let found = look("s:", told.sid).or_else(|| look("j:", told.jti)).or(user);
        found.map(|entry| entry.why)
    }

    /// Notes it here, until `until` (seconds since 1970).
    pub(crate) fn note(&self, what: What<'_>, why: Why, until: u64) {
        self.insert(what.key(), Entry { until, why, below: what.below() });
    }

    /// Tells all gateways of this Redis.
    pub(crate) async fn announce(
        redis: &Arc<Target>,
        what: What<'_>,
        why: Why,
        until: u64,
        life: Duration,
    ) -> Result<(), Gone> {
        let (until, below) = (until.to_string(), what.below().to_string());
        let key = what.key();
        let words = ["k", &key, "u", &until, "w", why.as_str(), "v", &below];
        Box::pin(redis.append(LOG, MOST as u64, &words, life + SKEW)).await
    }

    /// Whether it is known what has been revoked until a moment ago.
    pub(crate) fn is_fresh(&self, now: Moment) -> bool {
        let read = self.read.load(Ordering::Acquire);
        read > 0 && now.saturating_since(Moment::from_nanos(read)) < STALE
    }

    /// Whether the log was ever read.
    pub(crate) fn was_read(&self) -> bool {
        self.read.load(Ordering::Acquire) > 0
    }

    /// Entries, for a gauge.
    pub(crate) fn len(&self) -> usize {
        self.held.load(Ordering::Relaxed)
    }

    /// Reads what is new in the log, unless somebody does. `life` is how long tokens may live.
    pub(crate) async fn follow(&self, redis: &Arc<Target>, life: Duration) {
        if self.reading.swap(true, Ordering::AcqRel) {
            return;
        }
        let reading = Reading(&self.reading);
        // What is noted after this may be missing in what is read.
        let began = clock::now();
        let whole = self.read_on(redis, life).await;
        drop(reading);
        if whole {
            self.read.store(began.nanos().max(1), Ordering::Release);
        }
    }

    async fn read_on(&self, redis: &Arc<Target>, life: Duration) -> bool {
        loop {
            let after = self.cursor.lock().unwrap_or_else(PoisonError::into_inner).clone();
            let after = if after.is_empty() {
                let since = clock::unix_seconds().saturating_sub((life + SKEW).as_secs());
                format!("{}-0", since * 1000)
            } else {
                after
            };
            let Ok(lines) = Box::pin(redis.lines_after(LOG, &after, BATCH)).await else {
                return false;
            };
            let count = lines.len() as u64;
            for (id, words) in lines {
                self.take(&words);
                *self.cursor.lock().unwrap_or_else(PoisonError::into_inner) = id;
            }
            if count < BATCH {
                return true;
            }
        }
    }

    /// A line of the log. What cannot be read is of a later version of this program.
    fn take(&self, words: &[(String, String)]) {
        let word = |name: &str| {
            words.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
        };
        let (Some(key), Some(until)) = (word("k"), word("u").and_then(|text| text.parse().ok()))
        else {
            return;
        };
        let why = if word("w") == Some("kicked") { Why::Kicked } else { Why::Revoked };
        let below = word("v").and_then(|text| text.parse().ok()).unwrap_or(0);
        if until > clock::unix_seconds() {
            self.insert(key.to_owned(), Entry { until, why, below });
        }
    }

    fn insert(&self, key: String, entry: Entry) {
        if self.held.load(Ordering::Relaxed) >= MOST {
            self.make_room();
        }
        let mut new = false;
        let mut held = self.entries.entry(key.into_boxed_str()).or_insert_with(|| {
            new = true;
            entry
        });
        // An older line must not undo a newer one.
        held.until = held.until.max(entry.until);
        held.below = held.below.max(entry.below);
        drop(held);
        if new {
            self.held.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Forgets what no token can be meant by any more.
    pub(crate) fn sweep(&self, now: u64) {
        if self.len() > 0 {
            self.keep(|entry| entry.until > now);
        }
    }

    fn make_room(&self) {
        self.sweep(clock::unix_seconds());
        if self.len() < MOST {
            return;
        }
        tracing::error!(
            entries = MOST,
            "too many tokens are revoked; the oldest are forgotten before their 7d"
        );
        let mut ends: Vec<u64> = self.entries.iter().map(|entry| entry.until).collect();
        let (_, end, _) = ends.select_nth_unstable(MOST / 16);
        let end = *end;
        self.keep(|entry| entry.until > end);
    }

    fn keep(&self, wanted: impl Fn(&Entry) -> bool) {
        let mut gone = 0;
        self.entries.retain(|_, entry| {
            let keep = wanted(entry);
            gone += usize::from(!keep);
            keep
        });
        self.held.fetch_sub(gone, Ordering::Relaxed);
    }
}

/// Somebody reads; dropped, nobody does.
struct Reading<'a>(&'a AtomicBool);

impl Drop for Reading<'_> {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told<'a>(jti: &'a str, sid: &'a str, sub: &'a str, sv: u64) -> Told<'a> {
        Told { jti: Some(jti), sid: Some(sid), sub: Some(sub), sv }
    }

    #[test]
    fn tokens_go_by_id_by_session_and_by_version() {
        let all = Revocations::default();
        let good = told("j", "s", "u", 3);
        assert_eq!(all.judge(good, 0), None);
        all.note(What::Token("other"), Why::Revoked, 100);
        all.note(What::User("u", 3), Why::Revoked, 100);
        assert_eq!(all.judge(good, 0), None, "as new as the version");
        all.note(What::User("u", 4), Why::Revoked, 100);
        all.note(What::User("u", 2), Why::Revoked, 90);
        assert_eq!(all.judge(good, 99), Some(Why::Revoked));
        assert_eq!(all.judge(good, 100), None, "no token of then is left");
        all.note(What::Session("s"), Why::Kicked, 50);
        assert_eq!(all.judge(good, 0), Some(Why::Kicked));
        all.note(What::Token("j"), Why::Revoked, 60);
        assert_eq!(all.judge(good, 55), Some(Why::Revoked));
        assert_eq!(all.judge(told("x", "x", "x", 0), 0), None);
        assert_eq!(all.judge(Told::default(), 0), None);
        assert_eq!(all.len(), 4);
        all.sweep(55);
        assert_eq!(all.len(), 3);
    }

    #[test]
    fn lines_of_the_log_are_read_and_strange_ones_left() {
        let all = Revocations::default();
        let line = |words: &[(&str, &str)]| {
            let own = |(a, b): &(&str, &str)| ((*a).to_owned(), (*b).to_owned());
            all.take(&words.iter().map(own).collect::<Vec<_>>());
        };
        let later = (clock::unix_seconds() + 100).to_string();
        line(&[("k", "u:a"), ("u", &later), ("w", "revoked"), ("v", "2")]);
        line(&[("k", "s:b"), ("u", &later), ("w", "kicked"), ("v", "0")]);
        line(&[("k", "s:c"), ("u", "1"), ("w", "kicked")]);
        line(&[("x", "y")]);
        assert_eq!(all.len(), 2);
        let now = clock::unix_seconds();
        assert_eq!(all.judge(told("j", "b", "x", 0), now), Some(Why::Kicked));
        assert_eq!(all.judge(told("j", "x", "a", 1), now), Some(Why::Revoked));
    }

    #[test]
    fn who_has_not_read_does_not_know() {
        let all = Revocations::default();
        let now = Moment::default().after(Duration::from_secs(10));
        assert!(!all.is_fresh(now) && !all.was_read());
        all.read.store(now.nanos(), Ordering::Release);
        assert!(all.is_fresh(now.after(Duration::from_millis(1999))));
        assert!(!all.is_fresh(now.after(STALE)));
    }
}
