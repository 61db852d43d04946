//! Which mini-program is calling: what its header fields claim, what its Referer hints at, and what a
//! verified token proves. It is read once, before the route is looked for; a token raises it later.
//!
//! The one rule: what is claimed or hinted at may choose among what anybody may have, and grants nothing.

use std::sync::Arc;

use http::header::REFERER;
use http::{HeaderMap, HeaderName};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sluice_engine::mini::version::Version;
use sluice_engine::mini::{Client, Env as MiniEnv, Platform, Trust, referer};

use super::apps::{self, Apps};
use super::env::Env;
use super::exempt::{self, Exempt};
use super::version_gate::{Gates, Verdict};
use crate::base::cx::Cx;
use crate::base::fault::Fault;
use crate::base::yaml::Place;
use crate::lasting::telemetry::apps::AppSeries;

/// Longest word that a client says of itself, bytes.
const MAX_WORD: usize = 64;

/// How mini-programs are known that call.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Config {
    /// Fields in which clients tell of themselves.
    pub(crate) headers: Headers,
    /// What is done with the Referer, which the platform sets.
    pub(crate) referer: RefererConfig,
    /// Claims of verified tokens that tell who is calling.
    pub(crate) claims: Claims,
}

/// Fields in which clients tell of themselves.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Headers {
    /// The app, by our id or the platform's.
    app: String,
    /// The version, as its build was given it.
    version: String,
    /// The commit it was built from.
    build: String,
    /// `develop`, `trial` or `release`.
    env: String,
    /// The version of the base library.
    lib: String,
    /// A random id of the installation.
    device: String,
}

impl Default for Headers {
    fn default() -> Self {
        let [app, version, build, env, lib, device] =
            ["App", "Version", "Build", "Env", "Lib", "Device"].map(|word| format!("X-MP-{word}"));
        Self { app, version, build, env, lib, device }
    }
}

/// What is done with the Referer.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct RefererConfig {
    /// Whether it counts.
    mode: Mode,
    /// `enforce`: the apps that may call; all of `apps` if not given.
    allow_apps: Vec<String>,
    /// `enforce`: routes by id, or paths, that anybody may call.
    exempt: Vec<String>,
}

/// Whether the Referer counts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Mode {
    /// It is not looked at.
    Off,
    /// It hints at app, platform and kind of build, where the client says nothing itself.
    #[default]
    Report,
    /// Requests without one of a known app are refused with 403. It keeps scripts out that do not bother
    /// to lie; not for use behind WeChat Gateway, which changes it.
    Enforce,
}

/// Claims of verified tokens, by name.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Claims {
    /// The app, by our id or the platform's.
    pub(crate) app: String,
    /// The platform.
    pub(crate) platform: String,
    /// The platform's id of the user for this app.
    pub(crate) openid: String,
    /// The platform's id of the user for all apps of one owner.
    pub(crate) unionid: String,
    /// Our own id of the user.
    pub(crate) user: String,
    /// The user's roles.
    pub(crate) roles: String,
    /// The user's tier.
    pub(crate) tier: String,
    /// The session.
    pub(crate) session: String,
    /// What the token permits.
    pub(crate) scope: String,
}

impl Default for Claims {
    fn default() -> Self {
        let [app, platform, openid, unionid, user, roles, tier, session, scope] =
            ["app", "plt", "oid", "uid", "sub", "roles", "tier", "sid", "scope"].map(str::to_owned);
        Self { app, platform, openid, unionid, user, roles, tier, session, scope }
    }
}

/// As compiled; only where apps are declared.
#[derive(Debug)]
pub(crate) struct Callers {
    pub(crate) apps: Arc<Apps>,
    names: Names,
    /// Whether clients use the names that the survey of fields marks.
    usual: bool,
    mode: Mode,
    allowed: Vec<u16>,
    exempt: Exempt,
    gates: Gates,
    app_claim: String,
    platform_claim: String,
    /// Counts of those whose app is not known, and of those that name none.
    others: Arc<AppSeries>,
    nobody: Arc<AppSeries>,
}

#[derive(Debug)]
struct Names {
    app: HeaderName,
    version: HeaderName,
    build: HeaderName,
    env: HeaderName,
    lib: HeaderName,
    device: HeaderName,
}

impl Config {
    /// Compiles it for `apps`, or records every problem.
    pub(crate) fn build(
        &self,
        apps: &Arc<Apps>,
        gates: Option<Gates>,
        routes: &[&str],
        at: &Place<'_>,
        env: &mut Env<'_>,
    ) -> Option<Callers> {
        let names = self.headers.build(&at.field("headers"), env);
        let at = at.field("referer");
        let exempt = exempt::build(&self.referer.exempt, routes, &at.field("exempt"), env);
        let mut allowed = Some(Vec::new());
        for (index, id) in self.referer.allow_apps.iter().enumerate() {
            match (apps.named(id, &at.field("allow_apps").index(index), env), &mut allowed) {
                (Some(app), Some(allowed)) => allowed.push(app),
                _ => allowed = None,
            }
        }
        Some(Callers {
            apps: Arc::clone(apps),
            names: names?,
            usual: self.headers == Headers::default(),
            mode: self.referer.mode,
            allowed: allowed?,
            exempt: exempt?,
            gates: gates?,
            app_claim: self.claims.app.clone(),
            platform_claim: self.claims.platform.clone(),
            others: apps::series("other", env),
            nobody: apps::series("none", env),
        })
    }
}

impl Headers {
    fn build(&self, at: &Place<'_>, env: &mut Env<'_>) -> Option<Names> {
        let mut name = |key: &str, text: &str| {
            let parsed = HeaderName::try_from(text).ok();
            if parsed.is_none() {
                let message = format!("`{text}` is not a header name");
                env.problems.error(&at.field(key), message);
            }
            parsed
        };
        let app = name("app", &self.app);
        let version = name("version", &self.version);
        let build = name("build", &self.build);
        let (env_name, lib) = (name("env", &self.env), name("lib", &self.lib));
        let device = name("device", &self.device);
        Some(Names {
            app: app?,
            version: version?,
            build: build?,
            env: env_name?,
            lib: lib?,
            device: device?,
        })
    }
}

impl Callers {
    /// Notes what a request's fields say. `spoken` and `referer`: whether there are such fields.
    pub(crate) fn recognise(&self, cx: &mut Cx, headers: &HeaderMap, spoken: bool, referer: bool) {
        cx.mini = self.read(headers, spoken, referer);
        if let Some(app) = cx.mini.as_ref().and_then(|client| self.apps.get(client.app?)) {
            cx.envelope = app.envelope.unwrap_or(cx.envelope);
        }
    }

    fn read(&self, headers: &HeaderMap, spoken: bool, referer: bool) -> Option<Box<Client>> {
        let hint = if referer && self.mode != Mode::Off { hint(headers) } else { None };
        if !spoken && self.usual && hint.is_none() {
            return None;
        }
        let mut client = Client::default();
        if let Some(hint) = hint {
            client.app = self.apps.find(hint.appid);
            client.platform = Some(hint.platform);
            client.env = hint.env;
            client.trust = Trust::Hint;
        }
        if spoken || !self.usual {
            self.claimed(headers, &mut client);
        }
        if let Some(app) = client.app.and_then(|app| self.apps.get(app)) {
            client.platform = Some(app.platform);
        }
        self.gates.review(&mut client);
        Some(Box::new(client))
    }

    /// What the client says itself goes before what the Referer hints at.
    fn claimed(&self, headers: &HeaderMap, client: &mut Client) {
        if let Some(app) = word(headers, &self.names.app) {
            let found = self.apps.find(app);
            if found != client.app {
                client.platform = None;
            }
            client.app = found;
            client.trust = Trust::Claimed;
        }
        if let Some(env) = word(headers, &self.names.env).and_then(MiniEnv::parse) {
            client.env = Some(env);
        }
        client.version = word(headers, &self.names.version).and_then(Version::parse);
        let owned = |name| word(headers, name).map(Into::into);
        client.build = owned(&self.names.build);
        client.lib = owned(&self.names.lib);
        client.device = owned(&self.names.device);
    }

    /// Raises what is known by what a verified token says.
    pub(crate) fn prove(&self, cx: &mut Cx) {
        let text = |name: &str| cx.claim(name).and_then(Value::as_str);
        let app = text(&self.app_claim).map(|name| self.apps.find(name));
        let platform = text(&self.platform_claim).and_then(Platform::parse);
        if app.is_none() && platform.is_none() {
            return;
        }
        // Both are the token's alone: an app that was only claimed is not proven by a token of its platform.
        let client = cx.mini.get_or_insert_default();
        client.app = app.flatten();
        client.platform = platform;
        client.trust = Trust::Proven;
        if let Some(app) = client.app.and_then(|app| self.apps.get(app)) {
            client.platform = Some(app.platform);
            cx.envelope = app.envelope.unwrap_or(cx.envelope);
        }
    }

    /// Refuses who has no Referer of an app, where that is asked for.
    pub(crate) fn admit(
        &self,
        client: Option<&Client>,
        headers: &HeaderMap,
        route: Option<usize>,
        path: &str,
    ) -> Result<(), Fault> {
        if self.mode != Mode::Enforce || self.exempt.holds(route, path) {
            return Ok(());
        }
        let app = hint(headers).and_then(|hint| self.apps.find(hint.appid));
        let allowed = app.is_some_and(|app| self.allowed.is_empty() || self.allowed.contains(&app));
        // Who claims to be one app under the Referer of another is neither.
        let agrees = client.is_none_or(|client| client.trust == Trust::Proven || client.app == app);
        if allowed && agrees { Ok(()) } else { Err(Fault::RefererRefused) }
    }

    /// Judges the version that a client says it has.
    pub(crate) fn judge(&self, client: &Client, route: Option<usize>, path: &str) -> Verdict {
        self.gates.judge(client, route, path)
    }

    /// The counters of a caller's app.
    pub(crate) fn series(&self, client: Option<&Client>) -> &AppSeries {
        match client {
            None | Some(Client { trust: Trust::None, .. }) => &self.nobody,
            Some(client) => match client.app.and_then(|app| self.apps.get(app)) {
                Some(app) => &app.series,
                None => &self.others,
            },
        }
    }

    /// All that was counted.
    pub(crate) fn counted(&self) -> impl Iterator<Item = &AppSeries> {
        self.apps.iter().map(|app| &*app.series).chain([&*self.others, &*self.nobody])
    }
}

/// The one value of a field, if it is a plain word.
fn word<'h>(headers: &'h HeaderMap, name: &HeaderName) -> Option<&'h str> {
    let mut values = headers.get_all(name).iter();
    let (value, more) = (values.next()?, values.next());
    let plain =
        |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_' | b'+');
    value
        .to_str()
        .ok()
        .filter(|text| more.is_none() && (1..=MAX_WORD).contains(&text.len()))
        .filter(|text| text.bytes().all(plain))
}

fn hint(headers: &HeaderMap) -> Option<referer::Referer<'_>> {
    let mut values = headers.get_all(REFERER).iter();
    let (value, more) = (values.next()?, values.next());
    value.to_str().ok().filter(|_| more.is_none()).and_then(referer::parse)
}
