//! A listener's certificates by name, each with all that a handshake for it needs. The whole is one
//! object of a snapshot: a certificate, its key and its policy change together or not at all.

use std::collections::HashMap;
use std::sync::Arc;

use rustls::server::{ProducesTickets, StoresServerSessions};
use rustls::sign::{CertifiedKey, SingleCertAndKey};

use super::Version;
use super::chain;
use super::client_auth::Policy;
use crate::base::secured::Scope;
use crate::base::yaml::Place;
use crate::parts::env::Env;

/// Sessions kept for clients that cannot keep a ticket.
const SESSIONS: usize = 4_096;

/// Certificates by name.
#[derive(Debug)]
pub(crate) struct Certificates {
    listener: String,
    min_version: Version,
    served: Vec<Arc<Served>>,
    names: Names,
}

/// Positions in the list of certificates.
#[derive(Debug, Default)]
struct Names {
    exact: HashMap<String, usize>,
    /// By the part after `*`, with its dot: a wildcard covers one label (RFC 6125 section 6.4.3).
    wildcard: HashMap<String, usize>,
    default: Option<usize>,
}

/// A certificate as it is served.
#[derive(Debug)]
pub(crate) struct Served {
    pub(crate) server: Arc<rustls::ServerConfig>,
    /// Its first name, for operators.
    pub(crate) name: String,
    /// Seconds since 1970.
    pub(crate) not_before: i64,
    pub(crate) not_after: i64,
    names: Vec<String>,
    policy: Arc<str>,
    index: usize,
    _sessions: Arc<Kept>,
}

/// Sessions as they are kept by name: as long as a certificate holds them.
type Kept = Result<Sessions, rustls::Error>;

/// What makes sessions resumable: kept over reloads, and never shared between policies, or a session
/// made without a certificate could be resumed where one is required (CVE-2025-23419). rustls itself
/// resumes a session for the name only that it was made for (RFC 6066 section 3).
#[derive(Debug)]
struct Sessions {
    storage: Arc<dyn StoresServerSessions>,
    tickets: Arc<dyn ProducesTickets>,
}

impl Certificates {
    pub(super) fn new(listener: &str, min_version: Version) -> Self {
        Self {
            listener: listener.to_owned(),
            min_version,
            served: Vec::new(),
            names: Names::default(),
        }
    }

    pub(super) fn add(
        &mut self,
        key: Arc<CertifiedKey>,
        policy: &Policy,
        default: bool,
        at: &Place<'_>,
        env: &mut Env<'_>,
    ) -> bool {
        let Some(leaf) = key.cert.first() else { return false };
        let Ok((_, parsed)) = x509_parser::parse_x509_certificate(leaf) else {
            env.problems.error(&at.field("cert_file"), "the first certificate cannot be parsed");
            return false;
        };
        chain::judge(&key.cert, &at.field("cert_file"), env);
        let names = names(&parsed);
        let validity = parsed.validity();
        let (not_before, not_after) =
            (validity.not_before.timestamp(), validity.not_after.timestamp());
        let index = self.served.len();
        if default && self.names.default.replace(index).is_some() {
            env.problems.error(&at.field("default"), "only one certificate can be the default");
            return false;
        }
        for name in &names {
            let known = self.names.insert(name, index);
            if let Some(other) = known.and_then(|known| self.served.get(known))
                && other.policy != policy.key
            {
                let message = format!(
                    "an earlier certificate is for `{name}` too, with another `client_auth`"
                );
                env.problems.error(&at.field("cert_file"), message);
                return false;
            }
        }
        let owner =
            format!("TLS of listener {} {:?} {}", self.listener, self.min_version, policy.key);
        let sessions: Arc<Kept> = env.retained.cell(&owner, Sessions::new);
        let server = match self.server_config(key, policy, &sessions) {
            Ok(server) => Arc::new(server),
            Err(error) => {
                env.problems.error(at, format!("TLS cannot be set up: {error}"));
                return false;
            }
        };
        let name = names.first().cloned().unwrap_or_else(|| "unnamed".to_owned());
        let policy = Arc::clone(&policy.key);
        let served = Served {
            server,
            name,
            not_before,
            not_after,
            names,
            policy,
            index,
            _sessions: sessions,
        };
        self.served.push(Arc::new(served));
        true
    }

    fn server_config(
        &self,
        key: Arc<CertifiedKey>,
        policy: &Policy,
        sessions: &Kept,
    ) -> Result<rustls::ServerConfig, rustls::Error> {
        let versions: &[&rustls::SupportedProtocolVersion] = match self.min_version {
            Version::Tls12 => &[&rustls::version::TLS13, &rustls::version::TLS12],
            Version::Tls13 => &[&rustls::version::TLS13],
        };
        let sessions = sessions.as_ref().map_err(Clone::clone)?;
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = rustls::ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(versions)?;
        let builder = match &policy.verifier {
            None => builder.with_no_client_auth(),
            Some(verifier) => builder.with_client_cert_verifier(Arc::clone(verifier)),
        };
        let mut config = builder.with_cert_resolver(Arc::new(SingleCertAndKey::from(key)));
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        config.ticketer = Arc::clone(&sessions.tickets);
        config.session_storage = Arc::clone(&sessions.storage);
        // 0-RTT data can be replayed by anybody who saw it.
        config.max_early_data_size = 0;
        Ok(config)
    }

    /// The certificate for a client that asks for this name, or for none.
    pub(crate) fn choose(&self, name: Option<&str>) -> Option<&Arc<Served>> {
        self.names.find(name.unwrap_or_default()).and_then(|index| self.served.get(index))
    }

    /// Every certificate, in the order of the file.
    pub(crate) fn all(&self) -> impl Iterator<Item = &Served> {
        self.served.iter().map(Arc::as_ref)
    }

    /// Whether some connection could be asked for a host that belongs to another one. With a single
    /// certificate there is none.
    pub(crate) fn divides_hosts(&self) -> bool {
        self.served.len() > 1
    }
}

impl Sessions {
    fn new() -> Result<Self, rustls::Error> {
        Ok(Self {
            storage: rustls::server::ServerSessionMemoryCache::new(SESSIONS),
            tickets: rustls::crypto::aws_lc_rs::Ticketer::new()?,
        })
    }
}

impl Names {
    /// Notes whose name this is; the first one keeps it and is told.
    fn insert(&mut self, name: &str, index: usize) -> Option<usize> {
        let (map, name) = match name.strip_prefix('*') {
            Some(rest) => (&mut self.wildcard, rest),
            None => (&mut self.exact, name),
        };
        let owner = *map.entry(name.to_owned()).or_insert(index);
        (owner != index).then_some(owner)
    }

    fn find(&self, name: &str) -> Option<usize> {
        let name = name.trim_end_matches('.').to_ascii_lowercase();
        let wild = || self.wildcard.get(parent(&name)?);
        self.exact.get(&name).or_else(wild).copied().or(self.default)
    }
}

/// A name without its first label.
fn parent(name: &str) -> Option<&str> {
    name.find('.').and_then(|dot| name.get(dot..))
}

impl Served {
    /// Whether the certificate itself is for this host, which is in lower case.
    fn is_for(&self, host: &str) -> bool {
        let wild = parent(host);
        self.names.iter().any(|name| match name.strip_prefix('*') {
            Some(rest) => Some(rest) == wild,
            None => name == host,
        })
    }
}

/// Which hosts a connection may be asked for: those that a connection of their own would bring to the
/// same certificate, and those the certificate is for, unless clients have to show there what they did
/// not have to show here (RFC 9110 section 15.5.20).
#[derive(Debug)]
pub(crate) struct Boundary {
    pub(crate) certificates: Arc<Certificates>,
    pub(crate) served: Arc<Served>,
}

impl Scope for Boundary {
    fn covers(&self, host: &str) -> bool {
        let own = self.certificates.choose(Some(host));
        match own {
            Some(own) if own.index == self.served.index => true,
            Some(own) => own.policy == self.served.policy && self.served.is_for(host),
            None => false,
        }
    }
}

fn names(certificate: &x509_parser::certificate::X509Certificate<'_>) -> Vec<String> {
    use x509_parser::extensions::GeneralName;
    let Ok(Some(san)) = certificate.subject_alternative_name() else { return Vec::new() };
    san.value
        .general_names
        .iter()
        .filter_map(|name| match name {
            GeneralName::DNSName(name) => Some(name.to_ascii_lowercase()),
            _ => None,
        })
        .collect()
}
