//! What a proxy in front says before anything else of the connection it passes on (the PROXY protocol).
//! The one rule: on a listener that expects it, a connection is served with a header of a trusted proxy
//! or not at all; nobody else's word, and no missing word, is made up for.

use std::net::IpAddr;
use std::rc::Rc;
use std::sync::atomic::{AtomicU64, Ordering};

use http::HeaderValue;
use sluice_engine::proxy_protocol::{self, Carried, MAX, Read};
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;
use tokio::time::Instant;

use super::{Session, sniff};
use crate::base::clock;
use crate::lasting::telemetry::reasons::Introduction;
use crate::parts::listener::ProxiesInFront;

/// Reads the header, until `limit`, and makes whom it names the peer. False if there is nobody to serve.
pub(super) async fn read(
    session: &mut Session,
    proxies: &ProxiesInFront,
    stream: &mut TcpStream,
    limit: Instant,
) -> bool {
    let sender = session.peer.address.ip();
    let read = if proxies.from.contains(sender) {
        tokio::time::timeout_at(limit, header(stream))
            .await
            .unwrap_or(Err((Introduction::Timeout, "no whole header in time")))
    } else {
        Err((Introduction::Untrusted, "not one of the proxies in front"))
    };
    match read {
        Ok(None) => true,
        Ok(Some(carried)) => {
            let Some(peer) = Rc::get_mut(&mut session.peer) else { return false };
            peer.address = carried.source;
            peer.address_value = text(carried.source.ip());
            true
        }
        Err((why, detail)) => {
            session.worker.shard.introduction_failed(why);
            let (listener, reason) = (&session.listener.name, why.as_str());
            // A trusted proxy that says something else is set up otherwise than we are.
            if matches!(why, Introduction::Missing | Introduction::Malformed) && is_due() {
                tracing::warn!(%listener, %sender, reason, detail, "no PROXY header, so not served");
            } else {
                tracing::debug!(%listener, %sender, reason, detail, "no PROXY header");
            }
            false
        }
    }
}

/// An address as a field value.
pub(in crate::doors) fn text(ip: IpAddr) -> HeaderValue {
    HeaderValue::try_from(ip.to_canonical().to_string())
        .unwrap_or_else(|_| HeaderValue::from_static("unknown"))
}

/// Looks at the stream until it can be judged, and takes the header off it and not a byte more.
async fn header(stream: &mut TcpStream) -> Result<Option<Carried>, (Introduction, &'static str)> {
    const ENDED: (Introduction, &str) = (Introduction::Closed, "the connection ended");
    let mut bytes = vec![0; MAX];
    loop {
        let seen = stream.peek(&mut bytes).await.map_err(|_| ENDED)?;
        if seen == 0 {
            return Err(ENDED);
        }
        match proxy_protocol::read(bytes.get(..seen).unwrap_or_default()) {
            Read::More => sniff::news(stream).await.map_err(|_| ENDED)?,
            Read::Header { length, carried } => {
                let header = bytes.get_mut(..length).ok_or(ENDED)?;
                stream.read_exact(header).await.map_err(|_| ENDED)?;
                return Ok(carried);
            }
            Read::Missing => return Err((Introduction::Missing, "something else was sent")),
            Read::Malformed(why) => return Err((Introduction::Malformed, why)),
        }
    }
}

/// Whether a warning may be written: one in a second, however many connections give reason for it.
fn is_due() -> bool {
    static LAST: AtomicU64 = AtomicU64::new(0);
    let now = clock::now().nanos() / 1_000_000_000 + 1;
    LAST.swap(now, Ordering::Relaxed) != now
}
