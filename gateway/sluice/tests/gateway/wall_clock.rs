//! The wall clock is wrong or jumps: what waits and counts does not mind, what has a date follows it.

use std::path::Path;
use std::time::Duration;

use sluice_chaos::process::{Redis, tool};
use sluice_chaos::recorder::{Answer, Recorder};

use crate::support::{Gateway, Setup};
use crate::tokens::{Key, now};

/// A wall clock that can be set, through the library of the program `faketime`.
struct Clock(tempfile::NamedTempFile);

impl Clock {
    fn start(offset: &str) -> Self {
        let clock = Self(tempfile::NamedTempFile::new().unwrap());
        clock.set(offset);
        clock
    }

    /// Seconds that it is ahead, with a sign.
    fn set(&self, offset: &str) {
        std::fs::write(self.0.path(), format!("{offset}\n")).unwrap();
    }

    /// What makes a program look at it. Monotonic time stays as it is.
    fn env(&self) -> Vec<(&'static str, String)> {
        let program = tool("faketime").canonicalize().unwrap();
        let folder = program.parent().and_then(Path::parent).unwrap().join("lib");
        let mut folders = std::fs::read_dir(&folder).unwrap();
        let library = folders
            .find_map(|entry| {
                let library = entry.unwrap().path().join("faketime/libfaketimeMT.so.1");
                library.exists().then_some(library)
            })
            .unwrap();
        vec![
            ("LD_PRELOAD", library.display().to_string()),
            ("FAKETIME_TIMESTAMP_FILE", self.0.path().display().to_string()),
            ("FAKETIME_NO_CACHE", "1".to_owned()),
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1".to_owned()),
        ]
    }
}

/// Shows Z-01.
#[tokio::test]
async fn z_01_a_clock_that_jumps_moves_dates_and_nothing_else() {
    let clock = Clock::start("+0");
    let service = Recorder::deciding(|request| match request.target.as_str() {
        "/slow" => Answer::ok("late").delay(Duration::from_millis(900)),
        "/never" => Answer::ok("never").delay(Duration::from_secs(60)),
        _ => Answer::ok("fine"),
    });
    let key = Key::new("HS256");
    let config = format!(
        "upstreams: {{ up: {{ endpoints: [ {{ address: \"{}\" }} ], timeouts: {{ total: 2s }} }} }}\n\
         routes:\n  \
           - {{ id: signed, match: {{ path: /signed }}, upstream: up, filters: [ {{ jwt: {{ keys: [ {{ kid: k, alg: HS256, secret_file: k.key }} ] }} }} ] }}\n  \
           - {{ id: counted, match: {{ path: /counted }}, upstream: up, filters: [ {{ rate_limit: {{ limit: 3, per: 10m, key: route }} }} ] }}\n  \
           - {{ id: all, match: {{ path: /** }}, upstream: up }}\n",
        service.addr()
    );
    let setup =
        Setup { env: clock.env(), files: vec![("k.key", key.shared.clone())], ..Setup::default() };
    let gateway = Gateway::start_with(&config, setup).await;
    let bearer = format!("Bearer {}", key.token(&format!("{{\"exp\":{}}}", now() + 600)));
    let signed = async || {
        let mut client = gateway.client().await;
        client.request("GET", "/signed", "a", &[("Authorization", &bearer)], b"").await.status
    };
    let mut counted = 0;
    for offset in ["+0", "+3600", "-3600", "+0"] {
        let mut slow = gateway.client().await;
        slow.send("GET /slow HTTP/1.1\r\nHost: a\r\n\r\n").await;
        service.wait_for_begun(1).await;
        clock.set(offset);
        assert_eq!(slow.response().await.status, 200, "{offset}");
        assert_eq!(signed().await, if offset == "+3600" { 401 } else { 200 }, "{offset}");
        for _ in 0..2 {
            counted += 1;
            let expected = if counted <= 3 { 200 } else { 429 };
            assert_eq!(gateway.get("/counted").await.status, expected, "{offset}");
        }
    }
    let asked = std::time::Instant::now();
    assert_eq!(gateway.get("/never").await.status, 504);
    assert!(asked.elapsed() >= Duration::from_millis(1_900), "{:?}", asked.elapsed());
    let dates: Vec<String> =
        gateway.log_lines(17).await.iter().map(|l| l["timestamp"].to_string()).collect();
    assert!(dates.iter().max() > dates.last(), "the clock never jumped: {dates:?}");
}

/// Shows Z-04, L-07.
#[tokio::test]
async fn z_04_limits_in_redis_follow_its_clock() {
    let redis = Redis::start().await;
    let config = "redis: { url: \"${REDIS_URL}\" }\nupstreams: { echo: { builtin: echo } }\n\
        routes: [ { id: all, match: { path: /limited }, upstream: echo, filters: [ { rate_limit: { limit: 20, per: 1h, key: route } } ] } ]\n";
    let clocks = ["+0", "+3600", "-7200"].map(Clock::start);
    let mut gateways = Vec::new();
    for clock in &clocks {
        let env = [clock.env(), vec![("REDIS_URL", redis.url())]].concat();
        let setup = Setup { env, workers: Some(1), ..Setup::default() };
        let gateway = Gateway::start_with(config, setup).await;
        gateway.connected().await;
        gateways.push(gateway);
    }
    let (mut admitted, mut shared, mut local, mut asked) = (0, 0, 0, 0);
    while shared < 60 {
        let answer = gateways[asked % 3].get("/limited").await;
        asked += 1;
        assert!(asked < 1_000, "Redis is hardly ever asked");
        // On a busy machine an answer of Redis may come too late: it may have counted all the same.
        if answer.header("x-sluice-ratelimit-mode") != Some("shared") {
            local += 1;
            continue;
        }
        shared += 1;
        if answer.status == 200 {
            admitted += 1;
        } else {
            let after: u64 = answer.header("retry-after").unwrap().parse().unwrap();
            // A bucket, and a twentieth of the next one, in which this one's calls still weigh.
            assert!((1..=3780).contains(&after), "{after}");
        }
    }
    assert!(admitted <= 20 && admitted + local >= 20, "{admitted} admitted, {local} undecided");
}
