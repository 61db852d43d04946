//! What TLS has established about a client's connection: which hosts it may be asked for, and who the
//! client has proven to be. It is found out once, when hands are shaken; a request only looks.

use std::fmt::Debug;

use http::{HeaderMap, HeaderName, HeaderValue};

/// SHA-256 of the client's certificate, in hex digits.
static SHA256: HeaderName = HeaderName::from_static("x-client-cert-sha256");
/// The common name of its subject.
static COMMON_NAME: HeaderName = HeaderName::from_static("x-client-cert-cn");
/// Its alternative names.
static NAMES: HeaderName = HeaderName::from_static("x-client-cert-san");

/// What is known of a connection by TLS.
#[derive(Debug)]
pub(crate) struct Secured {
    /// The name the client asked for, as hosts are written here; empty if none.
    pub(crate) name: Box<str>,
    /// Which other hosts it may be asked for; any, if not given.
    pub(crate) scope: Option<Box<dyn Scope>>,
    /// The certificate the client has shown, and holds the key of.
    pub(crate) client: Option<ClientCert>,
}

/// Which hosts a connection may be asked for.
pub(crate) trait Scope: Debug {
    /// `host` is in lower case, without port and without a trailing dot.
    fn covers(&self, host: &str) -> bool;
}

/// A verified certificate of a client. Values are visible ASCII and bounded; what does not fit is
/// missing, since half a name would be another's name.
#[derive(Debug)]
pub(crate) struct ClientCert {
    pub(crate) sha256: HeaderValue,
    pub(crate) common_name: Option<HeaderValue>,
    pub(crate) names: Option<HeaderValue>,
}

impl Secured {
    /// Whether the connection may be asked for this host.
    pub(crate) fn serves(&self, host: &str) -> bool {
        *self.name == *host || self.scope.as_ref().is_none_or(|scope| scope.covers(host))
    }
}

impl ClientCert {
    /// Says who the client is. What clients said about it has been removed before.
    pub(crate) fn introduce(&self, headers: &mut HeaderMap) {
        headers.insert(&SHA256, self.sha256.clone());
        for (name, value) in [(&COMMON_NAME, &self.common_name), (&NAMES, &self.names)] {
            if let Some(value) = value {
                headers.insert(name, value.clone());
            }
        }
    }
}

/// Whether a field of this name says whose certificate a client has shown: our own, and those of
/// RFC 9440. Only the gateway may say that.
pub(crate) fn tells_certificate(name: &str) -> bool {
    name.starts_with("x-client-cert") || matches!(name, "client-cert" | "client-cert-chain")
}
