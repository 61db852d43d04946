//! How long people stay logged in, and on how many devices.

use std::sync::Arc;
use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;
use sluice_engine::devices;

use crate::base::units::Span;
use crate::base::yaml::Place;
use crate::lasting::login::seen::Seen;
use crate::lasting::revocations::Revocations;
use crate::parts::env::Env;

/// Logins that last, where there is a store for them.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Config {
    /// Whether routes look a session up (`stateful`) or believe a token that is not revoked (`stateless`).
    mode: Mode,
    /// Pause after which a stateful session is over.
    ttl: Span,
    /// On how many devices somebody may be logged in with one app: `single`, `per_platform`, or
    /// `{ max: 10 }`. The newest login stays.
    devices: Devices,
    /// How long refresh tokens are good: since the login.
    lifetime: Span,
    /// How long a used refresh token may come again, for answers that were lost.
    grace: Span,
    /// What becomes of a request when nobody knows what was revoked: Redis has been silent for 2s. If not
    /// given, methods that change nothing are allowed, others refused; routes with `sensitive: true` always
    /// refuse.
    on_store_error: Option<OnStoreError>,
}

/// Whether sessions are looked up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Mode {
    Stateless,
    Stateful,
}

/// What to do when the store cannot say.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum OnStoreError {
    /// Believe the token.
    Allow,
    /// 503.
    Deny,
}

/// On how many devices somebody may be logged in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Devices {
    /// On one.
    Single,
    /// On one of each platform.
    PerPlatform,
    /// On so many, 100 at most.
    Max(usize),
}

impl Default for Config {
    fn default() -> Self {
        Self {
            mode: Mode::Stateless,
            ttl: Span(Duration::from_secs(1800)),
            devices: Devices::Max(10),
            lifetime: Span(Duration::from_secs(30 * 86_400)),
            grace: Span(Duration::from_secs(30)),
            on_store_error: None,
        }
    }
}

/// Sessions of one user at most.
const MOST: usize = 100;
/// Longest a login lasts.
const LONGEST: Duration = Duration::from_secs(365 * 86_400);

/// The name under which a session is kept.
pub(crate) fn name(sid: &str) -> String {
    format!("sluice:login:session:{{{sid}}}")
}

/// The same as compiled.
pub(crate) struct Rules {
    pub(crate) stateful: bool,
    pub(crate) ttl: Duration,
    pub(crate) devices: devices::Rule,
    pub(crate) lifetime: Duration,
    pub(crate) grace: Duration,
    pub(crate) on_store_error: Option<OnStoreError>,
    pub(crate) revocations: Arc<Revocations>,
    pub(crate) seen: Arc<Seen>,
}

impl Config {
    /// Compiles it; `stored` says whether there is a store.
    pub(crate) fn build(&self, stored: bool, at: &Place<'_>, env: &mut Env<'_>) -> Option<Rules> {
        let mut whole = true;
        let day = Duration::from_secs(86_400);
        for (key, span, least, most, words) in [
            ("ttl", self.ttl, Duration::from_secs(1), 30 * day, "1s and 30d"),
            ("lifetime", self.lifetime, Duration::from_secs(60), LONGEST, "1m and 365d"),
            ("grace", self.grace, Duration::ZERO, Duration::from_secs(300), "0s and 5m"),
        ] {
            if !(least..=most).contains(&span.0) {
                whole = false;
                let message = format!("`{key}` must lie between {words}");
                env.problems.error(&at.field(key), message);
            }
        }
        if matches!(self.devices, Devices::Max(n) if !(1..=MOST).contains(&n)) {
            whole = false;
            env.problems
                .error(&at.field("devices"), "somebody may be logged in on 1 to 100 devices");
        }
        if self.mode == Mode::Stateful && !stored {
            whole = false;
            env.problems
                .error(&at.field("mode"), "stateful sessions need a store")
                .help("write `redis: { url: ... }`, or `store: memory` for a single gateway");
        }
        whole.then(|| Rules {
            stateful: self.mode == Mode::Stateful,
            ttl: self.ttl.0,
            devices: match self.devices {
                Devices::Single => devices::Rule::Single,
                Devices::PerPlatform => devices::Rule::PerPlatform,
                Devices::Max(n) => devices::Rule::Max(n),
            },
            lifetime: self.lifetime.0,
            grace: self.grace.0,
            on_store_error: self.on_store_error,
            revocations: env.retained.cell("revocations of login", Revocations::default),
            seen: env.retained.cell("seen sessions of login", Seen::default),
        })
    }
}
