//! All rounds of all workloads: every proxy in turn, the order rotated from round to round, so that
//! a machine that grows slower is slow for all of them.

use std::path::Path;

use crate::cell::{self, Cell, Task};
use crate::child::{LOAD, Line, PROXY, Running};
use crate::failure::{Failure, Outcome};
use crate::ground::Ground;
use crate::options::Options;
use crate::peers::{Kind, Peer};
use crate::slices;
use crate::stand::{self, Backend, Bench};
use crate::stats::Spread;
use crate::workloads::{Pass, Rate, Workload};

/// The cells of one pass over one workload: by round, then by peer in the order of the options.
#[derive(Debug)]
pub(crate) struct Rows {
    pub(crate) workload: Workload,
    pub(crate) pass: Pass,
    /// The rate, where there was one.
    pub(crate) per_second: Option<u32>,
    pub(crate) rounds: Vec<Vec<Option<Cell>>>,
    /// Cells that could not be measured, and why.
    pub(crate) failures: Vec<String>,
}

/// What the proxies talk to, as long as this is held.
struct Backends {
    _running: Vec<Running>,
    /// Whether there is a Redis.
    redis: bool,
}

/// Measures everything; `say` is told of each cell.
pub(crate) fn measure(
    options: &Options,
    folder: &Path,
    harness: &Path,
    say: impl Fn(&str),
) -> Outcome<Vec<Rows>> {
    let [port, count_port, grpc_port, grpc_count_port, redis_port] = stand::free_ports()?;
    let bench = Bench {
        folder: folder.join("cell"),
        harness: harness.to_owned(),
        ground: Ground::make(&folder.join("ground"))?,
        http: Backend { port, count_port },
        grpc: Backend { port: grpc_port, count_port: grpc_count_port },
        redis_port,
    };
    let backends = Backends::start(&bench, options, folder)?;
    let mut table: Vec<Rows> = Vec::new();
    for workload in &options.workloads {
        if workload.needs_redis() && !backends.redis {
            say(&format!("{}: skipped, there is no redis-server", workload.name));
            continue;
        }
        for pass in options.passes(workload) {
            let Some(task) = task(pass, workload, &table, options) else {
                say(&format!("{}: a rate of nginx's is not known without nginx", workload.name));
                continue;
            };
            say(&format!("{}: {}{}", workload.name, workload.title, heading(task)));
            table.push(match task {
                Task::Slices => sliced(options, &bench, workload, &say),
                _ => rows(options, &bench, workload, pass, task, &say),
            });
        }
    }
    Ok(table)
}

impl Rows {
    fn new(workload: &Workload, pass: Pass, per_second: Option<u32>) -> Self {
        let workload = workload.clone();
        Self { workload, pass, per_second, rounds: Vec::new(), failures: Vec::new() }
    }
}

impl Backends {
    fn start(bench: &Bench, options: &Options, folder: &Path) -> Outcome<Self> {
        let own = |verb: &str, backend: Backend| {
            let ports = [backend.port, backend.count_port];
            let addresses = ports.map(|port| format!("127.0.0.1:{port}"));
            let line = Line::new(&bench.harness).arg(verb).args(addresses);
            line.start(&folder.join(format!("{verb}.log")))
        };
        let mut running = vec![own("backend", bench.http)?, own("grpc", bench.grpc)?];
        if let Some(program) = &options.redis {
            let port = bench.redis_port.to_string();
            let line = Line::new(program).args(["--port", &port, "--bind", "127.0.0.1"]);
            let line = line.args(["--save", "", "--appendonly", "no"]);
            let processor = if options.redis_with_proxy { PROXY } else { LOAD };
            let line = line.on(&processor.to_string());
            running.push(line.start(&folder.join("redis.log"))?);
        }
        Ok(Self { _running: running, redis: options.redis.is_some() })
    }
}

/// All rounds of one pass.
fn rows(
    options: &Options,
    bench: &Bench,
    workload: &Workload,
    pass: Pass,
    task: Task,
    say: impl Fn(&str),
) -> Rows {
    let per_second = match task {
        Task::Steady { per_second } => Some(per_second),
        _ => None,
    };
    let mut rows = Rows::new(workload, pass, per_second);
    // What is counted and not timed is the same in every round.
    let rounds = if pass == Pass::Calls { 1 } else { options.rounds };
    for round in 0..rounds {
        let mut row: Vec<Option<Cell>> = options.peers.iter().map(|_| None).collect();
        for (place, peer) in rotated(&options.peers, round) {
            if !peer.kind.serves(&rows.workload) {
                continue;
            }
            match cell::measure(bench, peer, &rows.workload, task, options.lengths) {
                Ok(cell) => {
                    say(&line(round, peer, &cell));
                    if let Some(empty) = row.get_mut(place) {
                        *empty = Some(cell);
                    }
                }
                Err(Failure(why)) => {
                    say(&format!("  {:>2} FAILED {why}", round + 1));
                    rows.failures.push(why);
                }
            }
        }
        rows.rounds.push(row);
    }
    rows
}

/// All rounds of slices; a turn of slices counts as a round of its own in the report.
fn sliced(options: &Options, bench: &Bench, workload: &Workload, say: impl Fn(&str)) -> Rows {
    let mut rows = Rows::new(workload, Pass::Slices, None);
    let mut failures = Vec::new();
    for round in 0..options.rounds {
        let fail = |Failure(why)| {
            say(&format!("  {:>2} FAILED {why}", round + 1));
            failures.push(why);
        };
        match slices::measure(bench, &options.peers, workload, options.slices, fail) {
            Ok(turns) => {
                for (at, peer) in options.peers.iter().enumerate() {
                    let cells = turns.iter().filter_map(|row| row.get(at)?.as_ref());
                    if let Some(us) = Spread::of(cells.map(|cell| cell.cpu_us)) {
                        let start = format!("  {:>2} {:<12}", round + 1, peer.name);
                        say(&format!("{start} {:>7.2} us in the median slice", us.median));
                    }
                }
                rows.rounds.extend(turns);
            }
            Err(Failure(why)) => {
                say(&format!("  {:>2} FAILED {why}", round + 1));
                failures.push(why);
            }
        }
    }
    Rows { failures, ..rows }
}

/// What a pass means in numbers; nothing if it is a share of a rate that was not measured.
fn task(pass: Pass, workload: &Workload, table: &[Rows], options: &Options) -> Option<Task> {
    Some(match pass {
        Pass::Saturation => Task::Saturate,
        Pass::Slices => Task::Slices,
        Pass::Idle => Task::Idle,
        Pass::Calls => Task::Calls,
        Pass::Steady(Rate::PerSecond(per_second)) => Task::Steady { per_second },
        Pass::Steady(Rate::OfNginx(share)) => {
            let nginx = options.peers.iter().position(|peer| peer.kind == Kind::Nginx)?;
            let saturated = table.iter().find(|rows| {
                rows.workload.name == workload.name && rows.pass == Pass::Saturation
            })?;
            let cells = saturated.rounds.iter().filter_map(|row| row.get(nginx)?.as_ref());
            let rate = Spread::of(cells.map(|cell| cell.requests_per_second))?.median;
            Task::Steady { per_second: (rate * share) as u32 }
        }
    })
}

/// The peers with their places, another one first in each round.
pub(crate) fn rotated<T>(peers: &[T], round: usize) -> impl Iterator<Item = (usize, &T)> {
    let shift = round % peers.len().max(1);
    peers.iter().enumerate().cycle().skip(shift).take(peers.len())
}

fn heading(task: Task) -> String {
    match task {
        Task::Steady { per_second } => format!(", at {per_second} requests/s"),
        Task::Calls => ", system calls".into(),
        Task::Slices => ", in slices".into(),
        Task::Saturate | Task::Idle => String::new(),
    }
}

fn line(round: usize, peer: &Peer, cell: &Cell) -> String {
    let start = format!("  {:>2} {:<12}", round + 1, peer.name);
    if let Some(bytes) = cell.idle_bytes {
        return format!("{start} {bytes:>8.0} bytes each");
    }
    if let Some(calls) = cell.calls {
        return format!("{start} {calls:>7.2} calls/request");
    }
    format!(
        "{start} {:>7.2} us  {:>8.0}/s  p50 {:>6.0}  p99 {:>6.0} us  proxy {:>3.0} %  \
         load {:>3.0} %  others {:>2.0} %{}",
        cell.cpu_us,
        cell.requests_per_second,
        cell.latency.p50,
        cell.latency.p99,
        cell.proxy_busy * 100.0,
        cell.load_busy * 100.0,
        cell.others_busy * 100.0,
        if cell.errors == 0 { String::new() } else { format!("  {} ERRORS", cell.errors) },
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everybody_is_first_once() {
        let peer = |name: &str| Peer {
            name: name.to_owned(),
            kind: Kind::Sluice,
            program: "/bin/sh".into(),
            workers: 1,
        };
        let peers = [peer("a"), peer("b"), peer("c")];
        let order = |round| -> Vec<(usize, String)> {
            rotated(&peers, round).map(|(place, peer)| (place, peer.name.clone())).collect()
        };
        assert_eq!(order(1), [(1, "b".into()), (2, "c".into()), (0, "a".into())]);
        assert_eq!(order(3), order(0));
        assert_eq!(rotated::<Peer>(&[], 1).count(), 0);
    }
}
