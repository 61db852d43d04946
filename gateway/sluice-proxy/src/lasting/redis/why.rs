//! Why Redis did not say what was asked, as bounded words for metrics and the log.

use std::sync::atomic::{AtomicU64, Ordering};

use super::connection::Failure;

/// The kinds of failures.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Why {
    /// No answer in time, or too many wait for one.
    Timeout,
    /// No connection, or it ended, or what came was no reply.
    Lost,
    /// User or password are wrong, or may not do this.
    Auth,
    /// It is a replica: somebody else counts now.
    ReadOnly,
    /// It is starting.
    Loading,
    /// It has no memory left, or cannot save.
    Full,
    /// The cluster does not serve this key now.
    Cluster,
    /// Any other refusal.
    Refused,
}

/// How often each kind was met.
#[derive(Debug, Default)]
pub(crate) struct Failures([AtomicU64; Why::ALL.len()]);

impl Why {
    pub(crate) const ALL: [Self; 8] = [
        Self::Timeout,
        Self::Lost,
        Self::Auth,
        Self::ReadOnly,
        Self::Loading,
        Self::Full,
        Self::Cluster,
        Self::Refused,
    ];

    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Timeout => "timeout",
            Self::Lost => "lost",
            Self::Auth => "auth",
            Self::ReadOnly => "read_only",
            Self::Loading => "loading",
            Self::Full => "full",
            Self::Cluster => "cluster",
            Self::Refused => "refused",
        }
    }

    /// Reads the first word of an error.
    pub(super) fn of(error: &str) -> Self {
        match error.split(' ').next().unwrap_or_default() {
            "NOAUTH" | "WRONGPASS" | "NOPERM" => Self::Auth,
            "READONLY" | "MASTERDOWN" | "NOREPLICAS" => Self::ReadOnly,
            "LOADING" => Self::Loading,
            "OOM" | "MISCONF" => Self::Full,
            "CLUSTERDOWN" | "TRYAGAIN" | "MOVED" | "ASK" | "CROSSSLOT" => Self::Cluster,
            _ if error.contains("max number of clients") => Self::Full,
            // What old servers say to a password.
            _ if error.contains("AUTH") || error.contains("invalid password") => Self::Auth,
            _ => Self::Refused,
        }
    }
}

impl From<Failure> for Why {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Late | Failure::Full => Self::Timeout,
            Failure::Lost => Self::Lost,
        }
    }
}

impl Failures {
    pub(super) fn add(&self, why: Why) {
        if let Some(count) = self.0.get(why as usize) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    pub(crate) fn count(&self, why: Why) -> u64 {
        self.0.get(why as usize).map_or(0, |count| count.load(Ordering::Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_have_kinds() {
        for (error, why) in [
            ("NOAUTH Authentication required.", Why::Auth),
            ("WRONGPASS invalid username-password pair or user is disabled.", Why::Auth),
            ("ERR invalid password", Why::Auth),
            ("READONLY You can't write against a read only replica.", Why::ReadOnly),
            ("LOADING Redis is loading the dataset in memory", Why::Loading),
            ("OOM command not allowed when used memory > 'maxmemory'.", Why::Full),
            ("MISCONF Redis is configured to save RDB snapshots", Why::Full),
            ("ERR max number of clients reached", Why::Full),
            ("CLUSTERDOWN Hash slot not served", Why::Cluster),
            ("ERR unknown command", Why::Refused),
        ] {
            assert_eq!(Why::of(error), why, "{error}");
        }
        assert!(Why::ALL.iter().enumerate().all(|(at, why)| *why as usize == at));
    }
}
