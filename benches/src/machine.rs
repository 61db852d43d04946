//! What the figures were measured on: processors, kernel, and the versions of all proxies.

use std::fs;
use std::process::{Command, Stdio};

use serde::Serialize;

use crate::peers::Peer;

/// What `benches/pingora` is pinned to; a minimal program does not tell.
const PINGORA: &str = "Pingora 0.9.1 with OpenSSL, a minimal program";

/// The machine and the programs of a run.
#[derive(Debug, Serialize)]
pub(crate) struct Machine {
    pub(crate) processors: usize,
    pub(crate) model: String,
    pub(crate) kernel: String,
    /// Name and version of each proxy.
    pub(crate) programs: Vec<(String, String)>,
}

impl Machine {
    pub(crate) fn look(peers: &[Peer]) -> Self {
        let models = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let model = models.lines().find_map(|line| line.strip_prefix("model name"));
        let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        Self {
            processors: std::thread::available_parallelism().map_or(0, usize::from),
            model: model.unwrap_or_default().trim_start_matches(['\t', ' ', ':']).to_owned(),
            kernel: kernel.trim().to_owned(),
            programs: peers.iter().map(|peer| (peer.name.clone(), version(peer))).collect(),
        }
    }
}

fn version(peer: &Peer) -> String {
    let Some(word) = peer.kind.asks_version() else { return PINGORA.to_owned() };
    let mut command = Command::new(&peer.program);
    let output = command.arg(word).stdin(Stdio::null()).output();
    let Ok(output) = output else { return String::from("unknown") };
    let said = if output.stdout.is_empty() { output.stderr } else { output.stdout };
    let said = String::from_utf8_lossy(&said);
    let line = said.lines().find(|line| !line.trim().is_empty()).unwrap_or("unknown");
    // Some begin with their own path, which nobody else has.
    let words = line.split_whitespace().skip_while(|word| word.starts_with('/'));
    words.collect::<Vec<_>>().join(" ")
}
