//! Sockets to listen on. Each worker has its own socket per listener (SO_REUSEPORT), so that the
//! kernel spreads connections and no worker hands work to another. A gateway that takes over from one
//! that runs shares its ports until that one has left.

use std::collections::HashMap;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;

use socket2::{Domain, Protocol, Socket, Type};

use crate::parts::listener::Listener;

/// Connections the kernel holds for a worker that is busy.
const BACKLOG: i32 = 4096;

/// Sockets by worker, then the name of the listener they belong to.
pub(crate) type Bound = Vec<Vec<(Arc<str>, TcpListener)>>;

/// A listener that could not be bound.
#[derive(Debug)]
pub(crate) struct BindError {
    pub(crate) listener: Arc<str>,
    pub(crate) address: SocketAddr,
    pub(crate) error: std::io::Error,
}

impl std::fmt::Display for BindError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "listener `{}` cannot have {}: {}", self.listener, self.address, self.error)?;
        match self.error.kind() {
            std::io::ErrorKind::AddrInUse => f.write_str(" (another program listens there)"),
            std::io::ErrorKind::PermissionDenied => {
                f.write_str(" (ports below 1024 need CAP_NET_BIND_SERVICE)")
            }
            _ => Ok(()),
        }
    }
}

/// Binds every listener of `wanted` that is not open yet, for all workers, or none.
pub(crate) fn bind(
    wanted: &[Arc<Listener>],
    open: &HashMap<Arc<str>, SocketAddr>,
    workers: usize,
    takeover: bool,
) -> Result<Bound, BindError> {
    let mut bound: Bound = (0..workers).map(|_| Vec::new()).collect();
    for listener in wanted {
        if open.get(&listener.name) == Some(&listener.address) {
            continue;
        }
        let fail = |error| BindError {
            listener: Arc::clone(&listener.name),
            address: listener.address,
            error,
        };
        // SO_REUSEPORT would let two gateways share a port by accident; a plain bind finds out. A port
        // that another listener of ours is about to leave cannot be asked that way, and is known.
        if !takeover && !open.values().any(|ours| ours.port() == listener.address.port()) {
            probe(listener.address).map_err(fail)?;
        }
        for sockets in &mut bound {
            let socket = socket(listener.address, true).map_err(fail)?;
            sockets.push((Arc::clone(&listener.name), socket));
        }
    }
    Ok(bound)
}

/// Binds a single socket; another gateway may share its address where this one takes over.
pub(crate) fn bind_one(address: SocketAddr, takeover: bool) -> std::io::Result<TcpListener> {
    if !takeover {
        probe(address)?;
    }
    socket(address, true)
}

fn probe(address: SocketAddr) -> std::io::Result<()> {
    socket(address, false).map(drop)
}

fn socket(address: SocketAddr, shared: bool) -> std::io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    if shared {
        socket.set_reuse_port(true)?;
    }
    if address.is_ipv6() {
        socket.set_only_v6(false)?;
    }
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    if shared {
        socket.listen(BACKLOG)?;
    }
    Ok(socket.into())
}
