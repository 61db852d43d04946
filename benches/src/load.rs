//! Load: who makes it for which workload, and what comes back from every one of them.
//!
//! Load is always made by a process of its own on the processor of the load. The one rule: a request
//! that was not answered as it should be is an error in the tally, and an error makes the run fail.

mod h2load;
mod wrk;

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::child::{Line, Running};
use crate::failure::{Failure, Outcome};
use crate::generator::{Job, STANDING, Way};
use crate::ground::Ground;
use crate::request::Request;
use crate::workloads::{Front, Load, Workload};

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
    /// The first error, where the generator tells.
    #[serde(default)]
    pub(crate) example: Option<String>,
}

/// Latencies in microseconds.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
pub(crate) struct Latency {
    pub(crate) p50: f64,
    pub(crate) p90: f64,
    pub(crate) p99: f64,
    pub(crate) p999: f64,
}

/// Everything that a load needs to know.
pub(crate) struct Source<'a> {
    pub(crate) workload: &'a Workload,
    pub(crate) ground: &'a Ground,
    pub(crate) folder: &'a Path,
    /// This program, which is a load generator too.
    pub(crate) harness: &'a Path,
    /// Where the load runs.
    pub(crate) processors: String,
    pub(crate) port: u16,
}

/// How long opening idle connections may take.
const OPENING: Duration = Duration::from_secs(60);
/// Connections of a fixed rate: enough that a slow answer delays no other.
const STEADY: usize = 64;

impl Source<'_> {
    /// As many requests as the proxy can answer, for so many seconds.
    pub(crate) fn saturate(&self, seconds: u32) -> Outcome<Tally> {
        let said = self.saturating(seconds)?.finish()?;
        self.checked(match self.workload.load {
            Load::KeepAlive { .. } => wrk::read(&said)?,
            Load::Streams { .. } => h2load::read(self, &said, seconds)?,
            Load::Handshakes { .. } | Load::Messages { .. } | Load::Idle { .. } => told(&said)?,
        })
    }

    /// The command line of that load, for those who do not wait for its end.
    pub(crate) fn saturating(&self, seconds: u32) -> Outcome<Line> {
        let line = match self.workload.load {
            Load::KeepAlive { connections } => wrk::line(self, connections, seconds),
            Load::Streams { connections, streams } => {
                h2load::line(self, connections, streams, seconds)
            }
            Load::Handshakes { at_once } => self.job(Way::Handshakes, at_once, seconds),
            Load::Messages { connections } => self.job(Way::Messages, connections, seconds),
            Load::Idle { .. } => Err(Failure::new("idle connections are not a rate")),
        };
        line.map(|line| line.on(&self.processors))
    }

    /// Whether what a load said, which was interrupted, tells of errors.
    pub(crate) fn had_errors(&self, said: &str) -> u64 {
        match self.workload.load {
            Load::KeepAlive { .. } => wrk::read(said).map_or(1, |tally| tally.errors),
            // The others end without a word; their pass at saturation tells.
            _ => 0,
        }
    }

    /// So many requests each second, for so many seconds.
    pub(crate) fn steady(&self, per_second: u32, seconds: u32) -> Outcome<Tally> {
        self.checked(match self.workload.load {
            Load::Streams { connections, streams } => {
                let line = h2load::line(self, connections, streams, seconds)?;
                let line = h2load::paced(line, connections, per_second);
                let said = line.on(&self.processors).finish()?;
                h2load::read(self, &said, seconds)?
            }
            _ => told(&self.job(Way::Steady { per_second }, STEADY, seconds)?.finish()?)?,
        })
    }

    /// Opens connections, uses each of them once, and holds them as long as the handle lives.
    pub(crate) fn hold(&self, connections: usize) -> Outcome<Running> {
        let says = self.folder.join("idle.log");
        let mut holding = self.job(Way::Idle, connections, 0)?.start(&says)?;
        let began = Instant::now();
        loop {
            let said = fs::read_to_string(&says).unwrap_or_default();
            if said.contains(STANDING) {
                return Ok(holding);
            }
            if holding.has_ended() || began.elapsed() > OPENING {
                return Err(Failure(format!("idle connections could not be opened: {said}")));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    pub(crate) fn request(&self) -> Request {
        Request::of(self.workload, self.ground)
    }

    /// Where the load goes, for programs that want a URL.
    fn url(&self) -> String {
        let scheme = match self.workload.front {
            Front::Plain | Front::Http2Plain => "http",
            Front::Tls | Front::Http2 => "https",
        };
        format!("{scheme}://127.0.0.1:{}{}", self.port, self.workload.ask.path)
    }

    fn job(&self, way: Way, connections: usize, seconds: u32) -> Outcome<Line> {
        let trust = self.workload.is_encrypted().then(|| self.ground.certificate.clone());
        let request = self.request();
        let job = Job { way, port: self.port, trust, request, connections, seconds };
        let job = serde_json::to_string(&job).map_err(|error| Failure(error.to_string()))?;
        Ok(Line::new(self.harness).args(["load", &job]).on(&self.processors))
    }

    /// Answers that are too short are errors that not every load generator sees by itself.
    fn checked(&self, mut tally: Tally) -> Outcome<Tally> {
        if tally.requests == 0 {
            let why = tally.example.unwrap_or_else(|| format!("{} errors", tally.errors));
            return Err(Failure(format!("no request was answered: {why}")));
        }
        if tally.bytes < tally.requests * self.workload.ask.answer as u64 {
            tally.errors += 1;
            tally.example.get_or_insert_with(|| "answers are too short".into());
        }
        Ok(tally)
    }
}

/// The tally of our own generator.
fn told(said: &str) -> Outcome<Tally> {
    let tally = said.lines().last().and_then(|line| serde_json::from_str(line).ok());
    tally.ok_or_else(|| Failure(format!("the load generator gave no tally: {said}")))
}
