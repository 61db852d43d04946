//! One pass over a request's header fields: counts what has limits and marks what has to be looked at
//! again, so that ordinary requests pay for no look-ups of fields they do not have.

use http::{HeaderMap, HeaderName};

use crate::base::hop;
use crate::base::identity::{Family, family};
use crate::base::secured::tells_certificate;
use crate::parts::method_override;

/// What one pass found.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Survey {
    pub(crate) fields: usize,
    pub(crate) hosts: usize,
    pub(crate) cookies: usize,
    pub(crate) hop_by_hop: HopByHop,
    pub(crate) expect: bool,
    pub(crate) via: bool,
    /// Fields by which proxies tell where a request came from.
    pub(crate) forwarded: bool,
    /// Fields that say whose certificate the client has shown.
    pub(crate) certificates: bool,
    /// Fields that tell who is calling, which only the gateway may say.
    pub(crate) identity: bool,
    /// Fields by which a mini-program tells of itself.
    pub(crate) spoken: bool,
    /// Fields that name another method.
    pub(crate) overrides: bool,
    /// A Referer, by which platforms tell of their mini-programs.
    pub(crate) referer: bool,
    /// Names with `_`, which some services read as `-`.
    pub(crate) underscores: bool,
    pub(crate) grpc: bool,
    /// Fields by which a client says how long it waits.
    pub(crate) timeout: bool,
}

/// The hop-by-hop fields that are there, other than those `Connection` nominates: a bit for each of
/// [`hop::FIELDS`].
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct HopByHop(u16);

impl HopByHop {
    pub(crate) fn has(self, name: &HeaderName) -> bool {
        self.0 != 0 && hop::index(name.as_str()).is_some_and(|at| self.0 & (1 << at) != 0)
    }

    pub(crate) fn all(self) -> impl Iterator<Item = HeaderName> {
        let mut left = self.0;
        std::iter::from_fn(move || {
            let at = left.trailing_zeros() as usize;
            left &= left.wrapping_sub(1);
            hop::FIELDS.get(at).cloned()
        })
    }
}

/// Fields by which proxies tell where a request came from, beside those the gateway writes anew.
pub(crate) const FORWARDED: [&str; 18] = [
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
    // What other proxies say of a client's certificate.
    "x-forwarded-client-cert",
    // What a gateway in front says of its attempts.
    "x-sluice-attempt",
];

impl Survey {
    pub(crate) fn of(headers: &HeaderMap) -> Self {
        let mut survey = Self { fields: headers.len(), ..Self::default() };
        for (name, value) in headers {
            let name = name.as_str();
            match name {
                "host" => survey.hosts += 1,
                "cookie" => survey.cookies += 1,
                "expect" => survey.expect = true,
                "via" => survey.via = true,
                "referer" => survey.referer = true,
                "grpc-timeout" | "x-request-timeout" => survey.timeout = true,
                "content-type" => {
                    survey.grpc |= value.as_bytes().starts_with(b"application/grpc");
                }
                _ => {
                    if let Some(at) = hop::index(name) {
                        survey.hop_by_hop.0 |= 1 << at;
                        continue;
                    }
                    if may_be_forwarded(name) {
                        survey.forwarded |= FORWARDED.contains(&name);
                        survey.certificates |= tells_certificate(name);
                        survey.overrides |= method_override::tells(name);
                        match family(name) {
                            Family::Other => {}
                            Family::Spoken => survey.spoken = true,
                            Family::Identity => survey.identity = true,
                        }
                    }
                    survey.underscores |= name.bytes().any(|byte| byte == b'_');
                }
            }
        }
        survey
    }
}

fn may_be_forwarded(name: &str) -> bool {
    matches!(name.as_bytes().first(), Some(b'f' | b'x' | b't' | b'c'))
}
