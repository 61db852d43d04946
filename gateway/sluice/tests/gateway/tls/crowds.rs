//! Handshakes by the crowd: more than there is room for, abandoned ones, and hellos that are none.

use std::sync::Arc;
use std::time::Duration;

use sluice_chaos::client;
use sluice_chaos::pki::{Authority, client_config, client_hello};
use sluice_chaos::raw::Client;

use crate::support::{Gateway, Setup, WITH_TLS, eventually, proportional};

const CONFIG: &str = r#"
upstreams: { echo: { builtin: echo } }
routes: [ { id: all, match: { path: /** }, upstream: echo } ]
"#;

struct Place {
    gateway: Gateway,
    authority: Authority,
}

impl Place {
    /// One worker, with these settings of the TLS listener.
    async fn start(settings: &str) -> Self {
        let authority = Authority::new();
        let pair = authority.issue(&["localhost"]);
        let listeners = WITH_TLS.replace("tls: {", &format!("{settings}, tls: {{"));
        let setup = Setup {
            listeners: Some(Box::leak(listeners.into_boxed_str())),
            files: vec![("cert.pem", pair.cert_pem), ("key.pem", pair.key_pem)],
            workers: Some(1),
            ..Setup::default()
        };
        let gateway = Gateway::start_with(CONFIG, setup).await;
        Self { gateway, authority }
    }

    /// Whether a good client is served.
    async fn serves(&self) -> bool {
        let config = client_config(&self.authority, &["http/1.1"]);
        let connect = Client::try_connect_tls(self.gateway.https, "localhost", config).await;
        let Ok(mut client) = connect else { return false };
        client.request("GET", "/", "localhost", &[], b"").await.status == 200
    }

    fn hello(&self) -> Vec<u8> {
        client_hello(client_config(&self.authority, &["h2", "http/1.1"]), "localhost")
    }

    async fn failures(&self, reason: &str) -> f64 {
        let series = format!("sluice_tls_handshake_errors_total{{reason=\"{reason}\"}}");
        self.gateway.metric(&series).await
    }
}

/// Shows T-02.
#[tokio::test]
async fn handshakes_that_dawdle_give_way_to_good_clients() {
    let place = Place::start("timeouts: { handshake: 60s }, limits: { handshakes: 3 }").await;
    let config = client_config(&place.authority, &["h2"]);
    let mut before = client::tls(place.gateway.https, "localhost", config).await;
    let mut dawdlers = Vec::new();
    for _ in 0..3 {
        let mut dawdler = Client::connect(place.gateway.https).await;
        dawdler.send(&place.hello()[..20]).await;
        dawdlers.push(dawdler);
    }
    eventually("a good client to be served", async || place.serves().await).await;
    assert!(place.failures("shed").await >= 1.0);
    let mut gone = 0;
    for dawdler in &mut dawdlers {
        gone += u32::from(dawdler.closed_by_peer_within(Duration::from_millis(200)).await);
    }
    assert!((1..=3).contains(&gone), "{gone} of 3 have given way");
    // Whoever was in before notices nothing.
    assert_eq!(before.send(client::get("/")).await.0.status.as_u16(), 200);
}

/// Begins this many handshakes at a time, reads the beginning of the answers, and leaves.
async fn abandon(place: &Place, count: usize) {
    let hello = place.hello();
    let mut clients = Vec::new();
    for _ in 0..count {
        let mut client = Client::connect(place.gateway.https).await;
        client.send(&hello).await;
        clients.push(client);
    }
    for client in &mut clients {
        let said = client.read_exactly(6).await;
        assert_eq!((said.first(), said.get(5)), (Some(&22), Some(&2)), "a hello of the server");
    }
}

#[tokio::test]
async fn t_14_abandoned_handshakes_leave_nothing_behind() {
    let place = Place::start("limits: { handshakes: 500 }").await;
    abandon(&place, 200).await;
    eventually("the connections to be gone", async || {
        place.gateway.metric("sluice_client_connections").await == 0.0
            && place.gateway.metric("sluice_tasks{kind=\"connection\"}").await == 0.0
    })
    .await;
    assert_eq!(place.failures("closed").await, 200.0);
    assert!(place.serves().await);
}

/// Shows T-14.
#[tokio::test]
#[ignore = "second tier: cargo xtask soak"]
async fn long_thousand_abandoned_handshakes_give_their_memory_back() {
    let place = Place::start("limits: { handshakes: 2000 }").await;
    abandon(&place, 100).await;
    eventually("the first to be gone", async || {
        place.gateway.metric("sluice_client_connections").await == 0.0
    })
    .await;
    let before = proportional(&place.gateway);
    for _ in 0..3 {
        abandon(&place, 1_000).await;
    }
    eventually("the memory to be given back", async || {
        let after = proportional(&place.gateway);
        println!("{before} bytes before, {after} after 3 x 1000 abandoned handshakes");
        after < before + 4 * 1024 * 1024
    })
    .await;
    assert!(place.serves().await);
}

/// Changes a hello somewhere.
fn spoil(hello: &[u8], dice: &mut fastrand::Rng) -> Vec<u8> {
    let mut bytes = hello.to_vec();
    for _ in 0..dice.usize(1..4) {
        let at = dice.usize(..bytes.len());
        match dice.u8(..6) {
            0 => bytes[at] ^= 1 << dice.u8(..8),
            1 => bytes[at] = dice.u8(..),
            2 => bytes.truncate(at.max(1)),
            3 => {
                let piece = bytes[at..(at + dice.usize(..40)).min(bytes.len())].to_vec();
                let to = dice.usize(..bytes.len());
                bytes.splice(to..to, piece);
            }
            4 => drop(bytes.drain(at..(at + dice.usize(1..20)).min(bytes.len()))),
            // Lengths of records, messages, lists and extensions are two bytes, mostly.
            _ => {
                let length = *dice.choice(&[0_u16, 1, 0x00ff, 0x4000, 0xffff]).unwrap();
                for (byte, new) in bytes[at..].iter_mut().zip(length.to_be_bytes()) {
                    *byte = new;
                }
            }
        }
        if bytes.is_empty() {
            bytes.push(22);
        }
    }
    bytes
}

/// Says so many spoilt hellos, always the same ones for a seed.
async fn malformed(place: &Place, seed: u64, count: usize) {
    let (hello, mut dice) = (place.hello(), fastrand::Rng::with_seed(seed));
    for _ in 0..count {
        let mut client = Client::connect(place.gateway.https).await;
        // A gateway that has heard enough closes before everything is said.
        if client.try_send(spoil(&hello, &mut dice)).await.is_ok() {
            client.try_half_close().await;
        }
        let said = client.read_to_end().await;
        assert!(said.first().is_none_or(|kind| matches!(kind, 21 | 22)), "{said:?}");
    }
}

async fn unharmed(place: &Place, count: usize) {
    eventually("all of them to be counted", async || {
        place.gateway.metric("sluice_tls_handshake_errors_total").await >= count as f64
    })
    .await;
    assert!(place.serves().await);
    assert_eq!(place.gateway.metric("sluice_panics_total").await, 0.0);
    let said = place.gateway.daemon.output();
    assert!(!said.contains("panicked"), "{said}");
    eventually("the last connection to end", async || {
        place.gateway.metric("sluice_tasks{kind=\"connection\"}").await == 0.0
    })
    .await;
}

#[tokio::test]
async fn t_15_malformed_hellos_harm_their_own_connection_only() {
    let place = Place::start("timeouts: { handshake: 10s }").await;
    malformed(&place, 15, 300).await;
    unharmed(&place, 300).await;
}

/// Shows T-15.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "second tier: cargo xtask soak"]
async fn long_twenty_thousand_malformed_hellos_harm_nothing() {
    let place = Arc::new(Place::start("timeouts: { handshake: 10s }").await);
    let mut talks = Vec::new();
    for seed in 0..8 {
        let place = Arc::clone(&place);
        talks.push(tokio::spawn(async move { malformed(&place, seed, 2_500).await }));
    }
    for talk in talks {
        talk.await.unwrap();
    }
    unharmed(&place, 20_000).await;
}
