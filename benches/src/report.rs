//! What a run found: figures of each proxy, and their ratios to nginx and to the first build of
//! Sluice, round by round. Written as Markdown for people and as JSON for programs.

mod docs;
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
use crate::workloads::{Pass, Rate};

/// A whole run.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    machine: Machine,
    rounds: usize,
    lengths: Lengths,
    sections: Vec<Section>,
}

/// One pass over one workload: one table.
#[derive(Debug, Serialize)]
struct Section {
    workload: &'static str,
    title: String,
    #[serde(skip)]
    pass: Pass,
    /// The first build of Sluice, if there are several; others are compared with it too.
    first_build: Option<String>,
    peers: Vec<Line>,
    failures: Vec<String>,
}

/// One proxy. Figures are medians over the rounds.
#[derive(Debug, Serialize)]
struct Line {
    peer: String,
    cpu_us: Option<Spread>,
    cpu_to_nginx: Option<Spread>,
    cpu_to_first_build: Option<Spread>,
    p50_to_nginx: Option<Spread>,
    p99_to_nginx: Option<Spread>,
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
    idle_bytes: Option<Spread>,
    calls: Option<Spread>,
    errors: u64,
    /// Every round as it was.
    cells: Vec<Option<Cell>>,
}

impl Report {
    pub(crate) fn new(options: &Options, machine: Machine, table: Vec<Rows>) -> Self {
        let sections = table.into_iter().map(|rows| Section::new(options, rows)).collect();
        Self { machine, rounds: options.rounds, lengths: options.lengths, sections }
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

    /// Puts the tables into the page about performance.
    pub(crate) fn write_docs(&self, page: &Path) -> Outcome<()> {
        let text = fs::read_to_string(page).map_err(Failure::at(page))?;
        let text = docs::replace(&text, &self.markdown())?;
        fs::write(page, text).map_err(Failure::at(page))
    }

    /// Fails if any request of the run did, or a cell could not be measured.
    pub(crate) fn verdict(&self) -> Outcome<()> {
        let mut wrong = Vec::new();
        for section in &self.sections {
            let name = section.workload;
            wrong.extend(section.failures.iter().map(|why| format!("{name}: {why}")));
            let lines = section.peers.iter().filter(|line| line.errors > 0);
            wrong.extend(
                lines.map(|line| format!("{name}: {} had {} errors", line.peer, line.errors)),
            );
        }
        if wrong.is_empty() { Ok(()) } else { Err(Failure(wrong.join("\n"))) }
    }
}

impl Section {
    fn new(options: &Options, rows: Rows) -> Self {
        let place = |wanted: Kind| options.peers.iter().position(|peer| peer.kind == wanted);
        let builds = options.peers.iter().filter(|peer| peer.kind == Kind::Sluice);
        let first = place(Kind::Sluice).filter(|_| builds.count() > 1);
        let nginx = place(Kind::Nginx);
        let peers = options.peers.iter().enumerate();
        let lines = peers.map(|(at, peer)| Line::new(&peer.name, at, nginx, first, &rows));
        Self {
            workload: rows.workload.name,
            title: title(&rows),
            pass: rows.pass,
            first_build: first.and_then(|it| Some(options.peers.get(it)?.name.clone())),
            peers: lines.filter(|line| line.cells.iter().any(Option::is_some)).collect(),
            failures: rows.failures,
        }
    }
}

fn title(rows: &Rows) -> String {
    let title = rows.workload.title;
    match (rows.pass, rows.per_second) {
        (Pass::Steady(Rate::OfNginx(share)), Some(rate)) => {
            let percent = share * 100.0;
            format!("{title}, at {rate} requests/s ({percent:.0} % of nginx at saturation)")
        }
        (_, Some(rate)) => format!("{title}, at {rate} requests/s"),
        (Pass::Slices, None) => format!("{title}, in slices"),
        (Pass::Calls, None) => format!("{title}, system calls"),
        (_, None) => title.to_owned(),
    }
}

impl Line {
    fn new(peer: &str, at: usize, nginx: Option<usize>, first: Option<usize>, rows: &Rows) -> Self {
        let cell = |row: &Vec<Option<Cell>>, at: usize| row.get(at).cloned().flatten();
        let cells: Vec<Option<Cell>> = rows.rounds.iter().map(|row| cell(row, at)).collect();
        let of = |figure: fn(&Cell) -> f64| Spread::of(cells.iter().flatten().map(figure));
        let given = |figure: fn(&Cell) -> Option<f64>| {
            Spread::of(cells.iter().flatten().filter_map(figure))
        };
        let ratio = |to: Option<usize>, figure: fn(&Cell) -> f64| {
            let to = to?;
            let both =
                |row| (cell(row, at).as_ref().map(figure), cell(row, to).as_ref().map(figure));
            Spread::of_ratios(rows.rounds.iter().map(both))
        };
        Self {
            peer: peer.to_owned(),
            cpu_us: of(|cell| cell.cpu_us),
            cpu_to_nginx: ratio(nginx, |cell| cell.cpu_us),
            cpu_to_first_build: ratio(first, |cell| cell.cpu_us),
            p50_to_nginx: ratio(nginx, |cell| cell.latency.p50),
            p99_to_nginx: ratio(nginx, |cell| cell.latency.p99),
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
            idle_bytes: given(|cell| cell.idle_bytes),
            calls: given(|cell| cell.calls),
            errors: cells.iter().flatten().map(|cell| cell.errors).sum(),
            cells,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::peers::Peer;
    use crate::workloads;

    fn cell(cpu_us: f64, errors: u64) -> Option<Cell> {
        Some(Cell { requests: 1000, cpu_us, errors, ..Cell::default() })
    }

    fn report(rows: Vec<Vec<Option<Cell>>>, failures: Vec<String>) -> Report {
        let peer = |name: &str, kind| Peer {
            name: name.into(),
            kind,
            program: "/bin/sh".into(),
            workers: 1,
        };
        let peers =
            vec![peer("nginx", Kind::Nginx), peer("old", Kind::Sluice), peer("new", Kind::Sluice)];
        let workload = workloads::all().remove(0);
        let mut machine = Machine::look(&[]);
        machine.programs = peers.iter().map(|peer| (peer.name.clone(), "1".into())).collect();
        let options = Options::of(vec![workload.clone()], peers);
        let rows =
            Rows { workload, pass: Pass::Saturation, per_second: None, rounds: rows, failures };
        Report::new(&options, machine, vec![rows])
    }

    #[test]
    fn ratios_are_medians_of_the_ratios_of_each_round() {
        let report = report(
            vec![
                vec![cell(10.0, 0), cell(11.0, 0), cell(9.0, 0)],
                vec![cell(20.0, 0), cell(20.0, 0), cell(16.0, 0)],
                vec![cell(10.0, 0), cell(10.0, 0), None],
            ],
            Vec::new(),
        );
        let text = report.markdown();
        let summary = "| workload | nginx | old | new |\n| --- | --- | --- | --- |\n\
                       | GET, answers of 128 B, 64 connections | 1.00 | 1.00 | 0.85 |\n";
        assert!(text.contains(summary), "{text}");
        assert!(text.contains("### get-128: GET, answers of 128 B"), "{text}");
        assert!(
            text.contains("| nginx | 10.00 | **1.000** (1.00-1.00) | **1.000** (0.91"),
            "{text}"
        );
        assert!(
            text.contains("| new | 12.50 | **0.850** (0.80-0.90) | **0.809** (0.80-0.82)"),
            "{text}"
        );
        assert!(report.verdict().is_ok());
        let json = serde_json::to_value(&report).unwrap();
        let median = json.pointer("/sections/0/peers/2/cpu_to_nginx/median").unwrap();
        assert!((median.as_f64().unwrap() - 0.85).abs() < 1e-9);
    }

    #[test]
    fn a_run_with_errors_or_gaps_fails_and_says_why() {
        let wrong = report(vec![vec![cell(1.0, 0), cell(1.0, 3), None]], vec!["new: gone".into()]);
        let Failure(why) = wrong.verdict().unwrap_err();
        assert!(why.contains("get-128: old had 3 errors"), "{why}");
        assert!(why.contains("get-128: new: gone"), "{why}");
        assert!(wrong.markdown().contains("Not measured: new: gone"));
        assert!(!wrong.markdown().contains("\n| new |"));
    }
}
