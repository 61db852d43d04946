//! Our own load generator, for what wrk and h2load cannot do: an open loop, handshakes, connections
//! that idle, WebSocket messages.
//!
//! It is a process of its own, told what to do as JSON, and prints a tally as JSON. The one rule: a
//! request that fails is counted and the load goes on; only what makes all of it pointless ends it.

mod handshakes;
mod idle;
mod link;
mod messages;
mod steady;

use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::task::LocalSet;

use crate::failure::{Failure, Outcome};
use crate::histogram::Histogram;
use crate::load::Tally;
use crate::request::Request;
use link::Target;

/// What to do.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Job {
    pub(crate) way: Way,
    pub(crate) port: u16,
    /// The certificate to trust; without one there is no TLS.
    pub(crate) trust: Option<PathBuf>,
    pub(crate) request: Request,
    pub(crate) connections: usize,
    pub(crate) seconds: u32,
}

/// How the load is made.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) enum Way {
    /// Requests leave at this rate, whatever became of earlier ones.
    Steady { per_second: u32 },
    /// A connection for each request.
    Handshakes,
    /// Connections are opened, used once, and held until the process is ended.
    Idle,
    /// WebSocket messages to and fro.
    Messages,
}

/// The line that says that all idle connections stand.
pub(crate) const STANDING: &str = "STANDING";

/// What the connections of a load have counted together.
struct Count {
    histogram: Histogram,
    bytes: u64,
    errors: u64,
    /// The first error, for people.
    example: Option<String>,
    /// How long it took, where that may be longer than was asked for.
    took: Duration,
}

/// Does what a job says and prints what came of it.
pub(crate) fn run(job: &str) -> Outcome<()> {
    let job: Job = serde_json::from_str(job).map_err(|error| Failure(format!("job: {error}")))?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let local = LocalSet::new();
    let target = Rc::new(Target::new(&job)?);
    let seconds = Duration::from_secs(job.seconds.into());
    let count = local.block_on(&runtime, async {
        match job.way {
            Way::Steady { per_second } => {
                steady::run(target, job.connections, per_second, seconds).await
            }
            Way::Handshakes => handshakes::run(target, job.connections, seconds).await,
            Way::Idle => idle::run(target, job.connections).await,
            Way::Messages => messages::run(target, job.connections, seconds).await,
        }
    })?;
    if let Some(example) = &count.example {
        eprintln!("first of {} errors: {example}", count.errors);
    }
    let tally = Tally {
        requests: count.histogram.total(),
        seconds: count.took.max(seconds).as_secs_f64(),
        bytes: count.bytes,
        errors: count.errors,
        latency: count.histogram.latency(),
        example: count.example,
    };
    let text = serde_json::to_string(&tally).map_err(|error| Failure(error.to_string()))?;
    println!("{text}");
    Ok(())
}

impl Count {
    fn new() -> Self {
        Self {
            histogram: Histogram::new(),
            bytes: 0,
            errors: 0,
            example: None,
            took: Duration::ZERO,
        }
    }

    fn answered(&mut self, bytes: usize, latency: Duration) {
        self.bytes += bytes as u64;
        self.histogram.record(latency);
    }

    fn failed(&mut self, why: &impl ToString) {
        self.errors += 1;
        self.example.get_or_insert_with(|| why.to_string());
    }
}
