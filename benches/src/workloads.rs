//! The table of workloads: what is asked of every proxy, and how. A further workload is one entry.
//!
//! An entry says what is asked; how each proxy is configured for it is in `peers`, and how the load
//! is made in `load`. The one rule: every proxy gets the same requests over the same number of
//! connections, and only what an entry says differs between two of them.

/// One thing that is measured.
#[derive(Debug, Clone)]
pub(crate) struct Workload {
    /// The word for `--only`, and the key in the report.
    pub(crate) name: &'static str,
    /// What it is, in words.
    pub(crate) title: &'static str,
    pub(crate) ask: Ask,
    pub(crate) load: Load,
}

/// The request, and what must come back.
#[derive(Debug, Clone)]
pub(crate) struct Ask {
    pub(crate) path: &'static str,
    /// Bytes of the body of a POST; none makes it a GET.
    pub(crate) body: Option<usize>,
    /// Bytes of the body of the answer.
    pub(crate) answer: usize,
}

/// How the load is made at saturation.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Load {
    /// HTTP/1.1, each connection asking again as soon as it was answered.
    KeepAlive { connections: usize },
}

const SMALL: Ask = Ask { path: "/128", body: None, answer: 128 };

/// All workloads, in the order of the report.
pub(crate) fn all() -> Vec<Workload> {
    vec![
        Workload {
            name: "get-128",
            title: "GET, answers of 128 B, 64 connections",
            ask: SMALL,
            load: Load::KeepAlive { connections: 64 },
        },
        Workload {
            name: "get-4k",
            title: "GET, answers of 4 KiB, 64 connections",
            ask: Ask { path: "/4k", body: None, answer: 4 * 1024 },
            load: Load::KeepAlive { connections: 64 },
        },
        Workload {
            name: "get-1m",
            title: "GET, answers of 1 MiB, 16 connections",
            ask: Ask { path: "/1m", body: None, answer: 1024 * 1024 },
            load: Load::KeepAlive { connections: 16 },
        },
        Workload {
            name: "post-16k",
            title: "POST, 16 KiB echoed, 64 connections",
            ask: Ask { path: "/echo", body: Some(16 * 1024), answer: 16 * 1024 },
            load: Load::KeepAlive { connections: 64 },
        },
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_words() {
        let mut names: Vec<&str> = all().iter().map(|workload| workload.name).collect();
        let word = |name: &str| name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
        assert!(names.iter().all(|name| word(name)), "{names:?}");
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), all().len());
    }
}
