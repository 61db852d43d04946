//! The report for people: one table for each pass over a workload. The columns of each kind of pass
//! are one list.

use std::fmt::Write as _;

use super::{Line, Report, Section};
use crate::stats::Spread;
use crate::workloads::Pass;

/// A column: its title, and what stands in it.
type Column = (&'static str, fn(&Line) -> String);

const CPU: [Column; 2] = [
    ("CPU us/request", |line| figure(line.cpu_us, 1.0, 2)),
    ("to nginx", |line| ratio(line.cpu_to_nginx)),
];
const SATURATION: [Column; 6] = [
    ("requests/s", |line| figure(line.requests_per_second, 1.0, 0)),
    ("p50 us", |line| figure(line.p50_us, 1.0, 0)),
    ("p90", |line| figure(line.p90_us, 1.0, 0)),
    ("p99", |line| figure(line.p99_us, 1.0, 0)),
    ("p99.9", |line| figure(line.p999_us, 1.0, 0)),
    ("kernel %", |line| figure(line.kernel, 100.0, 0)),
];
const SLICES: [Column; 5] = [
    ("CPU us/request", |line| figure(line.cpu_us, 1.0, 2)),
    ("to nginx", |line| sure(line.cpu_to_nginx)),
    ("to the first build", |line| sure(line.cpu_to_first_build)),
    ("kernel %", |line| figure(line.kernel, 100.0, 0)),
    ("slices", |line| line.cells.iter().flatten().count().to_string()),
];
const STEADY: [Column; 7] = [
    ("p50 us", |line| figure(line.p50_us, 1.0, 0)),
    ("to nginx", |line| ratio(line.p50_to_nginx)),
    ("p90", |line| figure(line.p90_us, 1.0, 0)),
    ("p99", |line| figure(line.p99_us, 1.0, 0)),
    ("to nginx", |line| ratio(line.p99_to_nginx)),
    ("p99.9", |line| figure(line.p999_us, 1.0, 0)),
    ("requests/s", |line| figure(line.requests_per_second, 1.0, 0)),
];
const NOISE: [Column; 5] = [
    ("peak RSS MiB", |line| figure(line.peak_rss_kib, 1.0 / 1024.0, 1)),
    ("proxy %", |line| figure(line.proxy_busy, 100.0, 0)),
    ("load %", |line| figure(line.load_busy, 100.0, 0)),
    ("others %", |line| figure(line.others_busy, 100.0, 0)),
    ("stolen %", |line| figure(line.stolen, 100.0, 1)),
];
const IDLE: [Column; 2] = [
    ("bytes/connection", |line| figure(line.idle_bytes, 1.0, 0)),
    ("peak RSS MiB", |line| figure(line.peak_rss_kib, 1.0 / 1024.0, 1)),
];
const CALLS: [Column; 1] = [("calls/request", |line| figure(line.calls, 1.0, 2))];
const ERRORS: Column = ("errors", |line| line.errors.to_string());

pub(super) fn write(report: &Report) -> String {
    let machine = &report.machine;
    let mut text = format!(
        "Medians of {} rounds of {} s after {} s of warm-up; ratios are medians of the ratios of \
         each round, with the least and the most. {} processors ({}), Linux {}.\n\n",
        report.rounds,
        report.lengths.measured,
        report.lengths.warm_up,
        machine.processors,
        machine.model,
        machine.kernel,
    );
    for (name, version) in &machine.programs {
        let _ = writeln!(text, "- {name}: {version}");
    }
    let _ = write!(text, "\n### CPU time per request, nginx = 1\n\n{}", summary(report));
    for section in &report.sections {
        let (name, title) = (section.workload, &section.title);
        let _ = write!(text, "\n### {name}: {title}\n\n{}", table(section));
        for why in &section.failures {
            let _ = writeln!(text, "\nNot measured: {why}");
        }
    }
    text
}

/// All workloads in one table: the ratios to nginx, of slices where there were some.
fn summary(report: &Report) -> String {
    let names: Vec<&String> = report.machine.programs.iter().map(|(name, _)| name).collect();
    let mut text =
        row(["workload".to_owned()].into_iter().chain(names.iter().map(|&it| it.clone())));
    text.push_str(&row(std::iter::repeat_n("---".to_owned(), names.len() + 1)));
    let sliced = report.sections.iter().any(|section| section.pass == Pass::Slices);
    let pass = if sliced { Pass::Slices } else { Pass::Saturation };
    for section in report.sections.iter().filter(|section| section.pass == pass) {
        let ratio = |name: &&String| {
            let line = section.peers.iter().find(|line| &line.peer == *name);
            let median = line.and_then(|line| line.cpu_to_nginx).map(|spread| spread.median);
            median.map_or_else(|| "-".into(), |median| format!("{median:.2}"))
        };
        text.push_str(&row([section.title.clone()].into_iter().chain(names.iter().map(ratio))));
    }
    text
}

fn table(section: &Section) -> String {
    let mut columns: Vec<Column> = vec![("proxy", |line| line.peer.clone())];
    let timed = matches!(section.pass, Pass::Saturation | Pass::Steady(_));
    if timed {
        columns.extend(CPU);
    }
    if timed && section.first_build.is_some() {
        columns.push(("to the first build", |line| ratio(line.cpu_to_first_build)));
    }
    match section.pass {
        Pass::Saturation => columns.extend(SATURATION.into_iter().chain(NOISE)),
        Pass::Steady(_) => columns.extend(STEADY.into_iter().chain(NOISE)),
        Pass::Slices => columns.extend(SLICES),
        Pass::Idle => columns.extend(IDLE),
        Pass::Calls => columns.extend(CALLS),
    }
    columns.push(ERRORS);
    let mut text = row(columns.iter().map(|(title, _)| (*title).to_owned()));
    text.push_str(&row(columns.iter().map(|_| "---".to_owned())));
    for line in &section.peers {
        text.push_str(&row(columns.iter().map(|(_, cell)| cell(line))));
    }
    text
}

fn row(cells: impl Iterator<Item = String>) -> String {
    format!("| {} |\n", cells.collect::<Vec<_>>().join(" | "))
}

fn figure(spread: Option<Spread>, times: f64, digits: usize) -> String {
    spread.map_or_else(|| "-".into(), |it| format!("{:.digits$}", it.median * times))
}

/// A ratio with its uncertainty, which tells something where there are many.
fn sure(spread: Option<Spread>) -> String {
    spread.map_or_else(|| "-".into(), |it| format!("**{:.3}** ± {:.3}", it.median, it.off))
}

/// A ratio with the least and the most of all rounds, which tell how far to trust it.
fn ratio(spread: Option<Spread>) -> String {
    spread.map_or_else(
        || "-".into(),
        |it| format!("**{:.3}** ({:.2}-{:.2})", it.median, it.least, it.most),
    )
}
