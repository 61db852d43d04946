//! A signature over what a service is told about the caller, so that it can prove that the gateway said
//! it: HMAC-SHA256 over the request's target, the moment and all identity fields.
//!
//! The one rule: everything that a service would believe is signed, what has no field included: a field
//! that was added or taken away on the way breaks the signature.

use std::fmt::Write as _;

use aws_lc_rs::hmac;
use http::request::Parts;
use http::{HeaderName, HeaderValue};
use schemars::JsonSchema;
use serde::Deserialize;

use crate::base::clock;
use crate::base::cx::Cx;
use crate::base::fault::Fault;
use crate::base::units::Secret;
use crate::base::yaml::Place;
use crate::parts::env::Env;
use crate::parts::filters::KeyConfig;

/// Its field.
pub(crate) static SIGNATURE: HeaderName = HeaderName::from_static("x-sluice-signature");

/// Sign what services are told about the caller.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "IdentitySignature")]
pub(crate) struct Config {
    /// The name of the key, which services use to find it.
    kid: String,
    /// File with the HMAC secret, at least 32 bytes; a newline at its end does not count.
    #[serde(default)]
    secret_file: Option<String>,
    /// The HMAC secret itself; better a file, or `${NAME}`.
    #[serde(default)]
    secret: Option<Secret>,
}

impl Config {
    /// Compiles it, or records every problem.
    pub(crate) fn build(&self, at: &Place<'_>, env: &mut Env<'_>) -> Option<Signer> {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_');
        if !(1..=64).contains(&self.kid.len()) || !self.kid.bytes().all(plain) {
            env.problems
                .error(&at.field("kid"), format!("`{}` cannot be the name of a key", self.kid))
                .help("write 1 to 64 letters, digits, `.`, `-` and `_`");
            return None;
        }
        let key = KeyConfig::hmac(&self.kid, self.secret_file.as_ref(), self.secret.as_ref());
        let secret = key.secret_bytes(at, env)?;
        Some(Signer::new(&self.kid, &secret))
    }
}

/// The key, ready for use.
pub(crate) struct Signer {
    kid: String,
    key: hmac::Key,
}

impl std::fmt::Debug for Signer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Signer").field("kid", &self.kid).finish_non_exhaustive()
    }
}

impl Signer {
    fn new(kid: &str, secret: &[u8]) -> Self {
        Self { kid: kid.to_owned(), key: hmac::Key::new(hmac::HMAC_SHA256, secret) }
    }

    /// Signs a request that is ready to be sent.
    pub(crate) fn sign(&self, cx: &mut Cx, head: &mut Parts) -> Result<(), Fault> {
        let id = match cx.request_id.as_ref().and_then(|id| id.to_str().ok()) {
            Some(id) => id.to_owned(),
            None => cx.trace().trace_hex().as_str().to_owned(),
        };
        let value = self.value(head, clock::unix_seconds(), &id);
        let value = HeaderValue::try_from(value).map_err(|_| Fault::Internal)?;
        head.headers.insert(&SIGNATURE, value);
        Ok(())
    }

    fn value(&self, head: &Parts, now: u64, id: &str) -> String {
        let target = head.uri.path_and_query().map_or("/", |target| target.as_str());
        let signed = format!("sluice-v1\n{}\n{now}\n{id}\n{}\n{target}\n", self.kid, head.method);
        let mut context = hmac::Context::with_key(&self.key);
        context.update(signed.as_bytes());
        let mut fields: Vec<_> = head.headers.iter().filter(|(name, _)| tells(name)).collect();
        fields.sort_by(|one, two| one.0.as_str().cmp(two.0.as_str()));
        for (name, value) in fields {
            for piece in [name.as_str().as_bytes(), b":", value.as_bytes(), b"\n"] {
                context.update(piece);
            }
        }
        let mut text = format!("v1;kid={};t={now};id={id};s=", self.kid);
        for byte in context.sign().as_ref() {
            let _ = write!(text, "{byte:02x}");
        }
        text
    }
}

/// Whether a field is signed.
fn tells(name: &HeaderName) -> bool {
    let name = name.as_str();
    name.starts_with("x-mp-") || name.starts_with("x-wx-")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The vector that the documentation shows.
    #[test]
    fn the_documented_example_is_what_is_signed() {
        let (mut head, ()) = http::Request::builder()
            .method("POST")
            .uri("/orders?id=7")
            .header("x-wx-openid", "o-123")
            .header("x-mp-user", "42")
            .header("content-type", "application/json")
            .header("x-mp-app", "shop-wx")
            .body(())
            .unwrap()
            .into_parts();
        let signer = Signer::new("main", b"0123456789abcdef0123456789abcdef");
        let value = signer.value(&head, 1_700_000_000, "req-1");
        assert_eq!(
            value,
            "v1;kid=main;t=1700000000;id=req-1;\
             s=5817759b09d9cafc9a4d8333efdfb7c88fdffdd0d985957225141d181d2f7c4e"
        );
        head.headers.insert("x-mp-tier", HeaderValue::from_static("vip"));
        assert_ne!(signer.value(&head, 1_700_000_000, "req-1"), value, "a field was added");
        head.headers.remove("x-mp-tier");
        assert_eq!(signer.value(&head, 1_700_000_000, "req-1"), value);
        head.headers.remove("x-mp-app");
        assert_ne!(signer.value(&head, 1_700_000_000, "req-1"), value, "a field was taken away");
    }
}
