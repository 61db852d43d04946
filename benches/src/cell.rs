//! One cell of a table: one proxy under one workload in one round, started afresh.
//!
//! The order is fixed: start, check one answer, warm up, measure, stop. The one rule: whatever is
//! read from the kernel is read around the measured load alone.

use std::fs;
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Serialize;

use crate::account::{Memory, Processor, Spent};
use crate::calls;
use crate::child::{LOAD, PROXY, Running};
use crate::failure::{Failure, Outcome};
use crate::ground::Ground;
use crate::load::{Latency, Source, Tally};
use crate::peers::{Peer, Stage};
use crate::probe;
use crate::workloads::{Back, Load, Workload};

/// How long things are measured, in seconds.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct Lengths {
    pub(crate) warm_up: u32,
    pub(crate) measured: u32,
}

/// What all cells of a run share.
pub(crate) struct Bench {
    /// Emptied for each cell.
    pub(crate) folder: PathBuf,
    pub(crate) harness: PathBuf,
    pub(crate) ground: Ground,
    pub(crate) lengths: Lengths,
    pub(crate) http_port: u16,
    pub(crate) grpc_port: u16,
    pub(crate) redis_port: u16,
}

/// What is measured, once rates are numbers.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Task {
    Saturate,
    Steady { per_second: u32 },
    Idle,
    Calls,
}

/// What was measured in one cell.
#[derive(Debug, Clone, Default, Serialize)]
pub(crate) struct Cell {
    pub(crate) requests: u64,
    pub(crate) requests_per_second: f64,
    pub(crate) errors: u64,
    pub(crate) cpu_us: f64,
    /// The kernel's share of the processor time.
    pub(crate) kernel: f64,
    pub(crate) latency: Latency,
    pub(crate) peak_rss_kib: u64,
    /// How busy the processor of the load was: near 1, the load may have been the limit.
    pub(crate) load_busy: f64,
    /// How much of its own processor the proxy had, and what others took from it.
    pub(crate) proxy_busy: f64,
    pub(crate) others_busy: f64,
    /// Taken by other guests of the host, on either processor.
    pub(crate) stolen: f64,
    /// Memory of one idle connection, in bytes.
    pub(crate) idle_bytes: Option<f64>,
    pub(crate) calls: Option<f64>,
}

/// How much of a log is shown when a proxy does not do as it should.
const LOG_SHOWN: usize = 2000;
/// How long idle connections rest before they are counted.
const REST: Duration = Duration::from_secs(3);

/// Measures one cell.
pub(crate) fn measure(
    bench: &Bench,
    peer: &Peer,
    workload: &Workload,
    task: Task,
) -> Outcome<Cell> {
    let folder = bench.folder.as_path();
    let _ = fs::remove_dir_all(folder);
    fs::create_dir_all(folder).map_err(Failure::at(folder))?;
    let [port, admin_port] = free_ports()?;
    let ground = &bench.ground;
    let backend_port = match workload.back {
        Back::Http | Back::WebSocket => bench.http_port,
        Back::Grpc => bench.grpc_port,
    };
    let redis_port = bench.redis_port;
    let stage = Stage { workload, ground, folder, port, admin_port, backend_port, redis_port };
    let log = folder.join("log");
    let mut proxy = peer.prepare(&stage)?.start(PROXY, &log)?;
    let source = Source { workload, ground, folder, harness: &bench.harness, port };
    let done = (|| {
        probe::until_ready(&source, || proxy.has_ended())?;
        if workload.chain.is_some_and(|chain| peer.kind.does(chain)) {
            probe::refuses_forged(&source)?;
        }
        let cell = match task {
            Task::Saturate => timed(bench.lengths, &proxy, |seconds| source.saturate(seconds)),
            Task::Steady { per_second } => {
                timed(bench.lengths, &proxy, |seconds| source.steady(per_second, seconds))
            }
            Task::Idle => idle(&source, &proxy),
            Task::Calls => calls::count(&source, &proxy),
        }?;
        if proxy.has_ended() {
            return Err(Failure::new("it has ended under load"));
        }
        Ok(cell)
    })();
    done.map_err(|Failure(why)| Failure(format!("{}: {why}\n{}", peer.name, tail(&log))))
}

/// Load, first to warm up and then measured.
fn timed(lengths: Lengths, proxy: &Running, load: impl Fn(u32) -> Outcome<Tally>) -> Outcome<Cell> {
    load(lengths.warm_up)?;
    let before = Spent::by_tree(proxy.id());
    let [own_before, load_before] = [PROXY, LOAD].map(Processor::now);
    let tally = load(lengths.measured)?;
    let [own, load] = [PROXY, LOAD].map(Processor::now);
    let after = Spent::by_tree(proxy.id());
    let (own, load) = (own.since(&own_before), load.since(&load_before));
    let nanoseconds = after.since(&before) as f64;
    let proxy_busy = nanoseconds / 1e9 / tally.seconds.max(f64::EPSILON);
    if let Some(example) = &tally.example {
        eprintln!("  first of {} errors: {example}", tally.errors);
    }
    Ok(Cell {
        requests: tally.requests,
        requests_per_second: tally.requests as f64 / tally.seconds.max(f64::EPSILON),
        errors: tally.errors,
        cpu_us: nanoseconds / 1e3 / tally.requests.max(1) as f64,
        kernel: after.kernel_share_since(&before),
        latency: tally.latency,
        peak_rss_kib: Memory::of_tree(proxy.id()).peak_rss,
        load_busy: load.busy,
        proxy_busy,
        others_busy: (own.busy - proxy_busy).max(0.0),
        stolen: own.stolen.max(load.stolen),
        ..Cell::default()
    })
}

/// The proportional memory that many idle connections add to a proxy that has served a few.
fn idle(source: &Source<'_>, proxy: &Running) -> Outcome<Cell> {
    let Load::Idle { connections } = source.workload.load else {
        return Err(Failure::new("not a workload of idle connections"));
    };
    drop(source.hold(1)?);
    let before = Memory::of_tree(proxy.id());
    let _held = source.hold(connections)?;
    std::thread::sleep(REST);
    let after = Memory::of_tree(proxy.id());
    let added = after.pss.saturating_sub(before.pss) * 1024;
    Ok(Cell {
        requests: connections as u64,
        peak_rss_kib: after.peak_rss,
        idle_bytes: Some(added as f64 / connections.max(1) as f64),
        ..Cell::default()
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
