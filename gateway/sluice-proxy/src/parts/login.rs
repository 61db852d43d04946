//! Logging in with a mini-program's code: what operators say about it, and what that becomes. The way of a
//! login is `path::login`'s.

use std::sync::Arc;
use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;
use sluice_engine::breaker;

use super::env::Env;
use super::masters::{self, Masters};
use super::open_data;
use super::platform_breaker;
use crate::base::units::Span;
use crate::base::yaml::Place;
use crate::lasting::login::flights::Flights;
use crate::lasting::login::{Desk, MOST_AT_ONCE};
use crate::lasting::redis::Target;
use crate::lasting::resolver::Names;
use app::App;

pub(crate) mod app;
pub(crate) mod keys;
pub(crate) mod sessions;
pub(crate) mod store;
pub(crate) mod token;
pub(crate) mod user;

/// How people log in with the apps of `apps`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Config {
    /// Keys that tokens are signed with; the first one signs, if no other says so.
    pub(crate) keys: Vec<keys::Config>,
    /// What tokens say.
    #[serde(default)]
    pub(crate) token: token::Config,
    /// From the request to the answer, at most 4.5s: a mini-program in the background is cut off after 5s.
    #[serde(default = "default_timeout")]
    timeout: Span,
    /// Tell the client its `openid`.
    #[serde(default)]
    expose_openid: bool,
    /// Shape of the answer.
    #[serde(default)]
    answer: Shape,
    /// How often people may log in.
    #[serde(default)]
    limits: Limits,
    /// When to stop asking a platform that fails.
    #[serde(default)]
    breaker: platform_breaker::Config,
    /// Logins that last.
    #[serde(default)]
    sessions: sessions::Config,
    /// A service of ours that knows more of people.
    #[serde(default)]
    user: Option<user::Config>,
    /// What is believed of a platform's open data.
    #[serde(default)]
    open_data: open_data::Config,
    /// Where codes and sessions are kept: `auto` is Redis where one is configured.
    #[serde(default)]
    store: store::Choice,
    /// Hand out with each token a key to sign requests with, for the filter `signature` with `scheme: session`.
    #[serde(default)]
    sign_key: Option<masters::Config>,
    /// Keys that what is kept in Redis is sealed with; the first one seals, all of them open.
    #[serde(default)]
    pub(crate) store_keys: Vec<store::KeyConfig>,
}

fn default_timeout() -> Span {
    Span(Duration::from_secs(3))
}

/// Shape of the answer to a login.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Shape {
    /// `{"code": 0, "msg": "ok", "data": {"token": ..., "expires_in": ...}}`
    #[default]
    Envelope,
    /// `{"token": ..., "expires_in": ...}`
    Flat,
}

/// How often people may log in; each gateway of several has an equal share. They lie below what
/// platforms allow, and a limit by address leaves room for the many who share one.
#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Limits {
    /// Logins of one user with one app, each minute; WeChat allows 100.
    pub(crate) per_user_minute: u64,
    /// Exchanges of one app, each second.
    pub(crate) per_app_second: u64,
    /// Logins from one address (of IPv6 one /64), each minute.
    pub(crate) per_address_minute: u64,
    /// Exchanges of one app under way at a time.
    pub(crate) at_once: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            per_user_minute: 20,
            per_app_second: 500,
            per_address_minute: 600,
            // Enough for 500 a second at a tenth of a second each.
            at_once: 50,
        }
    }
}

// === Compiled ===

/// Everything a login needs.
pub(crate) struct Login {
    pub(crate) apps: Vec<Counter>,
    pub(crate) signing: Arc<keys::Signing>,
    pub(crate) token: token::Rules,
    pub(crate) timeout: Duration,
    pub(crate) expose_openid: bool,
    /// What keys to sign requests with are derived from, if they are handed out.
    pub(crate) sign_key: Option<Arc<Masters>>,
    pub(crate) shape: Shape,
    pub(crate) limits: Limits,
    pub(crate) breaker: breaker::Rules,
    pub(crate) names: Arc<Names>,
    pub(crate) flights: Arc<Flights>,
    pub(crate) stores: store::Stores,
    pub(crate) sessions: sessions::Rules,
    pub(crate) user: Option<user::Service>,
    pub(crate) open_data: open_data::Rules,
    /// Gateways with equal shares of the limits.
    pub(crate) redis: Option<Arc<Target>>,
}

/// An app, and what of it outlives a reload.
#[derive(Debug, Clone)]
pub(crate) struct Counter {
    pub(crate) app: Arc<App>,
    pub(crate) desk: Arc<Desk>,
}

impl std::fmt::Debug for Login {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Login").field("apps", &self.apps).finish_non_exhaustive()
    }
}

impl Config {
    /// Compiles it; `whole` says that no app was left out.
    pub(crate) fn build(
        &self,
        apps: &[Arc<App>],
        whole: bool,
        at: &Place<'_>,
        env: &mut Env<'_>,
    ) -> Option<Arc<Login>> {
        if apps.is_empty() && whole {
            env.problems
                .error(at, "there is no app to log in with")
                .help("write `apps: [ { id: shop, provider: wechat, appid: ..., secret: ... } ]`");
        }
        let signing = keys::build(&self.keys, &at.field("keys"), env);
        let token = self.token.build(&at.field("token"), env);
        let stores = store::build(self.store, &self.store_keys, at, env);
        let stored = stores.as_ref().is_none_or(|stores| stores.lasting.is_some());
        let sessions = self.sessions.build(stored, &at.field("sessions"), env);
        let user = match &self.user {
            None => None,
            Some(config) => Some(config.build(&at.field("user"), env)?),
        };
        let sign_key = match &self.sign_key {
            None => None,
            Some(config) => Some(Arc::new(config.build(&at.field("sign_key"), env)?)),
        };
        let open_data = self.open_data.build(&at.field("open_data"), env);
        self.check(at, env)?;
        let desk = |app: &Arc<App>| {
            let id = Arc::clone(&app.id);
            let desk = env.retained.cell(&format!("desk of app {id}"), || Desk::new(id.clone()));
            Counter { app: Arc::clone(app), desk }
        };
        Some(Arc::new(Login {
            apps: apps.iter().map(desk).collect(),
            signing: signing?,
            token: token?,
            timeout: self.timeout.0,
            expose_openid: self.expose_openid,
            sign_key,
            shape: self.answer,
            limits: self.limits,
            breaker: self.breaker.rules(),
            names: Arc::clone(&env.names),
            flights: env.retained.cell("flights of login", Flights::default),
            stores: stores?,
            sessions: sessions?,
            user,
            open_data: open_data?,
            redis: env.redis.clone(),
        }))
    }

    fn check(&self, at: &Place<'_>, env: &mut Env<'_>) -> Option<()> {
        let mut whole = Some(());
        let mut wrong = |at: Place<'_>, message: &str| {
            env.problems.error(&at, message);
            whole = None;
        };
        if !(Duration::from_millis(100)..=LONGEST).contains(&self.timeout.0) {
            wrong(at.field("timeout"), "`timeout` must lie between 100ms and 4.5s");
        }
        let limits = at.field("limits");
        for (key, limit) in [
            ("per_user_minute", self.limits.per_user_minute),
            ("per_app_second", self.limits.per_app_second),
            ("per_address_minute", self.limits.per_address_minute),
        ] {
            if !(1..=1_000_000).contains(&limit) {
                wrong(limits.field(key), "a limit lies between 1 and 1000000");
            }
        }
        if !(1..=MOST_AT_ONCE).contains(&self.limits.at_once) {
            wrong(limits.field("at_once"), "`at_once` lies between 1 and 10000");
        }
        let breaker = self.breaker.check(&at.field("breaker"), env);
        whole.and(breaker)
    }
}

/// A mini-program in the background is cut off after 5 s.
const LONGEST: Duration = Duration::from_millis(4500);

impl Login {
    /// The share of a limit that this gateway may use.
    pub(crate) fn share(&self, limit: u64) -> u64 {
        let gateways = self.redis.as_ref().map_or(1, |redis| redis.gateways());
        limit.div_ceil(gateways.max(1))
    }
}
