//! The least pace of a client that sends or reads a body. A limit on single pauses is no limit on a
//! client that moves a byte just before each of them ends. Only the time counts in which it was the
//! client that everybody waited for.

use std::time::Duration;

/// Bytes a second.
const LEAST: u64 = 128;
/// What a byte may take at that pace, nanoseconds.
const BYTE: u64 = 1_000_000_000 / LEAST;

/// How much longer to wait for a client that has moved `bytes` and was waited for `waited` so far: no
/// pause may be longer than `pause`, and nor may all of them together, but for the time that the bytes
/// take at the least pace.
pub(crate) fn left(pause: Duration, bytes: u64, waited: Duration) -> Duration {
    let earned = Duration::from_nanos(bytes.saturating_mul(BYTE));
    pause.saturating_add(earned).saturating_sub(waited).min(pause)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAUSE: Duration = Duration::from_secs(30);

    fn seconds(n: u64) -> Duration {
        Duration::from_secs(n)
    }

    #[test]
    fn a_pause_is_never_longer_than_allowed() {
        assert_eq!(left(PAUSE, 0, Duration::ZERO), PAUSE);
        assert_eq!(left(PAUSE, u64::MAX, Duration::ZERO), PAUSE);
    }

    #[test]
    fn a_byte_before_each_end_does_not_help() {
        // A byte each ten seconds: the fourth does not come in time.
        let mut waited = Duration::ZERO;
        for byte in 0..3 {
            assert!(left(PAUSE, byte, waited) >= seconds(10), "{byte}");
            waited += seconds(10);
        }
        assert!(left(PAUSE, 3, waited) < seconds(1));
    }

    #[test]
    fn who_keeps_the_pace_may_take_as_long_as_it_likes() {
        assert_eq!(left(PAUSE, 128 * 3600, seconds(3600)), PAUSE);
        assert_eq!(left(PAUSE, 64 * 3600, seconds(3600)), Duration::ZERO);
    }
}
