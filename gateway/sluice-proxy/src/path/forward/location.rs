//! Redirects of services that name themselves: a service knows its own address and plain HTTP, not the host
//! and the path under which clients know it. Where `Location` names the service, the client gets the same
//! place as it is called from outside; a redirect to anybody else stays as it is.
//!
//! The one rule: nothing is made of a `Location` that leads elsewhere, and none is turned from HTTPS to HTTP
//! on the host that clients know.

use http::header::LOCATION;
use http::response::Parts;
use http::uri::{Authority, PathAndQuery, Scheme, Uri};
use http::{HeaderValue, StatusCode};

use crate::base::cx::Cx;
use crate::parts::upstream::{HostMode, Service};

/// Leads the client of an answer with a `Location` where it can go. `went` is the target as the service got
/// it.
pub(super) fn relocate(head: &mut Parts, service: &Service, (went, cx): (&Uri, &Cx)) {
    if !head.status.is_redirection() && head.status != StatusCode::CREATED {
        return;
    }
    let mut all = head.headers.get_all(LOCATION).iter();
    let (Some(location), None) = (all.next(), all.next()) else { return };
    let host = cx.public_host();
    let sides = Sides {
        secure: cx.is_secure(),
        public: host.and_then(|host| Authority::try_from(host.as_bytes()).ok()),
        came: cx.came.as_ref().map_or_else(|| went.path(), PathAndQuery::path),
        went: went.path(),
    };
    let fixed = match &service.host {
        HostMode::Fixed(host) => Some(host),
        HostMode::Client | HostMode::Endpoint => None,
    };
    let is_service = |host: &str, port: u16| {
        let named = [fixed, cx.upstream_host.as_ref()].into_iter().flatten();
        let endpoints = service.endpoints.load();
        named.into_iter().any(|name| is_called(name, host, port))
            || endpoints.endpoints.iter().any(|endpoint| {
                let address = endpoint.link.address;
                is_called(&endpoint.host, host, port)
                    || address.port() == port && host.parse() == Ok(address.ip())
            })
    };
    if let Some(made) = public(location, &sides, &is_service) {
        head.headers.insert(LOCATION, made);
    }
}

/// Whether a service goes by `name`, on this host and port.
fn is_called(name: &HeaderValue, host: &str, port: u16) -> bool {
    let Ok(name) = Authority::try_from(name.as_bytes()) else { return false };
    let same_port =
        name.port_u16().map_or_else(|| [80, 443].contains(&port), |known| known == port);
    same_port && name.host().eq_ignore_ascii_case(host)
}

/// What is known of both sides of the gateway.
struct Sides<'a> {
    /// Whether clients come over HTTPS.
    secure: bool,
    /// The host and the port that the client has named.
    public: Option<Authority>,
    /// Path of the request as it came.
    came: &'a str,
    /// Path of the request as the service got it.
    went: &'a str,
}

/// Whether the service is called by this host, in lower case, and this port.
type IsService<'a> = &'a dyn Fn(&str, u16) -> bool;

/// The `Location` for the client; nothing if it is right as it is.
fn public(
    location: &HeaderValue,
    sides: &Sides<'_>,
    is_service: IsService<'_>,
) -> Option<HeaderValue> {
    let text = location.to_str().ok()?;
    let (uri, fragment) = match text.split_once('#') {
        Some((uri, _)) => (uri, text.get(uri.len()..).unwrap_or_default()),
        None => (text, ""),
    };
    let made = match uri.strip_prefix("//") {
        // Without a scheme: that of the service's own connection.
        Some(_) => absolute(&format!("http:{uri}").parse().ok()?, sides, is_service)?,
        None if uri.starts_with('/') => outside(uri, sides)?,
        None if uri.contains("://") => absolute(&uri.parse().ok()?, sides, is_service)?,
        // Relative to a path that may have another depth outside, and so a matter of the service.
        None => return None,
    };
    let made = made + fragment;
    (made != text).then(|| HeaderValue::try_from(made).ok()).flatten()
}

/// An absolute address, if it is one of ours.
fn absolute(uri: &Uri, sides: &Sides<'_>, is_service: IsService<'_>) -> Option<String> {
    let scheme = uri.scheme().filter(|it| **it == Scheme::HTTP || **it == Scheme::HTTPS)?;
    let authority = uri.authority().filter(|it| !it.as_str().contains('@'))?;
    let usual = usual_port(*scheme == Scheme::HTTPS);
    let port = authority.port_u16().unwrap_or(usual);
    let of_service = is_service(&authority.host().to_ascii_lowercase(), port);
    let same_host = sides
        .public
        .as_ref()
        .is_some_and(|public| public.host().eq_ignore_ascii_case(authority.host()));
    // The host that clients know, and one of the ports that it can be: none, that of either scheme, or that
    // which clients use.
    let known_port = |port: u16| {
        [80, 443].contains(&port)
            || sides.public.as_ref().and_then(Authority::port_u16) == Some(port)
    };
    let ours = of_service || same_host && known_port(port);
    if !ours {
        return None;
    }
    let path = uri.path_and_query().map_or("/", PathAndQuery::as_str);
    let path = outside(path, sides).unwrap_or_else(|| path.to_owned());
    let Some(public) = &sides.public else { return Some(path) };
    let secure = sides.secure || same_host && !of_service && *scheme == Scheme::HTTPS;
    let scheme = if secure { "https" } else { "http" };
    let host = match public.port_u16() {
        Some(port) if port != usual_port(secure) => public.as_str(),
        _ => public.host(),
    };
    Some(format!("{scheme}://{host}{path}"))
}

fn usual_port(secure: bool) -> u16 {
    if secure { 443 } else { 80 }
}

/// A path with its query as clients know it; nothing if that is the same.
fn outside(target: &str, sides: &Sides<'_>) -> Option<String> {
    let (came, went) = fronts(sides.came, sides.went)?;
    let end = target.find('?').unwrap_or(target.len());
    let (path, query) = target.split_at(end);
    // The service knows the path outside, and has used it.
    if !came.is_empty() && below(path, came).is_some() {
        return None;
    }
    let rest = below(path, went)?;
    let root = if came.is_empty() && rest.is_empty() { "/" } else { "" };
    Some(format!("{came}{rest}{root}{query}"))
}

/// What is left of a path behind a front that ends with a segment.
fn below<'p>(path: &'p str, front: &str) -> Option<&'p str> {
    path.strip_prefix(front).filter(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// In what two paths differ that end alike: what the one begins with, and what the other does instead.
fn fronts<'p>(came: &'p str, went: &'p str) -> Option<(&'p str, &'p str)> {
    if came == went {
        return None;
    }
    if went == "/" {
        return Some((came.strip_suffix('/').unwrap_or(came), ""));
    }
    let common = came.bytes().rev().zip(went.bytes().rev()).take_while(|(a, b)| a == b).count();
    let tail = went.get(went.len() - common..)?;
    // Whole segments only.
    let slash = tail.find('/')?;
    let shared = tail.len() - slash;
    Some((came.get(..came.len() - shared)?, went.get(..went.len() - shared)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(location: &str, secure: bool, host: &str, came: &str, went: &str) -> Option<String> {
        let sides = Sides { secure, public: host.parse().ok(), came, went };
        let is_service = |host: &str, port: u16| match host {
            "10.0.0.7" => port == 8080,
            "orders.internal" => true,
            _ => false,
        };
        let value = HeaderValue::try_from(location).unwrap();
        public(&value, &sides, &is_service).map(|made| made.to_str().unwrap().to_owned())
    }

    #[test]
    fn who_names_the_service_is_led_to_the_public_host_and_nobody_else_is() {
        for (location, outcome) in [
            ("http://10.0.0.7:8080/a?x=1#top", Some("https://api.example.com/a?x=1#top")),
            ("http://10.0.0.7:8080", Some("https://api.example.com/")),
            ("http://ORDERS.internal/a", Some("https://api.example.com/a")),
            ("//10.0.0.7:8080/a", Some("https://api.example.com/a")),
            ("http://api.example.com/a", Some("https://api.example.com/a")),
            ("https://api.example.com:443/a", Some("https://api.example.com/a")),
            ("https://api.example.com/a", None),
            ("http://10.0.0.7:9090/a", None),
            ("http://api.example.com:9090/a", None),
            ("https://login.example.com/a", None),
            ("https://10.0.0.7:8080@evil.example/a", None),
            ("weixin://dl/business", None),
            ("/a", None),
            ("a", None),
            ("?x=1", None),
        ] {
            let made = told(location, true, "api.example.com", "/a", "/a");
            assert_eq!(made.as_deref(), outcome, "{location}");
        }
        // Where TLS ends in front of the gateway and nobody says so, HTTPS is not taken away.
        let kept = told("https://api.example.com/a", false, "api.example.com", "/a", "/a");
        assert_eq!(kept, None);
        let dev = told("http://10.0.0.7:8080/a", false, "127.0.0.1:8080", "/a", "/a");
        assert_eq!(dev.as_deref(), Some("http://127.0.0.1:8080/a"));
        let port = told("http://10.0.0.7:8080/a", true, "api.example.com:443", "/a", "/a");
        assert_eq!(port.as_deref(), Some("https://api.example.com/a"));
        let nameless = told("http://10.0.0.7:8080/a", true, "", "/a", "/a");
        assert_eq!(nameless.as_deref(), Some("/a"));
    }

    #[test]
    fn paths_are_those_that_clients_know() {
        for (location, came, went, outcome) in [
            ("/login?x=/", "/api/users/7", "/users/7", Some("/api/login?x=/")),
            ("/api/login", "/api/users/7", "/users/7", None),
            ("/apis", "/api/users/7", "/users/7", Some("/api/apis")),
            ("/login", "/api", "/", Some("/api/login")),
            ("/", "/api/", "/", Some("/api/")),
            ("/v1/users/8", "/users/7", "/v1/users/7", Some("/users/8")),
            ("/v2/users/8", "/users/7", "/v1/users/7", None),
            ("/v1?x", "/users/7", "/v1/users/7", Some("/?x")),
            ("/new/x", "/old/a", "/new/b", None),
            ("http://10.0.0.7:8080/login", "/api/a", "/a", Some("https://h/api/login")),
        ] {
            let made = told(location, true, "h", came, went);
            assert_eq!(made.as_deref(), outcome, "{location} {came} {went}");
        }
    }
}
