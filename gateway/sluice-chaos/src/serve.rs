//! A listener that gives each connection to a handler: the ground of all upstreams here.
//!
//! What is said on a connection is left to the handler. The one rule: when a server stops, its port
//! and every connection it accepted are closed before `stop` returns, so that a test may start the
//! next one on the same address.

use std::{any::Any, future::Future, net::SocketAddr, sync::Arc};

use rustls::ServerConfig;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::oneshot,
    task::{JoinError, JoinHandle, JoinSet},
};

use crate::{
    ground, ports,
    watched::Watched,
    wire::{self, AnyWire},
};

/// A connection for the handler.
pub(crate) struct Accepted {
    /// Counts from 1.
    pub(crate) number: u64,
    pub(crate) peer: SocketAddr,
    pub(crate) wire: AnyWire,
}

/// What a server has seen.
#[derive(Debug, Default)]
pub(crate) struct Traffic {
    /// Connections accepted so far.
    pub(crate) accepted: u64,
    /// Connections whose handler has not ended.
    pub(crate) open: u64,
    /// What handlers said when they panicked.
    pub(crate) complaints: Vec<String>,
}

/// A running listener; dropping it stops it.
pub(crate) struct Server {
    addr: SocketAddr,
    traffic: Arc<Watched<Traffic>>,
    door: Option<oneshot::Sender<()>>,
    stop: Option<oneshot::Sender<()>>,
    task: Option<JoinHandle<()>>,
}

impl Server {
    /// Listens at `at`, or at a free port of 127.0.0.1.
    pub(crate) fn start<F, Fut>(
        at: Option<SocketAddr>,
        tls: Option<Arc<ServerConfig>>,
        handler: F,
    ) -> Self
    where
        F: Fn(Accepted) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = ()> + Send + 'static,
    {
        let (listener, addr) = listen(at);
        let traffic = Arc::new(Watched::new(Traffic::default()));
        let (door, closed) = oneshot::channel();
        let (stop, stopped) = oneshot::channel();
        let shift = Shift { tls, handler: Arc::new(handler), traffic: Arc::clone(&traffic) };
        let task = ground::spawn(shift.work(listener, closed, stopped));
        Self { addr, traffic, door: Some(door), stop: Some(stop), task: Some(task) }
    }

    pub(crate) fn addr(&self) -> SocketAddr {
        self.addr
    }

    pub(crate) fn traffic(&self) -> &Watched<Traffic> {
        &self.traffic
    }

    pub(crate) fn accepted(&self) -> u64 {
        self.traffic.look(|traffic| traffic.accepted)
    }

    /// Closes the port, soon, and leaves the connections.
    pub(crate) fn close_port(&mut self) {
        drop(self.door.take());
    }

    /// Closes the port and every connection.
    pub(crate) async fn stop(mut self) {
        drop(self.stop.take());
        if let Some(task) = self.task.take() {
            task.await.expect("a listener ends without a panic");
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(task) = &self.task {
            task.abort();
        }
    }
}

fn listen(at: Option<SocketAddr>) -> (TcpListener, SocketAddr) {
    let listener = match at {
        None => ports::listener(),
        Some(at) => {
            assert!(at.ip().is_loopback(), "{at} is not a loopback address");
            ports::listener_at(at)
        }
    };
    listener.set_nonblocking(true).expect("a listener may be made non-blocking");
    let addr = listener.local_addr().expect("a bound listener has an address");
    let listener = ground::inside(|| TcpListener::from_std(listener));
    (listener.expect("the runtime takes a listener"), addr)
}

struct Shift<F> {
    tls: Option<Arc<ServerConfig>>,
    handler: Arc<F>,
    traffic: Arc<Watched<Traffic>>,
}

impl<F, Fut> Shift<F>
where
    F: Fn(Accepted) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = ()> + Send + 'static,
{
    async fn work(
        self,
        listener: TcpListener,
        mut closed: oneshot::Receiver<()>,
        mut stopped: oneshot::Receiver<()>,
    ) {
        let mut connections = JoinSet::new();
        let mut listener = Some(listener);
        loop {
            let accepted = async {
                match &listener {
                    Some(listener) => listener.accept().await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                _ = &mut stopped => break,
                _ = &mut closed, if listener.is_some() => listener = None,
                Some(ended) = connections.join_next() => self.note(ended),
                Ok((stream, peer)) = accepted => {
                    let open = Open::begin(&self.traffic);
                    connections.spawn(self.serve(stream, peer, open));
                }
            }
        }
        drop(listener);
        connections.shutdown().await;
    }

    fn serve(
        &self,
        stream: TcpStream,
        peer: SocketAddr,
        open: Open,
    ) -> impl Future<Output = ()> + Send + use<F, Fut> {
        let (tls, handler) = (self.tls.clone(), Arc::clone(&self.handler));
        async move {
            // A failed handshake is the client's story; the test asks the client about it.
            if let Ok(wire) = wire::accept(stream, tls).await {
                handler(Accepted { number: open.number, peer, wire }).await;
            }
            drop(open);
        }
    }

    fn note(&self, ended: Result<(), JoinError>) {
        if let Err(error) = ended
            && error.is_panic()
        {
            let words = words_of(&*error.into_panic());
            self.traffic.change(|traffic| traffic.complaints.push(words));
        }
    }
}

fn words_of(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "a panic".to_owned())
}

/// Counts one connection for as long as it is open.
struct Open {
    number: u64,
    traffic: Arc<Watched<Traffic>>,
}

impl Open {
    fn begin(traffic: &Arc<Watched<Traffic>>) -> Self {
        let number = traffic.change(|traffic| {
            traffic.accepted += 1;
            traffic.open += 1;
            traffic.accepted
        });
        Self { number, traffic: Arc::clone(traffic) }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.traffic.change(|traffic| traffic.open -= 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::Pipe;

    #[tokio::test]
    async fn stopping_frees_the_port_and_closes_connections() {
        let hold = |accepted: Accepted| async move {
            let _held = accepted;
            std::future::pending().await
        };
        let server = Server::start(None, None, hold);
        let addr = server.addr();
        let mut pipe = Pipe::new(Box::new(wire::connect(addr).await.unwrap()));
        server.traffic().reaches(1, "connections", |traffic| traffic.open).await;
        server.stop().await;
        assert_eq!(pipe.some(1).await.unwrap(), b"");
        assert!(wire::connect(addr).await.is_err());

        let again = Server::start(Some(addr), None, hold);
        assert!(wire::connect(again.addr()).await.is_ok());
    }

    #[tokio::test]
    async fn a_panic_of_a_handler_is_kept() {
        let server = Server::start(None, None, |_| async { panic!("not like this") });
        wire::connect(server.addr()).await.unwrap();
        let complaints = |traffic: &Traffic| traffic.complaints.len() as u64;
        server.traffic().reaches(1, "complaints", complaints).await;
        server.traffic().look(|traffic| assert_eq!(traffic.complaints, ["not like this"]));
        assert_eq!((server.accepted(), server.traffic().look(|traffic| traffic.open)), (1, 0));
    }
}
