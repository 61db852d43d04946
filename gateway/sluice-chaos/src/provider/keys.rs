//! Ed25519 keys that rotate (RFC 8037), the list of them (RFC 7517), and tokens that they sign.
//!
//! The one rule: a key's `kid` is never given to another, so that a cache that trusts names is not led
//! astray by this peer.

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::json;

/// Keys that are published at a time.
const PUBLISHED: usize = 2;

pub(super) struct Keys {
    /// Number and key, oldest first.
    keys: Vec<(u64, Ed25519KeyPair)>,
}

impl Keys {
    pub(super) fn new() -> Self {
        Self { keys: vec![(1, generate())] }
    }

    pub(super) fn rotate(&mut self) {
        let number = self.newest().0 + 1;
        self.keys.push((number, generate()));
        let old = self.keys.len().saturating_sub(PUBLISHED);
        self.keys.drain(..old);
    }

    pub(super) fn published(&self) -> String {
        let key = |(number, key): &(u64, Ed25519KeyPair)| {
            json!({
                "kty": "OKP", "crv": "Ed25519", "use": "sig", "alg": "EdDSA",
                "kid": format!("key-{number}"),
                "x": URL_SAFE_NO_PAD.encode(key.public_key().as_ref()),
            })
        };
        json!({ "keys": self.keys.iter().map(key).collect::<Vec<_>>() }).to_string()
    }

    pub(super) fn token(&self, claims: &str) -> String {
        let (number, key) = self.newest();
        let head = format!(r#"{{"alg":"EdDSA","typ":"JWT","kid":"key-{number}"}}"#);
        let signed = format!("{}.{}", URL_SAFE_NO_PAD.encode(head), URL_SAFE_NO_PAD.encode(claims));
        let signature = key.sign(signed.as_bytes());
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature.as_ref()))
    }

    fn newest(&self) -> &(u64, Ed25519KeyPair) {
        self.keys.last().expect("there is always a key")
    }
}

fn generate() -> Ed25519KeyPair {
    Ed25519KeyPair::generate().expect("randomness")
}

/// Whether this published key has signed the token.
#[cfg(test)]
pub(super) fn verifies(token: &str, key: &serde_json::Value) -> bool {
    use aws_lc_rs::signature::{ED25519, UnparsedPublicKey};

    let (signed, signature) = token.rsplit_once('.').expect("three parts");
    let bytes = |text: &str| URL_SAFE_NO_PAD.decode(text).expect("base64");
    let public = bytes(key["x"].as_str().expect("a public key"));
    UnparsedPublicKey::new(&ED25519, public).verify(signed.as_bytes(), &bytes(signature)).is_ok()
}
