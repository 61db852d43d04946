//! What is told of why a breaker opened.

use sluice_chaos::recorder::{Answer, Recorder};

use super::{fill, page};
use crate::support::Gateway;

#[tokio::test]
async fn a_timeline_tells_what_opened_it_and_which_requests_to_look_at() {
    const CONFIG: &str = r#"
upstreams:
  up:
    endpoints: [ { address: "{0}" } ]
    breaker: { failure_rate: 50%, min_requests: 6, window: 60s, open_for: 10m, half_open_requests: 1 }
routes: [ { id: "odd %/one", upstream: up, breaker: { consecutive_failures: 100 } } ]
"#;
    let recorder = Recorder::deciding(|request| {
        Answer::new(match &*request.target {
            "/a" => 200,
            "/b" => 502,
            _ => 504,
        })
    });
    let config = fill(CONFIG, &[&recorder]);
    let gateway = Gateway::start(&config).await;
    for path in ["/a", "/b", "/a", "/a", "/c", "/c"] {
        gateway.get(path).await;
    }
    assert_eq!(gateway.get("/a").await.status, 503);
    let shown = page(&gateway, "/breakers/upstream:up").await;
    assert_eq!(shown["name"], "upstream:up");
    assert_eq!((shown["state"].as_str(), shown["refused"].as_u64()), (Some("open"), Some(1)));
    let first = &shown["timeline"][0];
    assert_eq!(
        (first["from"].as_str(), first["to"].as_str(), first["why"].as_str()),
        (Some("closed"), Some("open"), Some("failure_rate"))
    );
    let window = &first["window"];
    assert_eq!((window["requests"].as_u64(), window["failures"].as_u64()), (Some(6), Some(3)));
    assert_eq!(window["reasons"], serde_json::json!({ "status_502": 1, "status_504": 2 }));
    assert_eq!(
        (&first["top_reason"], &first["failures_in_a_row"]),
        (&"status_504".into(), &2.into())
    );
    let long = first["open_for_seconds"].as_f64().unwrap();
    assert!((480.0..=720.0).contains(&long), "{long}");
    for time in [&first["at"], &shown["since"], &shown["tries_again_at"]] {
        assert!(
            time.as_str().is_some_and(|it| it.starts_with("20") && it.ends_with('Z')),
            "{time}"
        );
    }
    // The samples are those requests, by the ids that the access log has.
    let lines = gateway.log_lines(7).await;
    let failing = lines.iter().filter(|line| line["status"].as_u64().is_some_and(|it| it >= 500));
    let mut logged: Vec<&str> = failing
        .filter(|line| line["reason"].is_null())
        .map(|line| line["trace_id"].as_str().unwrap())
        .collect();
    let samples = first["samples"].as_array().unwrap();
    let mut sampled: Vec<&str> =
        samples.iter().map(|sample| sample["trace_id"].as_str().unwrap()).collect();
    assert_eq!(samples[0]["reason"], "status_504");
    logged.sort_unstable();
    sampled.sort_unstable();
    assert_eq!(sampled, logged);
    let refused = lines.iter().find(|line| line["reason"] == "breaker_open").unwrap();
    assert_eq!(refused["breaker"], "upstream:up");
    gateway.daemon.wait_for_output("\"top_reason\":\"status_504\"").await;

    // Any name can be asked for; what is not there is said.
    let odd = page(&gateway, "/breakers/route:odd%20%25%2Fone").await;
    assert_eq!(
        (odd["name"].as_str(), odd["timeline"].as_array().map(Vec::len)),
        (Some("route:odd %/one"), Some(0))
    );
    for path in ["/breakers/upstream:nobody", "/breakers/", "/breakers/%zz"] {
        assert_eq!(gateway.admin(path).await.status, 404, "{path}");
    }
    let opened =
        "sluice_breaker_transitions_total{upstream=\"up\",to=\"open\",reason=\"failure_rate\"}";
    assert_eq!(gateway.metric(opened).await, 1.0);

    // A reload with other rules leaves state and timeline alone.
    gateway.write_config(&config.replace("window: 60s", "window_calls: 50"));
    gateway.wait_for_generation(2).await;
    let after = page(&gateway, "/breakers/upstream:up").await;
    assert_eq!((&after["state"], &after["timeline"]), (&shown["state"], &shown["timeline"]));
    assert_eq!(gateway.get("/a").await.status, 503);
}
