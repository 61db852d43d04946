//! The exchange of one code. The one rule: a code is sent once. Whoever has sent a byte of it keeps what
//! came of it, and that is what everybody gets who comes with the same code; only where nothing was sent,
//! another host may be asked, and another attempt may be made.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use http::Request;
use sluice_engine::breaker;

use super::once::{self, Tried};
use super::{Job, MINUTE, busy, grant};
use crate::base::clock;
use crate::base::fault::Fault;
use crate::base::units::Secret;
use crate::lasting::fetch::{Client, Failure, Limits};
use crate::lasting::login::flights::{Refused, Settled};
use crate::lasting::login::{By, Outcome};
use crate::parts::login::app::Platform;
use crate::parts::provider::exchange::{Asked, Identity, Sign};
use crate::parts::provider::signer;

/// Longest wait for a place among the exchanges, and for a connection.
const PLACE: Duration = Duration::from_millis(300);
const CONNECT: Duration = Duration::from_millis(1000);
/// Bytes of a platform's answer.
const MAX_ANSWER: usize = 64 * 1024;

/// Makes the exchange, or finds out what came of it before.
pub(super) async fn run(job: Job) -> Settled {
    let (name, stores) = (once::name("login", &job.key), &job.login.stores);
    let attempt = async || attempt(&job).await;
    let (settled, fresh) = once::settle(stores, &name, job.deadline, attempt).await;
    let outcome = match &settled {
        Ok(_) if fresh => Outcome::Ok,
        Ok(_) => Outcome::Replayed,
        Err(refused) => Outcome::Refused(refused.fault),
    };
    job.counter.desk.note(outcome);
    settled
}

async fn attempt(job: &Job) -> Tried {
    let (login, desk) = (&job.login, &job.counter.desk);
    let Some(platform) = &job.counter.app.platform else {
        return Tried::Sent(welcome(job, development(job.code.expose())).await);
    };
    let second = Duration::from_secs(1);
    let verdict = desk.count(By::App, login.share(login.limits.per_app_second), second);
    if !verdict.admitted {
        let retry_after = Some(verdict.retry_after);
        return Tried::Unsent(Refused { fault: Fault::RateLimited, retry_after });
    }
    let waits = clock::now().after(PLACE).min(job.deadline);
    let Some(_place) = desk.place(login.limits.at_once, waits).await else {
        return Tried::Unsent(busy(second));
    };
    let ticket = match desk.admit(&login.breaker) {
        Ok(ticket) => ticket,
        Err(retry_after) => return Tried::Unsent(busy(retry_after)),
    };
    let asked = ask(job, platform).await;
    ticket.record(match &asked {
        Ok(_) | Err(Tried::Sent(Ok(_))) => breaker::Outcome::Success,
        Err(Tried::Sent(Err(refused)) | Tried::Unsent(refused)) => match refused.fault {
            Fault::ProviderBusy | Fault::ProviderTimeout => breaker::Outcome::Failure(0),
            // The platform is well; the client, or our config, is not.
            _ => breaker::Outcome::Success,
        },
    });
    match asked {
        Ok(identity) => Tried::Sent(welcome(job, identity).await),
        Err(tried) => tried,
    }
}

/// Asks the platform's hosts in turn, the next one only while nothing was sent.
async fn ask(job: &Job, platform: &Platform) -> Result<Identity, Tried> {
    let app = &job.counter.app;
    let asked = Asked {
        appid: &app.appid,
        secret: app.secret.expose(),
        code: job.code.expose(),
        device: &job.device,
        params: &app.params,
    };
    let provider = &platform.provider;
    let extra: Vec<(&'static str, String)> = match provider.sign {
        None => Vec::new(),
        Some(signer::Scheme::AlipayRsa2) => {
            vec![("timestamp", signer::beijing(clock::unix_seconds()))]
        }
    };
    let sign = platform.signer.as_ref().map(|signer| |text: &str| signer.sign(text));
    let sign = sign.as_ref().map(|sign| sign as Sign<'_>);
    for base in &provider.bases {
        let Some(question) = provider.question(&asked, &extra, sign) else {
            tracing::error!(app = %app.id, "a login cannot be written down; look at the app's secret");
            return Err(Tried::Unsent(Fault::Misconfigured.into()));
        };
        let (Some(url), now) = (base.with_target(&question.target), clock::now()) else {
            return Err(Tried::Unsent(Fault::Misconfigured.into()));
        };
        let total = job.deadline.saturating_since(now);
        if total.is_zero() {
            break;
        }
        let mut request = Request::new(question.body);
        *request.method_mut() = question.method;
        *request.headers_mut() = question.headers;
        let limits = Limits { connect: CONNECT, total, body: MAX_ANSWER };
        let sent = AtomicBool::new(false);
        let client = Client::of(&url, &job.login.names, Some(&platform.tls), limits);
        match client.ask_noting(&url, request, &sent).await {
            Ok(answer) => {
                let judged = provider.judge(answer.status().as_u16(), answer.body());
                return judged.map_err(|fault| Tried::Sent(Err(refusal(job, fault))));
            }
            Err(failure) if !sent.load(Ordering::Relaxed) => {
                tracing::warn!(app = %app.id, host = url.host(), %failure, "the platform was not reached");
            }
            Err(failure) => {
                tracing::warn!(app = %app.id, host = url.host(), %failure, "the platform did not answer");
                let fault = match failure {
                    Failure::Timeout => Fault::ProviderTimeout,
                    _ => Fault::ProviderBusy,
                };
                return Err(Tried::Sent(Err(refusal(job, fault))));
            }
        }
    }
    Err(Tried::Unsent(busy(Duration::from_secs(1))))
}

/// What a fault of the platform means for the client, and for the operator.
fn refusal(job: &Job, fault: Fault) -> Refused {
    if fault == Fault::Misconfigured {
        tracing::error!(app = %job.counter.app.id,
            "the platform refuses this app: its id, its secret or its rights are wrong");
    }
    let retry_after = match fault {
        // The platform counts minutes.
        Fault::RateLimited => Some(MINUTE),
        Fault::ProviderBusy => Some(Duration::from_secs(1)),
        _ => None,
    };
    Refused { fault, retry_after }
}

/// Lets somebody in whom the platform knows.
async fn welcome(job: &Job, identity: Identity) -> Settled {
    let login = &job.login;
    let limit = login.share(login.limits.per_user_minute);
    let verdict = job.counter.desk.count(By::User(&identity.open_id), limit, MINUTE);
    if !verdict.admitted {
        let retry_after = Some(verdict.retry_after);
        return Err(Refused { fault: Fault::RateLimited, retry_after });
    }
    grant::new(job, &identity).await
}

/// Somebody whom no platform knows: the same for the same code.
fn development(code: &str) -> Identity {
    let plain = code.len() <= 64 && code.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
    let open_id = if plain {
        format!("dev-{code}")
    } else {
        format!("dev-{}", crate::parts::env::digest(code.as_bytes()))
    };
    let session_key = crate::parts::login::token::random_id().map(Secret::from);
    Identity { open_id, union_id: None, session_key }
}
