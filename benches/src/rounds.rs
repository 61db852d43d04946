//! All rounds of all workloads: every proxy in turn, the order rotated from round to round, so that
//! a machine that grows slower is slow for all of them.

use std::path::Path;

use crate::cell::{self, Cell};
use crate::child::{LOAD, Line};
use crate::failure::Outcome;
use crate::options::Options;
use crate::peers::Peer;

/// The cells of one workload: by round, then by peer in the order of the options.
pub(crate) struct Rows {
    pub(crate) rounds: Vec<Vec<Option<Cell>>>,
}

/// Measures everything; `say` is told of each cell. A cell that cannot be measured ends the run.
pub(crate) fn measure(
    options: &Options,
    folder: &Path,
    harness: &Path,
    say: impl Fn(&str),
) -> Outcome<Vec<Rows>> {
    let [backend_port] = cell::free_ports()?;
    let address = format!("127.0.0.1:{backend_port}");
    let log = folder.join("backend.log");
    let _backend = Line::new(harness).args(["backend", &address]).start(LOAD, &log)?;
    let scratch = folder.join("cell");
    let mut table = Vec::new();
    for workload in &options.workloads {
        say(&format!("{}: {}", workload.name, workload.title));
        let mut rows = Rows { rounds: Vec::new() };
        for round in 0..options.rounds {
            let mut row: Vec<Option<Cell>> = options.peers.iter().map(|_| None).collect();
            for (place, peer) in rotated(&options.peers, round) {
                let cell = cell::measure(peer, workload, &scratch, backend_port, options.lengths)?;
                say(&line(round, peer, &cell));
                if let Some(empty) = row.get_mut(place) {
                    *empty = Some(cell);
                }
            }
            rows.rounds.push(row);
        }
        table.push(rows);
    }
    Ok(table)
}

/// The peers with their places, another one first in each round.
fn rotated(peers: &[Peer], round: usize) -> impl Iterator<Item = (usize, &Peer)> {
    let shift = round % peers.len().max(1);
    peers.iter().enumerate().cycle().skip(shift).take(peers.len())
}

fn line(round: usize, peer: &Peer, cell: &Cell) -> String {
    format!(
        "  {:>2} {:<12} {:>7.2} us  {:>8.0}/s  p50 {:>6.0}  p99 {:>6.0} us  proxy {:>3.0} %  \
         load {:>3.0} %  others {:>2.0} %{}",
        round + 1,
        peer.name,
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
    use crate::peers::Kind;

    #[test]
    fn everybody_is_first_once() {
        let peer = |name: &str| Peer {
            name: name.to_owned(),
            kind: Kind::Sluice,
            program: "/bin/sh".into(),
        };
        let peers = [peer("a"), peer("b"), peer("c")];
        let order = |round| -> Vec<(usize, String)> {
            rotated(&peers, round).map(|(place, peer)| (place, peer.name.clone())).collect()
        };
        assert_eq!(order(1), [(1, "b".into()), (2, "c".into()), (0, "a".into())]);
        assert_eq!(order(3), order(0));
        assert_eq!(rotated(&[], 1).count(), 0);
    }
}
