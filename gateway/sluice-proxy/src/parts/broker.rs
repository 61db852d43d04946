//! Access tokens for calls between servers: which apps have some, and who may have them or have calls made
//! with them. Below it the `token` and how a platform is asked (`call`). The one rule: a secret of an app
//! never leaves, and its token leaves only for who may read it.

pub(crate) mod call;
pub(crate) mod token;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;
use sluice_engine::breaker;
use sluice_engine::cidr::Set;

use super::admin::{MAX_TOKEN, MIN_TOKEN, Token};
use super::apps::{self, Provider};
use super::env::Env;
use super::login::store;
use super::platform_breaker;
use super::tls::{self, Certificates};
use crate::base::units::{ByteSize, Secret, Span};
use crate::base::yaml::Place;
use crate::lasting::broker::Cell;
use crate::lasting::fetch::Url;
use crate::lasting::login::MOST_AT_ONCE;
use crate::lasting::resolver::Names;
use crate::lasting::vault::Vault;

/// Access tokens of WeChat's apps, for services of ours.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(title = "TokenBroker")]
pub(crate) struct Config {
    /// Address and port where services come; a change needs a restart. Opened where there are `clients`.
    #[serde(default = "default_address")]
    address: SocketAddr,
    /// TLS there; needed unless the address is a loopback address.
    #[serde(default)]
    tls: Option<tls::Config>,
    /// Addresses or networks that services come from; empty means all.
    #[serde(default)]
    allow_cidrs: Vec<String>,
    /// Who may come.
    #[serde(default)]
    clients: Vec<ClientConfig>,
    /// From a service's whole request to the answer.
    #[serde(default = "default_timeout")]
    timeout: Span,
    /// What services may ask for.
    #[serde(default)]
    limits: Limits,
    /// When to stop asking a platform that fails.
    #[serde(default)]
    breaker: platform_breaker::Config,
    /// Where tokens are kept: `auto` is Redis where one is configured.
    #[serde(default)]
    store: store::Choice,
    /// Keys that tokens in Redis are sealed with; those of `login` if not given.
    #[serde(default)]
    store_keys: Vec<store::KeyConfig>,
}

fn default_address() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 9902))
}

fn default_timeout() -> Span {
    Span(Duration::from_secs(10))
}

/// A service that may come.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "BrokerClient")]
struct ClientConfig {
    /// Its name, in the log.
    name: String,
    /// What it shows, at least 32 characters: `${file:orders.token}`.
    token: Secret,
    /// Apps it may act for, by their ids; empty means all.
    #[serde(default)]
    apps: Vec<String>,
    /// What the paths of its calls begin with, like `/wxa/`; empty means all.
    #[serde(default)]
    paths: Vec<String>,
    /// Whether it may read access tokens, not only have calls made with them.
    #[serde(default)]
    read_token: bool,
    /// Whether it may have users' data proven and calls signed for their sessions.
    #[serde(default)]
    sessions: bool,
}

/// What services may ask for; each gateway of several has an equal share of the calls.
#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(rename = "BrokerLimits")]
pub(crate) struct Limits {
    /// Calls of one client, each second.
    pub(crate) per_client_second: u64,
    /// Calls for one app under way at a time.
    at_once: usize,
    /// Largest body of a call.
    pub(crate) body: ByteSize,
    /// Largest answer to one.
    pub(crate) answer: ByteSize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            per_client_second: 200,
            at_once: 50,
            // Both are held in memory: a picture to be looked at, a picture that was drawn.
            body: ByteSize(2 * 1024 * 1024),
            answer: ByteSize(4 * 1024 * 1024),
        }
    }
}

// === Compiled ===

/// Most that a body and an answer may have: so many calls at once are held in memory.
const MAX_BODY: u64 = 32 * 1024 * 1024;
/// Services at most.
const MAX_CLIENTS: usize = 256;

/// Everything that serves services.
#[derive(Debug)]
pub(crate) struct Broker {
    /// Where services come; nowhere without clients.
    pub(crate) address: Option<SocketAddr>,
    pub(crate) tls: Option<Arc<Certificates>>,
    allow: Option<Set>,
    clients: Vec<Client>,
    pub(crate) apps: Vec<Arc<App>>,
    /// Ids of apps that have no such token.
    without: Vec<Box<str>>,
    pub(crate) timeout: Duration,
    pub(crate) limits: Limits,
}

/// A service that may come.
#[derive(Debug)]
pub(crate) struct Client {
    pub(crate) name: Box<str>,
    token: Token,
    apps: Vec<String>,
    paths: Vec<String>,
    pub(crate) reads: bool,
    pub(crate) sessions: bool,
}

/// An app that has tokens.
pub(crate) struct App {
    pub(crate) id: Arc<str>,
    pub(crate) appid: String,
    secret: Secret,
    bases: Vec<Url>,
    tls: Arc<rustls::ClientConfig>,
    names: Arc<Names>,
    vault: Option<Vault>,
    pub(crate) cell: Arc<Cell>,
    pub(crate) breaker: breaker::Rules,
    at_once: usize,
}

impl std::fmt::Debug for App {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("App").field(&self.id).finish()
    }
}

/// An app as services name it.
pub(crate) enum Named {
    App(Arc<App>),
    /// There is one, without tokens of this kind.
    Without,
    Unknown,
}

impl Broker {
    /// Whether somebody may come from there.
    pub(crate) fn admits(&self, address: IpAddr) -> bool {
        self.allow.as_ref().is_none_or(|allow| allow.contains(address.to_canonical()))
    }

    /// Who shows this token.
    pub(crate) fn client(&self, shown: &[u8]) -> Option<&Client> {
        self.clients.iter().find(|client| client.token.is(shown))
    }

    pub(crate) fn app(&self, id: &str) -> Named {
        match self.apps.iter().find(|app| *app.id == *id) {
            Some(app) => Named::App(Arc::clone(app)),
            None if self.without.iter().any(|known| **known == *id) => Named::Without,
            None => Named::Unknown,
        }
    }
}

impl Client {
    pub(crate) fn acts_for(&self, app: &str) -> bool {
        self.apps.is_empty() || self.apps.iter().any(|known| known == app)
    }

    pub(crate) fn may_call(&self, path: &str) -> bool {
        self.paths.is_empty() || self.paths.iter().any(|start| path.starts_with(start.as_str()))
    }
}

impl Config {
    /// Where it is opened, if it is.
    pub(crate) fn door(&self) -> Option<SocketAddr> {
        (!self.clients.is_empty()).then_some(self.address)
    }

    /// Compiles it. `all` are the apps, and whether they could be read; `login_keys` seal where this names no
    /// keys.
    pub(crate) fn build(
        &self,
        (all, whole_apps): (&[apps::Config], bool),
        login_keys: &[store::KeyConfig],
        (at, at_apps): (&Place<'_>, &Place<'_>),
        env: &mut Env<'_>,
    ) -> Option<Arc<Broker>> {
        let whole = self.check(at, env);
        let clients = self.clients(all, &at.field("clients"), env);
        let tls = self.tls.as_ref().map(|tls| tls.build("token broker", &at.field("tls"), env));
        let allow = match self.allow_cidrs.is_empty() {
            true => Some(None),
            false => {
                super::filters::nets(&self.allow_cidrs, &at.field("allow_cidrs"), env).map(Some)
            }
        };
        let vault = self.vault(login_keys, at, env)?;
        let (have, without): (Vec<_>, Vec<_>) =
            all.iter().enumerate().partition(|(_, app)| has_tokens(app));
        if have.is_empty() && whole_apps {
            env.problems
                .error(at, "there is no app that has access tokens")
                .help("write `apps: [ { id: shop, provider: wechat, appid: ..., secret: ... } ]`");
        }
        let apps: Vec<_> = have
            .into_iter()
            .map(|(index, app)| self.app(app, vault.as_ref(), &at_apps.index(index), env))
            .collect();
        whole?;
        let clients = clients?;
        Some(Arc::new(Broker {
            address: self.door(),
            tls: match tls {
                None => None,
                Some(tls) => Some(Arc::new(tls?)),
            },
            allow: allow?,
            clients,
            apps: apps.into_iter().collect::<Option<_>>()?,
            without: without.iter().map(|(_, app)| app.id.as_str().into()).collect(),
            timeout: self.timeout.0,
            limits: self.limits,
        }))
    }

    fn app(
        &self,
        config: &apps::Config,
        vault: Option<&Vault>,
        at: &Place<'_>,
        env: &mut Env<'_>,
    ) -> Option<Arc<App>> {
        let description = super::provider::shipped(config.provider, env.problems)?;
        let provider = description.build(&config.api_base, &[], at, env)?;
        let tls = config.tls.for_urls(&at.field("tls"), env)?;
        let id: Arc<str> = config.id.as_str().into();
        let name = format!("token of app {id} {}", config.appid);
        Some(Arc::new(App {
            cell: env.retained.cell(&name, || Cell::new(Arc::clone(&id))),
            id,
            appid: config.appid.clone(),
            secret: config.secret.clone()?,
            bases: provider.bases,
            tls,
            names: Arc::clone(&env.names),
            vault: vault.cloned(),
            breaker: self.breaker.rules(),
            at_once: self.limits.at_once,
        }))
    }

    /// Where gateways share their tokens, if they do.
    fn vault(
        &self,
        login_keys: &[store::KeyConfig],
        at: &Place<'_>,
        env: &mut Env<'_>,
    ) -> Option<Option<Vault>> {
        let keys = if self.store_keys.is_empty() { login_keys } else { &self.store_keys };
        match (self.store, env.redis.clone()) {
            (store::Choice::Memory, _) | (store::Choice::Auto, None) => Some(None),
            (store::Choice::Redis, None) => {
                env.problems
                    .error(&at.field("store"), "there is no Redis to keep tokens in")
                    .help("write `redis: { url: redis://host:6379 }`, or leave `store` out");
                None
            }
            (store::Choice::Redis | store::Choice::Auto, Some(redis)) => {
                let ring = store::ring_of(keys, &at.field("store_keys"), env)?;
                Some(Some(Vault::shared(redis, Arc::new(ring))))
            }
        }
    }

    fn clients(
        &self,
        all: &[apps::Config],
        at: &Place<'_>,
        env: &mut Env<'_>,
    ) -> Option<Vec<Client>> {
        if self.clients.len() > MAX_CLIENTS {
            env.problems
                .error(at, format!("{} clients; at most {MAX_CLIENTS}", self.clients.len()));
            return None;
        }
        let mut whole = true;
        for (index, client) in self.clients.iter().enumerate() {
            let at = at.index(index);
            let mut wrong = |at: Place<'_>, message: String| {
                whole = false;
                env.problems.error(&at, message);
            };
            let plain = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'-' | b'_' | b'.');
            if !(1..=64).contains(&client.name.len()) || !client.name.bytes().all(plain) {
                wrong(
                    at.field("name"),
                    "a name has 1 to 64 letters, digits, `-`, `_`, `.`".to_owned(),
                );
            }
            let token = client.token.expose();
            if !(MIN_TOKEN..=MAX_TOKEN).contains(&token.len())
                || !token.bytes().all(|byte| byte.is_ascii_graphic())
            {
                let message = format!(
                    "the token has {MIN_TOKEN} to {MAX_TOKEN} visible characters; make one with \
                     `openssl rand -hex 32`"
                );
                wrong(at.field("token"), message);
            }
            let before = self.clients.iter().take(index);
            if before.clone().any(|other| other.token == client.token) {
                wrong(at.field("token"), "another client shows the same token".to_owned());
            }
            if before.clone().any(|other| other.name == client.name) {
                wrong(at.field("name"), format!("two clients are named `{}`", client.name));
            }
            for (index, id) in client.apps.iter().enumerate() {
                if !all.iter().any(|app| app.id == *id) {
                    let at = at.field("apps").index(index);
                    wrong(at, format!("there is no app `{id}`"));
                }
            }
            for (index, path) in client.paths.iter().enumerate() {
                if !path.starts_with('/') {
                    wrong(at.field("paths").index(index), "a path begins with `/`".to_owned());
                }
            }
        }
        whole.then(|| self.clients.iter().map(ClientConfig::compile).collect())
    }

    fn check(&self, at: &Place<'_>, env: &mut Env<'_>) -> Option<()> {
        let mut whole = Some(());
        let mut wrong = |at: Place<'_>, message: &str| {
            env.problems.error(&at, message);
            whole = None;
        };
        if self.tls.is_none() && !self.address.ip().is_loopback() && !self.clients.is_empty() {
            wrong(at.field("address"), "tokens would cross the network in clear; this needs `tls`");
        }
        if !(Duration::from_secs(1)..=Duration::from_secs(60)).contains(&self.timeout.0) {
            wrong(at.field("timeout"), "`timeout` must lie between 1s and 1m");
        }
        let limits = at.field("limits");
        if !(1..=1_000_000).contains(&self.limits.per_client_second) {
            wrong(limits.field("per_client_second"), "a limit lies between 1 and 1000000");
        }
        if !(1..=MOST_AT_ONCE).contains(&self.limits.at_once) {
            wrong(limits.field("at_once"), "`at_once` lies between 1 and 10000");
        }
        for (key, size) in [("body", self.limits.body), ("answer", self.limits.answer)] {
            if !(1024..=MAX_BODY).contains(&size.0) {
                wrong(limits.field(key), "it lies between 1KiB and 32MiB");
            }
        }
        let breaker = self.breaker.check(&at.field("breaker"), env);
        whole.and(breaker)
    }
}

impl ClientConfig {
    fn compile(&self) -> Client {
        Client {
            name: self.name.as_str().into(),
            token: Token::of(self.token.expose()),
            apps: self.apps.clone(),
            paths: self.paths.clone(),
            reads: self.read_token,
            sessions: self.sessions,
        }
    }
}

/// Whether an app gets tokens by its own secret.
fn has_tokens(app: &apps::Config) -> bool {
    let secret = app.secret.as_ref().is_some_and(|secret| !secret.expose().is_empty());
    app.provider == Provider::Wechat && secret
}
