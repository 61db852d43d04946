//! TLS of a listener: which certificates it shows, and which it wants to see. Below it these by name,
//! whom the gateway believes to be who, and certificates for trying things out.

mod certificates;
mod chain;
mod client_auth;
mod development;
pub(crate) mod identity;

use std::sync::Arc;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use zeroize::Zeroize as _;

use super::env::Env;
use crate::base::yaml::Place;
pub(crate) use certificates::{Boundary, Certificates, Served};
use client_auth::Policy;
pub(crate) use development::write_private;
pub use development::{Pair, self_signed};

/// TLS of a listener.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Config {
    /// Certificates; a client gets the one made for the name it asks for.
    pub(crate) certificates: Vec<CertificateConfig>,
    /// Oldest version accepted.
    #[serde(default)]
    pub(crate) min_version: Version,
    /// Certificates of clients, for every entry of `certificates` that says nothing else.
    #[serde(default)]
    pub(crate) client_auth: Option<client_auth::Config>,
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
    /// Certificates of the clients that ask for a name of this certificate.
    #[serde(default)]
    pub(crate) client_auth: Option<client_auth::Config>,
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
    /// Reads and checks everything a handshake on this listener needs.
    pub(crate) fn build(
        &self,
        listener: &str,
        at: &Place<'_>,
        env: &mut Env<'_>,
    ) -> Option<Certificates> {
        let common = match &self.client_auth {
            None => Some(Policy::none()),
            Some(config) => config.build(&at.field("client_auth"), env),
        };
        let at = at.field("certificates");
        if self.certificates.is_empty() {
            env.problems.error(&at, "a TLS listener needs at least one certificate");
            return None;
        }
        let mut certificates = Certificates::new(listener, self.min_version);
        let mut whole = true;
        let single = self.certificates.len() == 1;
        for (index, config) in self.certificates.iter().enumerate() {
            let at = at.index(index);
            let policy = match &config.client_auth {
                None => common.clone(),
                Some(own) => own.build(&at.field("client_auth"), env),
            };
            match (config.load(&at, env), policy) {
                (Some(key), Some(policy)) => {
                    let default = config.default || single;
                    whole &= certificates.add(key, &policy, default, &at, env);
                }
                _ => whole = false,
            }
        }
        (whole && common.is_some()).then_some(certificates)
    }
}

impl CertificateConfig {
    fn load(&self, at: &Place<'_>, env: &mut Env<'_>) -> Option<Arc<CertifiedKey>> {
        let (cert_path, key_path) = (env.path(&self.cert_file), env.path(&self.key_file));
        if env.development && !cert_path.exists() && !key_path.exists() {
            let pair = development::pair()?;
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
        let key = env.secret_file(&at.field("key_file"), &self.key_file);
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
    let mut key = match PrivateKeyDer::from_pem_slice(key) {
        Ok(key) => key,
        Err(error) => {
            env.problems
                .error(&at.field("key_file"), format!("not a private key in PEM form: {error}"));
            return None;
        }
    };
    let signer = rustls::crypto::aws_lc_rs::sign::any_supported_type(&key);
    // The signer has a copy of its own, which its library wipes.
    key.zeroize();
    let signer = match signer {
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
