//! A proxy that stands and has answered once as it should: what every measurement begins with.

use std::fs;
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};

use crate::child::Running;
use crate::failure::{Failure, Outcome};
use crate::ground::Ground;
use crate::load::Source;
use crate::peers::{Peer, Stage};
use crate::probe;
use crate::workloads::{Back, Workload};

/// What all proxies of a run share.
pub(crate) struct Bench {
    /// Where proxies have their folders.
    pub(crate) folder: PathBuf,
    pub(crate) harness: PathBuf,
    pub(crate) ground: Ground,
    pub(crate) http: Backend,
    pub(crate) grpc: Backend,
    pub(crate) redis_port: u16,
}

/// A back end's ports: the service, and its count of requests.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Backend {
    pub(crate) port: u16,
    pub(crate) count_port: u16,
}

/// A proxy that stands, until this is dropped.
pub(crate) struct Standing<'a> {
    pub(crate) bench: &'a Bench,
    pub(crate) peer: &'a Peer,
    pub(crate) workload: &'a Workload,
    pub(crate) proxy: Running,
    folder: PathBuf,
    log: PathBuf,
    port: u16,
}

/// How much of a log is shown when a proxy does not do as it should.
const LOG_SHOWN: usize = 2000;

impl Bench {
    pub(crate) fn backend(&self, workload: &Workload) -> Backend {
        match workload.back {
            Back::Http | Back::WebSocket => self.http,
            Back::Grpc => self.grpc,
        }
    }

    /// Starts a proxy in an empty folder and waits until it answers.
    pub(crate) fn stand<'a>(
        &'a self,
        peer: &'a Peer,
        workload: &'a Workload,
    ) -> Outcome<Standing<'a>> {
        let folder = self.folder.join(&peer.name);
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir_all(&folder).map_err(Failure::at(&folder))?;
        let [port, admin_port] = free_ports()?;
        let stage = Stage {
            workload,
            workers: peer.workers,
            ground: &self.ground,
            folder: &folder,
            port,
            admin_port,
            backend_port: self.backend(workload).port,
            redis_port: self.redis_port,
        };
        let log = folder.join("log");
        let proxy = peer.prepare(&stage)?.on(&peer.processors().0).start(&log)?;
        let mut standing = Standing { bench: self, peer, workload, proxy, folder, log, port };
        let ready = standing.wait();
        ready.map_err(|why| standing.blame(why)).map(|()| standing)
    }
}

impl Standing<'_> {
    /// Load for it.
    pub(crate) fn source(&self) -> Source<'_> {
        source(self.bench, self.peer, self.workload, &self.folder, self.port)
    }

    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Fails if it has ended by itself.
    pub(crate) fn still_runs(&mut self) -> Outcome<()> {
        if self.proxy.has_ended() { Err(Failure::new("it has ended under load")) } else { Ok(()) }
    }

    /// A failure with the proxy's name and its last words.
    pub(crate) fn blame(&self, Failure(why): Failure) -> Failure {
        Failure(format!("{}: {why}\n{}", self.peer.name, tail(&self.log)).trim_end().to_owned())
    }

    fn wait(&mut self) -> Outcome<()> {
        let source = source(self.bench, self.peer, self.workload, &self.folder, self.port);
        probe::until_ready(&source, || self.proxy.has_ended())?;
        if self.workload.chain.is_some_and(|chain| self.peer.kind.does(chain)) {
            probe::refuses_forged(&source)?;
        }
        Ok(())
    }
}

fn source<'a>(
    bench: &'a Bench,
    peer: &Peer,
    workload: &'a Workload,
    folder: &'a Path,
    port: u16,
) -> Source<'a> {
    let (_, processors) = peer.processors();
    Source { workload, ground: &bench.ground, folder, harness: &bench.harness, processors, port }
}

/// Ports that nobody listens on; all are held until the last is known.
pub(crate) fn free_ports<const N: usize>() -> Outcome<[u16; N]> {
    let mut ports = [0; N];
    let mut held = Vec::with_capacity(N);
    for port in &mut ports {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        *port = listener.local_addr()?.port();
        held.push(listener);
    }
    Ok(ports)
}

fn tail(log: &Path) -> String {
    let text = fs::read_to_string(log).unwrap_or_default();
    let from = text.char_indices().rev().nth(LOG_SHOWN).map_or(0, |(at, _)| at);
    text.get(from..).unwrap_or_default().trim().to_owned()
}
