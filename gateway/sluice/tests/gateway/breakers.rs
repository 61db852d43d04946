//! Breakers of endpoints and routes, what counts, what is told of why one opened, and holding one.

mod fallback;
mod forensics;
mod scopes;
mod writes;

use serde_json::Value;
use sluice_chaos::recorder::Recorder;

use crate::support::Gateway;

/// A page about breakers.
async fn page(gateway: &Gateway, path: &str) -> Value {
    let page = gateway.admin(path).await;
    assert_eq!(page.status, 200, "{path}: {}", page.text());
    page.json()
}

async fn state(gateway: &Gateway, breaker: &str) -> String {
    let all = page(gateway, "/breakers").await;
    all[breaker]["state"].as_str().unwrap_or_else(|| panic!("no {breaker} in {all}")).to_owned()
}

fn fill(config: &str, recorders: &[&Recorder]) -> String {
    recorders.iter().enumerate().fold(config.to_owned(), |config, (index, recorder)| {
        config.replace(&format!("{{{index}}}"), &recorder.addr().to_string())
    })
}
