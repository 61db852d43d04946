//! A connection in use by one request: sends it, and gives the connection back or closes it.

use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use http::{Request, Response};

use super::super::link::{Close, Link};
use super::super::tasks::{self, Kind};
use super::{Kept, Permit, Pool};
use crate::base::body::{Answer, Upload};
use crate::base::clock::{self, Moment};
use crate::base::http1::{self, Failure, Head};

/// How long a request may go on being sent after its answer was read.
const SETTLE: std::time::Duration = std::time::Duration::from_secs(1);

/// A connection in use by one request.
pub(crate) struct Lease {
    pool: Rc<Pool>,
    link: Arc<Link>,
    connection: Option<Connection>,
    /// Whether it has served a request before: only then may its sudden death be the close race.
    pub(crate) reused: bool,
}

enum Connection {
    One { kept: Kept },
    Many { sender: hyper::client::conn::http2::SendRequest<Upload>, _permit: Rc<Permit> },
}

/// An HTTP/2 request that got no answer.
pub(crate) struct Lost {
    /// The request itself, if it provably was not sent.
    pub(crate) unsent: Option<Request<Upload>>,
    pub(crate) error: hyper::Error,
}

impl Lease {
    pub(super) fn one(pool: Rc<Pool>, link: &Arc<Link>, mut kept: Kept) -> Self {
        let reused = kept.uses > 0;
        kept.uses += 1;
        let connection = Some(Connection::One { kept });
        Self { pool, link: Arc::clone(link), connection, reused }
    }

    pub(super) fn many(
        pool: Rc<Pool>,
        link: &Arc<Link>,
        sender: hyper::client::conn::http2::SendRequest<Upload>,
        permit: Rc<Permit>,
        reused: bool,
    ) -> Self {
        let connection = Some(Connection::Many { sender, _permit: permit });
        Self { pool, link: Arc::clone(link), connection, reused }
    }

    /// Takes down a request for HTTP/1.1, which [`Lease::answer1`] sends.
    pub(crate) fn begin1(&self, head: Head<'_>, body: Upload) {
        if let Some(Connection::One { kept }) = &self.connection {
            kept.exchange.begin(head, body);
        }
    }

    /// Sends over HTTP/1.1 what was begun and waits for the head of the final answer.
    pub(crate) async fn answer1(&mut self) -> Result<Response<Answer>, http1::Lost> {
        let Some(Connection::One { kept }) = &self.connection else {
            return Err(http1::Lost { failure: Failure::Died, seen: false });
        };
        let answer = kept.exchange.answer().await?;
        if let Some(idle) = kept.exchange.announced_idle() {
            self.link.learn_idle(idle);
        }
        if kept.exchange.is_uploading() {
            let exchange = kept.exchange.clone();
            tasks::local(Kind::Upstream, async move { exchange.upload().await });
        }
        Ok(answer.map(Answer::Http1))
    }

    /// Sends a request over HTTP/2 and waits for the head of the final answer.
    pub(crate) async fn send2(
        &mut self,
        request: Request<Upload>,
    ) -> Result<Response<Answer>, Box<Lost>> {
        let Some(Connection::Many { sender, .. }) = &mut self.connection else {
            // A lease of the other protocol; nobody asks for that.
            return std::future::pending().await;
        };
        let sent = sender.try_send_request(request).await;
        let answer = sent.map_err(|mut lost| {
            Box::new(Lost { unsent: lost.take_message(), error: lost.into_error() })
        })?;
        Ok(answer.map(Answer::Http2))
    }

    /// The answer was read to its end: the connection may serve another request.
    pub(crate) fn release(mut self, now: Moment) {
        let Some(kept) = self.take() else { return };
        if kept.exchange.is_clean() {
            self.pool.give_back(kept, now);
        } else if kept.exchange.is_uploading() {
            settle(Rc::clone(&self.pool), kept);
        } else {
            kept.close(Close::Unusable);
        }
    }

    /// The service switched protocols: the stream, what was read from it beyond the answer, and its
    /// place among the endpoint's connections, to be held for as long as the stream is.
    pub(crate) fn into_tunnel(mut self) -> Option<(http1::Stream, bytes::Bytes, Permit)> {
        let kept = self.take()?;
        let (stream, read) = kept.exchange.into_stream()?;
        kept.permit.counts.count_close(Close::Unusable);
        Some((stream, read, kept.permit))
    }

    /// The connection may not be used again, for a reason that is no failure.
    pub(crate) fn discard(mut self, why: Close) {
        if let Some(kept) = self.take() {
            kept.close(why);
        }
    }

    /// Ends the use of an HTTP/1.1 connection, however it went.
    fn take(&mut self) -> Option<Kept> {
        let Some(Connection::One { kept }) = self.connection.take() else { return None };
        let interim = kept.exchange.interim();
        if interim > 0 {
            self.link.counts.interim.fetch_add(interim.into(), Ordering::Relaxed);
        }
        Some(kept)
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if let Some(kept) = self.take() {
            kept.close(Close::Abandoned);
        }
    }
}

/// The answer is complete but the request is not (a slow upload after an early answer): the connection
/// comes back when it is, or is closed.
fn settle(pool: Rc<Pool>, kept: Kept) {
    tasks::local(Kind::Upstream, async move {
        let limit = clock::deadline(clock::now().after(SETTLE));
        let uploaded = tokio::time::timeout_at(limit, kept.exchange.uploaded()).await;
        if uploaded.is_ok() && kept.exchange.is_clean() {
            pool.give_back(kept, clock::now());
        } else {
            kept.close(Close::Unusable);
        }
    });
}
