//! TLS on a client's connection: the name it asks for decides which certificate and which policy there
//! are, and what came of it is written down for its requests. The one rule: a handshake ends in time, or
//! when its place is needed.

use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use rustls::server::Acceptor;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio::time::Instant;
use tokio_rustls::LazyConfigAcceptor;
use tokio_rustls::server::TlsStream;

use super::Session;
use crate::base::clock;
use crate::base::secured::{Scope, Secured};
use crate::lasting::telemetry::reasons::Handshake;
use crate::parts::tls::{Boundary, Certificates, Served, identity};

/// Time that a handshake has in any case, however many wait: a good client needs far less.
const ENOUGH: Duration = Duration::from_secs(1);
/// The alert `unrecognized_name` as it is sent before anything is agreed on (RFC 6066 section 3).
const UNRECOGNIZED_NAME: [u8; 7] = [21, 3, 3, 0, 2, 2, 112];

/// A stream inside TLS.
pub(super) struct Shaken {
    pub(super) stream: Box<TlsStream<TcpStream>>,
    pub(super) http2: bool,
}

/// Shakes hands until `limit`, and notes what that established; counts it where it fails.
pub(super) async fn shake(
    session: &mut Session,
    certificates: &Arc<Certificates>,
    stream: TcpStream,
    limit: Instant,
) -> Option<Shaken> {
    let listener = Arc::clone(&session.listener);
    let most = usize::try_from(listener.limits.handshakes).unwrap_or(usize::MAX);
    let place = session.worker.handshakes.enter(&listener.name, most, ENOUGH, clock::now());
    let shaken = match place {
        None => Err((Handshake::Shed, None)),
        Some(place) => tokio::select! {
            biased;
            shaken = tokio::time::timeout_at(limit, accept(certificates, stream)) => {
                shaken.unwrap_or(Err((Handshake::Timeout, None)))
            }
            () = place.needed() => Err((Handshake::Shed, None)),
        },
    };
    let outcome = shaken.and_then(|(stream, served)| {
        let secured = secured(certificates, served, &stream)?;
        let http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
        if let (Some(secured), Some(peer)) = (secured, Rc::get_mut(&mut session.peer)) {
            peer.tls = Some(Box::new(secured));
        }
        Ok(Shaken { stream: Box::new(stream), http2 })
    });
    outcome
        .inspect_err(|(why, error)| {
            session.worker.shard.handshake_failed(*why);
            let (listener, reason) = (&listener.name, why.as_str());
            match error {
                Some(error) => tracing::debug!(%listener, reason, %error, "TLS handshake failed"),
                None => tracing::debug!(%listener, reason, "TLS handshake failed"),
            }
        })
        .ok()
}

/// Shakes hands with somebody who is no client of a route. `None` if nothing came of it.
pub(crate) async fn accept_tls(
    certificates: &Certificates,
    stream: TcpStream,
) -> Option<TlsStream<TcpStream>> {
    accept(certificates, stream).await.ok().map(|(stream, _)| stream)
}

type Failed = (Handshake, Option<io::Error>);

async fn accept(
    certificates: &Certificates,
    stream: TcpStream,
) -> Result<(TlsStream<TcpStream>, Arc<Served>), Failed> {
    let failed = |error: io::Error| (reason(&error), Some(error));
    let mut start = LazyConfigAcceptor::new(Acceptor::default(), stream).await.map_err(failed)?;
    let served = certificates.choose(start.client_hello().server_name()).map(Arc::clone);
    let Some(served) = served else {
        // Nobody waits for it, and an error says that the client was quicker.
        let _ = start.io.write_all(&UNRECOGNIZED_NAME).await;
        return Err((Handshake::Name, None));
    };
    let stream = start.into_stream(Arc::clone(&served.server)).await.map_err(failed)?;
    Ok((stream, served))
}

/// What requests have to know of the handshake, if anything.
fn secured(
    certificates: &Arc<Certificates>,
    served: Arc<Served>,
    stream: &TlsStream<TcpStream>,
) -> Result<Option<Secured>, Failed> {
    let tls = stream.get_ref().1;
    let client = match tls.peer_certificates().and_then(<[_]>::first) {
        None => None,
        Some(leaf) => {
            let now = i64::try_from(clock::unix_seconds()).unwrap_or(i64::MAX);
            Some(identity::of(leaf, now).ok_or((Handshake::ClientCertificate, None))?)
        }
    };
    let scope = certificates.divides_hosts().then(|| {
        let certificates = Arc::clone(certificates);
        Box::new(Boundary { certificates, served }) as Box<dyn Scope>
    });
    if client.is_none() && scope.is_none() {
        return Ok(None);
    }
    let name = tls.server_name().unwrap_or_default().trim_end_matches('.').to_ascii_lowercase();
    Ok(Some(Secured { name: name.into(), scope, client }))
}

fn reason(error: &io::Error) -> Handshake {
    let tls = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    match tls {
        Some(rustls::Error::NoCertificatesPresented | rustls::Error::InvalidCertificate(_)) => {
            Handshake::ClientCertificate
        }
        Some(rustls::Error::AlertReceived(_)) => Handshake::Alert,
        Some(_) => Handshake::Protocol,
        None => Handshake::Closed,
    }
}
