//! Certificates that change while the gateway runs, and those it makes for itself.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use sluice_chaos::pki::{Authority, Pair, client_config};
use sluice_chaos::raw::Client;

use crate::support::{Gateway, Setup, WITH_TLS, eventually};

const CONFIG: &str = r#"
upstreams: { echo: { builtin: echo } }
routes: [ { id: all, upstream: echo } ]
"#;

pub(super) async fn start(pair: &Pair) -> Gateway {
    Gateway::start_with(CONFIG, Setup::with_tls(pair)).await
}

/// As an ACME client does it: each file is written aside and renamed over the old one.
fn replace(folder: &Path, pair: &Pair) {
    for (name, text) in [("cert.pem", &pair.cert_pem), ("key.pem", &pair.key_pem)] {
        let new = folder.join(format!("{name}.new"));
        std::fs::write(&new, text).unwrap();
        std::fs::rename(new, folder.join(name)).unwrap();
    }
}

async fn shows(gateway: &Gateway, authority: &Authority, name: &str) -> bool {
    let config = client_config(authority, &[]);
    Client::try_connect_tls(gateway.https, name, config).await.is_ok()
}

/// As Kubernetes does it: the files are links through `..data`, and only that is swapped.
fn swap(folder: &Path, pair: &Pair, number: usize) {
    let version = format!("..version_{number}");
    std::fs::create_dir(folder.join(&version)).unwrap();
    pair.write(&folder.join(&version));
    let link = |to: &str, name: &str| {
        let new = folder.join(format!("{name}.new"));
        std::os::unix::fs::symlink(to, &new).unwrap();
        std::fs::rename(new, folder.join(name)).unwrap();
    };
    link(&version, "..data");
    for name in ["cert.pem", "key.pem"] {
        let is_link = std::fs::symlink_metadata(folder.join(name)).unwrap().is_symlink();
        if !is_link {
            link(&format!("..data/{name}"), name);
        }
    }
    if let Some(old) = number.checked_sub(2) {
        std::fs::remove_dir_all(folder.join(format!("..version_{old}"))).ok();
    }
}

/// Clients that shake hands all the time, some 100 times a second together.
struct Load {
    done: Arc<AtomicBool>,
    shaken: Arc<AtomicU64>,
    clients: Vec<tokio::task::JoinHandle<Vec<String>>>,
}

impl Load {
    fn start(gateway: &Gateway, authority: &Authority) -> Self {
        let (done, shaken) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let clients = (0..2).map(|_| {
            let (done, shaken, addr) = (Arc::clone(&done), Arc::clone(&shaken), gateway.https);
            let config = client_config(authority, &["http/1.1"]);
            tokio::spawn(async move {
                let mut failures = Vec::new();
                let mut pace = tokio::time::interval(Duration::from_millis(20));
                while !done.load(Ordering::Relaxed) {
                    pace.tick().await;
                    match Client::try_connect_tls(addr, "localhost", Arc::clone(&config)).await {
                        Ok(mut client) => {
                            let answer = client.request("GET", "/", "localhost", &[], b"").await;
                            assert_eq!(answer.status, 200);
                            shaken.fetch_add(1, Ordering::Relaxed);
                        }
                        Err(error) => failures.push(error.to_string()),
                    }
                }
                failures
            })
        });
        Self { clients: clients.collect(), done, shaken }
    }

    fn shaken(&self) -> u64 {
        self.shaken.load(Ordering::Relaxed)
    }

    /// What went wrong.
    async fn stop(self) -> Vec<String> {
        self.done.store(true, Ordering::Relaxed);
        let mut failures = Vec::new();
        for client in self.clients {
            failures.extend(client.await.unwrap());
        }
        failures
    }
}

/// Replaces the pair so often, by renaming and by swapping a link in turn, under load. Gives back how
/// long each took to be seen, sorted, and the handshakes of a second.
async fn rotate(rotations: usize) -> (Vec<Duration>, f64) {
    let authority = Authority::new();
    let gateway = start(&authority.issue(&["localhost"])).await;
    let load = Load::start(&gateway, &authority);
    let begun = std::time::Instant::now();
    let mut taken = Vec::new();
    for rotation in 0..rotations {
        let name = format!("r{rotation}.test");
        let pair = authority.issue(&["localhost", &name]);
        let before = load.shaken();
        let now = std::time::Instant::now();
        // The first half by renaming: a name that is a link by then would be written through.
        if rotation < rotations / 2 {
            replace(gateway.folder(), &pair);
        } else {
            swap(gateway.folder(), &pair, rotation - rotations / 2);
        }
        eventually("the new certificate", async || shows(&gateway, &authority, &name).await).await;
        taken.push(now.elapsed());
        eventually("some load", async || load.shaken() > before).await;
    }
    let rate = load.shaken() as f64 / begun.elapsed().as_secs_f64();
    assert_eq!(load.stop().await, Vec::<String>::new());
    let accepted = gateway.metric("sluice_config_reloads_total{result=\"accepted\"}").await;
    assert!(accepted >= rotations as f64, "{accepted} reloads for {rotations} rotations");
    assert_eq!(gateway.metric("sluice_tls_handshake_errors_total{reason=\"protocol\"}").await, 0.0);
    taken.sort_unstable();
    (taken, rate)
}

/// Shows T-05.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rotations_under_load_fail_no_handshake() {
    rotate(12).await;
}

/// Shows T-05.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "second tier: cargo xtask soak"]
async fn long_hundred_rotations_under_load_fail_no_handshake() {
    let (taken, rate) = rotate(100).await;
    let (median, worst) = (taken[50], taken[99]);
    println!("seen after {median:?}, at worst {worst:?}, at {rate:.0} handshakes/s");
    assert!(median < Duration::from_secs(1), "half of them took {median:?}");
}

/// Shows T-03.
#[tokio::test]
async fn a_key_of_another_certificate_is_refused_and_the_old_pair_stays() {
    let authority = Authority::new();
    let gateway = start(&authority.issue(&["localhost", "old.test"])).await;
    let (new, stray) = (authority.issue(&["localhost", "new.test"]), authority.issue(&["x.test"]));
    let mixed = Pair { cert_pem: new.cert_pem.clone(), key_pem: stray.key_pem };
    replace(gateway.folder(), &mixed);
    eventually("the refusal", async || {
        gateway.metric("sluice_config_last_reload_successful").await == 0.0
    })
    .await;
    let problems = gateway.admin("/config").await.json()["last_problems"].to_string();
    assert!(problems.contains("does not belong to the certificate"), "{problems}");
    assert!(shows(&gateway, &authority, "old.test").await);
    assert!(!shows(&gateway, &authority, "new.test").await);

    for broken in
        ["", "no PEM at all", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"]
    {
        let refused = gateway.metric("sluice_config_reloads_total{result=\"rejected\"}").await;
        let pair = Pair { cert_pem: broken.to_owned(), key_pem: new.key_pem.clone() };
        replace(gateway.folder(), &pair);
        eventually("the refusal", async || {
            gateway.metric("sluice_config_reloads_total{result=\"rejected\"}").await > refused
        })
        .await;
        assert!(shows(&gateway, &authority, "old.test").await, "{broken:?}");
    }
    replace(gateway.folder(), &new);
    eventually("the new pair", async || shows(&gateway, &authority, "new.test").await).await;
    assert!(!shows(&gateway, &authority, "old.test").await);
    assert_eq!(gateway.metric("sluice_config_last_reload_successful").await, 1.0);
}

/// The certificate a client is shown, whoever signed it.
fn shown(gateway: &Gateway) -> String {
    use std::process::{Command, Stdio};
    let openssl = sluice_chaos::process::tool("openssl");
    let addr = gateway.https.to_string();
    let output = Command::new(openssl)
        .args(["s_client", "-connect", &addr, "-servername", "localhost"])
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let begin = text.find("-----BEGIN").unwrap_or_else(|| panic!("no certificate in {text}"));
    let end = text.find("-----END CERTIFICATE-----").unwrap();
    text[begin..end].to_owned()
}

#[tokio::test]
async fn a_development_certificate_is_written_down_for_its_owner_only() {
    let setup = Setup { listeners: Some(WITH_TLS), ..Setup::default() };
    let gateway = Gateway::start_with(&format!("development: true\n{CONFIG}"), setup).await;
    let (cert, key) = (gateway.folder().join("cert.pem"), gateway.folder().join("key.pem"));
    assert_eq!(std::fs::metadata(key).unwrap().permissions().mode() & 0o777, 0o600);
    let first = shown(&gateway);
    assert!(std::fs::read_to_string(cert).unwrap().contains(&first));
    gateway.daemon.signal("HUP");
    gateway.wait_for_generation(2).await;
    assert_eq!(shown(&gateway), first);
}

/// Shows F-06.
#[tokio::test]
async fn where_nothing_can_be_written_it_lives_in_memory() {
    // Not even root writes files into /proc.
    let listeners =
        WITH_TLS.replace("cert.pem", "/proc/cert.pem").replace("key.pem", "/proc/key.pem");
    let setup =
        Setup { listeners: Some(Box::leak(listeners.into_boxed_str())), ..Setup::default() };
    let gateway = Gateway::start_with(&format!("development: true\n{CONFIG}"), setup).await;
    gateway.daemon.wait_for_output("cannot keep the development certificate").await;
    let first = shown(&gateway);
    gateway.daemon.signal("HUP");
    gateway.wait_for_generation(2).await;
    assert_eq!(shown(&gateway), first, "a reload made another certificate");
    tokio::time::timeout(Duration::from_secs(10), gateway.get("/x")).await.unwrap();
}
