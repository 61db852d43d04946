//! Active health checks: asks every endpoint regularly and takes those out of use that do not answer
//! well. The verdict is kept with the address and survives reloads; the asking belongs to the current
//! compilation.

use std::collections::HashMap;
use std::sync::{Arc, Weak};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Empty;
use hyper_util::rt::{TokioExecutor, TokioIo};
use schemars::JsonSchema;
use serde::Deserialize;

use super::endpoints::Endpoint;
use super::{Kind, Upstream};
use crate::base::clock;
use crate::base::units::Span;
use crate::base::yaml::Place;
use crate::lasting::link::Protocol;
use crate::lasting::tasks::{self, Owned};
use crate::parts::env::Env;

/// Regular questions to every endpoint.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Config {
    /// Path to ask with GET; any answer from 200 to 399 is well.
    http: String,
    /// Time between questions to one endpoint.
    #[serde(default = "default_interval")]
    interval: Span,
    /// How long an answer may take.
    #[serde(default = "default_timeout")]
    timeout: Span,
    /// Good answers in a row that bring an endpoint back.
    #[serde(default = "default_rise")]
    rise: u32,
    /// Bad answers in a row that take an endpoint out.
    #[serde(default = "default_fall")]
    fall: u32,
}

fn default_interval() -> Span {
    Span(Duration::from_secs(5))
}

fn default_timeout() -> Span {
    Span(Duration::from_secs(2))
}

fn default_rise() -> u32 {
    2
}

fn default_fall() -> u32 {
    3
}

/// A compiled health check.
#[derive(Debug, Clone)]
pub(crate) struct Probe {
    path: http::uri::PathAndQuery,
    interval: Duration,
    timeout: Duration,
    rise: u32,
    fall: u32,
}

impl Config {
    pub(crate) fn build(&self, at: &Place<'_>, env: &mut Env<'_>) -> Option<Probe> {
        let path = self.http.starts_with('/').then(|| self.http.parse().ok()).flatten();
        if path.is_none() {
            env.problems
                .error(&at.field("http"), format!("`{}` is not a path", self.http))
                .help("write the path to ask for, like /health");
        }
        let fine = Duration::from_millis(50)..=Duration::from_secs(600);
        let mut whole = true;
        for (key, span) in [("interval", self.interval), ("timeout", self.timeout)] {
            if !fine.contains(&span.0) {
                whole = false;
                env.problems
                    .error(&at.field(key), format!("`{key}` must lie between 50ms and 10m"));
            }
        }
        for (key, count) in [("rise", self.rise), ("fall", self.fall)] {
            if count == 0 {
                whole = false;
                env.problems.error(&at.field(key), format!("`{key}` starts at 1"));
            }
        }
        whole.then_some(())?;
        Some(Probe {
            path: path?,
            interval: self.interval.0,
            timeout: self.timeout.0,
            rise: self.rise,
            fall: self.fall,
        })
    }
}

/// Starts asking.
pub(crate) fn watch(upstream: &Arc<Upstream>) {
    let Kind::Service(service) = &upstream.kind else { return };
    let Some(probe) = service.health_check.clone() else {
        // Without a check nobody would ever bring back what an earlier one took out.
        for endpoint in &service.endpoints.load().endpoints {
            endpoint.target.set_up(true);
        }
        return;
    };
    let weak = Arc::downgrade(upstream);
    let asking =
        tasks::supervise("health_check", move || rounds(Weak::clone(&weak), probe.clone()));
    let task = Owned::new(tasks::control(asking));
    if let Ok(mut background) = service.background.lock() {
        background.push(task);
    }
}

/// Who is this late was kept from running.
const STALL: Duration = Duration::from_millis(500);

/// Answers in a row that differ from the verdict in force, by link.
type Streaks = HashMap<u64, u32>;

async fn rounds(upstream: Weak<Upstream>, probe: Probe) {
    let mut streaks = Streaks::new();
    loop {
        let Some(current) = upstream.upgrade() else { return };
        let Kind::Service(service) = &current.kind else { return };
        let set = service.endpoints.load_full();
        let asked = set.endpoints.iter().map(|endpoint| ask(endpoint, &probe));
        let answers = futures_util::future::join_all(asked).await;
        for (endpoint, answer) in set.endpoints.iter().zip(answers) {
            if let Some(answer) = answer {
                judge(&current.name, endpoint, answer, &probe, &mut streaks);
            }
        }
        drop((set, current));
        // A tenth of jitter keeps many gateways from asking in step.
        let jitter = probe.interval.mul_f64(0.9 + 0.2 * fastrand::f64());
        tokio::time::sleep_until(clock::deadline(clock::now().after(jitter))).await;
    }
}

fn judge(
    upstream: &str,
    endpoint: &Endpoint,
    answer: Result<(), String>,
    probe: &Probe,
    streaks: &mut Streaks,
) {
    let up = endpoint.target.is_up();
    if answer.is_ok() == up {
        streaks.remove(&endpoint.link.id);
        return;
    }
    let streak = streaks.entry(endpoint.link.id).or_insert(0);
    *streak += 1;
    let needed = if up { probe.fall } else { probe.rise };
    if *streak < needed {
        return;
    }
    streaks.remove(&endpoint.link.id);
    endpoint.target.set_up(!up);
    match answer {
        Ok(()) => {
            endpoint.target.came(clock::now());
            tracing::info!(upstream, endpoint = %endpoint.label, "healthy again");
        }
        Err(why) => {
            tracing::warn!(upstream, endpoint = %endpoint.label, why, "unhealthy; taken out of use")
        }
    }
}

/// One question on a connection of its own. `None` if the gateway itself did not run meanwhile: then
/// its being late says nothing about the endpoint.
async fn ask(endpoint: &Endpoint, probe: &Probe) -> Option<Result<(), String>> {
    let limit = clock::now().after(probe.timeout);
    let answer = tokio::time::timeout_at(clock::deadline(limit), exchange(endpoint, probe)).await;
    match answer {
        Ok(Ok(status)) if status.is_success() || status.is_redirection() => Some(Ok(())),
        Ok(Ok(status)) => Some(Err(format!("status {status}"))),
        _ if clock::now() > limit.after(STALL) => None,
        Ok(Err(error)) => Some(Err(error.to_string())),
        Err(_) => Some(Err("no answer in time".to_owned())),
    }
}

type AnyError = Box<dyn std::error::Error + Send + Sync>;

async fn exchange(endpoint: &Endpoint, probe: &Probe) -> Result<http::StatusCode, AnyError> {
    let link = &endpoint.link;
    let stream = tokio::net::TcpStream::connect(link.address).await?;
    match &link.shape.tls {
        None => speak(TokioIo::new(stream), endpoint, probe).await,
        Some(tls) => {
            let connector = tokio_rustls::TlsConnector::from(Arc::clone(&tls.config));
            let stream = connector.connect(tls.server_name.clone(), stream).await?;
            speak(TokioIo::new(stream), endpoint, probe).await
        }
    }
}

async fn speak<I>(io: I, endpoint: &Endpoint, probe: &Probe) -> Result<http::StatusCode, AnyError>
where
    I: hyper::rt::Read + hyper::rt::Write + Unpin + Send + 'static,
{
    let request = http::Request::get(http::Uri::from(probe.path.clone()))
        .header(http::header::HOST, &endpoint.host)
        .header(http::header::USER_AGENT, "sluice-health-check");
    match endpoint.link.shape.protocol {
        Protocol::Http1 => {
            let (mut sender, connection) = hyper::client::conn::http1::handshake(io).await?;
            let _task = Owned::new(tasks::control(async move { drop(connection.await) }));
            Ok(sender.send_request(request.body(Empty::<Bytes>::new())?).await?.status())
        }
        Protocol::Http2 => {
            let (mut sender, connection) =
                hyper::client::conn::http2::handshake(TokioExecutor::new(), io).await?;
            let _task = Owned::new(tasks::control(async move { drop(connection.await) }));
            let scheme = if endpoint.link.shape.tls.is_some() { "https" } else { "http" };
            let authority = endpoint.host.to_str()?;
            let uri = http::Uri::builder()
                .scheme(scheme)
                .authority(authority)
                .path_and_query(probe.path.clone())
                .build()?;
            let request = http::Request::get(uri).body(Empty::<Bytes>::new())?;
            Ok(sender.send_request(request).await?.status())
        }
    }
}
