//! Services inside the gateway, by their words. What they do is `path::builtin`'s.

use schemars::JsonSchema;
use serde::Deserialize;

use crate::base::yaml::Place;
use crate::parts::env::Env;

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
    /// Verifies and decrypts open data of the platform with the key of the caller's session.
    OpenData,
    /// Exchanges the code of a button for the caller's phone number, by the access token of `token_broker`.
    PhoneNumber,
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
    fn needs_login(self) -> bool {
        use Builtin::{Jwks, Login, Logout, OpenData, PhoneNumber, Refresh, Revoke};
        matches!(self, Login | Refresh | Logout | Revoke | Jwks | OpenData | PhoneNumber)
    }

    /// Records what it needs and the config does not have.
    pub(super) fn check(self, at: &Place<'_>, env: &mut Env<'_>) {
        let at = at.field("builtin");
        if self.needs_login() && !env.has_login {
            env.problems
                .error(&at, "there is no `login` section that says how")
                .help("write `login: { keys: [...] }` and `apps: [...]`; see docs/login.md");
        }
        if self == Self::PhoneNumber && !env.has_broker {
            env.problems
                .error(&at, "there is no `token_broker` that has access tokens")
                .help("write `token_broker: {}`; see docs/token-broker.md");
        }
        let lasting = env.login.as_ref().map(|login| login.stores.lasting.is_some());
        if matches!(self, Self::OpenData | Self::PhoneNumber) && lasting == Some(false) {
            env.problems
                .error(&at, "sessions are kept nowhere, and their keys with them")
                .help("write `redis: { url: ... }`, or `store: memory` under `login`");
        }
    }
}
