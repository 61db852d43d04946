//! One call to a platform from the gateway's side: under the app's breaker, for one of its places, to its
//! addresses in turn. The one rule: where a call may have had an effect, another address is asked only while
//! nothing was sent.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response};
use sluice_engine::breaker;

use super::App;
use crate::base::clock::{self, Moment};
use crate::base::fault::Fault;
use crate::lasting::fetch::{Client, Failure, Limits};
use crate::lasting::login::flights::Refused;

/// Longest wait for a place among the calls, and for a connection.
const PLACE: Duration = Duration::from_millis(300);
const CONNECT: Duration = Duration::from_secs(1);
/// A platform that had less time than this is not to blame for having needed more.
const FAIR: Duration = Duration::from_millis(500);

/// What is asked.
pub(crate) struct Call {
    pub(crate) method: Method,
    /// Path and query, with the token.
    pub(crate) target: zeroize::Zeroizing<String>,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
    /// It may be made twice.
    pub(crate) again: bool,
    /// Bytes of the answer at most.
    pub(crate) most: usize,
    pub(crate) deadline: Moment,
}

/// Why there is no answer.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Unanswered {
    pub(crate) refused: Refused,
    /// The platform may have had the call.
    pub(crate) sent: bool,
    /// What the breaker is to think of it.
    outcome: breaker::Outcome,
}

impl App {
    /// Makes a call; its answer, whatever that says.
    pub(crate) async fn call(&self, call: &Call) -> Result<Response<Bytes>, Unanswered> {
        let unsent =
            |refused| Unanswered { refused, sent: false, outcome: breaker::Outcome::Ignored };
        let waits = clock::now().after(PLACE).min(call.deadline);
        let desk = &self.cell.desk;
        let Some(_place) = desk.place(self.at_once, waits).await else {
            return Err(unsent(busy(Duration::from_secs(1))));
        };
        let admitted = desk.admit(&self.breaker);
        let ticket = admitted.map_err(|retry_after| unsent(busy(retry_after)))?;
        let answer = self.ask(call).await;
        ticket.record(match &answer {
            Ok(answer) if answer.status().is_server_error() => breaker::Outcome::Failure(0),
            Ok(_) => breaker::Outcome::Success,
            Err(unanswered) => unanswered.outcome,
        });
        answer
    }

    async fn ask(&self, call: &Call) -> Result<Response<Bytes>, Unanswered> {
        let refused = busy(Duration::from_secs(1));
        let mut last = Unanswered { refused, sent: false, outcome: breaker::Outcome::Ignored };
        let fair = call.deadline.saturating_since(clock::now()) >= FAIR;
        for base in &self.bases {
            let total = call.deadline.saturating_since(clock::now());
            if total.is_zero() {
                last.refused = Fault::ProviderTimeout.into();
                break;
            }
            let Some(url) = base.with_target(&call.target) else {
                return Err(Unanswered { refused: Fault::PathInvalid.into(), ..last });
            };
            let mut request = Request::new(call.body.clone());
            request.method_mut().clone_from(&call.method);
            request.headers_mut().clone_from(&call.headers);
            let limits = Limits { connect: CONNECT, total, body: call.most };
            let client = Client::of(&url, &self.names, Some(&self.tls), limits);
            let sent = AtomicBool::new(false);
            let failure = match client.ask_noting(&url, request, &sent).await {
                Ok(answer) => return Ok(answer),
                Err(failure) => failure,
            };
            let sent = sent.load(Ordering::Relaxed);
            tracing::warn!(app = %self.id, host = url.host(), %failure, sent, "a call to the platform failed");
            let (fault, outcome) = match failure {
                Failure::Timeout if !fair => (Fault::ProviderTimeout, breaker::Outcome::Ignored),
                Failure::Timeout => (Fault::ProviderTimeout, breaker::Outcome::Failure(0)),
                // It has answered. Who asks for too much must not shut the platform for all others.
                Failure::TooLarge => (Fault::AnswerTooLarge, breaker::Outcome::Success),
                _ => (Fault::ProviderBusy, breaker::Outcome::Failure(0)),
            };
            let large = fault == Fault::AnswerTooLarge;
            let retry_after = (!large).then_some(Duration::from_secs(1));
            let refused = Refused { fault, retry_after };
            last = Unanswered { refused, sent: last.sent || sent, outcome };
            if large || (sent && !call.again) {
                break;
            }
        }
        Err(last)
    }
}

pub(crate) fn busy(retry_after: Duration) -> Refused {
    Refused { fault: Fault::ProviderBusy, retry_after: Some(retry_after) }
}
