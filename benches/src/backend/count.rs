//! How many requests a back end has got, for whoever connects to a port of its own: the only count
//! that is right while load is stopped and let go on.

use std::io::Write as _;
use std::net::{SocketAddr, TcpListener};
use std::sync::atomic::{AtomicU64, Ordering};

use crate::failure::Outcome;

static REQUESTS: AtomicU64 = AtomicU64::new(0);

/// Counts a request, or a message of a WebSocket.
pub(super) fn one() {
    REQUESTS.fetch_add(1, Ordering::Relaxed);
}

/// Tells the count to everybody who connects, from a thread of its own.
pub(crate) fn tell(address: SocketAddr) -> Outcome<()> {
    let listener = TcpListener::bind(address)?;
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let count = REQUESTS.load(Ordering::Relaxed);
            // Who does not listen to the answer needs none.
            let _ = stream.and_then(|mut stream| write!(stream, "{count}"));
        }
    });
    Ok(())
}
