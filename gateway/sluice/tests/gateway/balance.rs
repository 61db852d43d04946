//! Which worker gets a connection.

use sluice_chaos::raw::Client;

use crate::support::{Gateway, Setup, eventually};

const CONFIG: &str = "upstreams: { echo: { builtin: echo } }\n\
    routes: [ { id: all, match: { path: /** }, upstream: echo } ]\n";
const BALANCED: &str = "listeners: [ { name: plain, address: \"{http}\", \
    connection_balance: least_connections } ]\n";

async fn start(workers: usize) -> Gateway {
    let setup = Setup { listeners: Some(BALANCED), workers: Some(workers), ..Setup::default() };
    Gateway::start_with(CONFIG, setup).await
}

async fn open(gateway: &Gateway, count: usize) -> Vec<Client> {
    let mut clients = Vec::new();
    for _ in 0..count {
        let mut client = gateway.client().await;
        ask(&mut client).await;
        clients.push(client);
    }
    clients
}

async fn ask(client: &mut Client) {
    assert_eq!(client.request("GET", "/", "localhost", &[], b"").await.status, 200);
}

async fn by_worker(gateway: &Gateway, workers: usize) -> Vec<f64> {
    let mut counts = Vec::new();
    for worker in 0..workers {
        let name = format!("sluice_worker_connections{{worker=\"{worker}\"}}");
        counts.push(gateway.metric(&name).await);
    }
    counts
}

#[tokio::test]
async fn connections_are_spread_evenly() {
    let gateway = start(4).await;
    let mut clients = open(&gateway, 40).await;
    let counts = by_worker(&gateway, 4).await;
    // Those that came to rest meanwhile count for less.
    assert!(counts.iter().all(|count| (8.0..=12.0).contains(count)), "{counts:?}");
    assert_eq!(counts.iter().sum::<f64>(), 40.0);
    // The kernel would have had to guess right forty times.
    assert!(gateway.metric("sluice_client_connections_handed_total").await > 0.0);
    for client in &mut clients {
        ask(client).await;
    }
    drop(clients);
    eventually("all to be gone", async || by_worker(&gateway, 4).await == [0.0; 4]).await;
    drop(open(&gateway, 8).await);
}

#[tokio::test]
async fn a_reload_turns_it_on_for_new_connections() {
    let listeners = "listeners: [ { name: plain, address: \"{http}\" } ]\n";
    let setup = Setup { listeners: Some(listeners), workers: Some(2), ..Setup::default() };
    let gateway = Gateway::start_with(CONFIG, setup).await;
    let mut before = open(&gateway, 4).await;
    assert_eq!(gateway.metric("sluice_client_connections_handed_total").await, 0.0);
    let path = gateway.config_path();
    let text = std::fs::read_to_string(&path).unwrap();
    let changed =
        text.replace("name: plain,", "name: plain, connection_balance: least_connections,");
    assert_ne!(text, changed);
    std::fs::write(&path, changed).unwrap();
    gateway.wait_for_generation(2).await;
    for client in &mut before {
        ask(client).await;
    }
    let _after = open(&gateway, 16).await;
    assert!(gateway.metric("sluice_client_connections_handed_total").await > 0.0);
    assert_eq!(by_worker(&gateway, 2).await.iter().sum::<f64>(), 20.0);
}
