//! What a saturated route does to its neighbour, with a bulkhead and without one. A figure to print: the
//! functional tests stand in `overload`.

use std::time::Duration;

use sluice_chaos::load::{Plan, Tally};
use sluice_chaos::recorder::{Answer, Recorder};

use crate::support::{Gateway, Setup, eventually};

/// How often everything is measured, in turn.
const ROUNDS: usize = 5;
/// How long the neighbour is measured each time.
const TIME: Duration = Duration::from_secs(3);

/// The neighbour's latency, and the share of its requests that were served.
#[derive(Clone, Copy)]
struct Seen {
    p50: f64,
    p99: f64,
    served: f64,
}

impl Seen {
    fn of(tally: &Tally) -> Self {
        let millis = |share| tally.quantile(share).as_secs_f64() * 1_000.0;
        let served = tally.ok as f64 / tally.sent as f64;
        Self { p50: millis(0.5), p99: millis(0.99), served }
    }

    /// The middle of several, number by number.
    fn middle(all: &[Self]) -> Self {
        Self {
            p50: middle(all.iter().map(|one| one.p50)),
            p99: middle(all.iter().map(|one| one.p99)),
            served: middle(all.iter().map(|one| one.served)),
        }
    }
}

fn middle(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// The neighbour gets 150 requests a second, whose service takes 20 ms. The slow service takes 1 s and gets
/// 400, over a route with a bulkhead or one without; the gateway has 200 places.
///
/// Shows V-04.
#[tokio::test]
#[ignore = "second tier: a minute of load; prints a table"]
async fn long_a_saturated_route_leaves_its_neighbours_p99_within_1_3() {
    let slow = Recorder::answering(Answer::ok("slow").delay(Duration::from_secs(1)));
    let quick = Recorder::answering(Answer::ok("quick").delay(Duration::from_millis(20)));
    let config = format!(
        r#"
overload: {{ requests: 200, queue: 200, max_wait: 200ms }}
access_log: {{ output: "off" }}
upstreams:
  slow: {{ endpoints: [ {{ address: "{}" }} ] }}
  quick: {{ endpoints: [ {{ address: "{}" }} ] }}
routes:
  - {{ id: open, match: {{ path: /open }}, upstream: slow }}
  - {{ id: bounded, match: {{ path: /bounded }}, upstream: slow, bulkhead: {{ requests: 50, queue: 20, max_wait: 50ms }} }}
  - {{ id: quick, match: {{ path: /quick }}, upstream: quick }}
"#,
        slow.addr(),
        quick.addr()
    );
    let setup = Setup { workers: Some(2), ..Setup::default() };
    let gateway = Gateway::start_with(&config, setup).await;
    let busy = async |path: &str| {
        let metric = format!("sluice_bulkhead_in_progress{{bulkhead=\"{path}\"}}");
        gateway.metric(&metric).await
    };
    let neighbour = || {
        let plan = Plan::new(gateway.http, "/quick").host("a");
        plan.per_second(150).duration(TIME).deadline(Duration::from_secs(10)).run()
    };
    let beside = async |path: &str, bulkhead: &str, places: f64| {
        let flood = Plan::new(gateway.http, path).host("a").per_second(400);
        let flood = flood.duration(TIME + Duration::from_secs(10)).start();
        eventually("the route to be saturated", async || busy(bulkhead).await >= places).await;
        let seen = Seen::of(&neighbour().await);
        flood.stop().await;
        eventually("the gateway to rest", async || busy("gateway").await == 0.0).await;
        seen
    };
    let (mut alone, mut bounded, mut open) = (Vec::new(), Vec::new(), Vec::new());
    neighbour().await;
    for _ in 0..ROUNDS {
        alone.push(Seen::of(&neighbour().await));
        bounded.push(beside("/bounded", "route:bounded", 50.0).await);
        open.push(beside("/open", "gateway", 190.0).await);
    }
    println!("| neighbour | p50 ms | p99 ms | p99 to alone | served |\n|---|---|---|---|---|");
    let whole = Seen::middle(&alone).p99;
    for (name, all) in [("alone", &alone), ("bulkhead", &bounded), ("no bulkhead", &open)] {
        let Seen { p50, p99, served } = Seen::middle(all);
        let (ratio, served) = (p99 / whole, served * 100.0);
        println!("| {name} | {p50:.1} | {p99:.1} | {ratio:.2} | {served:.1} % |");
    }
    let ratios = alone.iter().zip(&bounded).map(|(alone, beside)| beside.p99 / alone.p99);
    let ratio = middle(ratios);
    println!("the middle of {ROUNDS} rounds' ratios with a bulkhead: {ratio:.2}");
    assert!(ratio <= 1.3, "{ratio}");
    let (bounded, open) = (Seen::middle(&bounded), Seen::middle(&open));
    assert!(bounded.served > 0.99, "{} was served", bounded.served);
    assert!(open.served < 0.9 || open.p99 > 1.3 * whole, "without one nothing is lost");
}
