//! Load: who makes it for which workload, and what comes back from every one of them.
//!
//! Load is always made by a process of its own on the processor of the load. The one rule: a request
//! that was not answered as it should be is an error in the tally, and an error makes the run fail.

mod wrk;

use serde::{Deserialize, Serialize};

use crate::failure::Outcome;
use crate::workloads::{Load, Workload};

/// What came of a load.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Tally {
    /// Requests that were answered.
    pub(crate) requests: u64,
    pub(crate) seconds: f64,
    /// Bytes of all answers.
    pub(crate) bytes: u64,
    pub(crate) errors: u64,
    pub(crate) latency: Latency,
}

/// Latencies in microseconds.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
pub(crate) struct Latency {
    pub(crate) p50: f64,
    pub(crate) p90: f64,
    pub(crate) p99: f64,
    pub(crate) p999: f64,
}

/// Makes the load of a workload at saturation for so many seconds.
pub(crate) fn saturate(
    workload: &Workload,
    folder: &std::path::Path,
    port: u16,
    seconds: u32,
) -> Outcome<Tally> {
    let mut tally = match workload.load {
        Load::KeepAlive { connections } => {
            wrk::run(&workload.ask, folder, port, connections, seconds)?
        }
    };
    // Answers that are too short are errors that a load generator does not see by itself.
    if tally.bytes < tally.requests * workload.ask.answer as u64 {
        tally.errors += 1;
    }
    Ok(tally)
}
