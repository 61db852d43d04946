//! The report for people: one table for each workload.

use std::fmt::Write as _;

use super::{Line, Report, Section};
use crate::stats::Spread;

pub(super) fn write(report: &Report) -> String {
    let machine = &report.machine;
    let mut text = format!(
        "Medians of {} rounds of {} s, {} s of warm-up. {} processors ({}), Linux {}.\n",
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
    for section in &report.workloads {
        let _ = write!(text, "\n### {}: {}\n\n{}", section.name, section.title, table(section));
    }
    text
}

fn table(section: &Section) -> String {
    let mut head = vec!["proxy".to_owned(), "CPU us/request".into(), "to nginx".into()];
    if let Some(first) = &section.first_build {
        head.push(format!("to {first}"));
    }
    for title in [
        "requests/s",
        "p50 us",
        "p90",
        "p99",
        "p99.9",
        "kernel %",
        "peak RSS MiB",
        "load %",
        "others %",
        "errors",
    ] {
        head.push(title.to_owned());
    }
    let mut text = row(&head);
    text.push_str(&row(&vec!["---".to_owned(); head.len()]));
    for line in &section.peers {
        text.push_str(&row(&cells(line, section.first_build.is_some())));
    }
    text
}

fn cells(line: &Line, several_builds: bool) -> Vec<String> {
    let mut cells = vec![line.peer.clone(), figure(line.cpu_us, 1.0, 2), ratio(line.to_nginx)];
    if several_builds {
        cells.push(ratio(line.to_first_build));
    }
    cells.extend([
        figure(line.requests_per_second, 1.0, 0),
        figure(line.p50_us, 1.0, 0),
        figure(line.p90_us, 1.0, 0),
        figure(line.p99_us, 1.0, 0),
        figure(line.p999_us, 1.0, 0),
        figure(line.kernel, 100.0, 0),
        figure(line.peak_rss_kib, 1.0 / 1024.0, 1),
        figure(line.load_busy, 100.0, 0),
        figure(line.others_busy, 100.0, 0),
        line.errors.to_string(),
    ]);
    cells
}

fn row(cells: &[String]) -> String {
    format!("| {} |\n", cells.join(" | "))
}

fn figure(spread: Option<Spread>, times: f64, digits: usize) -> String {
    spread.map_or_else(|| "-".into(), |it| format!("{:.digits$}", it.median * times))
}

/// A ratio with the least and the most of all rounds, which tell how far to trust it.
fn ratio(spread: Option<Spread>) -> String {
    spread.map_or_else(
        || "-".into(),
        |it| format!("**{:.3}** ({:.2}-{:.2})", it.median, it.least, it.most),
    )
}
