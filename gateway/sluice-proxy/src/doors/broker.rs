//! The door for services: access tokens of apps, and calls to the platform made with them. On a thread,
//! runtime and address of its own, so that neither clients nor operators wait for a slow platform.
//!
//! The one rule: nobody is answered who has not shown a token of the config, and no page in a browser is.

mod calls;
mod egress;

use std::convert::Infallible;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderValue, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::json;
use tokio::net::TcpStream;
use tokio::sync::Semaphore;

use super::admin::{bearer, is_from_a_page};
use super::connection::accept_tls;
use super::shared::Shared;
use crate::base::clock::{self, Moment};
use crate::base::fault::Fault;
use crate::lasting::login::flights::Refused;
use crate::lasting::login::{By, Outcome};
use crate::lasting::tasks::{self, Kind};
use crate::parts::broker::{App, Broker, Client, Named};

/// Connections served at a time.
const CONNECTIONS: usize = 512;
/// Longest life of a connection without a request, and of a handshake.
const IDLE: Duration = Duration::from_secs(75);
const HANDSHAKE: Duration = Duration::from_secs(5);
/// Bytes of a head, and its fields.
const HEAD: (usize, usize) = (16 * 1024, 64);

type Answer = Response<Full<Bytes>>;

/// Serves services until the program ends.
pub(crate) fn run(shared: Arc<Shared>, socket: TcpListener) -> std::io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build_local(tokio::runtime::LocalOptions::default())?;
    runtime.block_on(serve(shared, socket))
}

async fn serve(shared: Arc<Shared>, socket: TcpListener) -> std::io::Result<()> {
    let socket = tokio::net::TcpListener::from_std(socket)?;
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return Ok(()) };
        let Ok((stream, peer)) = socket.accept().await else {
            let pause = clock::now().after(Duration::from_millis(50));
            tokio::time::sleep_until(clock::deadline(pause)).await;
            continue;
        };
        let shared = Arc::clone(&shared);
        tasks::local(Kind::Connection, async move {
            greet(shared, stream, peer).await;
            drop(place);
        });
    }
}

/// Looks at who comes, and speaks with him.
async fn greet(shared: Arc<Shared>, stream: TcpStream, peer: SocketAddr) {
    let snapshot = shared.live.snapshot();
    let Some(broker) = snapshot.broker.as_ref().map(Arc::clone) else { return };
    drop(snapshot);
    if !broker.admits(peer.ip()) {
        shared.status.broker_denied.fetch_add(1, Ordering::Relaxed);
        return;
    }
    // A socket that refuses this still carries the answers.
    let _ = stream.set_nodelay(true);
    let Some(certificates) = &broker.tls else { return speak(shared, stream, peer).await };
    let limit = clock::deadline(clock::now().after(HANDSHAKE));
    // Who does not shake hands in time, or shows no certificate where one is wanted, is gone.
    if let Ok(Some(stream)) = tokio::time::timeout_at(limit, accept_tls(certificates, stream)).await
    {
        speak(shared, stream, peer).await;
    }
}

async fn speak<S>(shared: Arc<Shared>, stream: S, peer: SocketAddr)
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + 'static,
{
    let service = service_fn(move |request: Request<Incoming>| {
        let shared = Arc::clone(&shared);
        async move { Ok::<_, Infallible>(answer(&shared, request, peer).await) }
    });
    // A connection that breaks has nobody to be told.
    let _ = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(IDLE)
        .max_buf_size(HEAD.0)
        .max_headers(HEAD.1)
        .serve_connection(TokioIo::new(stream), service)
        .await;
}

/// What a service asks for, once it is known who asks.
struct Question<'a> {
    broker: &'a Broker,
    client: &'a Client,
    app: Arc<App>,
    /// What stands behind the app: `access_token`, `open_data`, or a path of the platform's.
    rest: String,
    query: Option<String>,
    deadline: Moment,
}

async fn answer(shared: &Shared, request: Request<Incoming>, peer: SocketAddr) -> Answer {
    let began = clock::now();
    let snapshot = shared.live.snapshot();
    // Without it there is nobody who may come.
    let Some(broker) = &snapshot.broker else { return refuse(Fault::TokenInvalid.into()) };
    let shown = bearer(request.headers());
    let client = shown.and_then(|shown| broker.client(shown));
    let Some(client) = client.filter(|_| !is_from_a_page(request.headers())) else {
        shared.status.broker_denied.fetch_add(1, Ordering::Relaxed);
        tracing::debug!(%peer, "a service showed no token that is known");
        let fault = if shown.is_none() { Fault::TokenMissing } else { Fault::TokenInvalid };
        let mut answer = refuse(fault.into());
        answer.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        return answer;
    };
    let question = match understand(broker, client, &request, began) {
        Ok(question) => question,
        Err(fault) => return refuse(fault.into()),
    };
    let desk = &question.app.cell.desk;
    let redis = snapshot.settings.redis.as_ref();
    let gateways = redis.map_or(1, |redis| redis.gateways());
    let limit = broker.limits.per_client_second.div_ceil(gateways);
    let verdict = desk.count(By::User(&client.name), limit, Duration::from_secs(1));
    let settled = match verdict.admitted {
        false => Err(Refused { fault: Fault::RateLimited, retry_after: Some(verdict.retry_after) }),
        true => match question.rest.as_str() {
            "access_token" => calls::access_token(&question, request).await,
            "open_data" => calls::open_data(&question, snapshot.login.as_deref(), request).await,
            _ => egress::pass(&question, snapshot.login.as_deref(), request).await,
        },
    };
    match settled {
        Ok(answer) => {
            desk.note(Outcome::Ok);
            answer
        }
        Err(refused) => {
            desk.note(Outcome::Refused(refused.fault));
            let (client, app) = (&client.name, &question.app.id);
            let reason = refused.fault.reason();
            tracing::info!(%client, %app, reason, "a service was refused");
            refuse(refused)
        }
    }
}

/// Takes `/wx/{app}/{rest}` apart.
fn understand<'a>(
    broker: &'a Broker,
    client: &'a Client,
    request: &Request<Incoming>,
    began: Moment,
) -> Result<Question<'a>, Fault> {
    let path = request.uri().path();
    let (app, rest) =
        path.strip_prefix("/wx/").and_then(|rest| rest.split_once('/')).ok_or(Fault::NoRoute)?;
    if !client.acts_for(app) {
        return Err(Fault::CallRefused);
    }
    let app = match broker.app(app) {
        Named::App(app) => app,
        Named::Without => return Err(Fault::NoAccessToken),
        Named::Unknown => return Err(Fault::NoRoute),
    };
    let query = request.uri().query().map(str::to_owned);
    let deadline = began.after(broker.timeout);
    Ok(Question { broker, client, app, rest: rest.to_owned(), query, deadline })
}

fn say(status: StatusCode, body: &serde_json::Value) -> Answer {
    let mut answer = Response::new(Full::new(Bytes::from(format!("{body}\n"))));
    *answer.status_mut() = status;
    let headers = answer.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json; charset=utf-8"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    answer
}

fn refuse(refused: Refused) -> Answer {
    let row = refused.fault.row();
    let body =
        json!({ "code": row.status, "msg": row.message, "data": null, "reason": row.reason });
    let status = StatusCode::from_u16(row.status).unwrap_or(StatusCode::BAD_GATEWAY);
    let mut answer = say(status, &body);
    if let Some(wait) = refused.retry_after {
        // Never sooner than it makes sense.
        let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
        answer.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds.max(1)));
    }
    answer
}
