//! The table of policies: three endpoints, one of them ten times slower, under an open load from forty
//! callers; Sluice beside nginx and HAProxy. Prints what `docs/policies-measured.md` holds.
//!
//! An endpoint serves four requests at a time and lets further ones wait, as a service with four threads
//! does, so that who is given too much becomes slower still. `SLUICE_PROGRAM` names another build of the
//! gateway than the test's own.

use std::net::SocketAddr;
use std::process::Command;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use sluice_chaos::load::{Plan, Tally};
use sluice_chaos::process::{Daemon, Ready, free_port, tool};
use sluice_chaos::recorder::{Answer, Recorder};
use tempfile::TempDir;

use crate::support::{Gateway, eventually};

/// What one request takes at each endpoint.
const SERVICE: [Duration; 3] =
    [Duration::from_millis(2), Duration::from_millis(20), Duration::from_millis(2)];
/// Requests that an endpoint serves at a time: the slow one can bear 200 a second.
const PLACES: usize = 4;
const CALLERS: u32 = 40;
/// Requests of one caller in a second.
const EACH: u32 = 11;
const LONG: Duration = Duration::from_secs(8);

/// A service whose requests wait for one of its places.
fn endpoint(service: Duration) -> Recorder {
    let free = Mutex::new([Instant::now(); PLACES]);
    Recorder::deciding(move |_| {
        let now = Instant::now();
        let mut free = free.lock().unwrap_or_else(PoisonError::into_inner);
        let first = free.iter_mut().min().unwrap();
        *first = (*first).max(now) + service;
        Answer::ok("x").delay(*first - now)
    })
}

/// What ends a proxy when it is dropped.
type Guards = (Daemon, TempDir);

/// A proxy that is ended when dropped.
enum Peer {
    Sluice(Box<Gateway>),
    Other(SocketAddr, #[expect(dead_code, reason = "ended when dropped")] Guards),
}

impl Peer {
    async fn sluice(words: &str, endpoints: [SocketAddr; 3]) -> Self {
        let list = endpoints.map(|one| format!("{{ address: \"{one}\" }}")).join(", ");
        let config = format!(
            "access_log: {{ output: \"off\" }}\nupstreams:\n  up: {{ {words}, endpoints: [ {list} ] }}\n\
             routes: [ {{ id: up, upstream: up }} ]\n"
        );
        Self::Sluice(Box::new(Gateway::start(&config).await))
    }

    /// Without a master, which would leave its workers behind when it is killed.
    async fn nginx(words: &str, endpoints: [SocketAddr; 3]) -> Self {
        let addr = SocketAddr::from(([127, 0, 0, 1], free_port()));
        let folder = tempfile::tempdir().unwrap();
        let here = folder.path().display();
        let servers = endpoints.map(|one| format!("server {one};")).join(" ");
        let text = format!(
            "daemon off; master_process off;\npid {here}/pid;\nerror_log {here}/error.log;\n\
             events {{ worker_connections 4096; }}\nhttp {{\naccess_log off; keepalive_requests 1000000;\n\
             client_body_temp_path {here}/body; proxy_temp_path {here}/proxy;\n\
             fastcgi_temp_path {here}/fastcgi; uwsgi_temp_path {here}/uwsgi; scgi_temp_path {here}/scgi;\n\
             upstream up {{ zone up 256k; {words} {servers} keepalive 256; }}\n\
             server {{ listen {addr} reuseport; location / {{ proxy_pass http://up;\n\
             proxy_http_version 1.1; proxy_set_header Connection \"\"; }} }} }}\n"
        );
        let config = folder.path().join("nginx.conf");
        std::fs::write(&config, text).unwrap();
        let mut command = Command::new(tool("nginx"));
        command.arg("-p").arg(folder.path()).arg("-c").arg(&config);
        command.arg("-e").arg(folder.path().join("error.log"));
        Self::Other(addr, (Daemon::start(command, Ready::Tcp(addr)).await, folder))
    }

    async fn haproxy(words: &str, endpoints: [SocketAddr; 3]) -> Self {
        let addr = SocketAddr::from(([127, 0, 0, 1], free_port()));
        let folder = tempfile::tempdir().unwrap();
        let server = |(n, one): (usize, SocketAddr)| format!("  server s{n} {one}\n");
        let servers: String = endpoints.into_iter().enumerate().map(server).collect();
        let text = format!(
            "global\n  nbthread 2\n  maxconn 4096\ndefaults\n  mode http\n  http-reuse always\n  \
             timeout client 60s\n  timeout server 60s\n  timeout connect 5s\nfrontend all\n  bind {addr}\n  \
             default_backend up\nbackend up\n{words}\n{servers}"
        );
        let config = folder.path().join("haproxy.cfg");
        std::fs::write(&config, text).unwrap();
        let mut command = Command::new(tool("haproxy"));
        command.args(["-db", "-f"]).arg(config);
        Self::Other(addr, (Daemon::start(command, Ready::Tcp(addr)).await, folder))
    }

    fn addr(&self) -> SocketAddr {
        match self {
            Self::Sluice(gateway) => gateway.http,
            Self::Other(addr, ..) => *addr,
        }
    }
}

/// What came of one policy.
struct Row {
    name: String,
    p50: Duration,
    p99: Duration,
    /// Percent of the requests that each endpoint has got.
    shares: [f64; 3],
    /// Everything that went wrong.
    lost: u64,
}

/// All callers at once, each with a name, evenly spread over time.
async fn load(addr: SocketAddr) -> Tally {
    let mut callers = tokio::task::JoinSet::new();
    for caller in 0..CALLERS {
        let name = format!("caller-{caller}");
        let plan = Plan::new(addr, "/a").header("X-User", &name).per_second(EACH).duration(LONG);
        callers.spawn(async move {
            tokio::time::sleep(Duration::from_secs(1) * caller / (EACH * CALLERS)).await;
            plan.run().await
        });
    }
    let mut all = Tally::default();
    for tally in callers.join_all().await {
        all.sent += tally.sent;
        all.ok += tally.ok;
        all.latencies.extend(tally.latencies);
    }
    all.latencies.sort_unstable();
    all
}

#[expect(clippy::print_stdout, reason = "figures to quote")]
async fn measured(name: &str, make: impl AsyncFn([SocketAddr; 3]) -> Peer) -> Row {
    let endpoints = SERVICE.map(endpoint);
    let peer = make(endpoints.each_ref().map(Recorder::addr)).await;
    let tally = load(peer.addr()).await;
    let total = tally.sent as f64;
    eventually("all requests to be over", async || {
        endpoints.iter().map(|one| one.requests().len() as u64).sum::<u64>() >= tally.ok
    })
    .await;
    let row = Row {
        name: name.to_owned(),
        p50: tally.quantile(0.5),
        p99: tally.quantile(0.99),
        shares: endpoints.each_ref().map(|one| 100.0 * one.begun() as f64 / total),
        lost: tally.sent - tally.ok,
    };
    let [a, slow, b] = row.shares;
    println!(
        "| {} | {:.1} | {:.1} | {a:.1} / **{slow:.1}** / {b:.1} | {} |",
        row.name,
        row.p50.as_secs_f64() * 1e3,
        row.p99.as_secs_f64() * 1e3,
        row.lost
    );
    row
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "second tier: cargo xtask soak"]
async fn long_policies_beside_those_of_others() {
    println!("| policy | p50, ms | p99, ms | requests per endpoint, %, the slow one bold | lost |");
    println!("|---|---|---|---|---|");
    let mut rows = Vec::new();
    for words in [
        "balance: round_robin",
        "balance: random",
        "balance: least_request",
        "balance: fastest",
        "balance: hash, hash: { key: \"header:x-user\" }",
        "balance: hash, hash: { key: \"header:x-user\", balance_factor: 150 }",
        "sticky: { header: x-user }",
    ] {
        let name = format!("Sluice `{words}`");
        rows.push(measured(&name, async |endpoints| Peer::sluice(words, endpoints).await).await);
    }
    for words in
        ["", "random;", "least_conn;", "random two least_conn;", "hash $http_x_user consistent;"]
    {
        let name = format!("nginx `{}`", if words.is_empty() { "round robin" } else { words });
        rows.push(measured(&name, async |endpoints| Peer::nginx(words, endpoints).await).await);
    }
    for words in [
        "  balance roundrobin",
        "  balance leastconn",
        "  balance random(2)",
        "  balance hdr(x-user)\n  hash-type consistent",
        "  balance hdr(x-user)\n  hash-type consistent\n  hash-balance-factor 150",
    ] {
        let name = format!("HAProxy `{}`", words.trim().replace("\n  ", "; "));
        rows.push(measured(&name, async |endpoints| Peer::haproxy(words, endpoints).await).await);
    }
    assert!(rows.iter().all(|row| row.lost == 0), "requests were lost");
    let [turns, random, least, fastest, ..] = rows.as_slice() else { panic!("a row is missing") };
    assert!((turns.shares[1] - 33.3).abs() < 1.0 && (random.shares[1] - 33.3).abs() < 5.0);
    // Latencies are for people: a machine that does more than this makes all endpoints slow now and then.
    assert!(least.shares[1] < 30.0 && fastest.shares[1] < 30.0);
}
