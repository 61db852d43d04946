//! The proxies that are compared, each configured as well as we know how: one worker, connections to
//! the back end kept, no access log, `X-Forwarded-For` added, clients' connections kept for ever.
//!
//! A file for each proxy writes its config for a stage; this one knows which there are. The one
//! rule: a setting that only makes one of them look good, or bad, has no place in any of them.

mod nginx;
mod sluice;

use std::path::{Path, PathBuf};

use crate::child::Line;
use crate::failure::Outcome;
use crate::workloads::Workload;

/// A proxy that takes part.
#[derive(Debug, Clone)]
pub(crate) struct Peer {
    /// Its name in the report.
    pub(crate) name: String,
    pub(crate) kind: Kind,
    pub(crate) program: PathBuf,
}

/// Which proxy it is; several builds of Sluice may take part at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Nginx,
    Sluice,
}

/// Where a proxy is to listen, and what stands behind it.
pub(crate) struct Stage<'a> {
    pub(crate) workload: &'a Workload,
    /// A folder for configs and logs, new for each cell.
    pub(crate) folder: &'a Path,
    pub(crate) port: u16,
    pub(crate) admin_port: u16,
    pub(crate) backend_port: u16,
}

impl Kind {
    /// The word for `--peers`, which is also the name of the program.
    pub(crate) const ALL: [(Self, &'static str); 2] =
        [(Self::Nginx, "nginx"), (Self::Sluice, "sluice")];
}

impl Peer {
    /// Writes the config and gives back the command line that serves it.
    pub(crate) fn prepare(&self, stage: &Stage<'_>) -> Outcome<Line> {
        let line = Line::new(&self.program);
        match self.kind {
            Kind::Nginx => nginx::prepare(line, stage),
            Kind::Sluice => sluice::prepare(line, stage),
        }
    }
}
