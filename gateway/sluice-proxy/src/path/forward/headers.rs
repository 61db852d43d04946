//! Header fields at the border to the service: who asked, by which way, for which host; and on the
//! way back what ends at this hop.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use http::header::{
    CONNECTION, CONTENT_LENGTH, FORWARDED, HOST, TE, TRANSFER_ENCODING, UPGRADE, VIA,
};
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{HeaderMap, HeaderName, HeaderValue, Request, Uri, Version};

use super::super::admission::{Wants, instance, remove_nominated};
use super::super::survey::HOP_BY_HOP;
use crate::base::body::Upload;
use crate::base::cx::Cx;
use crate::lasting::link::{Link, Protocol};
use crate::parts::upstream::endpoints::Endpoint;
use crate::parts::upstream::{HostMode, Service};

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const X_FORWARDED_PORT: HeaderName = HeaderName::from_static("x-forwarded-port");
/// Fields that [`introduce`] and [`address`] add.
const INTRODUCED: usize = 8;
const X_REAL_IP: HeaderName = HeaderName::from_static("x-real-ip");

/// Addresses a request to an endpoint, in the protocol spoken there. Doing it twice gives the same.
pub(super) fn address(
    request: &mut Request<Upload>,
    endpoint: &Endpoint,
    service: &Service,
    cx: &Cx,
    wants: Wants,
) {
    let host = match (&cx.upstream_host, &service.host) {
        (Some(host), _) => host.clone(),
        (None, HostMode::Fixed(host)) => host.clone(),
        (None, HostMode::Endpoint) => endpoint.host.clone(),
        (None, HostMode::Client) => {
            cx.host.as_ref().map_or_else(|| endpoint.host.clone(), |host| host.value().clone())
        }
    };
    let length_known = http_body::Body::is_end_stream(request.body())
        || request.headers().contains_key(CONTENT_LENGTH);
    let headers = request.headers_mut();
    let trailers = wants.trailers && !wants.websocket;
    if trailers {
        headers.insert(TE, HeaderValue::from_static("trailers"));
    }
    match service.protocol {
        Protocol::Http1 => {
            if wants.websocket {
                headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
                headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
            }
            if trailers {
                // RFC 9110 section 10.1.4: the wish ends at the next hop and has to say so.
                headers.insert(CONNECTION, HeaderValue::from_static("te"));
            }
            if !length_known {
                // Without it hyper sends a GET's body not at all.
                headers.insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
            }
            headers.insert(HOST, host);
            *request.version_mut() = Version::HTTP_11;
        }
        Protocol::Http2 => {
            headers.remove(HOST);
            let secure = endpoint.link.shape.tls.is_some();
            let uri = absolute(request.uri(), &host, secure);
            *request.uri_mut() = uri;
            *request.version_mut() = Version::HTTP_2;
        }
    }
}

/// Says who asked and that the request came this way, once however many attempts are made. What an
/// untrusted client said about this has been removed before.
pub(super) fn introduce(headers: &mut HeaderMap, version: Version, cx: &Cx) {
    let peer = &cx.peer;
    // Growing once is cheaper than with every field.
    headers.reserve(INTRODUCED);
    match headers.get(&X_FORWARDED_FOR) {
        // Only a trusted proxy's list has survived admission; it grows by that proxy's address.
        Some(_) => {
            let lines = headers.get_all(&X_FORWARDED_FOR);
            let mut parts: Vec<&[u8]> = lines.iter().map(HeaderValue::as_bytes).collect();
            parts.push(peer.address_value.as_bytes());
            if let Ok(list) = HeaderValue::from_bytes(&parts.join(&b", "[..])) {
                headers.insert(X_FORWARDED_FOR, list);
            }
        }
        None => {
            headers.insert(X_FORWARDED_FOR, peer.address_value.clone());
        }
    }
    headers.insert(X_REAL_IP, client_value(cx));
    if !(cx.peer_trusted && headers.contains_key(&X_FORWARDED_PROTO)) {
        let proto = if peer.secure { "https" } else { "http" };
        headers.insert(X_FORWARDED_PROTO, HeaderValue::from_static(proto));
    }
    if !(cx.peer_trusted && headers.contains_key(&X_FORWARDED_PORT)) {
        headers.insert(X_FORWARDED_PORT, peer.port_value.clone());
    }
    if !(cx.peer_trusted && headers.contains_key(&X_FORWARDED_HOST))
        && let Some(host) = &cx.host
    {
        headers.insert(X_FORWARDED_HOST, host.value().clone());
    }
    if cx.forwarded_header {
        headers.append(FORWARDED, forwarded(cx));
    }
    headers.append(VIA, via(version));
}

/// One element of RFC 7239: the peer it came from, the host it asked for, and over what.
fn forwarded(cx: &Cx) -> HeaderValue {
    let proto = if cx.peer.secure { "https" } else { "http" };
    let peer = match cx.peer.address.ip().to_canonical() {
        IpAddr::V4(address) => address.to_string(),
        IpAddr::V6(address) => format!("\"[{address}]\""),
    };
    let host = cx.host.as_ref().and_then(|host| host.value().to_str().ok());
    let text = match host {
        Some(host) => format!("for={peer};host=\"{host}\";proto={proto}"),
        None => format!("for={peer};proto={proto}"),
    };
    HeaderValue::try_from(text).unwrap_or_else(|_| HeaderValue::from_static("for=unknown"))
}

fn client_value(cx: &Cx) -> HeaderValue {
    let peer: IpAddr = cx.peer.address.ip().to_canonical();
    if cx.client == peer {
        return cx.peer.address_value.clone();
    }
    HeaderValue::try_from(cx.client.to_string()).unwrap_or_else(|_| cx.peer.address_value.clone())
}

/// RFC 9110 section 7.6.3: the version in which we received the request, and who we are.
fn via(version: Version) -> HeaderValue {
    static VALUES: std::sync::OnceLock<[HeaderValue; 3]> = std::sync::OnceLock::new();
    let make = |version: &str| {
        HeaderValue::try_from(format!("{version} {}", instance()))
            .unwrap_or_else(|_| HeaderValue::from_static("1.1 sluice"))
    };
    let [zero, one, two] = VALUES.get_or_init(|| ["1.0", "1.1", "2.0"].map(make));
    match version {
        Version::HTTP_10 => zero.clone(),
        Version::HTTP_2 => two.clone(),
        _ => one.clone(),
    }
}

/// HTTP/2 wants scheme and authority in the target. A URI that cannot be built keeps its path, and
/// hyper refuses to send it.
fn absolute(uri: &Uri, host: &HeaderValue, secure: bool) -> Uri {
    let mut parts = http::uri::Parts::default();
    parts.scheme = Some(if secure { Scheme::HTTPS } else { Scheme::HTTP });
    parts.authority = Authority::try_from(host.as_bytes()).ok();
    parts.path_and_query =
        uri.path_and_query().cloned().or_else(|| Some(PathAndQuery::from_static("/")));
    Uri::from_parts(parts).unwrap_or_else(|_| uri.clone())
}

/// Cleans an answer's head: what ends at this hop, and a length that a transfer coding overrules. One
/// pass finds out what there is to do, which for most answers is nothing.
///
/// Tells whether the answer named both a length and a transfer coding. The coding counts, but somebody
/// on the way may have believed the length, so nothing after it on its connection can be trusted
/// (RFC 9112 section 6.3).
pub(super) fn from_service(head: &mut http::response::Parts, link: Option<&Arc<Link>>) -> bool {
    let headers = &mut head.headers;
    let (mut connection, mut hop_by_hop, mut length, mut coded) = (false, false, false, false);
    for name in headers.keys() {
        match name.as_str() {
            "connection" => connection = true,
            "content-length" => length = true,
            "transfer-encoding" => (coded, hop_by_hop) = (true, true),
            name => hop_by_hop |= HOP_BY_HOP.contains(&name),
        }
    }
    if coded && length {
        // hyper leaves the overruled length in the map; passed on it would cut the answer short.
        headers.remove(CONTENT_LENGTH);
    }
    if connection {
        // The service's list is bounded by the size of its head.
        let _ = remove_nominated(headers);
    }
    if connection || hop_by_hop {
        if let Some(link) = link {
            learn_idle(headers, link);
        }
        HOP_BY_HOP.iter().for_each(|name| drop(headers.remove(*name)));
    }
    if head.status == http::StatusCode::SWITCHING_PROTOCOLS {
        headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
        headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    }
    head.version = Version::HTTP_11;
    coded && length
}

/// Believes a service that says how long it keeps idle connections.
fn learn_idle(headers: &HeaderMap, link: &Link) {
    let Some(value) = headers.get("keep-alive").and_then(|value| value.to_str().ok()) else {
        return;
    };
    let timeout = value
        .split(',')
        .filter_map(|part| part.trim().strip_prefix("timeout="))
        .find_map(|seconds| seconds.parse::<u64>().ok());
    if let Some(seconds) = timeout {
        link.learn_idle(Duration::from_secs(seconds));
    }
}
