//! CPU time per request in many short slices: all proxies stand at once, and load goes to each of
//! them in turn for a fraction of a second.
//!
//! A shared machine changes its speed within seconds, by a factor of two where another guest has the
//! other half of a core. Neighbouring slices mostly see the same speed, so their ratio is steady
//! where figures of seconds are not. The load of each proxy is a process that is halted between its
//! slices, so connections stay; the back end counts the requests. Latencies mean nothing here.

use std::fs;
use std::io::Read as _;
use std::net::{Ipv4Addr, TcpStream};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use crate::account::{Memory, Spent};
use crate::cell::Cell;
use crate::child::Running;
use crate::failure::{Failure, Outcome};
use crate::peers::Peer;
use crate::rounds::rotated;
use crate::stand::{Bench, Standing};
use crate::workloads::Workload;

/// How long a slice is: long against a timer's tick, short against changes of the machine.
const SLICE: Duration = Duration::from_millis(200);
/// How long the load of each proxy runs before the first slice.
const WARM_UP: Duration = Duration::from_millis(800);
/// Requests under way have ended when the count has not changed for this long.
const QUIET: Duration = Duration::from_millis(4);
/// They are given up after that.
const PATIENCE: Duration = Duration::from_secs(2);
/// Longer than all slices of a round; the load is ended before.
const FOR_EVER_S: u32 = 36_000;

/// A proxy with its load, which is halted.
struct Lane<'a> {
    place: usize,
    standing: Standing<'a>,
    load: Running,
    says: PathBuf,
}

/// One round: every proxy started afresh, then so many slices of each. A row for each turn of slices,
/// in the order of `peers`; proxies that do not serve the workload, or do not come up, which `fail` is
/// told, have no cells.
pub(crate) fn measure(
    bench: &Bench,
    peers: &[Peer],
    workload: &Workload,
    slices: usize,
    mut fail: impl FnMut(Failure),
) -> Outcome<Vec<Vec<Option<Cell>>>> {
    let count_port = bench.backend(workload).count_port;
    let mut lanes = Vec::new();
    for (place, peer) in peers.iter().enumerate().filter(|(_, peer)| peer.kind.serves(workload)) {
        match Lane::open(bench, peer, workload, place) {
            Ok(lane) => lanes.push(lane),
            Err(failure) => fail(failure),
        }
    }
    let mut rows = Vec::with_capacity(slices);
    for turn in 0..slices {
        let mut row: Vec<Option<Cell>> = peers.iter().map(|_| None).collect();
        for (_, lane) in rotated(&lanes, turn) {
            let cell = lane.slice(count_port).map_err(|why| lane.standing.blame(why))?;
            if let Some(empty) = row.get_mut(lane.place) {
                *empty = Some(cell);
            }
        }
        rows.push(row);
    }
    for lane in &mut lanes {
        let errors = lane.errors().map_err(|why| lane.standing.blame(why))?;
        let last = rows.last_mut().and_then(|row| row.get_mut(lane.place)?.as_mut());
        if let Some(cell) = last {
            cell.errors = errors;
            cell.peak_rss_kib = Memory::of_tree(lane.standing.proxy.id()).peak_rss;
        }
    }
    Ok(rows)
}

impl<'a> Lane<'a> {
    /// Starts a proxy and its load, which warms up and is halted.
    fn open(
        bench: &'a Bench,
        peer: &'a Peer,
        workload: &'a Workload,
        place: usize,
    ) -> Outcome<Self> {
        let standing = bench.stand(peer, workload)?;
        let says = standing.folder().join("load.log");
        let load = standing.source().saturating(FOR_EVER_S)?.start(&says)?;
        std::thread::sleep(WARM_UP);
        load.halt();
        settled(bench.backend(workload).count_port)?;
        Ok(Self { place, standing, load, says })
    }

    /// Lets the load go on for a moment and sees what that cost the proxy.
    fn slice(&self, count_port: u16) -> Outcome<Cell> {
        let proxy = self.standing.proxy.id();
        let before = Spent::by_tree(proxy);
        let first = requests(count_port)?;
        self.load.go_on();
        std::thread::sleep(SLICE);
        self.load.halt();
        let last = settled(count_port)?;
        let after = Spent::by_tree(proxy);
        let requests = last.saturating_sub(first);
        if requests == 0 {
            let said = fs::read_to_string(&self.says).unwrap_or_default();
            return Err(Failure(format!("no request in a slice; the load said: {said}")));
        }
        let nanoseconds = after.since(&before) as f64;
        Ok(Cell {
            requests,
            cpu_us: nanoseconds / 1e3 / requests as f64,
            kernel: after.kernel_share_since(&before),
            proxy_busy: nanoseconds / 1e9 / SLICE.as_secs_f64(),
            ..Cell::default()
        })
    }

    /// Ends the load and asks it for errors.
    fn errors(&mut self) -> Outcome<u64> {
        self.standing.still_runs()?;
        if self.load.has_ended() {
            let said = fs::read_to_string(&self.says).unwrap_or_default();
            return Err(Failure(format!("the load has ended by itself: {said}")));
        }
        self.load.go_on();
        self.load.interrupt();
        let began = Instant::now();
        while !self.load.has_ended() && began.elapsed() < PATIENCE {
            std::thread::sleep(QUIET);
        }
        let said = fs::read_to_string(&self.says).map_err(Failure::at(&self.says))?;
        Ok(self.standing.source().had_errors(&said))
    }
}

/// The count once nothing is under way any more.
fn settled(count_port: u16) -> Outcome<u64> {
    let began = Instant::now();
    let mut last = requests(count_port)?;
    let mut since = Instant::now();
    while since.elapsed() < QUIET {
        std::thread::sleep(QUIET / 2);
        let now = requests(count_port)?;
        if now != last {
            (last, since) = (now, Instant::now());
        }
        if began.elapsed() > PATIENCE {
            return Err(Failure::new("requests went on after the load was halted"));
        }
    }
    Ok(last)
}

/// How many requests the back end has got.
fn requests(count_port: u16) -> Outcome<u64> {
    let mut text = String::new();
    TcpStream::connect((Ipv4Addr::LOCALHOST, count_port))?.read_to_string(&mut text)?;
    text.parse().map_err(|_| Failure(format!("`{text}` is no count")))
}
