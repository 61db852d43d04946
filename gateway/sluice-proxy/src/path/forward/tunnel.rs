//! After a switch of protocols: bytes both ways, with a small buffer each, until both sides are done,
//! or nothing has moved for too long. Tunnels know nothing of reloads: they live on.

use std::cell::Cell;
use std::io;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use http::Response;
use http::response::Parts;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, split};

use super::super::record::Record;
use crate::base::body::Body;
use crate::base::clock::{self, Moment};
use crate::base::fault::Fault;
use crate::base::http1::Stream;
use crate::lasting::pool::Lease;
use crate::lasting::tasks::{self, Kind};
use crate::parts::websocket::Tunnel;

const BUFFER: usize = 16 * 1024;
/// How long the other side may take after one has finished.
const LINGER: Duration = Duration::from_secs(10);

/// Starts the tunnel that the answer promises. It keeps its connection's place among the listener's and
/// among the endpoint's connections and in limits of requests in progress, so that these hold for tunnels
/// too.
pub(super) fn switch(record: &mut Record, head: Parts) -> Result<Response<Body>, Fault> {
    let client = record.upgrade.take().ok_or(Fault::UnexpectedUpgrade)?;
    let route = record.route.and_then(|index| record.view.routes.get(index));
    let limits = route.and_then(|route| route.websocket.as_ref()).map(|websocket| websocket.tunnel);
    let limits = limits.ok_or(Fault::UnexpectedUpgrade)?;
    let lease = record.lease.take().and_then(Lease::into_tunnel);
    let (service, read, permit) = lease.ok_or(Fault::UnexpectedUpgrade)?;
    let in_flight = record.in_flight.take();
    let holds = std::mem::take(&mut record.cx.holds);
    let peer = Rc::clone(&record.cx.peer);
    let shard = std::sync::Arc::clone(&record.worker.shard);
    shard.tunnels_opened.add(1);
    tasks::local(Kind::Tunnel, async move {
        if let Err(error) = run(client, service, read, limits).await {
            tracing::debug!(%error, "tunnel ended");
        }
        shard.tunnels_closed.add(1);
        drop((in_flight, holds, permit, peer));
    });
    Ok(Response::from_parts(head, Body::empty()))
}

/// `read` came from the service with its answer.
async fn run(client: OnUpgrade, service: Stream, read: Bytes, limits: Tunnel) -> io::Result<()> {
    let limit = clock::deadline(clock::now().after(LINGER));
    let client = tokio::time::timeout_at(limit, client)
        .await
        .map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?
        .map_err(io::Error::other)?;
    let mut client = TokioIo::new(client);
    client.write_all(&read).await?;
    let (client_reader, client_writer) = split(client);
    let (service_reader, service_writer) = split(service);
    let active = Rc::new(Cell::new(clock::now()));
    let up = copy(client_reader, service_writer, Rc::clone(&active));
    let down = copy(service_reader, client_writer, Rc::clone(&active));
    tokio::pin!(up, down);
    tokio::select! {
        done = &mut up => { done?; linger(down).await }
        done = &mut down => { done?; linger(up).await }
        () = silence(&active, limits.idle) => Err(io::ErrorKind::TimedOut.into()),
        () = age(limits.max_age) => Err(io::ErrorKind::TimedOut.into()),
    }
}

async fn copy(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    active: Rc<Cell<Moment>>,
) -> io::Result<()> {
    let mut buffer = vec![0; BUFFER];
    loop {
        let read = from.read(&mut buffer).await?;
        if read == 0 {
            return to.shutdown().await;
        }
        active.set(clock::now());
        to.write_all(buffer.get(..read).unwrap_or(&[])).await?;
    }
}

async fn linger(other: impl Future<Output = io::Result<()>>) -> io::Result<()> {
    let limit = clock::deadline(clock::now().after(LINGER));
    tokio::time::timeout_at(limit, other)
        .await
        .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

/// Until nothing has moved for so long.
async fn silence(active: &Cell<Moment>, idle: Duration) {
    loop {
        let limit = active.get().after(idle);
        if clock::now() >= limit {
            return;
        }
        tokio::time::sleep_until(clock::deadline(limit)).await;
    }
}

/// Until a tunnel that began now is too old; for ever where it may be.
async fn age(most: Option<Duration>) {
    match most {
        Some(most) => tokio::time::sleep_until(clock::deadline(clock::now().after(most))).await,
        None => std::future::pending().await,
    }
}
