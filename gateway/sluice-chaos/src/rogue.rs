//! A TCP upstream that follows a script, one run for each connection.
//!
//! The scripts for the usual misdeeds are in `scripts`, what a script can do in `conversation`. The
//! one rule: a script that panics spoils its own connection only; [`Rogue::complaints`] tells.

mod conversation;
mod scripts;

use std::{
    future::Future,
    net::{SocketAddr, TcpStream},
    sync::Arc,
    time::Duration,
};

use rustls::ServerConfig;
use socket2::{Domain, Socket, Type};

pub use conversation::{Conversation, Head};
pub use scripts::{
    Lie, Running, Script, answer, black_hole, by_connection, cl_and_te, close_after,
    close_after_head, early_answer_413, extra_bytes_after_body, http10_keepalive, interim_storm,
    lying_length, many_headers, ok, reset_after_head, reset_mid_body, reset_on_reuse, script,
    slow_body, slow_head, unasked_101, unsolicited,
};

pub use crate::framing::Body;
use crate::{
    serve::{Server, Traffic},
    watched::Watched,
};

/// A running script; dropping it closes its port and its connections.
pub struct Rogue {
    addr: SocketAddr,
    heads: Arc<Watched<Vec<Head>>>,
    kind: Kind,
}

enum Kind {
    Scripted(Server),
    /// A port that is held without a listener, or with a listener that takes nobody.
    Held {
        _socket: Socket,
        _queue: Vec<TcpStream>,
    },
}

impl Rogue {
    /// Runs `script` for each connection to a free port.
    pub fn start<F, Fut>(script: F) -> Self
    where
        F: Fn(Conversation) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = ()> + Send + 'static,
    {
        Self::listen(None, None, script)
    }

    /// Runs `script` at this loopback address, such as that of a rogue that was stopped.
    pub fn start_at<F, Fut>(addr: SocketAddr, script: F) -> Self
    where
        F: Fn(Conversation) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = ()> + Send + 'static,
    {
        Self::listen(Some(addr), None, script)
    }

    /// Runs `script` inside TLS.
    pub fn start_tls<F, Fut>(config: Arc<ServerConfig>, script: F) -> Self
    where
        F: Fn(Conversation) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = ()> + Send + 'static,
    {
        Self::listen(None, Some(config), script)
    }

    fn listen<F, Fut>(at: Option<SocketAddr>, tls: Option<Arc<ServerConfig>>, script: F) -> Self
    where
        F: Fn(Conversation) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = ()> + Send + 'static,
    {
        let heads = Arc::new(Watched::new(Vec::new()));
        let noted = Arc::clone(&heads);
        let server = Server::start(at, tls, move |accepted| {
            script(Conversation::new(accepted, Arc::clone(&noted)))
        });
        Self { addr: server.addr(), heads, kind: Kind::Scripted(server) }
    }

    /// A port where connections are refused for as long as this lives: the port is taken, so that
    /// nobody else can begin to listen there, but it does not listen.
    pub fn refuse() -> Self {
        let (socket, addr) = bound();
        Self::held(addr, socket, Vec::new())
    }

    /// A port where a connection is neither accepted nor refused: the listener's queue is full.
    pub fn deaf() -> Self {
        let (socket, addr) = bound();
        socket.listen(0).expect("a bound socket can listen");
        let patience = Duration::from_millis(100);
        let queue = std::iter::from_fn(|| TcpStream::connect_timeout(&addr, patience).ok());
        let queue = queue.take(QUEUE).collect();
        Self::held(addr, socket, queue)
    }

    fn held(addr: SocketAddr, socket: Socket, queue: Vec<TcpStream>) -> Self {
        let kind = Kind::Held { _socket: socket, _queue: queue };
        Self { addr, heads: Arc::new(Watched::new(Vec::new())), kind }
    }

    /// Where it listens, or would.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// How many connections were ever accepted.
    pub fn connections(&self) -> u64 {
        self.server().map_or(0, Server::accepted)
    }

    /// Waits for connections.
    pub async fn wait_for_connections(&self, wanted: u64) {
        let traffic = self.server().expect("a rogue that accepts").traffic();
        traffic.reaches(wanted, "connections", |traffic| traffic.accepted).await;
    }

    /// How many connections are open now: accepted, and their script has not ended.
    pub fn open(&self) -> u64 {
        self.server().map_or(0, |server| server.traffic().look(|traffic| traffic.open))
    }

    /// Waits until exactly `wanted` connections are open.
    pub async fn wait_for_open(&self, wanted: u64) {
        let traffic = self.server().expect("a rogue that accepts").traffic();
        traffic.settles(wanted, "open connections", |traffic| traffic.open).await;
    }

    /// Every head that scripts have read.
    pub fn heads(&self) -> Vec<Head> {
        self.heads.all()
    }

    /// The same, once there are at least `wanted`.
    pub async fn wait_for_heads(&self, wanted: usize) -> Vec<Head> {
        self.heads.all_of(wanted, "request heads").await
    }

    /// What scripts said when they panicked.
    pub fn complaints(&self) -> Vec<String> {
        let complaints = |server: &Server| server.traffic().look(|t| t.complaints.clone());
        self.server().map(complaints).unwrap_or_default()
    }

    /// The same, once there are at least `wanted`.
    pub async fn wait_for_complaints(&self, wanted: u64) -> Vec<String> {
        let traffic = self.server().expect("a rogue that accepts").traffic();
        let count = |traffic: &Traffic| traffic.complaints.len() as u64;
        traffic.reaches(wanted, "complaints", count).await;
        self.complaints()
    }

    /// Closes the port and every connection.
    pub async fn stop(self) {
        if let Kind::Scripted(server) = self.kind {
            server.stop().await;
        }
    }

    fn server(&self) -> Option<&Server> {
        match &self.kind {
            Kind::Scripted(server) => Some(server),
            Kind::Held { .. } => None,
        }
    }
}

/// A bound on connections made to fill a queue; Linux holds one more than its backlog.
const QUEUE: usize = 16;

fn bound() -> (Socket, SocketAddr) {
    let free = SocketAddr::from(([127, 0, 0, 1], 0));
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
    socket.bind(&free.into()).expect("a free port");
    let addr = socket.local_addr().ok().and_then(|addr| addr.as_socket());
    (socket, addr.expect("a bound socket has an address"))
}

#[cfg(test)]
mod tests {
    use std::io::ErrorKind;

    use super::*;
    use crate::{pki, raw, wire};

    #[tokio::test(flavor = "multi_thread")]
    async fn a_script_runs_for_each_connection() {
        let rogue = Rogue::start(|mut talk| async move {
            let head = talk.read_head().await;
            let body = talk.read_body_raw(&head).await;
            let said = format!("{} {} {}", talk.number(), head.target, body.raw.len());
            talk.send(format!("HTTP/1.0 200 OK\r\n\r\n{said}")).await;
        });
        let chunked = "POST /x HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\r\n";
        assert_eq!(raw::exchange(rogue.addr(), chunked).await.text(), "1 /x 11");
        assert_eq!(raw::get(rogue.addr(), "h", "/y").await.text(), "2 /y 0");
        let heads = rogue.wait_for_heads(2).await;
        assert_eq!((heads[1].connection, heads[1].header("host")), (2, Some("h")));
        assert_eq!(rogue.connections(), 2);
        rogue.wait_for_open(0).await;
    }

    #[tokio::test]
    async fn panics_are_told() {
        let rogue = Rogue::start(|mut talk| async move {
            talk.read_head().await;
        });
        drop(wire::connect(rogue.addr()).await);
        rogue.wait_for_connections(1).await;
        rogue.wait_for_open(0).await;
        assert!(rogue.wait_for_complaints(1).await[0].contains("request head"));
    }

    #[tokio::test]
    async fn refusing_and_deaf_ports() {
        let rogue = Rogue::refuse();
        let refused = raw::Client::try_connect(rogue.addr()).await.err().unwrap();
        assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);

        let rogue = Rogue::deaf();
        let connect = wire::connect(rogue.addr());
        assert!(tokio::time::timeout(Duration::from_millis(300), connect).await.is_err());
        rogue.stop().await;
    }

    #[tokio::test]
    async fn a_stopped_rogue_can_come_back() {
        let rogue = Rogue::start(ok("one"));
        let addr = rogue.addr();
        let mut client = raw::Client::connect(addr).await;
        client.request("GET", "/", "h", &[], b"").await;
        rogue.stop().await;
        assert!(client.closed_by_peer().await);
        let _rogue = Rogue::start_at(addr, ok("two"));
        assert_eq!(raw::get(addr, "h", "/").await.text(), "two");
    }

    #[tokio::test]
    async fn tls_can_end_without_its_goodbye() {
        let authority = pki::Authority::new();
        let config = pki::server_config(&authority.issue(&["localhost"]), &[]);
        let rogue = Rogue::start_tls(config, |mut talk| async move {
            talk.read_head().await;
            talk.send("HTTP/1.1 200 OK\r\n\r\ntruncated?").await;
            if talk.number() == 2 {
                talk.close().await;
            }
        });
        for proper in [false, true] {
            let trust = pki::client_config(&authority, &[]);
            let mut client = raw::Client::connect_tls(rogue.addr(), "localhost", trust).await;
            let response = client.request("GET", "/", "h", &[], b"").await;
            assert_eq!((response.text().as_str(), response.complete), ("truncated?", proper));
        }
    }
}
