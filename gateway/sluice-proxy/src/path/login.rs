//! A login: a code in, a token out. Reads what the client says, finds its app, and waits for the exchange of
//! the code, which is made once however many ask for it.

use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::digest;
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderValue, Method, Response};
use serde::Deserialize;

use super::builtin::read_body;
use super::record::{Inbound, Record};
use crate::base::body::Body;
use crate::base::clock::{self, Moment};
use crate::base::cx::Cx;
use crate::base::fault::Fault;
use crate::base::units::Secret;
use crate::lasting::login::flights::{Key, Landing, Refused, Settled};
use crate::lasting::login::{By, Outcome};
use crate::lasting::tasks::{self, Kind};
use crate::parts::login::{Counter, Login, token};

pub(super) mod end;
mod exchange;
mod grant;
mod once;
pub(crate) mod open;
pub(super) mod phone;
pub(super) mod refresh;
mod session;
mod user;

/// Bytes of a login.
const MAX_BODY: usize = 16 * 1024;
/// Longest code, and longest name of a device.
const MAX_CODE: usize = 1024;
const MAX_DEVICE: usize = 128;
/// The header in which a client names its app.
const APP: &str = "x-mp-app";
const MINUTE: Duration = Duration::from_secs(60);

/// What a client says. Members that are not known here are for others.
#[derive(Deserialize)]
struct Asked {
    #[serde(default)]
    app: Option<String>,
    code: Secret,
    #[serde(default)]
    device: Option<String>,
}

/// An exchange to be made.
pub(super) struct Job {
    login: Arc<Login>,
    counter: Counter,
    code: Secret,
    device: String,
    key: Key,
    deadline: Moment,
}

/// Answers a login.
pub(super) async fn serve(
    record: &mut Record,
    inbound: &mut Inbound,
) -> Result<Response<Body>, Fault> {
    let login = posted(record, inbound)?;
    let named = inbound.head.headers.get(APP).and_then(|app| app.to_str().ok()).map(str::to_owned);
    let body = read_body(record, inbound, MAX_BODY).await?;
    let asked: Asked = serde_json::from_slice(&body).map_err(|_| Fault::LoginInvalid)?;
    let counter = find(&login, asked.app.as_deref().or(named.as_deref()))?;
    let cx = &mut record.cx;
    let refused = match admit(&login, &counter, &asked, cx) {
        Ok(job) => match wait(job).await {
            Ok(body) => return Ok(answer(body)),
            Err(refused) => refused,
        },
        Err(refused) => {
            counter.desk.note(Outcome::Refused(refused.fault));
            refused
        }
    };
    cx.retry_after = refused.retry_after;
    Err(refused.fault)
}

/// The public keys of the gateway's tokens (RFC 7517). Who verifies with them may keep them for a while.
pub(super) fn keys(record: &Record) -> Result<Response<Body>, Fault> {
    let Some(login) = &record.view.login else { return Err(Fault::Internal) };
    let mut response = Response::new(Body::full(login.signing.public(clock::unix_seconds())));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/jwk-set+json"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("public, max-age=300"));
    Ok(response)
}

/// What has to be done four times a second, by one worker for all: hear what was revoked.
pub(crate) fn tend(login: &Arc<Login>) {
    let revocations = Arc::clone(&login.sessions.revocations);
    revocations.sweep(clock::unix_seconds());
    let Some(redis) = login.stores.shared.as_ref().and_then(|vault| vault.redis()).map(Arc::clone)
    else {
        return;
    };
    let life = token::LONGEST;
    drop(tasks::local(Kind::Upstream, async move { revocations.follow(&redis, life).await }));
}

/// How people log in, for who asks by POST.
fn posted(record: &mut Record, inbound: &Inbound) -> Result<Arc<Login>, Fault> {
    let Some(login) = record.view.login.clone() else { return Err(Fault::Internal) };
    only_post(&mut record.cx, &inbound.head.method)?;
    Ok(login)
}

/// Refuses what is no POST.
pub(super) fn only_post(cx: &mut Cx, method: &Method) -> Result<(), Fault> {
    if *method == Method::POST {
        return Ok(());
    }
    cx.allow = sluice_engine::matcher::MethodSet::parse(["POST"]).ok();
    Err(Fault::MethodNotAllowed)
}

/// The app that is named, or the only one.
fn find(login: &Login, named: Option<&str>) -> Result<Counter, Fault> {
    let found = match (named, login.apps.as_slice()) {
        (Some(name), apps) => apps.iter().find(|counter| *counter.app.id == *name),
        (None, [only]) => Some(only),
        (None, _) => None,
    };
    found.cloned().ok_or(Fault::LoginInvalid)
}

fn admit(login: &Arc<Login>, counter: &Counter, asked: &Asked, cx: &Cx) -> Result<Job, Refused> {
    let plain = |text: &str| !text.chars().any(char::is_control);
    let device = asked.device.clone().unwrap_or_default();
    let code = asked.code.expose();
    let well = (1..=MAX_CODE).contains(&code.len()) && plain(code);
    if !well || device.len() > MAX_DEVICE || !plain(&device) {
        return Err(Fault::LoginInvalid.into());
    }
    let limit = login.share(login.limits.per_address_minute);
    let verdict = counter.desk.count(By::Address(cx.client), limit, MINUTE);
    if !verdict.admitted {
        let retry_after = Some(verdict.retry_after);
        return Err(Refused { fault: Fault::RateLimited, retry_after });
    }
    let key = key("", &counter.app.id, code);
    let ours = cx.started.after(login.timeout);
    Ok(Job {
        login: Arc::clone(login),
        counter: counter.clone(),
        code: asked.code.clone(),
        device,
        key,
        deadline: cx.deadline.map_or(ours, |theirs| theirs.min(ours)),
    })
}

/// What a code of an app is known by.
fn key(kind: &str, app: &str, code: &str) -> Key {
    let mut context = digest::Context::new(&digest::SHA256);
    for text in [kind, app, code] {
        context.update(text.as_bytes());
        context.update(&[0]);
    }
    let mut key = Key::default();
    key.copy_from_slice(context.finish().as_ref());
    key
}

/// Waits for the exchange, which is begun if nobody has begun it.
async fn wait(job: Job) -> Settled {
    let (desk, deadline) = (Arc::clone(&job.counter.desk), job.deadline);
    let joined = job.login.flights.join(job.key);
    let Some((mut landing, flight)) = joined else {
        desk.note(Outcome::Refused(Fault::ProviderBusy));
        return Err(busy(Duration::from_secs(1)));
    };
    let first = flight.is_some();
    if let Some(flight) = flight {
        // A client that goes away must not take the code with it.
        drop(tasks::local(Kind::Upstream, async move { flight.land(exchange::run(job).await) }));
    }
    let landed = landing_of(&mut landing);
    let settled = match tokio::time::timeout_at(clock::deadline(deadline), landed).await {
        Ok(settled) => settled,
        Err(_) => Err(Fault::ProviderTimeout.into()),
    };
    // The first one's outcome is noted by the exchange.
    if !first {
        desk.note(
            settled.as_ref().map_or_else(|r| Outcome::Refused(r.fault), |_| Outcome::Replayed),
        );
    }
    settled
}

async fn landing_of(landing: &mut Landing) -> Settled {
    match landing.wait_for(Option::is_some).await {
        Ok(settled) => settled.clone().unwrap_or_else(|| Err(Fault::Internal.into())),
        // The exchange has panicked.
        Err(_) => Err(Fault::Internal.into()),
    }
}

fn busy(retry_after: Duration) -> Refused {
    Refused { fault: Fault::ProviderBusy, retry_after: Some(retry_after) }
}

fn answer(body: bytes::Bytes) -> Response<Body> {
    let mut response = Response::new(Body::full(body));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json; charset=utf-8"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
