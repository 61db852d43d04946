//! The only place that asks what time it is. Everything else is handed a [`Moment`] or asks here, so
//! that mechanisms stay testable with invented instants.

use std::sync::OnceLock;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

pub(crate) use sluice_engine::moment::Moment;

/// Monotonic nanoseconds since the process first asked.
pub(crate) fn now() -> Moment {
    let elapsed = instant().saturating_duration_since(origin());
    Moment::from_nanos(u64::try_from(elapsed.as_nanos()).unwrap_or(u64::MAX))
}

/// The tokio deadline that lies at `moment`.
pub(crate) fn deadline(moment: Moment) -> tokio::time::Instant {
    tokio::time::Instant::from_std(origin() + Duration::from_nanos(moment.nanos()))
}

/// Wall-clock time, for tokens, logs and certificates only: it may jump.
pub(crate) fn wall() -> SystemTime {
    #[expect(clippy::disallowed_methods, reason = "the one home of the wall clock")]
    SystemTime::now()
}

/// Whole seconds since 1970 by the wall clock.
pub(crate) fn unix_seconds() -> u64 {
    wall().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// Whole milliseconds since 1970 by the wall clock.
pub(crate) fn unix_millis() -> u64 {
    let since = wall().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

fn instant() -> Instant {
    #[expect(clippy::disallowed_methods, reason = "the one home of the monotonic clock")]
    Instant::now()
}

fn origin() -> Instant {
    static ORIGIN: OnceLock<Instant> = OnceLock::new();
    *ORIGIN.get_or_init(instant)
}
