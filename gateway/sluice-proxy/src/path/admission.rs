//! Makes one canonical request of what came in, or refuses it. Everything after this sees the same
//! bytes: what is matched is what is authorised, logged and forwarded.

use std::borrow::Cow;

use http::header::{
    CONNECTION, COOKIE, EXPECT, HOST, MAX_FORWARDS, TE, TRANSFER_ENCODING, UPGRADE, VIA,
};
use http::request::Parts;
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Uri, Version};
use sluice_engine::http1::request_head::{MAX_FIELDS, MAX_TARGET};
use sluice_engine::{canon, forwarded};

use super::remaining;
use super::survey::{FORWARDED, Survey};
use crate::base::cx::{Cx, Host};
use crate::base::fault::Fault;
use crate::base::hop;
use crate::base::identity::{Family, family};
use crate::base::secured::tells_certificate;
use crate::snapshot::compile::Snapshot;

/// How this gateway calls itself in `Via`.
pub(crate) const PSEUDONYM: &str = "sluice";
const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// What the request wants beyond an answer.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Wants {
    /// A WebSocket, correctly asked for.
    pub(crate) websocket: bool,
    /// Trailers (gRPC).
    pub(crate) trailers: bool,
}

/// What became of a request at the door.
pub(crate) enum Admitted {
    Request(Wants),
    /// `OPTIONS *`, which is about the gateway itself, or one that may go no further.
    Server,
}

/// Checks and normalises the head. On success its URI is canonical and its fields hold nothing that
/// ends at this hop or that a client may not say.
pub(crate) fn admit(cx: &mut Cx, head: &mut Parts, snapshot: &Snapshot) -> Result<Admitted, Fault> {
    let survey = Survey::of(&head.headers);
    cx.http1 = head.version < Version::HTTP_2;
    cx.grpc = survey.grpc;
    cx.head_request = head.method == Method::HEAD;
    if survey.fields > MAX_FIELDS {
        return Err(Fault::HeadTooLarge);
    }
    method(&head.method, snapshot)?;
    framing(&head.headers, &survey)?;
    host(cx, head, &survey)?;
    right_connection(cx)?;
    if head.uri.path() == "*" {
        return if head.method == Method::OPTIONS {
            Ok(Admitted::Server)
        } else {
            Err(Fault::TargetInvalid)
        };
    }
    target(head)?;
    if head.method == Method::OPTIONS && hops_are_used_up(&mut head.headers) {
        return Ok(Admitted::Server);
    }
    client(cx, &head.headers, &survey, snapshot);
    if survey.via {
        refuse_loop(&head.headers)?;
    }
    let wants = wants(head, &survey)?;
    clean(cx, &mut head.headers, &survey, snapshot)?;
    if survey.overrides && snapshot.overrides.apply(head)? {
        cx.overridden = true;
    }
    if let Some(callers) = &snapshot.callers {
        callers.recognise(cx, &head.headers, survey.spoken, survey.referer);
    }
    if survey.timeout {
        let theirs = remaining::read(&head.headers, cx.started);
        cx.deadline = theirs.into_iter().chain(cx.deadline).min();
    }
    Ok(Admitted::Request(wants))
}

fn method(method: &Method, snapshot: &Snapshot) -> Result<(), Fault> {
    match *method {
        Method::GET
        | Method::HEAD
        | Method::POST
        | Method::PUT
        | Method::DELETE
        | Method::PATCH
        | Method::OPTIONS => Ok(()),
        Method::CONNECT | Method::TRACE => Err(Fault::MethodRefused),
        _ if snapshot.methods.contains(method.as_str()) => Ok(()),
        _ => Err(Fault::MethodUnknown),
    }
}

fn framing(headers: &HeaderMap, survey: &Survey) -> Result<(), Fault> {
    if survey.hop_by_hop.has(&TRANSFER_ENCODING) {
        let mut codings = headers.get_all(TRANSFER_ENCODING).iter();
        let one = codings.next().map(|value| value.as_bytes().trim_ascii());
        if !one.is_some_and(|coding| coding.eq_ignore_ascii_case(b"chunked"))
            || codings.next().is_some()
        {
            return Err(Fault::TransferCodingUnsupported);
        }
    }
    if survey.expect {
        let fine = |value: &HeaderValue| value.as_bytes().eq_ignore_ascii_case(b"100-continue");
        if !headers.get_all(EXPECT).iter().all(fine) {
            return Err(Fault::ExpectationFailed);
        }
    }
    Ok(())
}

// === Host ===

/// Chooses the one host (RFC 9112 section 3.2, RFC 9113 section 8.3.1): the target's authority and the
/// Host field may both be there, but must agree.
fn host(cx: &mut Cx, head: &mut Parts, survey: &Survey) -> Result<(), Fault> {
    if survey.hosts > 1 {
        return Err(Fault::HostInvalid);
    }
    let field = head.headers.get(HOST);
    let value = match (head.uri.authority(), field) {
        // RFC 9112 section 3.2: the absolute form does not make up for the field.
        (Some(_), None) if head.version == Version::HTTP_11 => return Err(Fault::HostInvalid),
        (Some(authority), field) => {
            if authority.as_str().contains('@') || !scheme_fits(head.uri.scheme_str(), cx) {
                return Err(Fault::TargetInvalid);
            }
            if field.is_some_and(|host| {
                !host.as_bytes().eq_ignore_ascii_case(authority.as_str().as_bytes())
            }) {
                return Err(Fault::AuthorityMismatch);
            }
            HeaderValue::from_str(authority.as_str()).map_err(|_| Fault::HostInvalid)?
        }
        (None, Some(host)) => host.clone(),
        // HTTP/1.0 may come without; then only routes for any host can match.
        (None, None) if head.version == Version::HTTP_10 => return Ok(()),
        (None, None) => return Err(Fault::HostInvalid),
    };
    cx.host = Some(normal_host(value)?);
    Ok(())
}

/// RFC 9110 section 15.5.20: a connection made for one host is not used for another that has its own
/// certificate, or wants to know who is calling.
fn right_connection(cx: &Cx) -> Result<(), Fault> {
    match &cx.peer.tls {
        Some(tls) if !tls.serves(cx.host_name()) => Err(Fault::Misdirected),
        _ => Ok(()),
    }
}

/// HTTP/2 names the scheme; HTTP/1 only in the absolute form.
fn scheme_fits(scheme: Option<&str>, cx: &Cx) -> bool {
    match scheme {
        None => true,
        Some("http") => !cx.peer.secure,
        Some("https") => cx.peer.secure,
        Some(_) => false,
    }
}

/// Lower case, one trailing dot dropped, the port kept for services but not for matching.
pub(crate) fn normal_host(value: HeaderValue) -> Result<Host, Fault> {
    let bytes = value.as_bytes();
    let port_at = match bytes {
        [b'[', ..] => bytes.iter().position(|b| *b == b']').map(|end| end + 1),
        _ => Some(bytes.iter().position(|b| *b == b':').unwrap_or(bytes.len())),
    };
    let (name, port) =
        port_at.and_then(|at| bytes.split_at_checked(at)).ok_or(Fault::HostInvalid)?;
    if !port_is_valid(port) || !name_is_valid(name) {
        return Err(Fault::HostInvalid);
    }
    if name.ends_with(b".") || name.iter().any(u8::is_ascii_uppercase) {
        let name = name.strip_suffix(b".").unwrap_or(name).to_ascii_lowercase();
        let name_len = name.len();
        let whole = [name.as_slice(), port].concat();
        let value = HeaderValue::from_bytes(&whole).map_err(|_| Fault::HostInvalid)?;
        return Ok(Host::new(value, name_len));
    }
    let name_len = name.len();
    Ok(Host::new(value, name_len))
}

fn port_is_valid(port: &[u8]) -> bool {
    match port {
        [] => true,
        [b':', digits @ ..] => {
            std::str::from_utf8(digits)
                .ok()
                .and_then(|text| text.parse::<u16>().ok())
                .is_some_and(|p| p > 0)
                && digits.iter().all(u8::is_ascii_digit)
        }
        _ => false,
    }
}

fn name_is_valid(name: &[u8]) -> bool {
    if let [b'[', address @ .., b']'] = name {
        return std::str::from_utf8(address)
            .is_ok_and(|text| text.parse::<std::net::Ipv6Addr>().is_ok());
    }
    let label = |label: &[u8]| {
        (1..=63).contains(&label.len())
            && label.iter().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
    };
    let trimmed = name.strip_suffix(b".").unwrap_or(name);
    !trimmed.is_empty() && trimmed.len() <= 253 && trimmed.split(|b| *b == b'.').all(label)
}

// === Target ===

/// Brings the path into its one form; the URI keeps path and query only.
fn target(head: &mut Parts) -> Result<(), Fault> {
    let length = head.uri.path().len() + head.uri.query().map_or(0, |query| query.len() + 1);
    if length > MAX_TARGET {
        return Err(Fault::TargetTooLong);
    }
    // `GET evil:80` parses as an authority without a path.
    if head.uri.path_and_query().is_none()
        || (head.uri.authority().is_some() && head.uri.scheme().is_none())
    {
        return Err(Fault::TargetInvalid);
    }
    let path = canon::path(head.uri.path()).map_err(|_| Fault::PathInvalid)?;
    if query_is_invalid(head.uri.query()) {
        return Err(Fault::PathInvalid);
    }
    match path {
        Cow::Borrowed(_) if head.uri.authority().is_none() => {}
        path => {
            let target = match head.uri.query() {
                Some(query) => PathAndQuery::try_from(format!("{path}?{query}")),
                None => PathAndQuery::try_from(path.as_ref()),
            };
            head.uri = Uri::from(target.map_err(|_| Fault::PathInvalid)?);
        }
    }
    Ok(())
}

/// RFC 9110 section 7.6.2: the number of times that OPTIONS may still be passed on. What is no number
/// limits nothing.
fn hops_are_used_up(headers: &mut HeaderMap) -> bool {
    let Some(value) = headers.get(MAX_FORWARDS) else { return false };
    let digits = value.as_bytes().trim_ascii();
    let left = std::str::from_utf8(digits).ok().filter(|_| digits.iter().all(u8::is_ascii_digit));
    match left.and_then(|digits| digits.parse::<u64>().ok()) {
        Some(0) => true,
        Some(left) => {
            headers.insert(MAX_FORWARDS, HeaderValue::from(left - 1));
            false
        }
        None => false,
    }
}

/// A query is passed on as it is, but not with bytes that logs or services could trip over.
fn query_is_invalid(query: Option<&str>) -> bool {
    query.is_some_and(|query| query.bytes().any(|b| b <= b' ' || b == 0x7f))
}

// === Who and whereto ===

fn client(cx: &mut Cx, headers: &HeaderMap, survey: &Survey, snapshot: &Snapshot) {
    let trusted = snapshot.proxies.nets();
    cx.peer_trusted = trusted.contains(cx.client);
    if !cx.peer_trusted {
        return;
    }
    if let Some(told) = snapshot.proxies.telling(cx.client).and_then(|proxy| proxy.client(headers))
    {
        cx.client = told;
        return;
    }
    if survey.forwarded {
        let lines = headers.get_all(X_FORWARDED_FOR);
        // A line with bytes that are no text is read all the same: leaving it out would leave out what
        // the trusted proxy wrote behind them, and make that proxy the client.
        let lines: smallvec::SmallVec<[Cow<'_, str>; 4]> =
            lines.iter().map(|v| String::from_utf8_lossy(v.as_bytes())).collect();
        let lines = lines.iter().map(AsRef::as_ref);
        cx.client = forwarded::client_address(cx.client, trusted, lines);
    }
}

/// RFC 9110 section 7.6.3: our own name in `Via` means that the request runs in a circle.
fn refuse_loop(headers: &HeaderMap) -> Result<(), Fault> {
    for value in headers.get_all(VIA) {
        for hop in value.as_bytes().split(|b| *b == b',') {
            let by = hop.trim_ascii().split(|b| *b == b' ').nth(1);
            if by == Some(instance().as_bytes()) {
                return Err(Fault::ProxyLoop);
            }
        }
    }
    Ok(())
}

/// This process's name in `Via`: two gateways in a row are no loop, one twice is.
pub(crate) fn instance() -> &'static str {
    static NAME: std::sync::OnceLock<String> = std::sync::OnceLock::new();
    NAME.get_or_init(|| format!("{PSEUDONYM}-{:08x}", fastrand::u32(..)))
}

fn wants(head: &Parts, survey: &Survey) -> Result<Wants, Fault> {
    let headers = &head.headers;
    let trailers = survey.hop_by_hop.has(&TE)
        && headers
            .get_all(TE)
            .iter()
            .any(|te| options(te).any(|o| o.eq_ignore_ascii_case(b"trailers")));
    let mut wants = Wants { websocket: false, trailers };
    let nominated = survey.hop_by_hop.has(&CONNECTION)
        && headers
            .get_all(CONNECTION)
            .iter()
            .any(|c| options(c).any(|o| o.eq_ignore_ascii_case(b"upgrade")));
    if !survey.hop_by_hop.has(&UPGRADE) || !nominated || head.version != Version::HTTP_11 {
        return Ok(wants);
    }
    let mut upgrades = headers.get_all(UPGRADE).iter();
    let websocket =
        upgrades.next().is_some_and(|u| u.as_bytes().eq_ignore_ascii_case(b"websocket"));
    if !websocket {
        // Other protocols (h2c above all) are not offered; the request is served as HTTP.
        return Ok(wants);
    }
    // RFC 6455 section 4.1.
    let key = headers.get("sec-websocket-key").is_some_and(|key| key.len() == 24);
    let version = headers.get("sec-websocket-version").is_some_and(|v| v.as_bytes() == b"13");
    let bodiless = !survey.hop_by_hop.has(&TRANSFER_ENCODING)
        && !headers.contains_key(http::header::CONTENT_LENGTH);
    if upgrades.next().is_some() || head.method != Method::GET || !key || !version || !bodiless {
        return Err(Fault::UpgradeInvalid);
    }
    wants.websocket = true;
    Ok(wants)
}

// === Cleaning ===

/// Removes what ends here and what a client may not say. Nominated names go first, so that nothing
/// the gateway sets later can be nominated away.
fn clean(
    cx: &Cx,
    headers: &mut HeaderMap,
    survey: &Survey,
    snapshot: &Snapshot,
) -> Result<(), Fault> {
    if survey.hop_by_hop.has(&CONNECTION) {
        remove_nominated(headers)?;
    }
    survey.hop_by_hop.all().for_each(|name| drop(headers.remove(name)));
    if survey.expect {
        // The gateway has answered it, or will with the first byte it wants.
        headers.remove(EXPECT);
    }
    if survey.forwarded && !cx.peer_trusted {
        FORWARDED.iter().for_each(|name| drop(headers.remove(*name)));
    }
    if survey.underscores {
        remove_all(headers, |name| name.contains('_'));
    }
    if survey.identity {
        remove_identity(cx, headers, snapshot);
    }
    snapshot.identity_headers.iter().for_each(|name| drop(headers.remove(name)));
    if survey.certificates {
        remove_all(headers, tells_certificate);
    }
    if let Some(client) = cx.peer.tls.as_ref().and_then(|tls| tls.client.as_ref()) {
        client.introduce(headers);
    }
    if survey.cookies > 1 {
        join_cookies(headers);
    }
    Ok(())
}

/// Removes what tells who is calling, unless a proxy says it once that may.
fn remove_identity(cx: &Cx, headers: &mut HeaderMap, snapshot: &Snapshot) {
    let peer = cx.peer.address.ip().to_canonical();
    let proxy = cx.peer_trusted.then(|| snapshot.proxies.telling(peer)).flatten();
    let told = |name: &HeaderName| {
        let once = headers.get_all(name).iter().nth(1).is_none();
        once && proxy.is_some_and(|proxy| proxy.keeps(name.as_str()))
    };
    let gone = |name: &&HeaderName| family(name.as_str()) == Family::Identity && !told(name);
    let names: Vec<HeaderName> = headers.keys().filter(gone).cloned().collect();
    names.iter().for_each(|name| drop(headers.remove(name)));
}

fn remove_all(headers: &mut HeaderMap, which: impl Fn(&str) -> bool) {
    let names: Vec<HeaderName> =
        headers.keys().filter(|name| which(name.as_str())).cloned().collect();
    names.iter().for_each(|name| drop(headers.remove(name)));
}

/// RFC 9110 section 7.6.1, over all lines.
fn remove_nominated(headers: &mut HeaderMap) -> Result<(), Fault> {
    let mut options = hop::Options::default();
    for line in headers.get_all(CONNECTION) {
        options.read(line.as_bytes()).map_err(|_| Fault::HeadTooLarge)?;
    }
    options.nominated.iter().for_each(|name| drop(headers.remove(name)));
    Ok(())
}

fn options(line: &HeaderValue) -> impl Iterator<Item = &[u8]> {
    line.as_bytes()
        .split(|b| *b == b',')
        .map(<[u8]>::trim_ascii)
        .filter(|option| !option.is_empty())
}

/// RFC 9113 section 8.2.3: crumbs become one field before anybody reads cookies.
fn join_cookies(headers: &mut HeaderMap) {
    let crumbs: Vec<&[u8]> = headers.get_all(COOKIE).iter().map(HeaderValue::as_bytes).collect();
    if let Ok(joined) = HeaderValue::from_bytes(&crumbs.join(&b"; "[..])) {
        headers.insert(COOKIE, joined);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host_of(text: &str) -> Result<String, Fault> {
        let value = HeaderValue::from_bytes(text.as_bytes()).map_err(|_| Fault::HostInvalid)?;
        normal_host(value).map(|host| host.name().to_owned())
    }

    #[test]
    fn hosts_have_one_form() {
        for (given, name) in [
            ("a.com", "a.com"),
            ("A.Com.", "a.com"),
            ("a.com:8443", "a.com"),
            ("A.com.:80", "a.com"),
            ("[::1]:80", "[::1]"),
            ("10.0.0.1", "10.0.0.1"),
            ("xn--fiq228c.cn", "xn--fiq228c.cn"),
        ] {
            assert_eq!(host_of(given).as_deref(), Ok(name), "{given}");
        }
        let long = "a".repeat(64);
        for bad in
            ["", "a b", "a/@c", "u@a", "a:99999", "a:0", "a:x", "[::1", "[x]", "a..b", ".", &long]
        {
            assert_eq!(host_of(bad), Err(Fault::HostInvalid), "{bad}");
        }
    }

    #[test]
    fn all_connection_lines_nominate_but_never_what_grants_access() {
        let mut headers = HeaderMap::new();
        headers.append(CONNECTION, HeaderValue::from_static("close, X-A"));
        headers.append(CONNECTION, HeaderValue::from_static("x-b,authorization"));
        for name in ["x-a", "x-b", "authorization", "x-c"] {
            headers.insert(name, HeaderValue::from_static("1"));
        }
        remove_nominated(&mut headers).unwrap();
        // Removing a field changes the order of others.
        let mut left: Vec<&str> = headers.keys().map(HeaderName::as_str).collect();
        left.sort_unstable();
        assert_eq!(left, ["authorization", "connection", "x-c"]);
    }
}
