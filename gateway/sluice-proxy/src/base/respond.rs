//! The only maker of error bodies: a [`Fault`] becomes an answer here, in the shape the caller
//! expects (the standard envelope, problem details, or gRPC's trailers-only answer).

use http::header::{ALLOW, CACHE_CONTROL, CONNECTION, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderName, HeaderValue, Response, StatusCode};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::body::Body;
use super::clock;
use super::cx::Cx;
use super::fault::Fault;

/// Shape of the bodies of refusals and failures.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Envelope {
    /// `{"code": <HTTP status>, "msg": …, "data": null, "reason": …, "trace_id": …}`
    #[default]
    Standard,
    /// `{"code": <HTTP status>, "message": …, "reason": …, "trace_id": …}`
    CodeMessage,
    /// `{"data": null, "message": …, "code": <HTTP status>, "reason": …, "trace_id": …}`
    DataMessageCode,
    /// `{"error": …, "reason": …, "trace_id": …}`
    Error,
    /// `application/problem+json` (RFC 9457).
    Problem,
}

/// The answer for `fault`, with everything the record says about it.
pub(crate) fn render(fault: Fault, cx: &mut Cx) -> Response<Body> {
    if cx.grpc {
        return grpc(fault, cx);
    }
    let row = fault.row();
    let mut response = Response::new(Body::full(body(fault, cx)));
    *response.status_mut() = StatusCode::from_u16(row.status).unwrap_or(StatusCode::BAD_GATEWAY);
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type(cx.envelope)));
    // It holds now and for this caller; caches may keep a 404 or 405 that says nothing (RFC 9110 section 15.1).
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    if row.close && cx.http1 {
        headers.insert(CONNECTION, HeaderValue::from_static("close"));
    }
    if let Some(error) = row.proxy_error
        && let Ok(value) = HeaderValue::try_from(format!("sluice; error={error}"))
    {
        headers.insert(HeaderName::from_static("proxy-status"), value);
    }
    if let Some(after) = cx.retry_after {
        headers.insert(RETRY_AFTER, HeaderValue::from(whole_seconds(after)));
    }
    if let Some(allow) = cx.allow.as_ref()
        && let Ok(value) = HeaderValue::try_from(methods(allow))
    {
        headers.insert(ALLOW, value);
    }
    if row.status == 401 {
        headers.insert(WWW_AUTHENTICATE, challenge(fault));
    }
    response
}

/// gRPC's answer without messages: HTTP 200, the status in the head (gRPC over HTTP/2,
/// "Trailers-Only").
fn grpc(fault: Fault, cx: &mut Cx) -> Response<Body> {
    let row = fault.row();
    let mut response = Response::new(Body::empty());
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    headers.insert(HeaderName::from_static("grpc-status"), HeaderValue::from(u16::from(row.grpc)));
    headers.insert(HeaderName::from_static("grpc-message"), HeaderValue::from_static(row.message));
    headers
        .insert(HeaderName::from_static("x-sluice-reason"), HeaderValue::from_static(row.reason));
    if let Some(after) = cx.retry_after {
        headers.insert(RETRY_AFTER, HeaderValue::from(whole_seconds(after)));
    }
    response
}

fn body(fault: Fault, cx: &mut Cx) -> String {
    let (row, trace) = (fault.row(), cx.trace().trace_hex());
    let (status, message, reason) = (row.status, row.message, row.reason);
    let trace = trace.as_str();
    // Every piece is a fixed word of ours, hex, or JSON that was made as such, so nothing needs escaping.
    let data = cx.detail.as_deref();
    let also = data.map(|data| format!(r#""data":{data},"#)).unwrap_or_default();
    let text = match cx.envelope {
        Envelope::Standard => {
            let data = data.unwrap_or("null");
            format!(
                r#""code":{status},"msg":"{message}","data":{data},"reason":"{reason}","trace_id":"{trace}""#
            )
        }
        Envelope::DataMessageCode => {
            let data = data.unwrap_or("null");
            format!(
                r#""data":{data},"message":"{message}","code":{status},"reason":"{reason}","trace_id":"{trace}""#
            )
        }
        Envelope::CodeMessage => format!(
            r#""code":{status},"message":"{message}",{also}"reason":"{reason}","trace_id":"{trace}""#
        ),
        Envelope::Error => {
            format!(r#""error":"{message}",{also}"reason":"{reason}","trace_id":"{trace}""#)
        }
        Envelope::Problem => format!(
            r#""type":"about:blank","title":"{message}","status":{status},{also}"reason":"{reason}","trace_id":"{trace}""#
        ),
    };
    let time = if fault.tells_time() {
        format!(r#","server_time":{}"#, clock::unix_millis())
    } else {
        String::new()
    };
    format!("{{{text}{time}}}\n")
}

fn content_type(envelope: Envelope) -> &'static str {
    match envelope {
        Envelope::Problem => "application/problem+json",
        // Some clients take JSON for Latin-1 unless they are told.
        _ => "application/json; charset=utf-8",
    }
}

/// RFC 6750 section 3: a missing credential gets a bare challenge, a bad one gets the error code.
fn challenge(fault: Fault) -> HeaderValue {
    HeaderValue::from_static(match fault {
        Fault::TokenMissing | Fault::IdentityMissing => "Bearer",
        Fault::SignatureMissing
        | Fault::SignatureInvalid
        | Fault::SignatureExpired
        | Fault::BodyUnsigned
        | Fault::Replayed => "Signature",
        Fault::ApiKeyMissing | Fault::ApiKeyInvalid => "ApiKey",
        Fault::KeyExpired => "Signature, ApiKey",
        Fault::TokenExpired => r#"Bearer error="invalid_token", error_description="expired""#,
        _ => r#"Bearer error="invalid_token""#,
    })
}

fn methods(set: &sluice_engine::matcher::MethodSet) -> String {
    set.iter().collect::<Vec<_>>().join(", ")
}

/// Rounded up: coming back a little late is allowed, a little early is refused again.
pub(crate) fn whole_seconds(duration: std::time::Duration) -> u64 {
    duration.as_secs() + u64::from(duration.subsec_nanos() > 0)
}
