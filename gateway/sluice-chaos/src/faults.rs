//! A TCP proxy that does to a connection what networks do: it delays, slows down, holds back, corrupts
//! and cuts. It stands between the gateway and any peer, an upstream or Redis, and knows no protocol.
//!
//! How the bytes of one direction travel is left to `pump`. What it does can be exchanged at any
//! moment and holds for open connections too. The one rule: chance comes from the seed, so that the
//! same traffic meets the same fate again.

mod pump;

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::{io::AsyncWriteExt, sync::watch};

use crate::{
    serve::{Accepted, Server},
    wire,
};
use pump::{End, Pump};

/// What happens to the bytes of a connection. The default is nothing: they pass.
#[derive(Clone, Debug, Default)]
pub struct Fault {
    delay: Duration,
    jitter: Duration,
    /// Bytes each second.
    rate: Option<u64>,
    /// How it ends after so many bytes.
    end: Option<(u64, End)>,
    /// One byte in so many is changed.
    corrupt: Option<u64>,
    hang: bool,
    only: Option<Direction>,
}

/// Which way bytes go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// From whoever connected to the proxy; of an upstream's proxy the requests.
    Up,
    /// Back from the peer behind it; of an upstream's proxy the answers.
    Down,
}

/// A running proxy; dropping it closes its port and its connections.
pub struct FaultProxy {
    addr: SocketAddr,
    to: SocketAddr,
    seed: u64,
    server: Option<Server>,
    fault: watch::Sender<Arc<Fault>>,
    bytes: Arc<[AtomicU64; 2]>,
    refused: u64,
}

impl Fault {
    /// Nothing; the beginning of all the others.
    pub fn none() -> Self {
        Self::default()
    }

    /// Every byte arrives so much later, without slowing down the flow.
    pub fn delay(mut self, delay: Duration) -> Self {
        self.delay = delay;
        self
    }

    /// And by chance up to so much later still; never out of order.
    pub fn jitter(mut self, jitter: Duration) -> Self {
        self.jitter = jitter;
        self
    }

    /// So many bytes pass each second.
    pub fn rate(mut self, bytes: u64) -> Self {
        assert!(bytes > 0, "nothing at all is `hang`");
        self.rate = Some(bytes);
        self
    }

    /// After so many bytes of one direction both sides see an end of the stream.
    pub fn cut_after(mut self, bytes: u64) -> Self {
        self.end = Some((bytes, End::Cut));
        self
    }

    /// After so many bytes of one direction both sides see RST.
    pub fn reset_after(mut self, bytes: u64) -> Self {
        self.end = Some((bytes, End::Reset));
        self
    }

    /// One bit is wrong in one of so many bytes, by chance.
    pub fn corrupt_one_in(mut self, bytes: u64) -> Self {
        assert!(bytes > 0, "one in none");
        self.corrupt = Some(bytes);
        self
    }

    /// Nothing passes, and what comes is kept until something else is set.
    pub fn hang(mut self) -> Self {
        self.hang = true;
        self
    }

    /// Harms one direction only.
    pub fn only(mut self, direction: Direction) -> Self {
        self.only = Some(direction);
        self
    }

    fn concerns(&self, direction: Direction) -> bool {
        self.only.is_none_or(|only| only == direction)
    }
}

impl FaultProxy {
    /// Passes everything between a free port and the peer at `to`.
    pub fn before(to: SocketAddr) -> Self {
        Self::seeded(to, 0)
    }

    /// The same with a seed of its own for what happens by chance.
    pub fn seeded(to: SocketAddr, seed: u64) -> Self {
        assert!(to.ip().is_loopback(), "{to} is not a loopback address");
        let fault = watch::Sender::new(Arc::new(Fault::none()));
        let bytes = Arc::new([const { AtomicU64::new(0) }; 2]);
        let server = listen(None, to, seed, &fault, &bytes);
        let addr = server.addr();
        Self { addr, to, seed, server: Some(server), fault, bytes, refused: 0 }
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Exchanges what happens, for new connections and for open ones, whose bytes are counted anew.
    pub fn set(&self, fault: Fault) {
        self.fault.send_replace(Arc::new(fault));
    }

    /// Lets everything pass again, what was held back too; listens again if it refused.
    pub fn heal(&mut self) {
        self.set(Fault::none());
        if self.server.is_none() {
            let server = listen(Some(self.addr), self.to, self.seed, &self.fault, &self.bytes);
            self.server = Some(server);
        }
    }

    /// Ends every connection and refuses new ones.
    pub async fn refuse(&mut self) {
        if let Some(server) = self.server.take() {
            self.refused += server.accepted();
            server.stop().await;
        }
    }

    /// How many connections were ever accepted.
    pub fn connections(&self) -> u64 {
        self.refused + self.server.as_ref().map_or(0, Server::accepted)
    }

    /// Waits until exactly `wanted` connections are open.
    pub async fn wait_for_open(&self, wanted: u64) {
        let traffic = self.server.as_ref().expect("a proxy that listens").traffic();
        traffic.settles(wanted, "open connections", |traffic| traffic.open).await;
    }

    /// How many bytes have arrived in this direction.
    pub fn passed(&self, direction: Direction) -> u64 {
        self.bytes[direction as usize].load(Ordering::Relaxed)
    }
}

fn listen(
    at: Option<SocketAddr>,
    to: SocketAddr,
    seed: u64,
    fault: &watch::Sender<Arc<Fault>>,
    bytes: &Arc<[AtomicU64; 2]>,
) -> Server {
    let (fault, bytes) = (fault.clone(), Arc::clone(bytes));
    Server::start(at, None, move |accepted| {
        let (fault, bytes) = (fault.clone(), Arc::clone(&bytes));
        async move { carry(accepted, to, seed, &fault, &bytes).await }
    })
}

/// One connection, until both directions have ended or one of them was cut.
async fn carry(
    accepted: Accepted,
    to: SocketAddr,
    seed: u64,
    fault: &watch::Sender<Arc<Fault>>,
    bytes: &[AtomicU64; 2],
) {
    let number = accepted.number;
    let Some(near) = accepted.wire.into_tcp() else { return };
    let Ok(far) = wire::connect(to).await else {
        // Nobody is there; the nearest thing to a refusal that is left.
        near.set_zero_linger().ok();
        return;
    };
    let pump = |direction: Direction| {
        let seed = seed ^ (number << 1 | direction as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        Pump {
            direction,
            fault: fault.subscribe(),
            chance: fastrand::Rng::with_seed(seed),
            count: &bytes[direction as usize],
        }
    };
    let (mut near_read, mut near_write) = near.into_split();
    let (mut far_read, mut far_write) = far.into_split();
    let up = pump(Direction::Up).run(&mut near_read, &mut far_write);
    let down = pump(Direction::Down).run(&mut far_read, &mut near_write);
    let end = {
        tokio::pin!(up, down);
        tokio::select! {
            end = &mut up => if end == End::Whole { down.await } else { end },
            end = &mut down => if end == End::Whole { up.await } else { end },
        }
    };
    if end == End::Reset {
        for socket in [near_read.as_ref(), far_read.as_ref()] {
            socket.set_zero_linger().ok();
        }
        // Dropped, a half for writing would say goodbye.
        near_write.forget();
        far_write.forget();
    } else {
        // Closing with bytes unread would send RST where an end is meant.
        near_write.shutdown().await.ok();
        far_write.shutdown().await.ok();
        let rest = async {
            let (mut one, mut other) = (tokio::io::sink(), tokio::io::sink());
            tokio::join!(
                tokio::io::copy(&mut near_read, &mut one),
                tokio::io::copy(&mut far_read, &mut other),
            )
        };
        tokio::time::timeout(LINGER, rest).await.ok();
    }
}

/// How long what a cut connection still brings is thrown away.
const LINGER: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use tokio::io::AsyncReadExt;

    use super::*;
    use crate::{
        raw,
        recorder::{Answer, Recorder},
    };

    async fn ask(proxy: &FaultProxy) -> raw::Response {
        raw::get(proxy.addr(), "h", "/").await
    }

    fn big() -> Recorder {
        Recorder::answering(Answer::ok(vec![b'x'; 40_000]))
    }

    #[tokio::test]
    async fn without_a_fault_bytes_pass_both_ways() {
        let recorder = big();
        let proxy = FaultProxy::before(recorder.addr());
        let mut client = raw::Client::connect(proxy.addr()).await;
        for _ in 0..3 {
            let answer = client.request("POST", "/", "h", &[], &[b'y'; 50_000]).await;
            assert_eq!((answer.body.len(), answer.complete), (40_000, true));
        }
        assert_eq!(proxy.connections(), 1);
        assert!(recorder.requests().iter().all(|request| request.body.len() == 50_000));
        assert!(proxy.passed(Direction::Up) > 150_000 && proxy.passed(Direction::Down) > 120_000);
        drop(client);
        recorder.wait_for_open(0).await;
        proxy.wait_for_open(0).await;
    }

    #[tokio::test]
    async fn delays_add_up_and_rates_slow_down() {
        let recorder = big();
        let proxy = FaultProxy::before(recorder.addr());
        let delay = Duration::from_millis(60);
        proxy.set(Fault::none().delay(delay).jitter(Duration::from_millis(10)));
        let start = Instant::now();
        assert!(ask(&proxy).await.complete);
        assert!(start.elapsed() >= 2 * delay, "both ways: {:?}", start.elapsed());
        proxy.set(Fault::none().rate(200_000).only(Direction::Down));
        let start = Instant::now();
        assert!(ask(&proxy).await.complete);
        assert!(start.elapsed() >= Duration::from_millis(150), "{:?}", start.elapsed());
    }

    #[tokio::test]
    async fn a_cut_is_an_end_and_a_reset_is_none() {
        let recorder = big();
        let proxy = FaultProxy::before(recorder.addr());
        let read = async |fault: Fault| {
            proxy.set(fault);
            let mut stream = wire::connect(proxy.addr()).await.unwrap();
            stream.write_all(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n").await.unwrap();
            let mut bytes = Vec::new();
            let end = stream.read_to_end(&mut bytes).await;
            (bytes, end.err().map(|error| error.kind()))
        };
        let (bytes, end) = read(Fault::none().cut_after(1000).only(Direction::Down)).await;
        assert_eq!((bytes.len(), end), (1000, None));
        let (_, end) = read(Fault::none().reset_after(1000).only(Direction::Down)).await;
        assert_eq!(end, Some(std::io::ErrorKind::ConnectionReset));
        let (bytes, end) = read(Fault::none().cut_after(5).only(Direction::Up)).await;
        assert_eq!((bytes.len(), end), (0, None));
    }

    #[tokio::test]
    async fn what_is_held_back_arrives_later_over_the_same_connection() {
        let recorder = Recorder::start();
        let mut proxy = FaultProxy::before(recorder.addr());
        let mut client = raw::Client::connect(proxy.addr()).await;
        assert_eq!(client.request("GET", "/", "h", &[], b"").await.status, 200);
        proxy.set(Fault::none().hang());
        client.send("GET / HTTP/1.1\r\nHost: h\r\n\r\n").await;
        let wait = Duration::from_millis(100);
        assert!(tokio::time::timeout(wait, client.response()).await.is_err());
        assert_eq!(recorder.begun(), 1);
        proxy.heal();
        assert_eq!(client.response().await.status, 200);
        assert_eq!(proxy.connections(), 1);
    }

    #[tokio::test]
    async fn it_refuses_and_comes_back_at_the_same_port() {
        let recorder = Recorder::start();
        let mut proxy = FaultProxy::before(recorder.addr());
        let mut client = raw::Client::connect(proxy.addr()).await;
        assert_eq!(client.request("GET", "/", "h", &[], b"").await.status, 200);
        proxy.refuse().await;
        assert!(client.closed_by_peer().await);
        assert!(raw::Client::try_connect(proxy.addr()).await.is_err());
        proxy.heal();
        assert_eq!(ask(&proxy).await.status, 200);
        assert_eq!(proxy.connections(), 2);
    }

    #[tokio::test]
    async fn chance_follows_the_seed() {
        let recorder = big();
        let mut outcomes = Vec::new();
        for seed in [1, 1, 2] {
            let proxy = FaultProxy::seeded(recorder.addr(), seed);
            proxy.set(Fault::none().corrupt_one_in(500).only(Direction::Up));
            let mut client = raw::Client::connect(proxy.addr()).await;
            let body = vec![b'z'; 10_000];
            client
                .send(
                    ["POST / HTTP/1.1\r\nContent-Length: 10000\r\n\r\n".as_bytes(), &body].concat(),
                )
                .await;
            client.response().await;
            outcomes.push(recorder.requests().pop().unwrap().body);
        }
        let wrong = outcomes[0].iter().filter(|byte| **byte != b'z').count();
        assert!((3..60).contains(&wrong), "{wrong}");
        assert_eq!(outcomes[0], outcomes[1]);
        assert_ne!(outcomes[0], outcomes[2]);
    }
}
