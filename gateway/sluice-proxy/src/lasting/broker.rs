//! What of an app's access token outlives a reload: the token itself, until when it is good, and when another
//! one was forced. Nobody is asked here. The one rule: a token leaves only as a [`Secret`].

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize, Serializer};

use super::login::Desk;
use super::login::flights::Refused;
use crate::base::clock::Moment;
use crate::base::units::Secret;

/// A token is replaced so long before its end; the platform lets the old one live on meanwhile.
pub(crate) const EARLY: u64 = 300;
/// A token that ends sooner is none: it may end on its way.
pub(crate) const MARGIN: u64 = 10;
/// Longest life that is believed; a token that seems to live longer was kept by somebody whose clock is wrong.
pub(crate) const LONGEST: u64 = 86_400;
/// How long a failure stands for those who ask next, and how long a token that comes to its end is not
/// replaced again.
const FAILED: Duration = Duration::from_secs(1);
const REST: Duration = Duration::from_secs(10);
/// The platform forces another token once in 30 s, and 20 times a day. One time is left for people.
const FORCE_PAUSE: u64 = 30;
const FORCE_MOST: usize = 19;
const DAY: u64 = 86_400;

/// A token as it is kept, here and in Redis.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Kept {
    #[serde(serialize_with = "told")]
    pub(crate) token: Secret,
    /// Seconds since 1970.
    pub(crate) until: u64,
    /// When another one was forced within the last day.
    #[serde(default)]
    pub(crate) forced: Vec<u64>,
}

/// Only sealed text holds it.
fn told<S: Serializer>(secret: &Secret, serializer: S) -> Result<S::Ok, S::Error> {
    secret.expose().serialize(serializer)
}

/// How a token stands.
pub(crate) enum Standing {
    Good(Kept),
    /// It is good, and it is time for the next one.
    Ending(Kept),
    /// There is none, for this reason if it was asked for a moment ago.
    None(Option<Refused>),
}

/// The token of one app.
pub(crate) struct Cell {
    /// Breaker, places, counts and outcomes of calls.
    pub(crate) desk: Desk,
    /// Held by whoever asks for a token, so that one does.
    pub(crate) turn: Arc<tokio::sync::Mutex<()>>,
    /// Held for a few lines, never over an await.
    state: Mutex<State>,
    pub(crate) refreshes: [AtomicU64; Refresh::ALL.len()],
}

#[derive(Default)]
struct State {
    kept: Kept,
    failed: Option<(Refused, Moment)>,
    rest: Moment,
}

/// Where a token came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refresh {
    /// The platform gave it.
    Asked,
    /// The platform was made to give another one.
    Forced,
    /// Another gateway had it.
    Shared,
    /// Nobody gave one.
    Failed,
}

impl Refresh {
    pub(crate) const ALL: [Self; 4] = [Self::Asked, Self::Forced, Self::Shared, Self::Failed];

    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Asked => "asked",
            Self::Forced => "forced",
            Self::Shared => "shared",
            Self::Failed => "failed",
        }
    }
}

impl Kept {
    pub(crate) fn is_good(&self, now: u64) -> bool {
        let left = self.until.saturating_sub(now);
        left > MARGIN && left <= LONGEST
    }

    /// How long it has to be waited before another token may be forced; nothing if it may be now.
    pub(crate) fn may_force(&self, now: u64) -> Result<(), Duration> {
        let lately = || self.forced.iter().copied().filter(|at| is_of_this_day(*at, now));
        let pause = lately().max().map(|last| last.saturating_add(FORCE_PAUSE));
        let day = || lately().min().map(|first| first.saturating_add(DAY));
        let until = if lately().count() >= FORCE_MOST { day() } else { pause };
        match until.map(|until| until.saturating_sub(now)) {
            None | Some(0) => Ok(()),
            Some(wait) => Err(Duration::from_secs(wait)),
        }
    }

    /// Notes that another one is being forced.
    pub(crate) fn force(&mut self, now: u64) {
        self.forced.retain(|at| is_of_this_day(*at, now));
        self.forced.push(now);
    }

    /// Takes over when another gateway forced one.
    pub(crate) fn learn(&mut self, other: &Self) {
        self.forced.extend(&other.forced);
        self.forced.sort_unstable();
        self.forced.dedup();
    }
}

/// Whether this was within the last day. What is to come was noted by a clock that is wrong, and must not
/// keep anybody waiting for it.
fn is_of_this_day(at: u64, now: u64) -> bool {
    at.saturating_add(DAY) > now && at <= now.saturating_add(FORCE_PAUSE)
}

impl Cell {
    pub(crate) fn new(app: Arc<str>) -> Self {
        Self {
            desk: Desk::new(app),
            turn: Arc::default(),
            state: Mutex::default(),
            refreshes: [const { AtomicU64::new(0) }; Refresh::ALL.len()],
        }
    }

    /// How its token stands at `now`, on both clocks.
    pub(crate) fn look(&self, unix: u64, now: Moment) -> Standing {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if !state.kept.is_good(unix) {
            let failed = state.failed.filter(|(_, at)| now.saturating_since(*at) < FAILED);
            return Standing::None(failed.map(|(refused, _)| refused));
        }
        if state.kept.until > unix.saturating_add(EARLY) || now < state.rest {
            return Standing::Good(state.kept.clone());
        }
        state.rest = now.after(REST);
        Standing::Ending(state.kept.clone())
    }

    /// What is kept, good or not.
    pub(crate) fn kept(&self) -> Kept {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).kept.clone()
    }

    pub(crate) fn keep(&self, mut kept: Kept) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        kept.learn(&state.kept);
        state.kept = kept;
        state.failed = None;
    }

    /// Takes over when another one was forced.
    pub(crate) fn learn(&self, kept: &Kept) {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).kept.learn(kept);
    }

    pub(crate) fn fail(&self, refused: Refused, now: Moment) {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).failed = Some((refused, now));
        self.note(Refresh::Failed);
    }

    /// The failure of a moment ago.
    pub(crate) fn failed(&self, now: Moment) -> Option<Refused> {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let lately = |(_, at): &(Refused, Moment)| now.saturating_since(*at) < FAILED;
        state.failed.filter(lately).map(|(refused, _)| refused)
    }

    pub(crate) fn note(&self, refresh: Refresh) {
        if let Some(count) = self.refreshes.get(refresh as usize) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl std::fmt::Debug for Cell {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Cell").field(&self.desk.app).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::fault::Fault;

    fn kept(until: u64) -> Kept {
        Kept { token: Secret::new("t"), until, forced: Vec::new() }
    }

    fn at(seconds: u64) -> Moment {
        Moment::from_nanos(seconds * 1_000_000_000)
    }

    #[test]
    fn a_token_is_replaced_before_its_end_and_not_at_every_look() {
        let cell = Cell::new("a".into());
        assert!(matches!(cell.look(0, at(100)), Standing::None(None)));
        cell.keep(kept(7200));
        assert!(matches!(cell.look(6899, at(100)), Standing::Good(_)));
        assert!(matches!(cell.look(6900, at(100)), Standing::Ending(_)));
        assert!(matches!(cell.look(6901, at(109)), Standing::Good(_)));
        assert!(matches!(cell.look(6902, at(110)), Standing::Ending(_)));
        assert!(matches!(cell.look(7190, at(200)), Standing::None(None)));
    }

    #[test]
    fn a_failure_is_known_for_a_second() {
        let cell = Cell::new("a".into());
        cell.fail(Fault::ProviderBusy.into(), at(100));
        assert!(matches!(cell.look(0, at(100)), Standing::None(Some(_))));
        assert!(matches!(cell.look(0, at(101)), Standing::None(None)));
        assert!(cell.failed(at(100)).is_some() && cell.failed(at(101)).is_none());
    }

    /// A gateway whose clock was a year ahead had all others believe in its token, and wait for a year until
    /// they might force another one.
    #[test]
    fn a_clock_that_is_far_ahead_is_not_believed() {
        let year = 365 * DAY;
        let mut theirs = kept(1000 + year + 7200);
        theirs.force(1000 + year);
        assert!(!theirs.is_good(1000) && theirs.is_good(1000 + year));
        assert_eq!(theirs.may_force(1000), Ok(()));
        theirs.force(1000);
        assert_eq!(theirs.forced, [1000]);
        assert!(kept(1000 + LONGEST).is_good(1000) && !kept(1001 + LONGEST).is_good(1000));
        // One that is a little ahead is.
        let mut near = kept(0);
        near.force(1020);
        assert_eq!(near.may_force(1000), Err(Duration::from_secs(50)));
    }

    #[test]
    fn force_is_used_with_restraint() {
        let mut kept = kept(0);
        assert_eq!(kept.may_force(1000), Ok(()));
        kept.force(1000);
        assert_eq!(kept.may_force(1010), Err(Duration::from_secs(20)));
        assert_eq!(kept.may_force(1030), Ok(()));
        for n in 1..19 {
            kept.force(1000 + 100 * n);
        }
        assert_eq!(kept.may_force(10_000), Err(Duration::from_secs(1000 + DAY - 10_000)));
        assert_eq!(kept.may_force(1000 + DAY), Ok(()), "a day later");
        kept.force(1000 + DAY);
        assert_eq!(kept.forced.len(), 19, "what is over is forgotten");
        let mut other = Kept::default();
        other.learn(&kept);
        other.learn(&kept);
        assert_eq!(other.forced, kept.forced);
        let text = serde_json::to_vec(&kept).unwrap();
        let back: Kept = serde_json::from_slice(&text).unwrap();
        assert_eq!((back.token.expose(), back.until), ("t", 0));
        assert!(!format!("{kept:?}").contains("\"t\""));
    }
}
