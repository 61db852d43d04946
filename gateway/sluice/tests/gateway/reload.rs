//! Changes of the config while the gateway runs: how they are noticed, which are refused, what they
//! leave alone.

use crate::support::{Gateway, eventually};

mod listeners;
mod noticed;
mod refused;
mod state;
mod under_load;

/// Waits until so many reloads were refused.
async fn wait_for_rejected(gateway: &Gateway, n: u64) {
    eventually("the refusal of a reload", async || {
        gateway.metric("sluice_config_reloads_total{result=\"rejected\"}").await >= n as f64
    })
    .await;
}

/// The config file as it is, with one text exchanged for another.
fn edited(gateway: &Gateway, from: &str, to: &str) -> String {
    let text = std::fs::read_to_string(gateway.config_path()).unwrap();
    assert!(text.contains(from), "{from:?} is not in the config");
    text.replace(from, to)
}

/// Replaces the whole file as an editor does, by renaming over it.
fn rename_over(gateway: &Gateway, text: &str) {
    let new = gateway.folder().join("routes.yaml.new");
    std::fs::write(&new, text).unwrap();
    std::fs::rename(new, gateway.config_path()).unwrap();
}
