//! The operators' door: metrics, readiness, and what is in force. On a thread and runtime of its own,
//! on loopback only; it answers while the data plane is busy. What it shows, it shows to everybody who can
//! reach it; what can be changed, and by whom, stands in `writes`.

mod audit;
mod upstreams;
mod writes;

use std::convert::Infallible;
use std::net::{SocketAddr, TcpListener};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, HOST};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use prometheus::Registry;
use serde_json::json;
use tokio::sync::Semaphore;

use self::audit::Audit;
pub(super) use self::writes::{bearer, is_from_a_page};
use super::breakers::{self, Listed};
use super::scrape;
use super::shared::Shared;
use crate::base::clock;
use crate::lasting::tasks::{self, Kind as TaskKind};

/// Connections served at a time.
const CONNECTIONS: usize = 64;
/// Longest life of a connection without a request.
const IDLE: Duration = Duration::from_secs(30);

/// What the path of one breaker's page begins with.
const BREAKER: &str = "/breakers/";

type Answer = Response<Full<Bytes>>;

/// Serves operators until the program ends.
pub(crate) fn run(shared: Arc<Shared>, socket: TcpListener) -> std::io::Result<()> {
    let registry = scrape::registry(&shared).map_err(std::io::Error::other)?;
    let admin = Arc::new(Admin { shared, registry, audit: Mutex::default() });
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build_local(tokio::runtime::LocalOptions::default())?;
    runtime.block_on(serve(admin, socket))
}

struct Admin {
    shared: Arc<Shared>,
    registry: Registry,
    /// Held for a few lines, and by this thread only.
    audit: Mutex<Audit>,
}

async fn serve(admin: Arc<Admin>, socket: TcpListener) -> std::io::Result<()> {
    let socket = tokio::net::TcpListener::from_std(socket)?;
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return Ok(()) };
        let Ok((stream, peer)) = socket.accept().await else {
            tokio::time::sleep_until(clock::deadline(
                clock::now().after(Duration::from_millis(50)),
            ))
            .await;
            continue;
        };
        let admin = Arc::clone(&admin);
        tasks::local(TaskKind::Control, async move {
            let service = service_fn(move |request: Request<Incoming>| {
                let admin = Arc::clone(&admin);
                async move { Ok::<_, Infallible>(admin.answer(request, peer).await) }
            });
            let _ = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(IDLE)
                .serve_connection(TokioIo::new(stream), service)
                .await;
            drop(place);
        });
    }
}

impl Admin {
    async fn answer(&self, request: Request<Incoming>, peer: SocketAddr) -> Answer {
        if !is_local(request.headers()) {
            return text(
                StatusCode::FORBIDDEN,
                "the Host of an admin request must be a loopback name\n",
            );
        }
        if matches!(*request.method(), Method::GET | Method::HEAD) {
            return self.page(request.uri().path());
        }
        self.write(request, peer).await
    }

    fn page(&self, path: &str) -> Answer {
        match path {
            "/" => text(
                StatusCode::OK,
                "/metrics /livez /readyz /config /routes /upstreams /breakers /audit /jwks\n",
            ),
            "/livez" => text(StatusCode::OK, "alive\n"),
            "/readyz" => self.ready(),
            "/metrics" => self.metrics(),
            "/config" => self.config(),
            "/routes" => self.routes(),
            "/upstreams" => self.upstreams(),
            "/jwks" => self.jwks(),
            "/audit" => show(&self.audit.lock().unwrap_or_else(PoisonError::into_inner).show()),
            "/breakers" => self.breakers(),
            path => match path.strip_prefix(BREAKER) {
                Some(name) => self.breaker(name),
                None => text(StatusCode::NOT_FOUND, "no such page; see /\n"),
            },
        }
    }

    fn ready(&self) -> Answer {
        if self.shared.is_ready() {
            text(StatusCode::OK, "ready\n")
        } else if self.shared.status.draining.load(Ordering::Acquire) {
            text(StatusCode::SERVICE_UNAVAILABLE, "draining\n")
        } else {
            text(StatusCode::SERVICE_UNAVAILABLE, "starting\n")
        }
    }

    fn metrics(&self) -> Answer {
        match scrape::text(&self.registry) {
            Ok(bytes) => respond(StatusCode::OK, prometheus::TEXT_FORMAT, bytes),
            Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, &format!("{error}\n")),
        }
    }

    /// What is in force, without any value that could be secret.
    fn config(&self) -> Answer {
        let snapshot = self.shared.live.snapshot();
        let status = &self.shared.status;
        let listeners: Vec<_> = snapshot
            .listeners
            .iter()
            .map(|l| json!({ "name": &*l.name, "address": l.address, "tls": l.tls.is_some() }))
            .collect();
        let problems = status.last_problems.lock().unwrap_or_else(PoisonError::into_inner).clone();
        show(&json!({
            "hash": snapshot.hash,
            "generation": status.generation.load(Ordering::Relaxed),
            "accepted_at": status.last_success.load(Ordering::Relaxed),
            "last_reload_successful": status.last_reload_ok.load(Ordering::Relaxed),
            "last_problems": if problems.is_empty() { None } else { Some(problems) },
            "development": snapshot.settings.development,
            "listeners": listeners,
            "routes": snapshot.routes.len(),
            "upstreams": snapshot.upstreams.len(),
            "limits_kept_in": snapshot.settings.redis.as_ref().map_or_else(
                || "process".to_owned(),
                |redis| format!("redis {}", redis.address()),
            ),
        }))
    }

    fn routes(&self) -> Answer {
        let snapshot = self.shared.live.snapshot();
        let routes: Vec<_> = snapshot
            .router
            .order()
            .into_iter()
            .filter_map(|index| snapshot.routes.get(index))
            .map(|route| json!({ "id": &*route.id, "match": route.outline }))
            .collect();
        show(&json!({ "in_order_of_precedence": routes }))
    }

    /// Keys that come from issuers: their names and ages.
    fn jwks(&self) -> Answer {
        let snapshot = self.shared.live.snapshot();
        let sets: Vec<_> = snapshot.key_sets.iter().map(|source| source.outline()).collect();
        show(&json!({ "key_sets": sets }))
    }

    fn upstreams(&self) -> Answer {
        let snapshot = self.shared.live.snapshot();
        let upstreams: serde_json::Map<String, serde_json::Value> = snapshot
            .upstreams
            .iter()
            .map(|(name, upstream)| (name.clone(), upstreams::outline(&upstream.kind)))
            .collect();
        show(&upstreams)
    }

    fn breakers(&self) -> Answer {
        let now = clock::now();
        let breakers: serde_json::Map<String, serde_json::Value> =
            breakers::all(&self.shared.live.snapshot())
                .into_iter()
                .map(|breaker| (breaker.name.clone(), breaker.summary(now)))
                .collect();
        show(&breakers)
    }

    fn breaker(&self, name: &str) -> Answer {
        match self.find(name) {
            Some(breaker) => show(&breaker.timeline(clock::now())),
            None => text(StatusCode::NOT_FOUND, "no such breaker; see /breakers\n"),
        }
    }

    /// A breaker by its name as it stands in a path.
    fn find(&self, name: &str) -> Option<Listed> {
        let name = unescape(name)?;
        let all = breakers::all(&self.shared.live.snapshot());
        all.into_iter().find(|breaker| breaker.name == name)
    }
}

/// Undoes the escapes of a path (RFC 3986 section 2.1).
fn unescape(text: &str) -> Option<String> {
    let mut parts = text.split('%');
    let mut bytes = parts.next()?.as_bytes().to_vec();
    for part in parts {
        let (digits, rest) = part.split_at_checked(2)?;
        let digits = digits.bytes().all(|b| b.is_ascii_hexdigit()).then_some(digits)?;
        bytes.push(u8::from_str_radix(digits, 16).ok()?);
        bytes.extend_from_slice(rest.as_bytes());
    }
    String::from_utf8(bytes).ok()
}

/// A page in a browser must not reach the admin port by a name that resolves to loopback.
fn is_local(headers: &HeaderMap) -> bool {
    let Some(host) = headers.get(HOST).and_then(|host| host.to_str().ok()) else { return false };
    let name = host.rsplit_once(':').map_or(host, |(name, port)| {
        if port.bytes().all(|b| b.is_ascii_digit()) { name } else { host }
    });
    let bare = name.trim_start_matches('[').trim_end_matches(']');
    // Without brackets the end of an IPv6 address looks like a port.
    bare.eq_ignore_ascii_case("localhost")
        || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
        || bare.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

fn show(value: &impl serde::Serialize) -> Answer {
    let mut bytes = serde_json::to_vec_pretty(value).unwrap_or_default();
    bytes.push(b'\n');
    respond(StatusCode::OK, "application/json", bytes)
}

fn not_allowed(allowed: &'static str, why: &str) -> Answer {
    let mut answer = text(StatusCode::METHOD_NOT_ALLOWED, why);
    answer.headers_mut().insert(ALLOW, HeaderValue::from_static(allowed));
    answer
}

fn text(status: StatusCode, body: &str) -> Answer {
    respond(status, "text/plain; charset=utf-8", body.as_bytes().to_vec())
}

fn respond(status: StatusCode, kind: &'static str, body: Vec<u8>) -> Answer {
    let mut answer = Response::new(Full::new(Bytes::from(body)));
    *answer.status_mut() = status;
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    answer.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    answer
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_are_undone() {
        assert_eq!(unescape("route:a%20b%2Fc").as_deref(), Some("route:a b/c"));
        for bad in ["%", "%4", "%zz", "%+1", "%ff", "a%é"] {
            assert_eq!(unescape(bad), None, "{bad}");
        }
    }

    #[test]
    fn only_loopback_names_reach_the_admin_port() {
        let with = |host: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(HOST, HeaderValue::try_from(host).unwrap());
            is_local(&headers)
        };
        for good in ["127.0.0.1:9901", "localhost", "LOCALHOST:1", "[::1]:9901", "[::1]"] {
            assert!(with(good), "{good}");
        }
        for bad in ["evil.example:9901", "10.0.0.1", "127.0.0.1.evil.io", ""] {
            assert!(!with(bad), "{bad}");
        }
        assert!(!is_local(&HeaderMap::new()));
    }
}
