//! One pass over a request's header fields: counts what has limits and marks what has to be looked at
//! again, so that ordinary requests pay for no look-ups of fields they do not have.

use http::HeaderMap;

/// What one pass found.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Survey {
    pub(crate) fields: usize,
    pub(crate) hosts: usize,
    pub(crate) cookies: usize,
    /// Hop-by-hop fields, other than those `Connection` nominates.
    pub(crate) hop_by_hop: bool,
    pub(crate) connection: bool,
    pub(crate) transfer_encoding: bool,
    pub(crate) upgrade: bool,
    pub(crate) expect: bool,
    pub(crate) te: bool,
    pub(crate) via: bool,
    /// Fields by which proxies tell where a request came from.
    pub(crate) forwarded: bool,
    /// Names with `_`, which some services read as `-`.
    pub(crate) underscores: bool,
    pub(crate) grpc: bool,
}

/// Fields that end at this hop (RFC 9110 section 7.6.1), and those that speak to proxies.
pub(crate) const HOP_BY_HOP: [&str; 9] = [
    "connection",
    "keep-alive",
    "proxy-connection",
    "proxy-authenticate",
    "proxy-authorization",
    "te",
    "transfer-encoding",
    "upgrade",
    "http2-settings",
];

/// Fields by which proxies tell where a request came from, beside those the gateway writes anew.
pub(crate) const FORWARDED: [&str; 16] = [
    "forwarded",
    "x-forwarded-for",
    "x-forwarded-host",
    "x-forwarded-proto",
    "x-forwarded-port",
    "x-forwarded-prefix",
    "x-forwarded-uri",
    "x-forwarded-method",
    "x-forwarded-server",
    // Frameworks take these for the scheme or the client, some before the usual ones.
    "x-forwarded-scheme",
    "x-forwarded-ssl",
    "x-client-ip",
    "x-cluster-client-ip",
    "x-real-ip",
    "true-client-ip",
    "cf-connecting-ip",
];

impl Survey {
    pub(crate) fn of(headers: &HeaderMap) -> Self {
        let mut survey = Self { fields: headers.len(), ..Self::default() };
        for (name, value) in headers {
            let name = name.as_str();
            match name {
                "host" => survey.hosts += 1,
                "cookie" => survey.cookies += 1,
                "connection" => survey.connection = true,
                "keep-alive"
                | "proxy-connection"
                | "proxy-authenticate"
                | "proxy-authorization"
                | "http2-settings" => survey.hop_by_hop = true,
                "te" => survey.te = true,
                "transfer-encoding" => survey.transfer_encoding = true,
                "upgrade" => survey.upgrade = true,
                "expect" => survey.expect = true,
                "via" => survey.via = true,
                "content-type" => {
                    survey.grpc |= value.as_bytes().starts_with(b"application/grpc");
                }
                _ => {
                    survey.forwarded |= may_be_forwarded(name) && FORWARDED.contains(&name);
                    survey.underscores |= name.contains('_');
                }
            }
        }
        survey
    }
}

fn may_be_forwarded(name: &str) -> bool {
    matches!(name.as_bytes().first(), Some(b'f' | b'x' | b't' | b'c'))
}
