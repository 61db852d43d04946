//! Threads, hashes and load: what the machine gives, and what one caller may take of it.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use sluice_chaos::load::Plan;

use crate::support::{Gateway, Setup, eventually};

const ECHO: &str = "upstreams: { echo: { builtin: echo } }\n\
    routes: [ { id: all, match: { path: /** }, upstream: echo } ]\n";

fn status(gateway: &Gateway, name: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", gateway.daemon.pid())).unwrap();
    let line = status.lines().find(|line| line.starts_with(name)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// Shows E-05.
#[tokio::test]
async fn e_05_a_few_threads_are_enough() {
    let root = std::os::unix::fs::MetadataExt::uid(&std::fs::metadata("/proc/self").unwrap()) == 0;
    // The limit counts a user's threads, so this gateway gets a user of its own.
    let by = "chown -R 54322 \"$FOLDER\"; exec 9<\"$1\"; shift; exec setpriv --reuid=54322 \
        --clear-groups --inh-caps=-all prlimit --nproc=16:16 /proc/self/fd/9 \"$@\"";
    let setup = Setup { by: root.then_some(by), ..Setup::default() };
    let gateway = Gateway::start_with(ECHO, setup).await;
    let threads = status(&gateway, "Threads:");
    assert!(threads <= 14, "{threads} threads for two workers");
    let tally = Plan::new(gateway.http, "/x").per_second(300).duration(Duration::from_secs(1));
    let tally = tally.keepalive(false).run().await;
    assert_eq!(tally.ok, tally.sent, "{:?}", tally.errors);
    gateway.write_config(&ECHO.replace("all,", "other,"));
    gateway.wait_for_generation(2).await;
    // A reload may hold one or two more for a while.
    let more = status(&gateway, "Threads:");
    assert!(more <= threads + 3, "{threads} threads before, {more} after");
}

/// Shows E-07.
#[test]
fn e_07_no_hash_has_a_seed_that_others_know() {
    let known = ["FixedState", "BuildHasherDefault", "DefaultHasher::new", "with_seed", "FxHash"];
    // Its keys are hashes under a random seed already.
    let excepted = ["jwt/cache.rs"];
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let mut seen = 0;
    for file in
        ["sluice-engine/src", "sluice-proxy/src"].iter().flat_map(|it| files(&root.join(it)))
    {
        let text = std::fs::read_to_string(&file).unwrap();
        seen += usize::from(text.contains("HashMap"));
        let found = known.iter().find(|word| text.contains(*word));
        assert!(
            found.is_none() || excepted.iter().any(|it| file.ends_with(it)),
            "{found:?} in {file:?}"
        );
    }
    assert!(seen > 10, "{seen} files with maps; is this the right folder?");
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}

/// Shows V-02.
#[tokio::test(flavor = "multi_thread")]
async fn v_02_compiling_a_large_table_holds_no_request_up() {
    let gateway = Gateway::start(ECHO).await;
    let load =
        Plan::new(gateway.http, "/x").per_second(100).duration(Duration::from_secs(60)).start();
    let route = |n: usize| {
        let path = format!("/s{n}/[a-z]{{1,20}}/([0-9]+)");
        format!("  - {{ id: r{n}, match: {{ path_regex: \"{path}\" }}, upstream: echo }}\n")
    };
    let routes: String = (0..1500).map(route).collect();
    let first = "routes:\n  - { id: all, match: { path: /** }, upstream: echo }\n";
    let began = Instant::now();
    gateway.write_config(&format!("upstreams: {{ echo: {{ builtin: echo }} }}\n{first}{routes}"));
    gateway.wait_for_generation(2).await;
    let took = began.elapsed();
    let tally = load.stop().await;
    assert_eq!(tally.ok, tally.sent, "{:?}", tally.errors);
    // The longest wait is no part of the compilation, whatever that takes here.
    let longest = tally.latencies.last().copied().unwrap_or_default();
    assert!(longest < Duration::from_millis(400).max(took / 2), "{longest:?} of {took:?}");
}

/// Shows V-09.
#[tokio::test(flavor = "multi_thread")]
async fn v_09_health_checks_are_answered_amid_a_flood() {
    let gateway = Gateway::start_with(ECHO, Setup { workers: Some(1), ..Setup::default() }).await;
    let stop = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let flood = (0..16).map(|_| {
        let (stop, address) = (std::sync::Arc::clone(&stop), gateway.http);
        tokio::spawn(async move {
            let mut client = sluice_chaos::raw::Client::connect(address).await;
            let many = "GET /x HTTP/1.1\r\nHost: a\r\n\r\n".repeat(50);
            let mut answered = 0_u64;
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                client.send(&many).await;
                for _ in 0..50 {
                    assert_eq!(client.response().await.status, 200);
                    answered += 1;
                }
            }
            answered
        })
    });
    let flood: Vec<_> = flood.collect();
    eventually("the flood to come", async || {
        gateway.metric("sluice_http_requests_in_flight").await > 0.0
    })
    .await;
    for _ in 0..10 {
        for page in ["/livez", "/readyz"] {
            let asked = Instant::now();
            assert_eq!(gateway.admin(page).await.status, 200, "{page}");
            let took = asked.elapsed();
            assert!(took < Duration::from_secs(2), "{page} took {took:?}");
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    stop.store(true, std::sync::atomic::Ordering::Relaxed);
    let mut answered = 0;
    for client in flood {
        answered += client.await.unwrap();
    }
    assert!(answered > 1_000, "{answered} requests are no flood");
}
