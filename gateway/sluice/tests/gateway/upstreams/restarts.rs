//! Three endpoints that are restarted in turn under load, in good order or killed. Every request has a
//! number that is noted at both ends, so that none can be lost or doubled unseen.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use sluice_chaos::raw::Client;
use sluice_chaos::recorder::{Answer, Recorder};

use crate::support::{Gateway, eventually};

/// Clients that send one request after the other.
const CLIENTS: usize = 4;

/// Numbers of the requests that services have read to their end.
type Seen = Arc<Mutex<Vec<String>>>;

struct Services {
    running: Vec<Option<Recorder>>,
    addrs: Vec<SocketAddr>,
    seen: Seen,
}

impl Services {
    fn start() -> Self {
        let seen = Seen::default();
        let running: Vec<_> = (0..3).map(|_| Some(Self::one(None, &seen))).collect();
        let addrs = running.iter().flatten().map(Recorder::addr).collect();
        Self { running, addrs, seen }
    }

    fn one(at: Option<SocketAddr>, seen: &Seen) -> Recorder {
        let seen = Arc::clone(seen);
        let setup = Recorder::setup().decide(move |request| {
            seen.lock().unwrap().push(request.target.clone());
            Answer::ok("done").delay(Duration::from_millis(2))
        });
        at.into_iter().fold(setup, sluice_chaos::recorder::Setup::at).start()
    }

    async fn retire(&mut self, index: usize) {
        self.running[index].take().unwrap().retire().await;
    }

    /// Its sockets are closed by the system, whatever is under way, as those of a killed process are.
    async fn kill(&mut self, index: usize) {
        self.running[index].take().unwrap().stop().await;
    }

    fn restart(&mut self, index: usize) {
        self.running[index] = Some(Self::one(Some(self.addrs[index]), &self.seen));
    }

    fn config(&self) -> String {
        let endpoints: Vec<String> =
            self.addrs.iter().map(|addr| format!("{{ address: \"{addr}\" }}")).collect();
        format!(
            "upstreams: {{ up: {{ keepalive: {{ idle_timeout: 300ms }}, endpoints: [ {} ] }} }}\n\
             routes: [ {{ id: up, match: {{ path: /** }}, upstream: up }} ]\n",
            endpoints.join(", ")
        )
    }
}

/// Clients that send GETs and POSTs until they are told to stop.
struct Load {
    stop: Arc<AtomicBool>,
    sent: Arc<AtomicU64>,
    tasks: Vec<tokio::task::JoinHandle<Vec<(String, u16)>>>,
}

impl Load {
    fn start(gateway: SocketAddr) -> Self {
        let (stop, sent) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let start = |client| {
            let (stop, sent) = (Arc::clone(&stop), Arc::clone(&sent));
            tokio::spawn(async move {
                let mut connection = Client::connect(gateway).await;
                let mut told = Vec::new();
                for number in 0.. {
                    if stop.load(Ordering::Relaxed) {
                        break;
                    }
                    let (method, body) =
                        if number % 2 == 0 { ("GET", &b""[..]) } else { ("POST", &b"order"[..]) };
                    let id = format!("/{method}/{client}/{number}");
                    let answer = connection.request(method, &id, "localhost", &[], body).await;
                    told.push((id, answer.status));
                    if answer.closed {
                        connection = Client::connect(gateway).await;
                    }
                    sent.fetch_add(1, Ordering::Relaxed);
                }
                told
            })
        };
        let tasks = (0..CLIENTS).map(start).collect();
        Self { stop, sent, tasks }
    }

    /// Waits until so many more requests were answered.
    async fn goes_on(&self, requests: u64) {
        let goal = self.sent.load(Ordering::Relaxed) + requests;
        eventually("more requests", async || self.sent.load(Ordering::Relaxed) >= goal).await;
    }

    async fn finish(self) -> Vec<(String, u16)> {
        self.stop.store(true, Ordering::Relaxed);
        let mut told = Vec::new();
        for task in self.tasks {
            told.extend(task.await.unwrap());
        }
        told
    }
}

/// What both ends say.
#[derive(Debug, Default)]
struct Result {
    requests: usize,
    failed_gets: Vec<String>,
    failed_posts: Vec<String>,
    /// POSTs that services have read more than once.
    doubled: Vec<String>,
    /// Requests that were answered well and that no service has read.
    lost: Vec<String>,
    retries: f64,
}

fn compare(told: &[(String, u16)], seen: &[String]) -> Result {
    let mut times: HashMap<&str, usize> = HashMap::new();
    seen.iter().for_each(|id| *times.entry(id).or_default() += 1);
    let mut result = Result { requests: told.len(), ..Result::default() };
    for (id, status) in told {
        let times = times.get(id.as_str()).copied().unwrap_or(0);
        match (id.starts_with("/GET/"), *status) {
            (_, 200) if times == 0 => result.lost.push(id.clone()),
            (_, 200) => {}
            (true, _) => result.failed_gets.push(id.clone()),
            (false, _) => result.failed_posts.push(id.clone()),
        }
        if id.starts_with("/POST/") && times > 1 {
            result.doubled.push(id.clone());
        }
    }
    result
}

/// So many rounds in which each endpoint is stopped once and comes back.
async fn rolling(rounds: usize, kill: bool) -> Result {
    let mut services = Services::start();
    let gateway = Gateway::start(&services.config()).await;
    let load = Load::start(gateway.http);
    load.goes_on(40).await;
    for _ in 0..rounds {
        for index in 0..3 {
            if kill {
                services.kill(index).await;
            } else {
                services.retire(index).await;
            }
            load.goes_on(60).await;
            services.restart(index);
            load.goes_on(30).await;
        }
    }
    let told = load.finish().await;
    let result = compare(&told, &services.seen.lock().unwrap());
    let retries = gateway.metric("sluice_upstream_retries_total").await;
    Result { retries, ..result }
}

fn judge(result: &Result, stops: usize, kill: bool) {
    assert!(result.requests > 100, "{result:?}");
    let wrong = [&result.failed_gets, &result.lost, &result.doubled];
    assert!(wrong.iter().all(|list| list.is_empty()), "{result:?}");
    // Of each stop no more than were under way, and none of a stop in good order.
    let most = if kill { stops * CLIENTS } else { 0 };
    assert!(result.failed_posts.len() <= most, "{result:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn u_17_restarts_in_good_order_cost_no_request() {
    judge(&rolling(1, false).await, 3, false);
}

/// Shows U-17, U-06.
#[tokio::test(flavor = "multi_thread")]
async fn kills_cost_no_get_and_double_no_post() {
    judge(&rolling(1, true).await, 3, true);
}

/// Shows U-17.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "second tier: cargo xtask soak"]
async fn long_rolling_restarts() {
    for kill in [false, true] {
        let result = rolling(20, kill).await;
        println!("kill {kill}: {} second attempts, {result:?}", result.retries);
        judge(&result, 60, kill);
    }
}
