//! One question of a health check, on a connection of its own: by HTTP, by gRPC's health protocol, or by
//! making the connection.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::uri::{Authority, PathAndQuery};
use http::{HeaderValue, Method, Request, Response, Uri, header};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo};

use super::super::endpoints::Endpoint;
use crate::base::clock;
use crate::lasting::link::Protocol;
use crate::lasting::tasks::{self, Owned};

/// Longest name of a gRPC service, so that its length is one byte.
pub(super) const MAX_SERVICE: usize = 127;
/// Largest answer to a gRPC check, bytes; a good one has 7.
const MAX_ANSWER: usize = 1024;
/// Who is this late was kept from running.
const STALL: Duration = Duration::from_millis(500);

/// What is asked.
#[derive(Debug, Clone)]
pub(super) enum Question {
    Http { path: PathAndQuery, host: Option<Authority>, expect: Vec<Statuses> },
    Tcp,
    Grpc { service: String, host: Option<Authority> },
}

/// Statuses from one to another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Statuses(u16, u16);

impl Statuses {
    /// `204` or `200-399`.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        let status = |text: &str| {
            let status = text.trim().parse::<u16>().ok();
            status.filter(|status| (200..600).contains(status))
        };
        let (first, last) = (status(first)?, status(last)?);
        (first <= last).then_some(Self(first, last))
    }
}

/// `None` if the gateway itself did not run meanwhile: then its being late says nothing about the
/// endpoint.
pub(super) async fn ask(
    endpoint: &Endpoint,
    question: &Question,
    timeout: Duration,
) -> Option<Result<(), String>> {
    let limit = clock::now().after(timeout);
    let answer = tokio::time::timeout_at(clock::deadline(limit), connect(endpoint, question)).await;
    match answer {
        Ok(Ok(verdict)) => Some(verdict),
        _ if clock::now() > limit.after(STALL) => None,
        Ok(Err(error)) => Some(Err(told(&*error))),
        Err(_) => Some(Err("no answer in time".to_owned())),
    }
}

type AnyError = Box<dyn std::error::Error + Send + Sync>;
/// Well, or why not.
type Verdict = Result<(), String>;

/// An error with its causes.
fn told(error: &(dyn std::error::Error + 'static)) -> String {
    let causes = std::iter::successors(error.source(), |error| error.source());
    causes.fold(error.to_string(), |told, cause| format!("{told}: {cause}"))
}

async fn connect(endpoint: &Endpoint, question: &Question) -> Result<Verdict, AnyError> {
    let link = &endpoint.link;
    let stream = tokio::net::TcpStream::connect(link.address).await?;
    if matches!(question, Question::Tcp) {
        return Ok(Ok(()));
    }
    match &link.shape.tls {
        None => speak(TokioIo::new(stream), endpoint, question).await,
        Some(tls) => {
            let connector = tokio_rustls::TlsConnector::from(Arc::clone(&tls.config));
            let stream = connector.connect(tls.server_name.clone(), stream).await?;
            speak(TokioIo::new(stream), endpoint, question).await
        }
    }
}

async fn speak<I>(io: I, endpoint: &Endpoint, question: &Question) -> Result<Verdict, AnyError>
where
    I: hyper::rt::Read + hyper::rt::Write + Unpin + Send + 'static,
{
    let request = question.request(endpoint)?;
    match endpoint.link.shape.protocol {
        Protocol::Http1 => {
            let (mut sender, connection) = hyper::client::conn::http1::handshake(io).await?;
            let _task = Owned::new(tasks::control(async move { drop(connection.await) }));
            question.judge(sender.send_request(request).await?).await
        }
        Protocol::Http2 => {
            let (mut sender, connection) =
                hyper::client::conn::http2::handshake(TokioExecutor::new(), io).await?;
            let _task = Owned::new(tasks::control(async move { drop(connection.await) }));
            question.judge(sender.send_request(request).await?).await
        }
    }
}

impl Question {
    fn request(&self, endpoint: &Endpoint) -> Result<Request<Full<Bytes>>, AnyError> {
        let (method, path, host, body) = match self {
            Self::Http { path, host, .. } => (Method::GET, path.clone(), host, Bytes::new()),
            Self::Grpc { service, host } => {
                let path = PathAndQuery::from_static("/grpc.health.v1.Health/Check");
                (Method::POST, path, host, grpc_request(service))
            }
            Self::Tcp => return Err("nothing is said".into()),
        };
        let host = match host {
            Some(host) => HeaderValue::try_from(host.as_str())?,
            None => endpoint.host.clone(),
        };
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = method;
        let headers = request.headers_mut();
        headers.insert(header::USER_AGENT, HeaderValue::from_static("sluice-health-check"));
        if matches!(self, Self::Grpc { .. }) {
            headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
            headers.insert(header::TE, HeaderValue::from_static("trailers"));
        }
        *request.uri_mut() = match endpoint.link.shape.protocol {
            Protocol::Http1 => {
                headers.insert(header::HOST, host);
                Uri::from(path)
            }
            Protocol::Http2 => Uri::builder()
                .scheme(if endpoint.link.shape.tls.is_some() { "https" } else { "http" })
                .authority(host.to_str()?)
                .path_and_query(path)
                .build()?,
        };
        Ok(request)
    }

    async fn judge(&self, answer: Response<Incoming>) -> Result<Verdict, AnyError> {
        let status = answer.status().as_u16();
        match self {
            Self::Http { expect, .. } => {
                let well =
                    expect.iter().any(|Statuses(first, last)| (*first..=*last).contains(&status));
                Ok(if well { Ok(()) } else { Err(format!("status {status}")) })
            }
            Self::Grpc { .. } if status == 200 => grpc_verdict(answer).await,
            Self::Grpc { .. } | Self::Tcp => Ok(Err(format!("status {status}"))),
        }
    }
}

/// A `HealthCheckRequest`: its field 1 is the service, behind the five bytes of gRPC's framing.
fn grpc_request(service: &str) -> Bytes {
    let mut message = Vec::new();
    if let (1.., Ok(length)) = (service.len(), u8::try_from(service.len())) {
        message.extend([0x0a, length]);
        message.extend(service.as_bytes());
    }
    let length = u32::try_from(message.len()).unwrap_or_default();
    [&[0][..], &length.to_be_bytes(), &message].concat().into()
}

/// Reads what the server says of itself, and the status of the call in trailers or, where there is no
/// answer, in the head.
async fn grpc_verdict(answer: Response<Incoming>) -> Result<Verdict, AnyError> {
    let (head, body) = answer.into_parts();
    let whole = Limited::new(body, MAX_ANSWER).collect().await?;
    let of = |headers: &http::HeaderMap| headers.get("grpc-status").cloned();
    let status = whole.trailers().and_then(of).or_else(|| of(&head.headers));
    match status.as_ref().map(HeaderValue::as_bytes) {
        Some(b"0") => {}
        Some(b"5") => return Ok(Err("the server does not know this service".to_owned())),
        Some(b"12") => return Ok(Err("the server has no health service".to_owned())),
        Some(other) => {
            return Ok(Err(format!("gRPC status {}", String::from_utf8_lossy(other))));
        }
        None => return Ok(Err("no gRPC status".to_owned())),
    }
    let message = whole.to_bytes();
    Ok(match serving(&message) {
        Some(1) => Ok(()),
        Some(0) => Err("UNKNOWN".to_owned()),
        Some(2) => Err("NOT_SERVING".to_owned()),
        Some(3) => Err("SERVICE_UNKNOWN".to_owned()),
        _ => Err("not a health check's answer".to_owned()),
    })
}

/// Field 1 of a `HealthCheckResponse`; 0 where it is left out, as that value is.
fn serving(framed: &[u8]) -> Option<u8> {
    let (prefix, message) = framed.split_at_checked(5)?;
    let [0, length @ ..] = prefix else { return None };
    let length = u32::from_be_bytes(length.try_into().ok()?);
    if usize::try_from(length).ok()? != message.len() {
        return None;
    }
    match message {
        [] => Some(0),
        [0x08, status] if *status < 0x80 => Some(*status),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_are_one_or_a_span() {
        assert_eq!(Statuses::parse("204"), Some(Statuses(204, 204)));
        assert_eq!(Statuses::parse("200 - 399"), Some(Statuses(200, 399)));
        for wrong in ["", "2xx", "100", "600", "399-200", "200-", "-200", "200-299-300"] {
            assert_eq!(Statuses::parse(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn grpc_messages_are_framed() {
        assert_eq!(grpc_request("")[..], [0, 0, 0, 0, 0]);
        assert_eq!(grpc_request("ab")[..], [0, 0, 0, 0, 4, 0x0a, 2, b'a', b'b']);
        assert_eq!(serving(&[0, 0, 0, 0, 2, 8, 1]), Some(1));
        assert_eq!(serving(&[0, 0, 0, 0, 0]), Some(0));
        for wrong in [
            &[][..],
            &[0, 0, 0, 0],
            &[1, 0, 0, 0, 2, 8, 1],
            &[0, 0, 0, 0, 3, 8, 1],
            &[0, 0, 0, 0, 2, 9, 1],
        ] {
            assert_eq!(serving(wrong), None, "{wrong:?}");
        }
    }
}
