//! `admin:`: where operators look, and the token without which they change nothing. The token itself is
//! not kept: a digest of it is enough to know it again.

use std::net::SocketAddr;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::digest::{Digest, SHA256, digest};
use schemars::JsonSchema;
use serde::Deserialize;

use super::env::Env;
use crate::base::units::Secret;
use crate::base::yaml::Place;

/// Bytes that a token needs.
pub(super) const MIN_TOKEN: usize = 32;
/// And has at most.
pub(super) const MAX_TOKEN: usize = 1024;

/// Where operators and Prometheus look.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(title = "Admin")]
pub(crate) struct Config {
    /// Address and port; a change needs a restart. Only loopback addresses are accepted.
    pub(crate) address: SocketAddr,
    /// What changes anything has to show this, at least 32 characters: `${file:admin.token}`. Without it
    /// nothing can be changed.
    token: Option<Secret>,
}

impl Default for Config {
    fn default() -> Self {
        Self { address: SocketAddr::from(([127, 0, 0, 1], 9901)), token: None }
    }
}

/// The token by which operators are known.
#[derive(Debug, Clone)]
pub(crate) struct Token {
    digest: Digest,
    /// The first 8 hex digits of its digest, for audits.
    pub(crate) fingerprint: String,
}

impl Config {
    pub(crate) fn build(&self, at: &Place<'_>, env: &mut Env<'_>) -> Option<Token> {
        if !self.address.ip().is_loopback() {
            env.problems
                .error(&at.field("address"), "the admin address must be a loopback address")
                .help(
                    "write 127.0.0.1:9901; let Prometheus reach it through an agent on this host",
                );
        }
        let text = self.token.as_ref()?.expose();
        let at = at.field("token");
        if !(MIN_TOKEN..=MAX_TOKEN).contains(&text.len()) {
            env.problems
                .error(
                    &at,
                    format!(
                        "the token has {} bytes; {MIN_TOKEN} to {MAX_TOKEN} are needed",
                        text.len()
                    ),
                )
                .help("make one with `openssl rand -hex 32`, and write `${file:admin.token}`");
            return None;
        }
        if !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            env.problems
                .error(&at, "the token has blanks or other characters that no header can carry")
                .help("make one with `openssl rand -hex 32`");
            return None;
        }
        if at.node().is_some_and(|node| !node.substituted()) {
            env.problems
                .warn(&at, "this token stands where everybody who reads the config reads it")
                .help("write `${file:admin.token}` or `${SLUICE_ADMIN_TOKEN}`");
        }
        Some(Token::of(text))
    }
}

impl Token {
    pub(super) fn of(text: &str) -> Self {
        let digest = digest(&SHA256, text.as_bytes());
        let fingerprint =
            digest.as_ref().iter().take(4).map(|byte| format!("{byte:02x}")).collect();
        Self { digest, fingerprint }
    }

    /// Whether somebody shows this token. How long that takes tells nothing about it.
    pub(crate) fn is(&self, shown: &[u8]) -> bool {
        let shown = digest(&SHA256, shown);
        verify_slices_are_equal(self.digest.as_ref(), shown.as_ref()).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_known_again_and_no_other() {
        let token = Token::of("0123456789abcdef0123456789abcdef");
        assert!(token.is(b"0123456789abcdef0123456789abcdef"));
        for other in [&b""[..], b"0123456789abcdef", b"0123456789abcdef0123456789abcdeF"] {
            assert!(!token.is(other));
        }
        assert_eq!(token.fingerprint.len(), 8);
        assert!(!format!("{token:?}").contains("0123456789abcdef"));
    }
}
