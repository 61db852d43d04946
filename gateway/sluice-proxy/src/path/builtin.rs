//! Services inside the gateway, so that it can be tried and probed without any other.

use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderValue, Response, StatusCode};
use http_body_util::{BodyExt as _, Limited};

use super::record::{Inbound, Record};
use crate::base::body::Body;
use crate::base::fault::Fault;
use crate::parts::upstream::Builtin;

/// Bytes of a request body that `echo` shows.
const MAX_ECHO: usize = 64 * 1024;

/// Answers in place of a service.
pub(super) async fn serve(
    builtin: Builtin,
    record: &Record,
    inbound: &mut Inbound,
) -> Result<Response<Body>, Fault> {
    match builtin {
        Builtin::Echo => echo(record, inbound).await,
        Builtin::Health => Ok(health(record.worker.draining.get())),
        #[cfg(debug_assertions)]
        #[expect(clippy::panic, reason = "its purpose; debug builds only")]
        Builtin::Panic | Builtin::PanicWhenCompiled => panic!("asked for by `builtin: panic`"),
    }
}

async fn echo(record: &Record, inbound: &mut Inbound) -> Result<Response<Body>, Fault> {
    let Some(body) = inbound.body.take() else { return Err(Fault::Internal) };
    let head = &inbound.head;
    let limited = Limited::new(body, MAX_ECHO).collect();
    let limit = crate::base::clock::deadline(record.cx.started.after(record.cx.peer.body_idle));
    let body = tokio::time::timeout_at(limit, limited)
        .await
        .map_err(|_| Fault::BodyTimeout)?
        .map_err(|error| {
            if error.is::<http_body_util::LengthLimitError>() {
                Fault::BodyTooLarge
            } else {
                Fault::BodyBroken
            }
        })?
        .to_bytes();
    let headers: serde_json::Map<String, serde_json::Value> = head
        .headers
        .iter()
        .map(|(name, value)| (name.to_string(), String::from_utf8_lossy(value.as_bytes()).into()))
        .collect();
    let shown = serde_json::json!({
        "method": head.method.as_str(),
        "host": record.cx.host_name(),
        "path": head.uri.path(),
        "query": head.uri.query(),
        "headers": headers,
        "body": String::from_utf8_lossy(&body),
        "route": &*record.route().id,
        "client": record.cx.client.to_string(),
    });
    Ok(json(StatusCode::OK, format!("{shown}\n")))
}

fn health(draining: bool) -> Response<Body> {
    let (status, text) = if draining {
        (StatusCode::SERVICE_UNAVAILABLE, "{\"status\":\"draining\"}\n")
    } else {
        (StatusCode::OK, "{\"status\":\"up\"}\n")
    };
    json(status, text.to_owned())
}

fn json(status: StatusCode, text: String) -> Response<Body> {
    let mut response = Response::new(Body::full(text));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
