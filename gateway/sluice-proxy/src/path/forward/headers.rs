//! Header fields at the border to the service: who asked, by which way, for which host; and on the
//! way back what ends at this hop.

use std::net::IpAddr;

use http::header::{CONNECTION, FORWARDED, HOST, TE, UPGRADE, VIA};
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{HeaderMap, HeaderName, HeaderValue, Request, Uri, Version};

use super::super::admission::{Wants, instance};
use crate::base::body::Upload;
use crate::base::cx::{Cx, Outside};
use crate::base::hop;
use crate::base::http1::Added;
use crate::lasting::link::Protocol;
use crate::parts::upstream::endpoints::Endpoint;
use crate::parts::upstream::{HostMode, Service};

static X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
static X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
static X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
static X_FORWARDED_PORT: HeaderName = HeaderName::from_static("x-forwarded-port");
static X_REAL_IP: HeaderName = HeaderName::from_static("x-real-ip");
/// Which attempt this is, where it is not the first.
pub(super) static X_SLUICE_ATTEMPT: HeaderName = HeaderName::from_static("x-sluice-attempt");
static HTTP: HeaderValue = HeaderValue::from_static("http");
static HTTPS: HeaderValue = HeaderValue::from_static("https");

/// What the gateway says beside what the client said: who asked, and that the request came this way.
/// Made once, however many attempts follow; holds only what is not known elsewhere.
pub(super) struct Introduction {
    /// The addresses so far, where a trusted proxy told them.
    list: Option<HeaderValue>,
    /// The client, where it is not the peer.
    client: Option<HeaderValue>,
    forwarded: Option<HeaderValue>,
    via: &'static HeaderValue,
    proto: bool,
    port: bool,
    host: bool,
}

/// An introduction, ready to be written.
pub(super) struct Said<'a>(pub(super) &'a Introduction, pub(super) &'a Cx);

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

/// Numbers an HTTP/2 attempt, as [`Said`] does over HTTP/1.1.
pub(super) fn number2(request: &mut Request<Upload>, cx: &Cx) {
    if cx.attempts > 1 {
        request.headers_mut().insert(&X_SLUICE_ATTEMPT, HeaderValue::from(cx.attempts));
    }
}

impl Introduction {
    /// Decides what to say, and removes what the head says of it otherwise. What an untrusted client
    /// said about this has been removed before.
    pub(super) fn of(headers: &mut HeaderMap, version: Version, cx: &mut Cx) -> Self {
        let mut made = Self {
            list: None,
            client: client_value(cx),
            forwarded: cx.forwarded_header.then(|| forwarded(cx)),
            via: via(version),
            proto: true,
            port: true,
            host: true,
        };
        // Most requests carry none of these: a look at the names costs less than a look-up of each.
        let tells = |name: &str| name.starts_with("x-forwarded-") || name == "x-real-ip";
        if headers.keys().any(|name| tells(name.as_str())) {
            made.list = forwarded_for(headers, &cx.peer.address_value);
            headers.remove(&X_REAL_IP);
            // A trusted proxy in front of us knows better what the client's side looked like. What else
            // is there, a filter has set, and gives way.
            let mut untold = |name| {
                !cx.peer_trusted && headers.remove(name).is_some() || !headers.contains_key(name)
            };
            made.proto = untold(&X_FORWARDED_PROTO);
            made.port = untold(&X_FORWARDED_PORT);
            made.host = untold(&X_FORWARDED_HOST);
            if !(made.host && made.proto) {
                let secure = |proto: &HeaderValue| proto.as_bytes().eq_ignore_ascii_case(b"https");
                cx.outside = Some(Box::new(Outside {
                    host: headers.get(&X_FORWARDED_HOST).filter(|_| !made.host).cloned(),
                    secure: headers.get(&X_FORWARDED_PROTO).filter(|_| !made.proto).map(secure),
                }));
            }
        }
        if let (None, Some(client)) = (&made.list, &made.client) {
            // A proxy that tells the client in a field of its own.
            let list = [client.as_bytes(), cx.peer.address_value.as_bytes()].join(&b", "[..]);
            made.list = HeaderValue::from_bytes(&list).ok();
        }
        made
    }
}

impl Added for Said<'_> {
    fn each(&self, say: &mut dyn FnMut(&HeaderName, &HeaderValue)) {
        let Self(said, cx) = self;
        let peer = &cx.peer;
        say(&X_FORWARDED_FOR, said.list.as_ref().unwrap_or(&peer.address_value));
        say(&X_REAL_IP, said.client.as_ref().unwrap_or(&peer.address_value));
        if said.proto {
            say(&X_FORWARDED_PROTO, if peer.secure { &HTTPS } else { &HTTP });
        }
        if said.port {
            say(&X_FORWARDED_PORT, &peer.port_value);
        }
        if said.host
            && let Some(host) = &cx.host
        {
            say(&X_FORWARDED_HOST, host.value());
        }
        if let Some(forwarded) = &said.forwarded {
            say(&FORWARDED, forwarded);
        }
        say(&VIA, said.via);
        if cx.attempts > 1 {
            say(&X_SLUICE_ATTEMPT, &HeaderValue::from(cx.attempts));
        }
    }
}

/// The addresses the request has come by, if there are any. Only a trusted proxy's list has survived
/// admission; it grows by that proxy's address.
fn forwarded_for(headers: &mut HeaderMap, peer: &HeaderValue) -> Option<HeaderValue> {
    if !headers.contains_key(&X_FORWARDED_FOR) {
        return None;
    }
    let lines = headers.get_all(&X_FORWARDED_FOR);
    let mut parts: Vec<&[u8]> = lines.iter().map(HeaderValue::as_bytes).collect();
    parts.push(peer.as_bytes());
    let list = HeaderValue::from_bytes(&parts.join(&b", "[..]));
    headers.remove(&X_FORWARDED_FOR);
    list.ok()
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

/// The client's address, where it is not the peer's.
fn client_value(cx: &Cx) -> Option<HeaderValue> {
    let peer: IpAddr = cx.peer.address.ip().to_canonical();
    (cx.client != peer).then(|| HeaderValue::try_from(cx.client.to_string()).ok()).flatten()
}

/// RFC 9110 section 7.6.3: the version in which we received the request, and who we are.
fn via(version: Version) -> &'static HeaderValue {
    static VALUES: std::sync::OnceLock<[HeaderValue; 3]> = std::sync::OnceLock::new();
    let make = |version: &str| {
        HeaderValue::try_from(format!("{version} {}", instance()))
            .unwrap_or_else(|_| HeaderValue::from_static("1.1 sluice"))
    };
    let [zero, one, two] = VALUES.get_or_init(|| ["1.0", "1.1", "2.0"].map(make));
    match version {
        Version::HTTP_10 => zero,
        Version::HTTP_2 => two,
        _ => one,
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

/// Makes an answer's head one of ours. What ends at this hop the HTTP/1.1 codec has left out already;
/// over HTTP/2 such fields should not come at all (RFC 9113 section 8.2.2).
pub(super) fn from_service(head: &mut http::response::Parts, protocol: Protocol) {
    let headers = &mut head.headers;
    if protocol == Protocol::Http2 {
        hop::FIELDS.iter().for_each(|name| drop(headers.remove(name)));
    }
    if head.status == http::StatusCode::SWITCHING_PROTOCOLS {
        headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
        headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    }
    head.version = Version::HTTP_11;
}
