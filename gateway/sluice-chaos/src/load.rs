//! An open-loop load driver for one address: requests leave when they are due, whether or not
//! earlier ones have been answered.
//!
//! One request's way is in `shot`. The one rule: every request that was sent ends in exactly one of
//! the numbers of its [`Tally`], and latency counts from the instant it was due, so that a server
//! that stalls cannot hide it.

mod shot;

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use tokio::task::{JoinHandle, JoinSet};

use crate::{framing, ground};
use shot::Range;

/// What to send, how often and for how long.
#[derive(Clone, Debug)]
pub struct Plan {
    addr: SocketAddr,
    path: String,
    method: String,
    host: String,
    headers: String,
    body: Vec<u8>,
    per_second: u32,
    duration: Duration,
    keepalive: bool,
    deadline: Duration,
}

/// What came of it.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    /// Requests that were due and left: the sum of `by_status`, `failed` and `refused`.
    pub sent: u64,
    /// Whole responses with a status of 200 to 299.
    pub ok: u64,
    /// Whole responses by their status.
    pub by_status: BTreeMap<u16, u64>,
    /// Requests without a whole response, refused connections aside.
    pub failed: u64,
    /// What happened to the first 20 of them.
    pub errors: Vec<String>,
    /// Requests whose connection was refused.
    pub refused: u64,
    /// Requests that found their idle connection closed, before a byte of an answer, and were sent
    /// once more on a new one. They are no failures by that.
    pub reconnects: u64,
    /// For each whole response the time since its request was due, shortest first.
    pub latencies: Vec<Duration>,
}

/// A load under way; dropping it leaves it running to its end.
pub struct Running {
    range: Arc<Range>,
    task: JoinHandle<Tally>,
    sent: Arc<AtomicU64>,
    stopped: Arc<AtomicBool>,
}

/// How many failures are described.
const ERRORS: usize = 20;
/// Requests at once; beyond it a request fails without being tried, since the driver itself would
/// become the bottleneck.
const AT_ONCE: usize = 2000;

/// GETs of a path, so many each second for so long.
pub async fn run(
    addr: SocketAddr,
    path: &str,
    per_second: u32,
    duration: Duration,
    keepalive: bool,
) -> Tally {
    let plan = Plan::new(addr, path).per_second(per_second).duration(duration);
    plan.keepalive(keepalive).run().await
}

impl Plan {
    /// GETs, 100 a second for one second, over connections that are kept.
    pub fn new(addr: SocketAddr, path: &str) -> Self {
        Self {
            addr,
            path: path.to_owned(),
            method: "GET".to_owned(),
            host: addr.to_string(),
            headers: String::new(),
            body: Vec::new(),
            per_second: 100,
            duration: Duration::from_secs(1),
            keepalive: true,
            deadline: ground::DEADLINE,
        }
    }

    /// Sends so many requests each second, evenly spread.
    pub fn per_second(mut self, requests: u32) -> Self {
        assert!(requests > 0, "a load needs requests");
        self.per_second = requests;
        self
    }

    /// Sends for so long.
    pub fn duration(mut self, duration: Duration) -> Self {
        self.duration = duration;
        self
    }

    /// Keeps connections for further requests, or takes a new one for each.
    pub fn keepalive(mut self, keepalive: bool) -> Self {
        self.keepalive = keepalive;
        self
    }

    /// Asks for this host.
    pub fn host(mut self, host: &str) -> Self {
        host.clone_into(&mut self.host);
        self
    }

    /// Sends one more field.
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push_str(&format!("{name}: {value}\r\n"));
        self
    }

    /// Uses this method.
    pub fn method(mut self, method: &str) -> Self {
        method.clone_into(&mut self.method);
        self
    }

    /// Sends this content with its length.
    pub fn body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = body.into();
        self
    }

    /// Gives a request up, as failed, after so long.
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }

    /// Runs the load to its end.
    pub async fn run(self) -> Tally {
        self.start().finish().await
    }

    /// Begins the load.
    pub fn start(self) -> Running {
        let (sent, stopped) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
        let range = Arc::new(Range::new(self.bytes(), &self));
        let firing = fire(self, Arc::clone(&range), Arc::clone(&sent), Arc::clone(&stopped));
        Running { range, task: ground::spawn(firing), sent, stopped }
    }

    fn bytes(&self) -> Vec<u8> {
        let Self { method, path, host, headers, body, .. } = self;
        let mut head = format!("{method} {path} HTTP/1.1\r\nHost: {host}\r\n{headers}");
        if !self.keepalive {
            head.push_str("Connection: close\r\n");
        }
        if !body.is_empty() {
            head.push_str(&format!("Content-Length: {}\r\n", body.len()));
        }
        [framing::octets(&(head + "\r\n")), body.clone()].concat()
    }
}

impl Running {
    /// How many requests have left.
    pub fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    /// What has come of those that have ended by now.
    pub fn so_far(&self) -> Tally {
        self.range.tally(self.sent())
    }

    /// Waits until every request was sent and has ended.
    pub async fn finish(self) -> Tally {
        self.task.await.expect("the driver does not panic")
    }

    /// Sends no more and waits until every request has ended.
    pub async fn stop(self) -> Tally {
        self.stopped.store(true, Ordering::Relaxed);
        self.finish().await
    }
}

impl Tally {
    /// The latency that this share of the whole responses kept within; zero when there were none.
    pub fn quantile(&self, share: f64) -> Duration {
        assert!((0.0..=1.0).contains(&share), "{share} is not a share");
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            clippy::cast_precision_loss,
            reason = "a rank among at most some millions, rounded up on purpose"
        )]
        let rank = (share * self.latencies.len() as f64).ceil() as usize;
        self.latencies.get(rank.saturating_sub(1)).copied().unwrap_or_default()
    }
}

async fn fire(
    plan: Plan,
    range: Arc<Range>,
    sent: Arc<AtomicU64>,
    stopped: Arc<AtomicBool>,
) -> Tally {
    let start = Instant::now();
    let mut flying = JoinSet::new();
    for nth in 0.. {
        let due = Duration::from_secs(1) * nth / plan.per_second;
        if due >= plan.duration || stopped.load(Ordering::Relaxed) {
            break;
        }
        let due = start + due;
        tokio::time::sleep_until(due.into()).await;
        sent.fetch_add(1, Ordering::Relaxed);
        while flying.try_join_next().is_some() {}
        if flying.len() >= AT_ONCE {
            range.fail(format!("{AT_ONCE} requests are under way"));
            continue;
        }
        let range = Arc::clone(&range);
        flying.spawn(async move { range.shoot(due).await });
    }
    flying.join_all().await;
    range.tally(sent.load(Ordering::Relaxed))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        recorder::{Answer, Recorder},
        rogue::{self, Rogue},
    };

    fn adds_up(tally: &Tally) {
        let answered: u64 = tally.by_status.values().sum();
        assert_eq!(tally.sent, answered + tally.failed + tally.refused, "{tally:?}");
        assert_eq!(tally.latencies.len() as u64, answered);
    }

    #[tokio::test]
    async fn an_honest_server_answers_all() {
        let asked = AtomicU64::new(0);
        let recorder = Recorder::deciding(move |_| {
            let tenth = asked.fetch_add(1, Ordering::Relaxed) % 10 == 9;
            Answer::new(if tenth { 503 } else { 200 })
        });
        let plan = Plan::new(recorder.addr(), "/x").per_second(500).host("h.test");
        let tally = plan.header("X-A", "1").duration(Duration::from_millis(400)).run().await;
        adds_up(&tally);
        assert_eq!((tally.sent, tally.failed, tally.refused, tally.reconnects), (200, 0, 0, 0));
        assert_eq!((tally.ok, tally.by_status[&503]), (180, 20));
        assert!(recorder.connections() < 200, "{}", recorder.connections());
        assert!(tally.quantile(0.5) <= tally.quantile(0.99));
        let request = &recorder.requests()[0];
        assert_eq!((request.header("host"), request.header("x-a")), (Some("h.test"), Some("1")));
    }

    #[tokio::test]
    async fn without_keepalive_each_request_has_its_connection() {
        let recorder = Recorder::start();
        let length = Duration::from_millis(200);
        let tally = run(recorder.addr(), "/", 100, length, false).await;
        adds_up(&tally);
        assert_eq!((tally.ok, recorder.connections()), (20, 20));
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn closed_idle_connections_are_no_failures() {
        let rogue = Rogue::start(rogue::close_after(2));
        let length = Duration::from_millis(500);
        let tally = run(rogue.addr(), "/", 40, length, true).await;
        adds_up(&tally);
        assert_eq!((tally.ok, tally.failed), (20, 0), "{tally:?}");
        assert!(tally.reconnects > 0, "{tally:?}");

        let rogue = Rogue::start(rogue::reset_after_head());
        let tally = run(rogue.addr(), "/", 100, Duration::from_millis(300), true).await;
        adds_up(&tally);
        assert_eq!((tally.failed, tally.reconnects, tally.errors.len()), (30, 0, 20));
    }

    #[tokio::test]
    async fn refusals_and_stalls_are_counted() {
        let refusing = Rogue::refuse();
        let tally = run(refusing.addr(), "/", 50, Duration::from_millis(200), true).await;
        adds_up(&tally);
        assert_eq!(tally.refused, 10);

        let hole = Rogue::start(rogue::black_hole());
        let plan = Plan::new(hole.addr(), "/").method("POST").body("x");
        let running = plan.deadline(Duration::from_millis(50)).duration(ground::DEADLINE).start();
        hole.wait_for_connections(3).await;
        let tally = running.stop().await;
        adds_up(&tally);
        assert!(tally.failed >= 3 && tally.errors[0].contains("50ms"), "{tally:?}");
    }

    #[test]
    fn quantiles_are_ranks() {
        let latencies = (1..=10).map(Duration::from_millis).collect();
        let tally = Tally { latencies, ..Tally::default() };
        assert_eq!(tally.quantile(0.5), Duration::from_millis(5));
        assert_eq!(tally.quantile(0.99), Duration::from_millis(10));
        assert_eq!(Tally::default().quantile(1.0), Duration::ZERO);
    }
}
