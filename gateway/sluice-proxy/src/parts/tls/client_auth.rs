//! Whose certificates clients have to show. What is read here is a policy: two certificates with the
//! same one may share sessions, with different ones never.

use std::sync::Arc;

use aws_lc_rs::digest;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::base::clock;
use crate::base::yaml::Place;
use crate::parts::env::Env;

/// Which certificates clients have to show.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Config {
    /// Whether they have to.
    #[serde(default)]
    mode: Mode,
    /// PEM bundle of the authorities whose certificates are believed.
    #[serde(default)]
    ca_file: Option<String>,
    /// PEM file with the revocation lists of these authorities. With it, a certificate is refused where
    /// one of its issuers has no list in the file.
    #[serde(default)]
    crl_file: Option<String>,
}

/// Whether clients have to show a certificate.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum Mode {
    /// Without a good certificate there is no connection.
    #[default]
    Require,
    /// A client may come without; a bad certificate is refused all the same.
    Optional,
    /// None is asked for.
    None,
}

/// A policy as compiled.
#[derive(Debug, Clone)]
pub(super) struct Policy {
    /// None where none is asked for.
    pub(super) verifier: Option<Arc<dyn ClientCertVerifier>>,
    /// Changes when anything about it changes, the content of its files included.
    pub(super) key: Arc<str>,
}

impl Policy {
    pub(super) fn none() -> Self {
        Self { verifier: None, key: "none".into() }
    }
}

impl Config {
    pub(super) fn build(&self, at: &Place<'_>, env: &mut Env<'_>) -> Option<Policy> {
        if self.mode == Mode::None {
            for (key, file) in [("ca_file", &self.ca_file), ("crl_file", &self.crl_file)] {
                if file.is_some() {
                    env.problems
                        .error(&at.field(key), "`mode: none` asks for no certificate")
                        .help("leave this out, or write `mode: require` or `mode: optional`");
                    return None;
                }
            }
            return Some(Policy::none());
        }
        let Some(ca_file) = &self.ca_file else {
            env.problems
                .error(at, "certificates of clients need an authority that is believed")
                .help("name its PEM bundle with `ca_file`");
            return None;
        };
        let mut fingerprint = digest::Context::new(&digest::SHA256);
        fingerprint.update(&[u8::from(self.mode == Mode::Optional)]);
        let roots = roots(ca_file, &at.field("ca_file"), env, &mut fingerprint);
        // Where one file ends and the next begins must not be open to doubt.
        fingerprint.update(&[0]);
        let lists = match &self.crl_file {
            None => Some(Vec::new()),
            Some(file) => lists(file, &at.field("crl_file"), env, &mut fingerprint),
        };
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let (roots, lists) = (Arc::new(roots?), lists?);
        let builder = WebPkiClientVerifier::builder_with_provider(roots, provider).with_crls(lists);
        let builder = match self.mode {
            Mode::Optional => builder.allow_unauthenticated(),
            _ => builder,
        };
        match builder.build() {
            Ok(verifier) => {
                let digest = fingerprint.finish();
                let key: String =
                    digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
                Some(Policy { verifier: Some(verifier), key: key.into() })
            }
            Err(error) => {
                env.problems.error(&at.field("crl_file"), format!("unusable: {error}"));
                None
            }
        }
    }
}

fn roots(
    file: &str,
    at: &Place<'_>,
    env: &mut Env<'_>,
    fingerprint: &mut digest::Context,
) -> Option<rustls::RootCertStore> {
    let pem = env.file(at, file)?;
    fingerprint.update(&pem);
    let mut roots = rustls::RootCertStore::empty();
    for (index, certificate) in CertificateDer::pem_slice_iter(&pem).enumerate() {
        let added = certificate
            .map_err(|error| error.to_string())
            .and_then(|der| roots.add(der).map_err(|error| error.to_string()));
        if let Err(error) = added {
            // Left out, its clients would be refused and nobody would know why.
            env.problems.error(at, format!("certificate {} cannot be used: {error}", index + 1));
            return None;
        }
    }
    if roots.is_empty() {
        env.problems.error(at, "the file holds no PEM certificate");
        return None;
    }
    Some(roots)
}

fn lists(
    file: &str,
    at: &Place<'_>,
    env: &mut Env<'_>,
    fingerprint: &mut digest::Context,
) -> Option<Vec<CertificateRevocationListDer<'static>>> {
    let pem = env.file(at, file)?;
    fingerprint.update(&pem);
    let lists: Result<Vec<_>, _> = CertificateRevocationListDer::pem_slice_iter(&pem).collect();
    match lists {
        Ok(lists) if !lists.is_empty() => {
            if lists.iter().any(|list| is_stale(list)) {
                let message = "a revocation list in the file is older than it says it may get";
                env.problems.warn(at, message);
            }
            Some(lists)
        }
        Ok(_) => {
            env.problems.error(at, "the file holds no PEM revocation list");
            None
        }
        Err(error) => {
            env.problems.error(at, format!("not revocation lists in PEM form: {error}"));
            None
        }
    }
}

/// Whether a list's time for its successor has passed.
fn is_stale(list: &[u8]) -> bool {
    let Ok((_, list)) = x509_parser::parse_x509_crl(list) else { return false };
    let now = i64::try_from(clock::unix_seconds()).unwrap_or(i64::MAX);
    list.next_update().is_some_and(|next| next.timestamp() < now)
}
