//! `retries:` of an upstream: how many attempts a request may have, how they are spaced, and the budget
//! that all its requests share. Which requests may be sent twice is their route's to say
//! (`parts::repeats`).

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;
use sluice_engine::{backoff, budget};

use crate::base::clock::Moment;
use crate::base::units::{ByteSize, Percent, Span};
use crate::base::yaml::Place;
use crate::lasting::telemetry::metrics::UpstreamSeries;
use crate::parts::env::Env;

/// Attempts of a request, the first one included.
pub(crate) const MOST_ATTEMPTS: u8 = 3;
/// Bytes of a body that may be kept.
const MOST_REPLAY: u64 = 1024 * 1024;
/// Nobody should be kept waiting longer between two attempts.
const LONGEST_WAIT: Duration = Duration::from_secs(10);

/// How requests are tried again that failed, or that nobody has seen. The budget is a bound for all of
/// them together, so that a service that fails under its load is not given more of it: the larger of the
/// two, counted over 10s.
#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Config {
    /// Further attempts as a share of the requests.
    budget: Percent,
    /// Further attempts a second, on average, where good answers have earned them; a service that fails
    /// always has the share alone.
    min_per_second: u16,
    /// Attempts of one request, the first one included: 1 to 3.
    attempts: u8,
    /// An attempt without the head of an answer after so long gives way to another one, where there may be
    /// one; else it goes on.
    per_try_timeout: Option<Span>,
    /// Longest wait before the second attempt, twice that before the third; the wait is random.
    backoff: Span,
    /// Longest such wait of any attempt.
    max_backoff: Span,
    /// An answer that asks for more patience than this (`Retry-After`) is passed on.
    max_retry_after: Span,
    /// Bytes of a request body that are kept until there is an answer, so that it can be sent again; `0B`
    /// for none.
    replay: ByteSize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            budget: Percent(20),
            min_per_second: 3,
            attempts: 2,
            per_try_timeout: None,
            backoff: Span(Duration::from_millis(25)),
            max_backoff: Span(Duration::from_millis(250)),
            max_retry_after: Span(Duration::from_secs(1)),
            replay: ByteSize(64 * 1024),
        }
    }
}

/// Why a request is tried again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Why {
    /// No connection was got.
    Connect,
    /// It was not sent, or the service says that it did nothing with it.
    Unsent,
    /// The connection died without a byte of an answer.
    Reset,
    /// The answer's status is one that the route names.
    Status,
    /// The attempt's own time was over.
    Timeout,
}

impl Why {
    const ALL: [Self; 5] = [Self::Connect, Self::Unsent, Self::Reset, Self::Status, Self::Timeout];

    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::Unsent => "unsent",
            Self::Reset => "reset",
            Self::Status => "status",
            Self::Timeout => "timeout",
        }
    }
}

/// What has been counted over an upstream's life.
#[derive(Debug, Default)]
struct Tally {
    /// By [`Why`].
    made: [AtomicU64; Why::ALL.len()],
    /// Requests whose body was no longer whole when they could have been sent again.
    unkept: AtomicU64,
}

/// Rules of this compilation over cells that outlive it.
pub(crate) struct Retries {
    pub(crate) attempts: u8,
    pub(crate) per_try: Option<Duration>,
    pub(crate) replay: usize,
    pub(crate) backoff: backoff::Rules,
    pub(crate) max_retry_after: Duration,
    rules: budget::Rules,
    cell: Arc<budget::Cell>,
    tally: Arc<Tally>,
}

impl Config {
    pub(super) fn build(self, name: &str, at: &Place<'_>, env: &mut Env<'_>) -> Option<Retries> {
        let mut whole = attempts(self.attempts, at, env) & per_try(self.per_try_timeout, at, env);
        for (key, span) in [
            ("backoff", self.backoff),
            ("max_backoff", self.max_backoff),
            ("max_retry_after", self.max_retry_after),
        ] {
            if span.0 > LONGEST_WAIT {
                whole = false;
                env.problems
                    .error(&at.field(key), "nobody should wait longer than 10s for an attempt")
                    .help("the client waits too, and holds memory; try 250ms");
            }
        }
        if self.backoff.0 > self.max_backoff.0 {
            whole = false;
            env.problems.error(&at.field("max_backoff"), "`max_backoff` is shorter than `backoff`");
        }
        if self.replay.0 > MOST_REPLAY {
            whole = false;
            env.problems
                .error(&at.field("replay"), "`replay` must not be larger than 1MiB")
                .help("each request in progress may hold so much; try 64KiB");
        }
        let cell = env.retained.cell(&format!("retries of upstream {name}"), Default::default);
        let tally = env.retained.cell(&format!("retries made of upstream {name}"), Tally::default);
        whole.then(|| Retries {
            attempts: self.attempts,
            per_try: self.per_try_timeout.map(|span| span.0),
            replay: usize::try_from(self.replay.0).unwrap_or(0),
            backoff: backoff::Rules { base: self.backoff.0, most: self.max_backoff.0 },
            max_retry_after: self.max_retry_after.0,
            rules: budget::Rules {
                percent: self.budget.0,
                min_per_second: u32::from(self.min_per_second),
            },
            cell,
            tally,
        })
    }
}

/// Whether `attempts` is a number of attempts.
pub(crate) fn attempts(attempts: u8, at: &Place<'_>, env: &mut Env<'_>) -> bool {
    let fine = (1..=MOST_ATTEMPTS).contains(&attempts);
    if !fine {
        let message = format!("`attempts` must lie between 1 and {MOST_ATTEMPTS}");
        env.problems
            .error(&at.field("attempts"), message)
            .help("the first attempt counts: 1 means that nothing is tried again");
    }
    fine
}

/// Whether `per_try_timeout` is one.
pub(crate) fn per_try(span: Option<Span>, at: &Place<'_>, env: &mut Env<'_>) -> bool {
    let range = Duration::from_millis(1)..=Duration::from_secs(55);
    let fine = span.is_none_or(|span| range.contains(&span.0));
    if !fine {
        env.problems
            .error(&at.field("per_try_timeout"), "`per_try_timeout` must lie between 1ms and 55s");
    }
    fine
}

impl Retries {
    /// Whether one more request may be sent again.
    pub(crate) fn admit(&self, series: &UpstreamSeries, now: Moment) -> bool {
        let (attempts, well) = series.attempts();
        let again: u64 = self.made().map(|(_, count)| count).sum();
        let seen = budget::Seen { requests: attempts.saturating_sub(again), well };
        self.cell.admit(&self.rules, now, seen)
    }

    /// Notes that a request is sent again.
    pub(crate) fn count(&self, why: Why) {
        if let Some(count) = self.tally.made.get(why as usize) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Notes that a request was not sent again because its body is not whole any more.
    pub(crate) fn count_unkept(&self) {
        self.tally.unkept.fetch_add(1, Ordering::Relaxed);
    }

    /// Further attempts so far.
    pub(crate) fn made(&self) -> impl Iterator<Item = (Why, u64)> {
        Why::ALL.into_iter().zip(self.tally.made.iter().map(|count| count.load(Ordering::Relaxed)))
    }

    /// Further attempts that the budget has refused so far.
    pub(crate) fn refused(&self) -> u64 {
        self.cell.tally().refused
    }

    /// Requests that were not sent again for want of their bodies.
    pub(crate) fn unkept(&self) -> u64 {
        self.tally.unkept.load(Ordering::Relaxed)
    }
}
