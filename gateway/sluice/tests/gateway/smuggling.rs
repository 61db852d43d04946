//! The same hostile bytes through the gateway to services of several makes: each sees exactly the
//! requests that the gateway admitted, and each answer belongs to the connection that it arrives on.
//!
//! Every case has a name of its own in all its paths, so what arrives where can be told afterwards from
//! the logs of both ends.

use std::collections::BTreeMap;
use std::time::Duration;

use sluice_chaos::raw::Client;

use crate::support::Gateway;

mod backends;
mod cases;

use backends::Backend;
use cases::Case;

/// Connections at once.
const ABREAST: usize = 96;
/// A case is over when nothing has come for so long.
const SILENCE: Duration = Duration::from_millis(400);

fn config(backends: &[Backend]) -> String {
    let (mut upstreams, mut routes) = (String::from("upstreams:\n"), String::from("routes:\n"));
    for backend in backends {
        let (name, address) = (backend.name(), backend.addr());
        upstreams
            .push_str(&format!("  {name}: {{ endpoints: [ {{ address: \"{address}\" }} ] }}\n"));
        routes.push_str(&format!(
            "  - {{ id: {name}, match: {{ hosts: [ {name} ] }}, upstream: {name} }}\n"
        ));
    }
    upstreams + &routes
}

/// Requests by what they are called: method and path.
type Counts = BTreeMap<String, u64>;

/// What the gateway says that it did for one service.
#[derive(Default)]
struct Admitted {
    /// Answered by the service with 200.
    served: Counts,
    /// Sent to it, as often as that was tried.
    sent: Counts,
}

fn admitted(lines: &[serde_json::Value], route: &str) -> Admitted {
    let mut admitted = Admitted::default();
    for line in lines.iter().filter(|line| line["route"] == route) {
        let (method, path) = (line["method"].as_str().unwrap(), line["path"].as_str().unwrap());
        let name = format!("{method} {path}");
        let attempts = line["attempts"].as_u64().unwrap();
        *admitted.sent.entry(name.clone()).or_default() += attempts;
        if line["status"] == 200 && line["source"] == "upstream" {
            *admitted.served.entry(name).or_default() += 1;
        }
    }
    admitted
}

/// What disagrees between what was admitted and what a service saw.
fn disagreements(admitted: &Admitted, seen: &Counts) -> Vec<String> {
    let count = |counts: &Counts, name: &String| counts.get(name).copied().unwrap_or(0);
    let more = seen.iter().filter(|(name, times)| **times > count(&admitted.sent, name));
    let more = more.map(|(name, times)| format!("{name:?} {times} times, more than was sent"));
    let less = admitted.served.iter().filter(|(name, times)| **times > count(seen, name));
    let less = less.map(|(name, times)| format!("{name:?} less than {times} times"));
    more.chain(less).collect()
}

/// Sends a case and reads until the gateway closes or has nothing more to say.
async fn play(gateway: std::net::SocketAddr, case: &Case, host: &str) -> Vec<u8> {
    let mut client = Client::connect(gateway).await;
    let _ = client.try_send(case.bytes(host)).await;
    let mut said = Vec::new();
    while let Ok(more) = tokio::time::timeout(SILENCE, client.read_some()).await {
        if more.is_empty() {
            break;
        }
        said.extend(more);
    }
    said
}

/// Plays all cases against all services, and compares what is said on all sides. Gives back how many
/// requests were served.
async fn compare(backends: Vec<Backend>, cases: Vec<Case>) -> u64 {
    let gateway = Gateway::start(&config(&backends)).await;
    let address = gateway.http;
    let names: Vec<&'static str> = backends.iter().map(Backend::name).collect();
    let all: Vec<(&'static str, Case)> =
        cases.iter().flat_map(|case| names.iter().map(|name| (*name, case.clone()))).collect();
    let share = all.len().div_ceil(ABREAST);
    let players = all.chunks(share).map(|some| {
        let some = some.to_vec();
        tokio::spawn(async move {
            for (host, case) in some {
                let said = play(address, &case, host).await;
                answers_are_its_own(&case, host, &said);
            }
        })
    });
    for player in players.collect::<Vec<_>>() {
        player.await.unwrap();
    }
    let mut served = 0;
    for backend in &backends {
        let mut wrong = vec![String::from("nothing was looked at")];
        // Both logs are written a little later than what they tell of.
        for _ in 0..100 {
            let lines = gateway.log_lines(0).await;
            let admitted = admitted(&lines, backend.name());
            served = served.max(admitted.served.values().sum());
            wrong = disagreements(&admitted, &backend.seen());
            if wrong.is_empty() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        let shown: Vec<String> = wrong.iter().filter_map(|line| shown(line, &cases)).collect();
        assert!(wrong.is_empty(), "{}: {wrong:#?}\n{}", backend.name(), shown.join("\n"));
    }
    served
}

/// The case that a disagreement is about.
fn shown(line: &str, cases: &[Case]) -> Option<String> {
    let number: usize = line.split(['/', '-']).nth(1)?.parse().ok()?;
    Some(cases.get(number)?.bytes("a").escape_ascii().to_string())
}

/// Services say the path that they were asked for: it is one of this case.
fn answers_are_its_own(case: &Case, host: &str, said: &[u8]) {
    let text = String::from_utf8_lossy(said);
    for echoed in text.split("<<").skip(1).filter_map(|rest| rest.split_once(">>")) {
        let own = echoed.0.starts_with(&format!("/{}-", case.number));
        assert!(own, "{host} answered {:?} to {}", echoed.0, case.bytes(host).escape_ascii());
    }
}

#[test]
fn a_request_that_only_one_side_knows_of_is_noticed() {
    let counts = |names: &[&str]| {
        let mut counts = Counts::new();
        names.iter().for_each(|name| *counts.entry((*name).to_owned()).or_default() += 1);
        counts
    };
    let served = counts(&["GET /1-x"]);
    let admitted = Admitted { sent: served.clone(), served };
    assert!(disagreements(&admitted, &counts(&["GET /1-x"])).is_empty());
    for seen in [&[][..], &["GET /1-x", "GET /1-x"], &["GET /1-x", "GET /1-hidden"]] {
        assert_eq!(disagreements(&admitted, &counts(seen)).len(), 1, "{seen:?}");
    }
}

/// Shows H1-01, H1-02, H1-03, H1-04, H1-05, H1-06, H1-09, H1-11, H1-12.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn services_of_several_makes_see_the_requests_that_were_admitted() {
    let backends = vec![Backend::recorder(), Backend::nginx().await, Backend::haproxy().await];
    let cases = cases::table();
    assert!(cases.len() > 150, "{} cases", cases.len());
    let served = compare(backends, cases).await;
    assert!(served > 60, "only {served} requests were served");
}

/// The same with two more makes, and with generated cases.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "second tier: cargo xtask soak"]
async fn long_services_of_five_makes_see_the_requests_that_were_admitted() {
    let backends = vec![
        Backend::recorder(),
        Backend::nginx().await,
        Backend::haproxy().await,
        Backend::node().await,
        Backend::python().await,
    ];
    let mut cases = cases::table();
    cases::generated(&mut cases, 6_000);
    let served = compare(backends, cases).await;
    assert!(served > 1_000, "only {served} requests were served");
}
