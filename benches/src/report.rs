//! What a run found: figures of each proxy, and their ratios to nginx and to the first build of
//! Sluice, round by round. Written as Markdown for people and as JSON for programs.

mod markdown;

use std::fs;
use std::path::Path;

use serde::Serialize;

use crate::cell::{Cell, Lengths};
use crate::failure::{Failure, Outcome};
use crate::machine::Machine;
use crate::options::Options;
use crate::peers::Kind;
use crate::rounds::Rows;
use crate::stats::Spread;

/// A whole run.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    machine: Machine,
    rounds: usize,
    lengths: Lengths,
    workloads: Vec<Section>,
}

/// One workload.
#[derive(Debug, Serialize)]
struct Section {
    name: &'static str,
    title: &'static str,
    /// The first build of Sluice, if there are several; others are compared with it too.
    first_build: Option<String>,
    peers: Vec<Line>,
}

/// One proxy under one workload. Figures are medians over the rounds.
#[derive(Debug, Serialize)]
struct Line {
    peer: String,
    cpu_us: Option<Spread>,
    to_nginx: Option<Spread>,
    to_first_build: Option<Spread>,
    kernel: Option<Spread>,
    requests_per_second: Option<Spread>,
    p50_us: Option<Spread>,
    p90_us: Option<Spread>,
    p99_us: Option<Spread>,
    p999_us: Option<Spread>,
    peak_rss_kib: Option<Spread>,
    load_busy: Option<Spread>,
    proxy_busy: Option<Spread>,
    others_busy: Option<Spread>,
    stolen: Option<Spread>,
    errors: u64,
    /// Every round as it was.
    cells: Vec<Option<Cell>>,
}

impl Report {
    pub(crate) fn new(options: &Options, machine: Machine, table: Vec<Rows>) -> Self {
        let workloads = options.workloads.iter().zip(table);
        let section = |(workload, rows): (&crate::workloads::Workload, Rows)| {
            let place = |wanted: Kind| options.peers.iter().position(|peer| peer.kind == wanted);
            let builds = options.peers.iter().filter(|peer| peer.kind == Kind::Sluice);
            let first = place(Kind::Sluice).filter(|_| builds.count() > 1);
            let nginx = place(Kind::Nginx);
            let peers = options.peers.iter().enumerate();
            Section {
                name: workload.name,
                title: workload.title,
                first_build: first.and_then(|it| Some(options.peers.get(it)?.name.clone())),
                peers: peers
                    .map(|(at, peer)| Line::new(&peer.name, at, nginx, first, &rows))
                    .collect(),
            }
        };
        let workloads = workloads.map(section).collect();
        Self { machine, rounds: options.rounds, lengths: options.lengths, workloads }
    }

    pub(crate) fn markdown(&self) -> String {
        markdown::write(self)
    }

    pub(crate) fn write(&self, folder: &Path) -> Outcome<()> {
        let json = serde_json::to_string_pretty(self);
        let json = json.map_err(|error| Failure(format!("the report as JSON: {error}")))?;
        for (name, text) in [("report.md", self.markdown()), ("report.json", json)] {
            let place = folder.join(name);
            fs::write(&place, text).map_err(Failure::at(&place))?;
        }
        Ok(())
    }

    /// Fails if any request of the run did.
    pub(crate) fn verdict(&self) -> Outcome<()> {
        let lines = self
            .workloads
            .iter()
            .flat_map(|section| section.peers.iter().map(move |line| (section.name, line)));
        let wrong: Vec<String> = lines
            .filter(|(_, line)| line.errors > 0)
            .map(|(name, line)| format!("{name}: {} had {} errors", line.peer, line.errors))
            .collect();
        if wrong.is_empty() { Ok(()) } else { Err(Failure(wrong.join("\n"))) }
    }
}

impl Line {
    fn new(peer: &str, at: usize, nginx: Option<usize>, first: Option<usize>, rows: &Rows) -> Self {
        let cell = |row: &Vec<Option<Cell>>, at: usize| row.get(at).cloned().flatten();
        let cells: Vec<Option<Cell>> = rows.rounds.iter().map(|row| cell(row, at)).collect();
        let of = |figure: fn(&Cell) -> f64| Spread::of(cells.iter().flatten().map(figure));
        let us = |row, at| cell(row, at).map(|cell| cell.cpu_us);
        let ratio = |to: Option<usize>| {
            let to = to?;
            Spread::of_ratios(rows.rounds.iter().map(|row| (us(row, at), us(row, to))))
        };
        Self {
            peer: peer.to_owned(),
            cpu_us: of(|cell| cell.cpu_us),
            to_nginx: ratio(nginx),
            to_first_build: ratio(first),
            kernel: of(|cell| cell.kernel),
            requests_per_second: of(|cell| cell.requests_per_second),
            p50_us: of(|cell| cell.latency.p50),
            p90_us: of(|cell| cell.latency.p90),
            p99_us: of(|cell| cell.latency.p99),
            p999_us: of(|cell| cell.latency.p999),
            peak_rss_kib: of(|cell| cell.peak_rss_kib as f64),
            load_busy: of(|cell| cell.load_busy),
            proxy_busy: of(|cell| cell.proxy_busy),
            others_busy: of(|cell| cell.others_busy),
            stolen: of(|cell| cell.stolen),
            errors: cells.iter().flatten().map(|cell| cell.errors).sum(),
            cells,
        }
    }
}
