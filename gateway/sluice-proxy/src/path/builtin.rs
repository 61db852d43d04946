//! Services inside the gateway, so that it can be tried and probed without any other.

use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderValue, Response, StatusCode};
use http_body_util::{BodyExt as _, Limited};

use super::record::{Inbound, Record};
use super::{batch, login};
use crate::base::body::Body;
use crate::base::fault::Fault;
use crate::parts::upstream::Builtin;

/// Bytes of a request body that `echo` shows.
const MAX_ECHO: usize = 64 * 1024;

/// Answers in place of a service.
pub(super) async fn serve(
    builtin: Builtin,
    record: &mut Record,
    inbound: &mut Inbound,
) -> Result<Response<Body>, Fault> {
    match builtin {
        Builtin::Echo => echo(record, inbound).await,
        Builtin::Health => Ok(health(record.worker.draining.get())),
        Builtin::Login => login::serve(record, inbound).await,
        Builtin::Refresh => login::refresh::serve(record, inbound).await,
        Builtin::Logout => login::end::logout(record, inbound).await,
        Builtin::Revoke => login::end::revoke(record, inbound).await,
        Builtin::Jwks => login::keys(record),
        Builtin::Batch => batch::serve(record, inbound).await,
        Builtin::OpenData => login::open::serve(record, inbound).await,
        Builtin::PhoneNumber => login::phone::serve(record, inbound).await,
        #[cfg(debug_assertions)]
        #[expect(clippy::panic, reason = "its purpose; debug builds only")]
        Builtin::Panic | Builtin::PanicWhenCompiled => panic!("asked for by `builtin: panic`"),
    }
}

async fn echo(record: &Record, inbound: &mut Inbound) -> Result<Response<Body>, Fault> {
    let body = read_body(record, inbound, MAX_ECHO).await?;
    let head = &inbound.head;
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

/// The whole body of a request, of at most so many bytes, while its client is patient.
pub(super) async fn read_body(
    record: &Record,
    inbound: &mut Inbound,
    most: usize,
) -> Result<Bytes, Fault> {
    let Some(body) = inbound.body.take() else { return Err(Fault::Internal) };
    let limited = Limited::new(body, most).collect();
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
        })?;
    Ok(body.to_bytes())
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
