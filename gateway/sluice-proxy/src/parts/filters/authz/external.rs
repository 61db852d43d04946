//! Asks a service whether a request may pass: a status of 2xx says yes, 3xx and 4xx say no, and 5xx is no
//! answer. Answers are remembered for a while by what they may depend on, which is exactly what the
//! service is told.
//!
//! The one rule: what a client could bring about by how it asks (fields too large for the service, many
//! questions at once) never counts as a service that is gone.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use aws_lc_rs::digest;
use bytes::Bytes;
use foldhash::fast::RandomState;
use http::header::{AUTHORIZATION, COOKIE, HeaderMap, HeaderName, HeaderValue};
use http::request::Parts;
use http::{Request, StatusCode};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio::sync::Semaphore;

use super::super::headers::OURS;
use crate::base::clock::{self, Moment};
use crate::base::cx::Cx;
use crate::base::fault::Fault;
use crate::base::secured::tells_certificate;
use crate::base::units::Span;
use crate::base::yaml::Place;
use crate::lasting::fetch::{Client, Failure, Limits, Url};
use crate::parts::env::Env;

/// Answers remembered at most.
const MOST: usize = 10_000;
/// Questions under way at most; each has a connection of its own.
const AT_A_TIME: usize = 256;

/// A service that says whether a request may pass.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "ExternalAuthz")]
pub(super) struct Config {
    /// Its address, `http://host:port/path`. It is asked by GET without the request's body.
    url: String,
    /// Header fields of the request that it is told, beside method, host, path and client.
    #[serde(default = "default_headers")]
    headers: Vec<String>,
    /// Header fields of its answer that are passed on to services. What a client sends under these names is
    /// removed first, on this route and everywhere else.
    #[serde(default)]
    upstream_headers: Vec<String>,
    /// How long it may take, with the connection.
    #[serde(default = "default_timeout")]
    timeout: Span,
    /// How long an answer is remembered; 0s for not at all.
    #[serde(default = "default_cache")]
    cache: Span,
    /// What happens while it cannot be reached, is too slow, or answers 5xx.
    #[serde(default)]
    on_error: OnError,
}

/// What happens to requests while the service that has to agree does not answer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(rename = "OnAuthzError")]
enum OnError {
    /// They are refused with 503.
    #[default]
    Deny,
    /// They pass.
    Allow,
}

fn default_headers() -> Vec<String> {
    vec![AUTHORIZATION.as_str().to_owned()]
}

fn default_timeout() -> Span {
    Span(Duration::from_millis(200))
}

fn default_cache() -> Span {
    Span(Duration::from_secs(5))
}

impl Config {
    pub(super) fn build(&self, at: &Place<'_>, env: &mut Env<'_>) -> Option<External> {
        let Some(url) = Url::parse(&self.url).filter(|url| !url.is_secure()) else {
            env.problems
                .error(&at.field("url"), "this is not the address of a service over http")
                .help("write http://authz.internal:9000/check");
            return None;
        };
        let mut whole = true;
        let mut names = |field: &str, list: &[String]| {
            let mut names = Vec::new();
            for (index, name) in list.iter().enumerate() {
                let told = field == "headers";
                // What the service may set, no client may send anywhere.
                let credential = |name: &HeaderName| {
                    name == AUTHORIZATION || name == COOKIE || tells_certificate(name.as_str())
                };
                match HeaderName::try_from(name.as_str()) {
                    Ok(name) if !OURS.contains(&name.as_str()) && (told || !credential(&name)) => {
                        names.push(name);
                    }
                    _ => {
                        let message = format!("`{name}` cannot be passed on");
                        env.problems.error(&at.field(field).index(index), message);
                        whole = false;
                    }
                }
            }
            names
        };
        let headers = names("headers", &self.headers);
        let upstream_headers = names("upstream_headers", &self.upstream_headers);
        let (timeout, cache) = (self.timeout.0, self.cache.0);
        if timeout.is_zero() || timeout > Duration::from_secs(10) {
            env.problems.error(&at.field("timeout"), "`timeout` must lie between 1ms and 10s");
            whole = false;
        }
        if cache > Duration::from_secs(300) {
            env.problems.error(&at.field("cache"), "an answer may be remembered for 5m at most");
            whole = false;
        }
        let limits = Limits { connect: timeout, total: timeout, body: 0 };
        whole.then(|| External {
            client: Client { names: Arc::clone(&env.names), tls: None, limits },
            url,
            headers,
            upstream_headers,
            cache,
            on_error: self.on_error,
            known: Mutex::default(),
            room: Semaphore::new(AT_A_TIME),
        })
    }
}

pub(super) struct External {
    client: Client,
    url: Url,
    headers: Vec<HeaderName>,
    upstream_headers: Vec<HeaderName>,
    cache: Duration,
    on_error: OnError,
    /// Locked for a look-up; never over a question.
    known: Mutex<HashMap<[u8; 32], (Moment, Verdict), RandomState>>,
    room: Semaphore,
}

impl std::fmt::Debug for External {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("External").field(&self.url).finish()
    }
}

/// What the service said.
#[derive(Clone)]
enum Verdict {
    /// With these fields for services.
    Yes(Arc<HeaderMap>),
    No(Fault),
}

/// Why there is no verdict to remember.
#[derive(Debug, PartialEq, Eq)]
enum Unsaid {
    /// The service is not there: the config says what follows.
    Gone,
    /// This request does not pass, whatever the config says.
    Refused(Fault),
}

impl External {
    pub(super) fn identity_headers(&self) -> impl Iterator<Item = &HeaderName> {
        self.upstream_headers.iter()
    }

    /// Whether the request may pass; adds what the service says of it.
    pub(super) async fn ask(&self, cx: &Cx, head: &mut Parts) -> Result<(), Fault> {
        let question = self.question(cx, head);
        let key = fingerprint(&question);
        let now = clock::now();
        let verdict = match self.recall(&key, now) {
            Some(verdict) => verdict,
            None => match self.send(question).await {
                Ok(verdict) => {
                    self.remember(key, &verdict, now);
                    verdict
                }
                Err(Unsaid::Gone) if self.on_error == OnError::Allow => return Ok(()),
                Err(Unsaid::Gone) => return Err(Fault::AuthzDown),
                Err(Unsaid::Refused(fault)) => return Err(fault),
            },
        };
        match verdict {
            Verdict::No(fault) => Err(fault),
            Verdict::Yes(fields) => {
                for (name, value) in fields.iter() {
                    head.headers.insert(name.clone(), value.clone());
                }
                Ok(())
            }
        }
    }

    fn question(&self, cx: &Cx, head: &Parts) -> HeaderMap {
        let mut fields = HeaderMap::new();
        for name in &self.headers {
            for value in head.headers.get_all(name) {
                fields.append(name.clone(), value.clone());
            }
        }
        let target = head.uri.path_and_query().map_or("/", http::uri::PathAndQuery::as_str);
        let client = cx.client.to_string();
        let said = [
            ("x-forwarded-method", head.method.as_str()),
            ("x-forwarded-host", cx.host_name()),
            ("x-forwarded-uri", target),
            ("x-forwarded-for", client.as_str()),
        ];
        for (name, value) in said {
            // What no field can hold is left empty, and so says no service yes by mistake.
            let value = HeaderValue::from_str(value).unwrap_or(HeaderValue::from_static(""));
            fields.insert(HeaderName::from_static(name), value);
        }
        fields
    }

    async fn send(&self, fields: HeaderMap) -> Result<Verdict, Unsaid> {
        let place = self.room.try_acquire();
        let _place = place.map_err(|_| Unsaid::Refused(Fault::AuthzDown))?;
        let mut request = Request::new(Bytes::new());
        *request.headers_mut() = fields;
        let answer = self.client.ask(&self.url, request).await.map_err(|failure| {
            tracing::debug!(url = %self.url, %failure, "no word from the authorisation");
            match failure {
                Failure::Name(_) | Failure::Connect(_) | Failure::Timeout => Unsaid::Gone,
                // It was asked, and this request has made it say nothing clear.
                Failure::Tls(_) | Failure::TooLarge | Failure::Broken(_) => {
                    Unsaid::Refused(Fault::AuthzDown)
                }
            }
        })?;
        match answer.status() {
            status if status.is_success() => {
                let mut fields = HeaderMap::new();
                for name in &self.upstream_headers {
                    if let Some(value) = answer.headers().get(name) {
                        fields.insert(name.clone(), value.clone());
                    }
                }
                Ok(Verdict::Yes(Arc::new(fields)))
            }
            StatusCode::UNAUTHORIZED => Ok(Verdict::No(Fault::IdentityMissing)),
            StatusCode::FORBIDDEN => Ok(Verdict::No(Fault::AccessDenied)),
            status => {
                tracing::debug!(url = %self.url, %status, "no word from the authorisation");
                let gone = status.is_server_error();
                Err(if gone { Unsaid::Gone } else { Unsaid::Refused(Fault::AccessDenied) })
            }
        }
    }

    fn recall(&self, key: &[u8; 32], now: Moment) -> Option<Verdict> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.get(key).filter(|(until, _)| *until > now).map(|(_, verdict)| verdict.clone())
    }

    fn remember(&self, key: [u8; 32], verdict: &Verdict, now: Moment) {
        if self.cache.is_zero() {
            return;
        }
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= MOST && !known.contains_key(&key) {
            known.retain(|_, (until, _)| *until > now);
            if known.len() >= MOST {
                known.clear();
            }
        }
        known.insert(key, (now.after(self.cache), verdict.clone()));
    }
}

/// Everything the service is told, so that no answer is given to another question.
fn fingerprint(fields: &HeaderMap) -> [u8; 32] {
    let mut context = digest::Context::new(&digest::SHA256);
    for (name, value) in fields {
        for part in [name.as_str().as_bytes(), value.as_bytes()] {
            context.update(&part.len().to_be_bytes());
            context.update(part);
        }
    }
    let mut out = [0; 32];
    out.copy_from_slice(context.finish().as_ref());
    out
}

#[cfg(test)]
mod tests {
    use sluice_chaos::recorder::{Answer, Recorder};
    use sluice_chaos::rogue::{self, Rogue};

    use super::*;
    use crate::lasting::resolver::Names;

    fn external(address: std::net::SocketAddr, places: usize) -> External {
        let second = Duration::from_secs(5);
        let limits = Limits { connect: second, total: second, body: 0 };
        External {
            client: Client { names: Arc::new(Names::default()), tls: None, limits },
            url: Url::parse(&format!("http://{address}/check")).unwrap(),
            headers: Vec::new(),
            upstream_headers: Vec::new(),
            cache: Duration::ZERO,
            on_error: OnError::Allow,
            known: Mutex::default(),
            room: Semaphore::new(places),
        }
    }

    #[tokio::test]
    async fn only_a_service_that_is_gone_counts_as_gone() {
        let recorder = Recorder::answering(Answer::ok(""));
        let asked = external(recorder.addr(), 1);
        let down = Err(Unsaid::Refused(Fault::AuthzDown));
        let refused = Err(Unsaid::Refused(Fault::AccessDenied));
        let said = async |external: &External| {
            external.send(HeaderMap::new()).await.map(|verdict| match verdict {
                Verdict::Yes(_) => None,
                Verdict::No(fault) => Some(fault),
            })
        };
        for (status, wanted) in [
            (204, Ok(None)),
            (302, Err(Unsaid::Refused(Fault::AccessDenied))),
            (401, Ok(Some(Fault::IdentityMissing))),
            (403, Ok(Some(Fault::AccessDenied))),
            (404, Err(Unsaid::Refused(Fault::AccessDenied))),
            (500, Err(Unsaid::Gone)),
            (503, Err(Unsaid::Gone)),
        ] {
            recorder.set(Answer::new(status));
            assert_eq!(said(&asked).await, wanted, "{status}");
        }
        recorder.set(Answer::new(431));
        assert_eq!(said(&asked).await, refused, "fields that are too large for it");
        recorder.set(Answer::ok(vec![b'x'; 1 << 20]));
        assert_eq!(said(&asked).await, Ok(None), "the head says it all");
        assert_eq!(said(&external(recorder.addr(), 0)).await, down, "no room for the question");
        recorder.stop().await;
        assert_eq!(said(&asked).await, Err(Unsaid::Gone), "no connection");
        let garbage = Rogue::start(rogue::answer("what is this?\r\n\r\n"));
        assert_eq!(said(&external(garbage.addr(), 1)).await, down);
    }
}
