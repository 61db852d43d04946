//! Signatures that a platform wants under an exchange. Alipay's: RSA with SHA-256 over the parameters in
//! the order of their names, as `name=value` joined by `&`.

use std::sync::Arc;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{RSA_PKCS1_SHA256, RsaKeyPair};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject as _;
use schemars::JsonSchema;
use serde::Deserialize;

/// How an exchange is signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Scheme {
    /// Alipay's RSA2; a parameter `timestamp` is added, in the time of Beijing.
    AlipayRsa2,
}

/// The key of an app that signs.
#[derive(Clone)]
pub(crate) struct Signer(Arc<RsaKeyPair>);

impl std::fmt::Debug for Signer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Signer(***)")
    }
}

/// Beijing has known no summer time since 1991.
const BEIJING: i64 = 8 * 3600;

impl Signer {
    /// From a private RSA key: PEM, or what stands between the lines of one, as Alipay's tools write it.
    pub(crate) fn new(key: &str) -> Option<Self> {
        let der = if key.contains("-----BEGIN") {
            let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).ok()?;
            key.secret_der().to_vec()
        } else {
            let text: String = key.chars().filter(|c| !c.is_whitespace()).collect();
            STANDARD.decode(text).ok()?
        };
        let der = zeroize::Zeroizing::new(der);
        let pair = RsaKeyPair::from_pkcs8(&der).or_else(|_| RsaKeyPair::from_der(&der)).ok()?;
        Some(Self(Arc::new(pair)))
    }

    /// The signature under a text, in Base64.
    pub(crate) fn sign(&self, text: &str) -> Option<String> {
        let mut signature = vec![0; self.0.public_modulus_len()];
        self.0
            .sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), text.as_bytes(), &mut signature)
            .ok()?;
        Some(STANDARD.encode(signature))
    }
}

/// `2026-11-21 23:45:51` in Beijing.
pub(crate) fn beijing(unix_seconds: u64) -> String {
    let seconds = i64::try_from(unix_seconds).unwrap_or(0).saturating_add(BEIJING);
    let time = jiff::Timestamp::from_second(seconds).unwrap_or_default();
    time.strftime("%Y-%m-%d %H:%M:%S").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_is_that_of_beijing() {
        assert_eq!(beijing(0), "1970-01-01 08:00:00");
        assert_eq!(beijing(1_700_000_000), "2023-11-15 06:13:20");
    }

    #[test]
    fn what_is_no_key_is_refused() {
        for text in
            ["", "not a key", "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----"]
        {
            assert!(Signer::new(text).is_none(), "{text}");
        }
    }
}
