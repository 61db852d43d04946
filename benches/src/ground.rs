//! What a run needs on disk before any proxy starts: a certificate, keys of tokens, and the tokens.
//!
//! Everything is made anew for each run and is worth nothing elsewhere. The one rule: all proxies
//! and all clients use the same certificate (ECDSA P-256).

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::json;

use crate::failure::{Failure, Outcome};
use crate::workloads::Token;

/// Files and tokens of a run.
#[derive(Debug)]
pub(crate) struct Ground {
    pub(crate) certificate: PathBuf,
    pub(crate) key: PathBuf,
    /// Certificate and key in one file, as HAProxy wants them.
    pub(crate) both: PathBuf,
    pub(crate) hmac_secret: PathBuf,
    pub(crate) ec_public_key: PathBuf,
    hs256: String,
    es256: String,
}

/// The secret of HS256; it is as public as the rest of this file.
pub(crate) const SECRET: &str = "a secret of the benchmarks that protects nothing at all";
/// How long tokens hold: longer than any run.
const LIFETIME_S: u64 = 7 * 24 * 3600;

impl Ground {
    pub(crate) fn make(folder: &Path) -> Outcome<Self> {
        fs::create_dir_all(folder).map_err(Failure::at(folder))?;
        let write = |name: &str, text: &str| {
            let place = folder.join(name);
            fs::write(&place, text).map_err(Failure::at(&place)).map(|()| place)
        };
        let names = vec!["localhost".to_owned(), "127.0.0.1".to_owned()];
        let made = rcgen::generate_simple_self_signed(names).map_err(unmade)?;
        let (certificate, key) = (made.cert.pem(), made.signing_key.serialize_pem());
        let pair = rcgen::KeyPair::generate().map_err(unmade)?;
        let signer = EncodingKey::from_ec_pem(pair.serialize_pem().as_bytes()).map_err(unmade)?;
        Ok(Self {
            certificate: write("bench.pem", &certificate)?,
            key: write("bench.key", &key)?,
            both: write("bench.both.pem", &format!("{certificate}{key}"))?,
            hmac_secret: write("hs256.key", SECRET)?,
            ec_public_key: write("es256.pub", &pair.public_key_pem())?,
            hs256: token(Algorithm::HS256, &EncodingKey::from_secret(SECRET.as_bytes()))?,
            es256: token(Algorithm::ES256, &signer)?,
        })
    }

    pub(crate) fn token(&self, kind: Token) -> &str {
        match kind {
            Token::Hs256 => &self.hs256,
            Token::Es256 => &self.es256,
        }
    }

    /// The same claims with a signature of somebody else: the last characters are turned around.
    pub(crate) fn forged(&self, kind: Token) -> String {
        let token = self.token(kind);
        let (signed, signature) = token.rsplit_once('.').unwrap_or((token, ""));
        format!("{signed}.{}", signature.chars().rev().collect::<String>())
    }
}

fn token(algorithm: Algorithm, key: &EncodingKey) -> Outcome<String> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_err(unmade)?;
    let claims = json!({ "sub": "bench", "openid": "o-1", "exp": now.as_secs() + LIFETIME_S });
    let mut header = Header::new(algorithm);
    header.kid = Some("bench".into());
    jsonwebtoken::encode(&header, &claims, key).map_err(unmade)
}

fn unmade(why: impl std::fmt::Display) -> Failure {
    Failure(format!("keys of the run: {why}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_signed_and_forged_ones_differ_in_the_signature_alone() {
        let folder = std::env::temp_dir().join(format!("sluice-ground-{}", std::process::id()));
        let ground = Ground::make(&folder).unwrap();
        for kind in [Token::Hs256, Token::Es256] {
            let (good, forged) = (ground.token(kind), ground.forged(kind));
            assert_ne!(good, forged);
            assert_eq!(good.rsplit_once('.').unwrap().0, forged.rsplit_once('.').unwrap().0);
            assert_eq!(good.len(), forged.len());
        }
        let pem = fs::read_to_string(&ground.both).unwrap();
        assert!(pem.contains("BEGIN CERTIFICATE") && pem.contains("PRIVATE KEY"));
        fs::remove_dir_all(&folder).unwrap();
    }
}
