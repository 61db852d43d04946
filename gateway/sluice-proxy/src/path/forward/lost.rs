//! Judges requests that got no answer: was it the client, the service, or the race with a service that
//! closes an idle connection; and may it be sent once more?

use super::again::Retry;
use super::{Attempt, Journey};
use crate::base::fault::Fault;
use crate::base::http1::{self, Failure};
use crate::lasting::pool::Lost;
use crate::parts::upstream::retries::Why;

impl Journey<'_> {
    /// Judges a request that got no answer over HTTP/1.1. On a connection that has served before
    /// (`idle`), an end without any byte of an answer is most likely the service closing an idle
    /// connection; on a new one, it is most likely the service's own end.
    pub(super) fn lost1(&self, lost: http1::Lost, idle: bool) -> Attempt {
        if let Some(fault) = self.upload_fault() {
            return Attempt::Failed(fault);
        }
        match lost.failure {
            Failure::Upload => Attempt::Failed(Fault::BodyBroken),
            Failure::Tls => Attempt::Failed(Fault::UpstreamTls),
            Failure::Malformed => Attempt::Failed(Fault::UpstreamMalformed),
            Failure::Died if self.twice && !lost.seen => {
                Attempt::Again(Fault::UpstreamReset, Why::Reset, Retry::after_death(idle))
            }
            Failure::Died => Attempt::Failed(Fault::UpstreamReset),
        }
    }

    /// Judges a request that got no answer over HTTP/2, on a connection that has served before (`idle`)
    /// or not.
    pub(super) fn lost2(&mut self, lost: Lost, idle: bool) -> Attempt {
        if let Some(fault) = self.upload_fault() {
            return Attempt::Failed(fault);
        }
        if is_tls(&lost.error) {
            return Attempt::Failed(Fault::UpstreamTls);
        }
        if let Some(request) = lost.unsent {
            let (head, body) = request.into_parts();
            self.head.headers = head.headers;
            self.bodies.put_back(body);
            return Attempt::Again(Fault::UpstreamReset, Why::Unsent, Retry::Fresh);
        }
        let refused = refusal(&lost.error);
        let died = lost.error.is_incomplete_message()
            || lost.error.is_canceled()
            || lost.error.is_closed()
            || is_reset(&lost.error);
        if !died && refused.is_none() {
            tracing::debug!(upstream = %self.upstream.name, error = %lost.error, "malformed answer");
            return Attempt::Failed(Fault::UpstreamMalformed);
        }
        // Of what it refused the service has taken nothing, whatever it was (RFC 9113 section 8.7).
        if let Some(retry) = refused.filter(|_| self.keeps) {
            return Attempt::Again(Fault::UpstreamReset, Why::Unsent, retry);
        }
        if self.twice {
            return Attempt::Again(Fault::UpstreamReset, Why::Reset, Retry::after_death(idle));
        }
        Attempt::Failed(Fault::UpstreamReset)
    }
}

impl Retry {
    /// After a connection died without a byte of an answer.
    fn after_death(idle: bool) -> Self {
        if idle { Self::Fresh } else { Self::Elsewhere }
    }
}

fn is_reset(error: &hyper::Error) -> bool {
    use std::io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset};
    let mut source = std::error::Error::source(error);
    while let Some(inner) = source {
        if let Some(io) = inner.downcast_ref::<std::io::Error>() {
            return matches!(io.kind(), BrokenPipe | ConnectionAborted | ConnectionReset);
        }
        source = inner.source();
    }
    false
}

/// With TLS 1.3 a service objects to our certificate only after the handshake, to the first read.
fn is_tls(error: &hyper::Error) -> bool {
    let mut source = std::error::Error::source(error);
    while let Some(inner) = source {
        let io = inner.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
        if inner.is::<rustls::Error>() || io.is_some_and(|cause| cause.is::<rustls::Error>()) {
            return true;
        }
        source = inner.source();
    }
    false
}

/// HTTP/2 says that it did not process the stream, by a reset, which leaves the connection as it was, or by
/// a farewell that leaves it out (RFC 9113 sections 8.7 and 6.8). Only the words of the error tell.
fn refusal(error: &hyper::Error) -> Option<Retry> {
    let mut source = std::error::Error::source(error);
    while let Some(inner) = source {
        let said = inner.to_string();
        if said.contains("refused stream") {
            return Some(Retry::Refused);
        }
        if said.contains("connection error received: not a result of an error") {
            return Some(Retry::Fresh);
        }
        source = inner.source();
    }
    None
}
