//! wrk for HTTP/1.1 at saturation. A script gives the percentiles that its own report lacks; it has
//! no function that would be called for each request.

use std::fmt::Write as _;
use std::fs;

use super::{Source, Tally};
use crate::child::Line;
use crate::failure::{Failure, Outcome};
use crate::request::Request;

const DONE: &str = r#"
done = function(summary, latency, requests)
  local errors = summary.errors
  local failed = errors.connect + errors.read + errors.write + errors.status + errors.timeout
  io.write(string.format(
    '\nTALLY {"requests":%d,"seconds":%f,"bytes":%d,"errors":%d,' ..
    '"latency":{"p50":%f,"p90":%f,"p99":%f,"p999":%f}}\n',
    summary.requests, summary.duration / 1e6, summary.bytes, failed, latency:percentile(50),
    latency:percentile(90), latency:percentile(99), latency:percentile(99.9)))
end
"#;

pub(super) fn line(source: &Source<'_>, connections: usize, seconds: u32) -> Outcome<Line> {
    let script = source.folder.join("wrk.lua");
    fs::write(&script, text(&source.request())).map_err(Failure::at(&script))?;
    Ok(Line::new("wrk")
        .args(["-t", "1", "-c", &connections.to_string(), "-d", &format!("{seconds}s")])
        .args(["--timeout", "10s", "-s"])
        .arg(&script)
        .arg(source.url()))
}

fn text(request: &Request) -> String {
    let mut script = String::from(DONE);
    for (name, value) in &request.fields {
        let _ = writeln!(script, "wrk.headers[\"{name}\"] = \"{value}\"");
    }
    if let Some(body) = &request.body {
        let _ = writeln!(script, "wrk.method = \"POST\"");
        let _ = writeln!(script, "wrk.body = string.rep(\"x\", {})", body.len());
    }
    script
}

/// The tally in what wrk said.
pub(super) fn read(said: &str) -> Outcome<Tally> {
    let line = said.lines().find_map(|line| line.strip_prefix("TALLY "));
    line.and_then(|line| serde_json::from_str(line).ok())
        .ok_or_else(|| Failure(format!("wrk gave no tally: {said}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tally_is_found_among_other_words() {
        let said = "Running 2s test\n  2 requests in 2.00s\n\nTALLY {\"requests\":2,\
                    \"seconds\":2.000100,\"bytes\":700,\"errors\":0,\"latency\":{\"p50\":1.0,\
                    \"p90\":2.0,\"p99\":3.0,\"p999\":4.5}}\n";
        let tally = read(said).unwrap();
        assert_eq!((tally.requests, tally.bytes, tally.errors), (2, 700, 0));
        assert!((tally.latency.p999 - 4.5).abs() < 1e-9);
        assert!(read("unable to connect").is_err());
    }
}
