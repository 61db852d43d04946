//! Listeners that come, go and cannot come.

use std::net::SocketAddr;

use sluice_chaos::process::free_port;
use sluice_chaos::raw::{self, Client};
use sluice_chaos::recorder::Recorder;

use super::{edited, rename_over, wait_for_rejected};
use crate::support::{Gateway, eventually};

const CONFIG: &str = r#"
upstreams: { echo: { builtin: echo } }
routes:
  - { id: echo, match: { path: /echo }, upstream: echo }
"#;

/// The config with one more listener.
fn with_listener(gateway: &Gateway, address: SocketAddr) -> String {
    let more = format!("listeners:\n  - {{ name: extra, address: \"{address}\" }}\n");
    edited(gateway, "listeners:\n", &more)
}

#[tokio::test]
async fn a_listener_is_added_and_removed_without_touching_the_others() {
    let gateway = Gateway::start(CONFIG).await;
    let before = std::fs::read_to_string(gateway.config_path()).unwrap();
    let extra = SocketAddr::from(([127, 0, 0, 1], free_port()));
    let mut kept = gateway.client().await;
    assert_eq!(kept.request("GET", "/echo", "localhost", &[], b"").await.status, 200);

    rename_over(&gateway, &with_listener(&gateway, extra));
    gateway.wait_for_generation(2).await;
    eventually("the new listener", async || Client::try_connect(extra).await.is_ok()).await;
    assert_eq!(raw::get(extra, "localhost", "/echo").await.status, 200);
    assert_eq!(gateway.get("/echo").await.status, 200);
    let mut on_extra = Client::connect(extra).await;
    assert_eq!(on_extra.request("GET", "/echo", "localhost", &[], b"").await.status, 200);

    rename_over(&gateway, &before);
    gateway.wait_for_generation(3).await;
    eventually("the old listener to close", async || Client::try_connect(extra).await.is_err())
        .await;
    assert_eq!(gateway.get("/echo").await.status, 200);
    // Who is connected stays connected, on the listener that stayed and on the one that left.
    assert_eq!(kept.request("GET", "/echo", "localhost", &[], b"").await.status, 200);
    assert_eq!(on_extra.request("GET", "/echo", "localhost", &[], b"").await.status, 200);
}

#[tokio::test]
async fn a_port_that_is_taken_refuses_the_whole_reload() {
    let gateway = Gateway::start(CONFIG).await;
    let squatter = Recorder::start();
    let text = with_listener(&gateway, squatter.addr()).replace("path: /echo", "path: /moved");
    rename_over(&gateway, &text);
    wait_for_rejected(&gateway, 1).await;
    let page = gateway.admin("/config").await.json();
    let problems = page["last_problems"].as_str().unwrap();
    assert!(
        problems.contains("`extra`") && problems.contains(&squatter.addr().to_string()),
        "{problems}"
    );
    assert_eq!(gateway.get("/echo").await.status, 200);
    assert_eq!(gateway.get("/moved").await.status, 404);
    assert_eq!(raw::get(squatter.addr(), "x", "/").await.text(), "ok");

    let addr = squatter.addr();
    squatter.stop().await;
    gateway.daemon.signal("HUP");
    gateway.wait_for_generation(2).await;
    eventually("the listener", async || Client::try_connect(addr).await.is_ok()).await;
    assert_eq!(raw::get(addr, "localhost", "/moved").await.status, 200);
}
