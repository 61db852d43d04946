//! h2load for HTTP/2, at saturation and, paced by itself, at a rate. Percentiles come from its log of
//! all requests, which it writes with one line each.

use std::fs;

use super::{Latency, Source, Tally};
use crate::child::Line;
use crate::failure::{Failure, Outcome};

/// Where the log of requests goes.
const LOG: &str = "h2load.log";

pub(super) fn line(
    source: &Source<'_>,
    connections: usize,
    streams: usize,
    seconds: u32,
) -> Outcome<Line> {
    let log = source.folder.join(LOG);
    let _ = fs::remove_file(&log);
    let request = source.request();
    let mut line = Line::new("h2load")
        .args(["-t", "1", "-c", &connections.to_string(), "-m", &streams.to_string()])
        .args(["-D", &seconds.to_string(), "--log-file"])
        .arg(&log);
    for (name, value) in &request.fields {
        line = line.arg("-H").arg(format!("{name}: {value}"));
    }
    if let Some(body) = &request.body {
        let file = source.folder.join("h2load.body");
        fs::write(&file, body).map_err(Failure::at(&file))?;
        line = line.arg("-d").arg(file);
    }
    Ok(line.arg(source.url()))
}

/// The same at a rate, which h2load keeps for each connection.
pub(super) fn paced(line: Line, connections: usize, per_second: u32) -> Line {
    line.arg(format!("--rps={}", per_second as usize / connections.max(1)))
}

/// The tally in what h2load said and in its log.
pub(super) fn read(source: &Source<'_>, said: &str, seconds: u32) -> Outcome<Tally> {
    let log = source.folder.join(LOG);
    let log = fs::read_to_string(&log).map_err(Failure::at(&log))?;
    parse(said, &log, seconds).ok_or_else(|| Failure(format!("h2load gave no tally: {said}")))
}

/// `said` holds totals, `log` one line for each request: begin, status, microseconds.
fn parse(said: &str, log: &str, seconds: u32) -> Option<Tally> {
    let line = |name: &str| said.lines().find_map(|line| line.strip_prefix(name));
    let requests = line("requests: ")?;
    let succeeded = number_before(requests, "succeeded")?;
    let failed = number_before(requests, "failed")? + number_before(requests, "timeout")?;
    let traffic = line("traffic: ")?;
    let data = traffic.rsplit_once('(')?.1.split(')').next()?.parse().ok()?;
    let mut times: Vec<f64> =
        log.lines().filter_map(|line| line.split('\t').nth(2)?.parse().ok()).collect();
    times.sort_by(f64::total_cmp);
    let quantile = |share: f64| {
        let place = (times.len() as f64 * share) as usize;
        times.get(place.min(times.len().saturating_sub(1))).copied().unwrap_or(0.0)
    };
    Some(Tally {
        requests: succeeded,
        seconds: seconds.into(),
        bytes: data,
        errors: failed,
        latency: Latency {
            p50: quantile(0.5),
            p90: quantile(0.9),
            p99: quantile(0.99),
            p999: quantile(0.999),
        },
        example: None,
    })
}

/// The number before a word, as in `7 succeeded,`.
fn number_before(line: &str, word: &str) -> Option<u64> {
    let words: Vec<&str> = line.split([' ', ',']).filter(|word| !word.is_empty()).collect();
    let place = words.iter().position(|found| *found == word)?;
    words.get(place.checked_sub(1)?)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAID: &str = "\
finished in 1.00s, 3.00 req/s, 1.5MB/s
requests: 3 total, 9 started, 3 done, 3 succeeded, 0 failed, 0 errored, 0 timeout
status codes: 3 2xx, 0 3xx, 0 4xx, 0 5xx
traffic: 3.40MB (3565824) total, 229.97KB (235492) headers (space savings 90.07%), 375B (384) data
";

    #[test]
    fn totals_and_times_make_a_tally() {
        let log = "1700000000000001\t200\t500\n1700000000000002\t200\t100\n\
                   1700000000000003\t200\t300\n";
        let tally = parse(SAID, log, 1).unwrap();
        assert_eq!((tally.requests, tally.bytes, tally.errors), (3, 384, 0));
        assert!((tally.latency.p50 - 300.0).abs() < 1e-9);
        assert!((tally.latency.p999 - 500.0).abs() < 1e-9);
    }

    #[test]
    fn failed_requests_are_errors() {
        let said = SAID.replace("0 failed", "2 failed");
        assert_eq!(parse(&said, "", 1).unwrap().errors, 2);
        assert!(parse("could not connect", "", 1).is_none());
    }
}
