//! One cell of a table: one proxy under one workload in one round, started afresh.
//!
//! The order is fixed: start, check one answer, warm up, measure, stop. The one rule: whatever is
//! read from the kernel is read around the measured load alone.

use std::time::Duration;

use serde::Serialize;

use crate::account::{Memory, Processor, Spent};
use crate::calls;
use crate::child::{LOAD, PROXY, Running};
use crate::failure::{Failure, Outcome};
use crate::load::{Latency, Source, Tally};
use crate::peers::Peer;
use crate::stand::Bench;
use crate::workloads::{Load, Workload};

/// How long things are measured, in seconds.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct Lengths {
    pub(crate) warm_up: u32,
    pub(crate) measured: u32,
}

/// What is measured, once rates are numbers.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Task {
    Saturate,
    /// Not one cell but many small ones: see `slices`.
    Slices,
    Steady {
        per_second: u32,
    },
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

/// How long idle connections rest before they are counted.
const REST: Duration = Duration::from_secs(3);

/// Measures one cell.
pub(crate) fn measure(
    bench: &Bench,
    peer: &Peer,
    workload: &Workload,
    task: Task,
    lengths: Lengths,
) -> Outcome<Cell> {
    let mut standing = bench.stand(peer, workload)?;
    let source = standing.source();
    let done = match task {
        Task::Saturate => timed(lengths, &standing.proxy, |seconds| source.saturate(seconds)),
        Task::Steady { per_second } => {
            timed(lengths, &standing.proxy, |seconds| source.steady(per_second, seconds))
        }
        Task::Slices => Err(Failure::new("slices are not one cell")),
        Task::Idle => idle(&source, &standing.proxy),
        Task::Calls => calls::count(&source, &standing.proxy),
    };
    let done = done.and_then(|cell| standing.still_runs().map(|()| cell));
    done.map_err(|why| standing.blame(why))
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
