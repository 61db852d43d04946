//! HTTP/2 on one connection: hyper serves it, its clocks watch over it.

use std::convert::Infallible;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use http::Request;
use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};

use super::super::shared::Mood;
use super::Session;
use super::calm::Calm;
use super::held::Streams;
use crate::base::clock::{self, Moment};
use crate::base::clocks::{Clocks, Expired, Watched};
use crate::path::pipeline;

/// Who has been at rest for less may be about to ask.
const AT_REST: Duration = Duration::from_secs(1);

/// Serves a stream to its end. An answered ping or an opened window is no sign of use: only the idle
/// clock runs between requests, and only requests stop it.
pub(super) async fn serve<S>(session: Session, stream: S)
where
    S: AsyncRead + AsyncWrite + Unpin + 'static,
{
    let limits = session.limits();
    let Session { worker, listener, peer, mut mood } = session;
    let (clocks, ends) = (Arc::clone(&peer.clocks), peer.ends);
    let shard = Arc::clone(&worker.shard);
    let watched = Watched::new(stream, Arc::clone(&clocks));
    let io = TokioIo::new(Calm::new(watched, Arc::clone(&clocks), Arc::clone(&shard)));
    let streams = Streams::new(Rc::clone(&worker.held), limits.write);
    let starting = streams.clone();
    let service = service_fn(move |request: Request<Incoming>| {
        let metered = starting.metered();
        let handled = pipeline::handle(Rc::clone(&worker), Rc::clone(&peer), request, false);
        handled.map(|answer| Ok::<_, Infallible>(answer.map(metered)))
    });
    let connection = http2::Builder::new(streams)
        .timer(TokioTimer::new())
        .initial_stream_window_size(64 * 1024)
        .initial_connection_window_size(1024 * 1024)
        .max_concurrent_streams(listener.limits.streams)
        .max_send_buf_size(64 * 1024)
        .max_header_list_size(u32::try_from(listener.limits.head.0).unwrap_or(32 * 1024))
        .max_local_error_reset_streams(256)
        .keep_alive_interval(Duration::from_secs(30))
        .keep_alive_timeout(Duration::from_secs(10))
        .serve_connection(io, service);
    let mut connection = std::pin::pin!(connection);
    let mut ending = false;
    // What was decided before this connection came holds for it too.
    mood.mark_changed();
    let next = clocks.look(clock::now(), &limits).unwrap_or_else(|_| clock::now()).min(ends);
    let mut watchdog = std::pin::pin!(tokio::time::sleep_until(clock::deadline(next)));
    loop {
        tokio::select! {
            biased;
            done = connection.as_mut() => {
                if let Err(error) = done && !is_of_the_stream(&error) {
                    shard.http2_broken.add(1);
                    tracing::debug!(%error, "a client broke the rules of HTTP/2");
                }
                return;
            }
            changed = mood.changed(), if !ending => {
                let mood = *mood.borrow_and_update();
                // Without a worker there is nobody to serve.
                if changed.is_err() || mood == Mood::Draining || is_spare(&clocks, mood) {
                    ending = true;
                    connection.as_mut().graceful_shutdown();
                }
            }
            () = watchdog.as_mut() => {
                let now = clock::now();
                let looked = clocks.look(now, &limits);
                let next = match looked {
                    _ if !ending
                        && (now >= ends
                            || looked == Err(Expired::Idle)
                            || is_spare(&clocks, *mood.borrow())) =>
                    {
                        ending = true;
                        connection.as_mut().graceful_shutdown();
                        // A client that ignores the farewell is cut at the next look.
                        now.after(limits.head)
                    }
                    Ok(next) if ending => next,
                    Ok(next) => next.min(ends),
                    Err(_) => return,
                };
                watchdog.as_mut().reset(clock::deadline(next));
            }
        }
    }
}

/// Whether the connection can be done without while memory is short.
fn is_spare(clocks: &Clocks, mood: Mood) -> bool {
    let rests = |since: Moment| since.after(AT_REST) <= clock::now();
    mood == Mood::Lean && clocks.resting_since().is_some_and(rests)
}

/// Whether the stream failed and not what was said on it.
fn is_of_the_stream(error: &hyper::Error) -> bool {
    let mut cause: Option<&dyn std::error::Error> = Some(error);
    while let Some(error) = cause {
        if error.is::<std::io::Error>() {
            return true;
        }
        cause = error.source();
    }
    false
}
