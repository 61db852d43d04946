//! One cell of the table: one proxy under one workload in one round, started afresh.
//!
//! The order is fixed: start, check one answer, warm up, measure, stop. The one rule: whatever is
//! read from the kernel is read around the measured load alone.

use std::fs;
use std::net::{Ipv4Addr, TcpListener};
use std::path::Path;

use serde::Serialize;

use crate::account::{Memory, Processor, Spent};
use crate::child::{LOAD, PROXY};
use crate::failure::{Failure, Outcome};
use crate::load::{self, Latency};
use crate::peers::{Peer, Stage};
use crate::probe;
use crate::workloads::Workload;

/// How long things are measured, in seconds.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct Lengths {
    pub(crate) warm_up: u32,
    pub(crate) measured: u32,
}

/// What was measured in one cell.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Cell {
    pub(crate) requests: u64,
    pub(crate) requests_per_second: f64,
    pub(crate) errors: u64,
    pub(crate) cpu_us: f64,
    /// The kernel's share of the processor time.
    pub(crate) kernel: f64,
    pub(crate) latency: Latency,
    pub(crate) peak_rss_kib: u64,
    /// How busy the processor of the load was: near 1, the load was the limit.
    pub(crate) load_busy: f64,
    /// How much of its own processor the proxy had, and what others took from it.
    pub(crate) proxy_busy: f64,
    pub(crate) others_busy: f64,
    /// Taken by other guests of the host, on either processor.
    pub(crate) stolen: f64,
}

/// How much of a log is shown when a proxy does not do as it should.
const LOG_SHOWN: usize = 2000;

/// Measures one cell. `folder` is emptied first.
pub(crate) fn measure(
    peer: &Peer,
    workload: &Workload,
    folder: &Path,
    backend_port: u16,
    lengths: Lengths,
) -> Outcome<Cell> {
    let _ = fs::remove_dir_all(folder);
    fs::create_dir_all(folder).map_err(Failure::at(folder))?;
    let [port, admin_port] = free_ports()?;
    let stage = Stage { workload, folder, port, admin_port, backend_port };
    let log = folder.join("log");
    let mut proxy = peer.prepare(&stage)?.start(PROXY, &log)?;
    let blame = |Failure(why)| Failure(format!("{}: {why}\n{}", peer.name, tail(&log)));
    probe::until_ready(&workload.ask, port, || proxy.has_ended()).map_err(blame)?;
    load::saturate(workload, folder, port, lengths.warm_up).map_err(blame)?;

    let before = Spent::by_tree(proxy.id());
    let processors = [Processor::now(PROXY), Processor::now(LOAD)];
    let tally = load::saturate(workload, folder, port, lengths.measured).map_err(blame)?;
    let [own, load] = [Processor::now(PROXY), Processor::now(LOAD)];
    let after = Spent::by_tree(proxy.id());
    let memory = Memory::of_tree(proxy.id());
    if proxy.has_ended() {
        return Err(blame(Failure::new("it has ended under load")));
    }

    let [own_before, load_before] = processors;
    let own = own.since(&own_before);
    let load = load.since(&load_before);
    let nanoseconds = after.since(&before) as f64;
    let proxy_busy = nanoseconds / 1e9 / tally.seconds.max(f64::EPSILON);
    Ok(Cell {
        requests: tally.requests,
        requests_per_second: tally.requests as f64 / tally.seconds.max(f64::EPSILON),
        errors: tally.errors,
        cpu_us: nanoseconds / 1e3 / tally.requests.max(1) as f64,
        kernel: after.kernel_share_since(&before),
        latency: tally.latency,
        peak_rss_kib: memory.peak_rss,
        load_busy: load.busy,
        proxy_busy,
        others_busy: (own.busy - proxy_busy).max(0.0),
        stolen: own.stolen.max(load.stolen),
    })
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
