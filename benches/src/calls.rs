//! System calls per request, counted by strace in a short run of its own, since it makes everything
//! many times slower.

use std::time::Duration;

use crate::account;
use crate::cell::Cell;
use crate::child::{Line, Running};
use crate::failure::{Failure, Outcome};
use crate::load::Source;

/// How long calls are counted, in seconds.
const COUNTED: u32 = 1;
/// How long strace may take to attach, and to write its table.
const PATIENCE: Duration = Duration::from_secs(10);

pub(crate) fn count(source: &Source<'_>, proxy: &Running) -> Outcome<Cell> {
    source.saturate(1)?;
    let table = source.folder.join("strace");
    let says = source.folder.join("strace.log");
    let mut line = Line::new("strace").args(["-f", "-c", "-o"]).arg(&table);
    for process in account::tree(proxy.id()) {
        line = line.arg("-p").arg(process.to_string());
    }
    let mut strace = line.start(&says)?;
    let attached = || std::fs::read_to_string(&says).is_ok_and(|said| said.contains("attached"));
    until(|| attached() || strace.has_ended())?;
    let tally = source.saturate(COUNTED)?;
    strace.interrupt();
    until(|| strace.has_ended())?;
    let text = std::fs::read_to_string(&table).map_err(Failure::at(&table))?;
    let total = total(&text).ok_or_else(|| Failure(format!("strace counted nothing: {text}")))?;
    Ok(Cell {
        requests: tally.requests,
        errors: tally.errors,
        calls: Some(total as f64 / tally.requests.max(1) as f64),
        ..Cell::default()
    })
}

fn until(mut done: impl FnMut() -> bool) -> Outcome<()> {
    let began = std::time::Instant::now();
    while !done() {
        if began.elapsed() > PATIENCE {
            return Err(Failure::new("strace does not answer"));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

/// The calls in the last line of strace's table: share, seconds, average, calls, maybe errors.
fn total(table: &str) -> Option<u64> {
    let line = table.lines().find(|line| line.trim_end().ends_with(" total"))?;
    line.split_whitespace().nth(3)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_total_is_the_fourth_column() {
        let table = "% time     seconds  usecs/call     calls    errors syscall\n\
                     ------ ----------- ----------- --------- --------- --------------\n\
                     61.11    0.001100           1      1044           writev\n\
                     100.00    0.001800           1      2077        12 total\n";
        assert_eq!(total(table), Some(2077));
        assert_eq!(total(""), None);
    }
}
