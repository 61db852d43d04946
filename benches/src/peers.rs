//! The proxies that are compared, each configured as well as we know how: one worker (or as many as
//! are asked for), connections to the back end kept, no access log, `X-Forwarded-For` added, clients' connections kept for ever.
//!
//! A file for each proxy writes its config for a stage; this one knows which there are. The one
//! rule: a setting that only makes one of them look good, or bad, has no place in any of them.

mod envoy;
mod haproxy;
mod nginx;
mod nginx_lua;
mod pingora;
mod sluice;

use std::fs;
use std::path::{Path, PathBuf};

use crate::child::{LOAD, Line, PROXY};
use crate::failure::{Failure, Outcome};
use crate::ground::Ground;
use crate::workloads::{Chain, Limit, Workload};

/// A proxy that takes part.
#[derive(Debug, Clone)]
pub(crate) struct Peer {
    /// Its name in the report.
    pub(crate) name: String,
    pub(crate) kind: Kind,
    pub(crate) program: PathBuf,
    /// Worker threads or processes; one of them has a processor for itself.
    pub(crate) workers: usize,
}

/// Which proxy it is; several builds of Sluice may take part at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Nginx,
    NginxLua,
    Haproxy,
    Envoy,
    Pingora,
    Sluice,
}

/// Where a proxy is to listen, and what stands behind it.
pub(crate) struct Stage<'a> {
    pub(crate) workload: &'a Workload,
    pub(crate) workers: usize,
    pub(crate) ground: &'a Ground,
    /// A folder for configs and logs, new for each cell.
    pub(crate) folder: &'a Path,
    pub(crate) port: u16,
    pub(crate) admin_port: u16,
    pub(crate) backend_port: u16,
    pub(crate) redis_port: u16,
}

impl Kind {
    /// The word for `--peers`, which is also the name of the program.
    pub(crate) const ALL: [(Self, &'static str); 6] = [
        (Self::Nginx, "nginx"),
        (Self::NginxLua, "nginx-lua"),
        (Self::Haproxy, "haproxy"),
        (Self::Envoy, "envoy"),
        (Self::Pingora, "pingora"),
        (Self::Sluice, "sluice"),
    ];

    /// Whether it takes part in a workload at all.
    pub(crate) fn serves(self, workload: &Workload) -> bool {
        let plain = workload.chain.is_none() && workload.limit.is_none();
        match self {
            Self::Nginx | Self::Sluice => true,
            Self::NginxLua => workload.limit == Some(Limit::Redis),
            Self::Haproxy => plain || workload.chain.is_some_and(|chain| self.does(chain)),
            Self::Envoy => plain,
            // A library: a table of routes would be ours.
            Self::Pingora => plain && workload.routes == 1,
        }
    }

    /// Whether it does a chain itself. nginx stands beside every chain and does nothing of it.
    pub(crate) fn does(self, chain: Chain) -> bool {
        match self {
            Self::Sluice => true,
            Self::Haproxy => chain.limit == Limit::Local && !chain.access_log,
            Self::Nginx | Self::NginxLua | Self::Envoy | Self::Pingora => false,
        }
    }

    /// What makes the program print its version, if anything does.
    pub(crate) fn asks_version(self) -> Option<&'static str> {
        match self {
            Self::Nginx | Self::NginxLua | Self::Haproxy => Some("-v"),
            Self::Envoy | Self::Sluice => Some("--version"),
            Self::Pingora => None,
        }
    }
}

impl Peer {
    /// The processors it runs on, and those of its load: apart for one worker, and together for
    /// several, which would otherwise leave no processor to the load.
    pub(crate) fn processors(&self) -> (String, String) {
        match self.workers {
            1 => (PROXY.to_string(), LOAD.to_string()),
            several => (format!("0-{}", several - 1), format!("0-{}", several - 1)),
        }
    }

    /// Writes the config and gives back the command line that serves it.
    pub(crate) fn prepare(&self, stage: &Stage<'_>) -> Outcome<Line> {
        let line = Line::new(&self.program);
        match self.kind {
            Kind::Nginx => nginx::prepare(line, stage),
            Kind::NginxLua => nginx_lua::prepare(line, stage, &self.program),
            Kind::Haproxy => haproxy::prepare(line, stage),
            Kind::Envoy => envoy::prepare(line, stage),
            Kind::Pingora => Ok(pingora::prepare(line, stage)),
            Kind::Sluice => sluice::prepare(line, stage),
        }
    }
}

impl Stage<'_> {
    /// Writes a file of the proxy.
    fn write(&self, name: &str, text: &str) -> Outcome<PathBuf> {
        let place = self.folder.join(name);
        fs::write(&place, text).map_err(Failure::at(&place)).map(|()| place)
    }

    /// The prefixes of all routes, or none where one route takes everything.
    fn prefixes(&self) -> impl Iterator<Item = String> + use<> {
        let many = if self.workload.routes > 1 { self.workload.routes } else { 0 };
        (0..many).map(|number| format!("/r{number}/"))
    }
}
