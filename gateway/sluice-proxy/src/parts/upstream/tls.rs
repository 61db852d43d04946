//! TLS towards a service: whom to trust, who we are, and which name to ask for.

use std::sync::Arc;

use aws_lc_rs::digest;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use schemars::JsonSchema;
use serde::Deserialize;

use crate::base::yaml::Place;
use crate::lasting::link::Protocol;
use crate::parts::env::Env;

/// TLS towards the endpoints; certificates are always verified.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Config {
    /// PEM bundle of the authorities to trust; the system's if not given.
    #[serde(default)]
    ca_file: Option<String>,
    /// Our own certificate, if the service wants one.
    #[serde(default)]
    cert_file: Option<String>,
    /// Its private key.
    #[serde(default)]
    key_file: Option<String>,
    /// The name to ask for and to verify; the endpoint's host if not given.
    #[serde(default)]
    server_name: Option<String>,
}

/// As compiled.
pub(crate) struct Compiled {
    pub(crate) config: Arc<rustls::ClientConfig>,
    server_name: Option<ServerName<'static>>,
    /// Changes when anything about it changes: a part of the names pools are kept by.
    pub(crate) key: String,
}

impl Compiled {
    /// The name to verify for an endpoint.
    pub(crate) fn for_host(&self, host: &str) -> Option<ServerName<'static>> {
        self.server_name.clone().or_else(|| ServerName::try_from(host.to_owned()).ok())
    }
}

impl Config {
    /// For addresses that name the host to ask for: a name beside them would go unheard.
    pub(crate) fn for_urls(
        &self,
        at: &Place<'_>,
        env: &mut Env<'_>,
    ) -> Option<Arc<rustls::ClientConfig>> {
        if self.server_name.is_some() {
            env.problems
                .error(&at.field("server_name"), "here the host of the address is verified")
                .help("write that name into the address, and leave `server_name` out");
            return None;
        }
        self.build(Protocol::Http1, at, env).map(|compiled| compiled.config)
    }

    pub(crate) fn build(
        &self,
        protocol: Protocol,
        at: &Place<'_>,
        env: &mut Env<'_>,
    ) -> Option<Compiled> {
        let mut fingerprint = digest::Context::new(&digest::SHA256);
        let roots = self.roots(at, env, &mut fingerprint);
        let identity = self.identity(at, env, &mut fingerprint);
        let server_name = match &self.server_name {
            None => None,
            Some(name) => match ServerName::try_from(name.clone()) {
                Ok(name) => Some(name),
                Err(_) => {
                    env.problems
                        .error(&at.field("server_name"), format!("`{name}` is not a host name"));
                    return None;
                }
            },
        };
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .ok()?
            .with_root_certificates(roots?);
        let mut config = match identity? {
            None => builder.with_no_client_auth(),
            Some((chain, key)) => match builder.with_client_auth_cert(chain, key) {
                Ok(config) => config,
                Err(error) => {
                    env.problems.error(
                        &at.field("key_file"),
                        format!("unusable client certificate: {error}"),
                    );
                    return None;
                }
            },
        };
        config.alpn_protocols = match protocol {
            Protocol::Http1 => vec![b"http/1.1".to_vec()],
            Protocol::Http2 => vec![b"h2".to_vec()],
        };
        let digest = fingerprint.finish();
        let key = digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
        Some(Compiled { config: Arc::new(config), server_name, key })
    }

    fn roots(
        &self,
        at: &Place<'_>,
        env: &mut Env<'_>,
        fingerprint: &mut digest::Context,
    ) -> Option<rustls::RootCertStore> {
        let mut roots = rustls::RootCertStore::empty();
        match &self.ca_file {
            Some(path) => {
                let at = at.field("ca_file");
                let pem = env.file(&at, path)?;
                fingerprint.update(&pem);
                roots.add_parsable_certificates(
                    CertificateDer::pem_slice_iter(&pem).filter_map(Result::ok),
                );
                if roots.is_empty() {
                    env.problems.error(&at, "the file holds no PEM certificate");
                    return None;
                }
            }
            None => {
                let native = rustls_native_certs::load_native_certs();
                for error in &native.errors {
                    tracing::warn!(%error, "a system root certificate could not be read");
                }
                roots.add_parsable_certificates(native.certs);
                if roots.is_empty() {
                    env.problems.error(at, "this system has no root certificates").help(
                        "install the package ca-certificates, or name a bundle with `ca_file`",
                    );
                    return None;
                }
            }
        }
        Some(roots)
    }

    #[expect(clippy::option_option, reason = "absent and unusable differ")]
    fn identity(
        &self,
        at: &Place<'_>,
        env: &mut Env<'_>,
        fingerprint: &mut digest::Context,
    ) -> Option<Option<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)>> {
        let (cert, key) = match (&self.cert_file, &self.key_file) {
            (None, None) => return Some(None),
            (Some(cert), Some(key)) => (cert, key),
            _ => {
                env.problems.error(at, "cert_file and key_file belong together");
                return None;
            }
        };
        let cert = env.file(&at.field("cert_file"), cert)?;
        let key_pem = env.secret_file(&at.field("key_file"), key)?;
        fingerprint.update(&cert);
        fingerprint.update(&key_pem);
        let chain = CertificateDer::pem_slice_iter(&cert).filter_map(Result::ok).collect();
        match PrivateKeyDer::from_pem_slice(&key_pem) {
            Ok(key) => Some(Some((chain, key))),
            Err(error) => {
                env.problems.error(
                    &at.field("key_file"),
                    format!("not a private key in PEM form: {error}"),
                );
                None
            }
        }
    }
}
