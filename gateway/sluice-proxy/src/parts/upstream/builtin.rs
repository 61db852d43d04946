//! Services inside the gateway, by their words. What they do is `path::builtin`'s.

use schemars::JsonSchema;
use serde::Deserialize;

/// Services inside the gateway.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Builtin {
    /// Answers with what it was asked, as JSON.
    Echo,
    /// Answers 200 while the gateway is ready, 503 while it drains.
    Health,
    /// Exchanges a mini-program's code for a token, as `login` says.
    Login,
    /// Exchanges a refresh token for new tokens.
    Refresh,
    /// Ends the session of the token that a `jwt` filter of its route has accepted.
    Logout,
    /// Ends a token, a session or all sessions of a user, for a caller that a `jwt` filter has accepted.
    Revoke,
    /// Publishes the public keys that tokens of `login` are signed with.
    Jwks,
    /// Makes the calls of a batch, as `batch` says.
    Batch,
    /// Panics, to see that a panic costs its own request only; not in release builds.
    #[cfg(debug_assertions)]
    #[schemars(skip)]
    Panic,
    /// Panics while the config is compiled, to see that this is a refused reload.
    #[cfg(debug_assertions)]
    #[schemars(skip)]
    PanicWhenCompiled,
}

impl Builtin {
    pub(super) fn needs_login(self) -> bool {
        matches!(self, Self::Login | Self::Refresh | Self::Logout | Self::Revoke | Self::Jwks)
    }
}
