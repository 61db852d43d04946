//! Header fields at the border to the service: who asked, by which way, for which host; and on the
//! way back what ends at this hop.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use http::header::{CONNECTION, FORWARDED, HOST, TE, UPGRADE, VIA};
use http::request::Parts;
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{HeaderMap, HeaderName, HeaderValue, Request, Uri, Version};
use smallvec::SmallVec;

use super::super::admission::{Wants, instance, remove_nominated};
use super::super::survey::HOP_BY_HOP;
use crate::base::body::Upload;
use crate::base::cx::Cx;
use crate::lasting::link::{Link, Protocol};
use crate::parts::upstream::endpoints::Endpoint;
use crate::parts::upstream::{HostMode, Service};

/// Fields that [`introduce`] adds at most.
const INTRODUCED: usize = 7;
const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const X_FORWARDED_PORT: HeaderName = HeaderName::from_static("x-forwarded-port");
const X_REAL_IP: HeaderName = HeaderName::from_static("x-real-ip");

/// Fields beside a map: writing them costs less than a map's insertion.
pub(super) type Fields = SmallVec<[(HeaderName, HeaderValue); INTRODUCED]>;

/// The host to name to an endpoint.
pub(super) fn host(endpoint: &Endpoint, service: &Service, cx: &Cx) -> HeaderValue {
    match (&cx.upstream_host, &service.host) {
        (Some(host), _) => host.clone(),
        (None, HostMode::Fixed(host)) => host.clone(),
        (None, HostMode::Endpoint) => endpoint.host.clone(),
        (None, HostMode::Client) => {
            cx.host.as_ref().map_or_else(|| endpoint.host.clone(), |host| host.value().clone())
        }
    }
}

/// Addresses an HTTP/2 request to an endpoint. Doing it twice gives the same.
pub(super) fn address2(
    request: &mut Request<Upload>,
    endpoint: &Endpoint,
    host: &HeaderValue,
    wants: Wants,
) {
    let headers = request.headers_mut();
    headers.remove(HOST);
    if wants.trailers && !wants.websocket {
        headers.insert(TE, HeaderValue::from_static("trailers"));
    }
    let secure = endpoint.link.shape.tls.is_some();
    *request.uri_mut() = absolute(request.uri(), host, secure);
    *request.version_mut() = Version::HTTP_2;
}

/// Says who asked and that the request came this way, once however many attempts are made. What an
/// untrusted client said about this has been removed before. HTTP/2's client wants all fields in the
/// map; for HTTP/1.1 they are given back, to be written beside it.
pub(super) fn introduce(head: &mut Parts, protocol: Protocol, cx: &Cx) -> Fields {
    let added = introduction(&mut head.headers, head.version, cx);
    if protocol == Protocol::Http1 {
        return added;
    }
    head.headers.extend(added);
    Fields::new()
}

fn introduction(headers: &mut HeaderMap, version: Version, cx: &Cx) -> Fields {
    let peer = &cx.peer;
    let mut added = Fields::new();
    added.push((X_FORWARDED_FOR, forwarded_for(headers, &peer.address_value)));
    headers.remove(X_REAL_IP);
    added.push((X_REAL_IP, client_value(cx)));
    // A trusted proxy in front of us knows better what the client's side looked like.
    let told = |name: &HeaderName| cx.peer_trusted && headers.contains_key(name);
    if !told(&X_FORWARDED_PROTO) {
        let proto = if peer.secure { "https" } else { "http" };
        added.push((X_FORWARDED_PROTO, HeaderValue::from_static(proto)));
    }
    if !told(&X_FORWARDED_PORT) {
        added.push((X_FORWARDED_PORT, peer.port_value.clone()));
    }
    if !told(&X_FORWARDED_HOST)
        && let Some(host) = &cx.host
    {
        added.push((X_FORWARDED_HOST, host.value().clone()));
    }
    if cx.forwarded_header {
        added.push((FORWARDED, forwarded(cx)));
    }
    added.push((VIA, via(version)));
    added
}

/// The addresses the request has come by. Only a trusted proxy's list has survived admission; it grows
/// by that proxy's address.
fn forwarded_for(headers: &mut HeaderMap, peer: &HeaderValue) -> HeaderValue {
    if !headers.contains_key(&X_FORWARDED_FOR) {
        return peer.clone();
    }
    let lines = headers.get_all(&X_FORWARDED_FOR);
    let mut parts: Vec<&[u8]> = lines.iter().map(HeaderValue::as_bytes).collect();
    parts.push(peer.as_bytes());
    let list = HeaderValue::from_bytes(&parts.join(&b", "[..]));
    headers.remove(&X_FORWARDED_FOR);
    list.unwrap_or_else(|_| peer.clone())
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

/// Cleans an answer's head of what ends at this hop. One pass finds out what there is to do, which for
/// most answers is nothing.
pub(super) fn from_service(head: &mut http::response::Parts, link: Option<&Arc<Link>>) {
    let headers = &mut head.headers;
    let (mut connection, mut hop_by_hop) = (false, false);
    for name in headers.keys() {
        match name.as_str() {
            "connection" => connection = true,
            name => hop_by_hop |= HOP_BY_HOP.contains(&name),
        }
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
