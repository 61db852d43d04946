//! Certificates of listeners: which one a client gets by the name it asks for (SNI), and how they are
//! read, checked and replaced while the gateway runs.

use std::collections::HashMap;
use std::io::Write as _;
use std::path::Path;
use std::sync::Arc;

use arc_swap::ArcSwap;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::env::Env;
use crate::base::yaml::Place;

/// TLS of a listener.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Config {
    /// Certificates; a client gets the one made for the name it asks for.
    pub(crate) certificates: Vec<CertificateConfig>,
    /// Oldest version accepted.
    #[serde(default)]
    pub(crate) min_version: Version,
}

/// A certificate chain with its key, both in PEM form.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct CertificateConfig {
    /// The chain, leaf first.
    pub(crate) cert_file: String,
    /// The private key.
    pub(crate) key_file: String,
    /// Given to clients that ask for no name or an unknown one. With one certificate it is on.
    #[serde(default)]
    pub(crate) default: bool,
}

/// TLS versions.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
pub(crate) enum Version {
    #[default]
    #[serde(rename = "1.2")]
    Tls12,
    #[serde(rename = "1.3")]
    Tls13,
}

impl Config {
    /// Reads and checks the certificates.
    pub(crate) fn build(&self, at: &Place<'_>, env: &mut Env<'_>) -> Option<Certificates> {
        let at = at.field("certificates");
        if self.certificates.is_empty() {
            env.problems.error(&at, "a TLS listener needs at least one certificate");
            return None;
        }
        let mut certificates = Certificates::default();
        let mut whole = true;
        let single = self.certificates.len() == 1;
        for (index, config) in self.certificates.iter().enumerate() {
            let at = at.index(index);
            match config.load(&at, env) {
                Some(key) => whole &= certificates.add(&key, config.default || single, &at, env),
                None => whole = false,
            }
        }
        whole.then_some(certificates)
    }
}

impl CertificateConfig {
    fn load(&self, at: &Place<'_>, env: &mut Env<'_>) -> Option<Arc<CertifiedKey>> {
        let (cert_path, key_path) = (env.path(&self.cert_file), env.path(&self.key_file));
        if env.development && !cert_path.exists() && !key_path.exists() {
            let pair = development()?;
            if env.may_write
                && let Err(error) = write_private(&key_path, pair.key.as_bytes())
                    .and_then(|()| std::fs::write(&cert_path, &pair.cert))
            {
                tracing::warn!(path = %cert_path.display(), %error,
                    "cannot keep the development certificate; it lives in memory until the gateway stops");
            }
            return certified(pair.cert.as_bytes(), pair.key.as_bytes(), at, env);
        }
        let cert = env.file(&at.field("cert_file"), &self.cert_file);
        let key = env.file(&at.field("key_file"), &self.key_file);
        certified(&cert?, &key?, at, env)
    }
}

fn certified(
    cert: &[u8],
    key: &[u8],
    at: &Place<'_>,
    env: &mut Env<'_>,
) -> Option<Arc<CertifiedKey>> {
    let chain: Vec<CertificateDer<'static>> =
        CertificateDer::pem_slice_iter(cert).filter_map(Result::ok).collect();
    if chain.is_empty() {
        env.problems.error(&at.field("cert_file"), "the file holds no PEM certificate");
        return None;
    }
    let key = match PrivateKeyDer::from_pem_slice(key) {
        Ok(key) => key,
        Err(error) => {
            env.problems
                .error(&at.field("key_file"), format!("not a private key in PEM form: {error}"));
            return None;
        }
    };
    let signer = match rustls::crypto::aws_lc_rs::sign::any_supported_type(&key) {
        Ok(signer) => signer,
        Err(error) => {
            env.problems.error(&at.field("key_file"), format!("unsupported key: {error}"));
            return None;
        }
    };
    let certified = CertifiedKey::new(chain, signer);
    match certified.keys_match() {
        Ok(()) | Err(rustls::Error::InconsistentKeys(rustls::InconsistentKeys::Unknown)) => {}
        Err(_) => {
            env.problems
                .error(&at.field("key_file"), "this key does not belong to the certificate");
            return None;
        }
    }
    Some(Arc::new(certified))
}

// === Choosing by name ===

/// Certificates by name.
#[derive(Debug, Default)]
pub(crate) struct Certificates {
    exact: HashMap<String, Arc<CertifiedKey>>,
    /// By the part after `*`, with its dot: a wildcard covers one label (RFC 6125 section 6.4.3).
    wildcard: HashMap<String, Arc<CertifiedKey>>,
    default: Option<Arc<CertifiedKey>>,
    expiry: Vec<(String, i64)>,
}

impl Certificates {
    fn add(
        &mut self,
        key: &Arc<CertifiedKey>,
        default: bool,
        at: &Place<'_>,
        env: &mut Env<'_>,
    ) -> bool {
        let Some(leaf) = key.cert.first() else { return false };
        let Ok((_, parsed)) = x509_parser::parse_x509_certificate(leaf) else {
            env.problems.error(&at.field("cert_file"), "the first certificate cannot be parsed");
            return false;
        };
        let names = names(&parsed);
        let expires = parsed.validity().not_after.timestamp();
        self.expiry.push((names.first().cloned().unwrap_or_else(|| "unnamed".to_owned()), expires));
        for name in names {
            match name.strip_prefix('*') {
                Some(rest) => {
                    self.wildcard.entry(rest.to_owned()).or_insert_with(|| Arc::clone(key))
                }
                None => self.exact.entry(name).or_insert_with(|| Arc::clone(key)),
            };
        }
        if default && self.default.replace(Arc::clone(key)).is_some() {
            env.problems.error(&at.field("default"), "only one certificate can be the default");
            return false;
        }
        true
    }

    fn choose(&self, name: Option<&str>) -> Option<Arc<CertifiedKey>> {
        let found = name.and_then(|name| {
            let name = name.trim_end_matches('.').to_ascii_lowercase();
            let parent = name.find('.').and_then(|dot| name.get(dot..));
            self.exact.get(&name).or_else(|| self.wildcard.get(parent?))
        });
        found.or(self.default.as_ref()).map(Arc::clone)
    }

    /// When each certificate expires, in seconds since 1970, by its first name.
    pub(crate) fn expiry(&self) -> &[(String, i64)] {
        &self.expiry
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

/// A listener's certificates as rustls asks for them; replaced without touching the listener.
#[derive(Debug)]
pub(crate) struct Store {
    current: ArcSwap<Certificates>,
}

impl Store {
    pub(crate) fn new() -> Self {
        Self { current: ArcSwap::from_pointee(Certificates::default()) }
    }

    pub(crate) fn replace(&self, certificates: Arc<Certificates>) {
        self.current.store(certificates);
    }
}

impl ResolvesServerCert for Store {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.current.load().choose(hello.server_name())
    }
}

/// The server side of a listener's TLS.
pub(crate) fn server_config(
    store: Arc<Store>,
    min_version: Version,
) -> Result<rustls::ServerConfig, rustls::Error> {
    let versions: &[&rustls::SupportedProtocolVersion] = match min_version {
        Version::Tls12 => &[&rustls::version::TLS13, &rustls::version::TLS12],
        Version::Tls13 => &[&rustls::version::TLS13],
    };
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(versions)?
        .with_no_client_auth()
        .with_cert_resolver(store);
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    config.ticketer = rustls::crypto::aws_lc_rs::Ticketer::new()?;
    config.session_storage = rustls::server::ServerSessionMemoryCache::new(16_384);
    // 0-RTT data can be replayed by anybody who saw it.
    config.max_early_data_size = 0;
    Ok(config)
}

// === Development ===

/// A self-signed pair, PEM.
#[derive(Debug, Clone)]
pub struct Pair {
    /// The certificate.
    pub cert: String,
    /// Its private key.
    pub key: String,
}

/// The self-signed certificate of this process; the same one however often it is asked for, so that a
/// reload does not change it where it cannot be written down.
fn development() -> Option<Pair> {
    static MADE: std::sync::OnceLock<Option<Pair>> = std::sync::OnceLock::new();
    MADE.get_or_init(|| self_signed(&["localhost", "127.0.0.1", "::1"]).ok()).clone()
}

/// A self-signed certificate for host names and addresses.
///
/// # Errors
///
/// A text saying which name cannot stand in a certificate.
pub fn self_signed(names: &[&str]) -> Result<Pair, String> {
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let make = || {
        let mut params = rcgen::CertificateParams::new(names)?;
        params.distinguished_name.push(rcgen::DnType::CommonName, "sluice development");
        let key = rcgen::KeyPair::generate()?;
        let cert = params.self_signed(&key)?;
        Ok(Pair { cert: cert.pem(), key: key.serialize_pem() })
    };
    make().map_err(|error: rcgen::Error| error.to_string())
}

/// Writes a file only its owner may read, making the folder if needed.
pub(crate) fn write_private(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)?;
    }
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)?.write_all(bytes)
}
