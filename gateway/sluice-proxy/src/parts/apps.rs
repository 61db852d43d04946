//! The mini-programs that this gateway is in front of. Their own ids are labels and log words; the
//! platforms' ids are how callers and tokens name them.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use http::HeaderValue;
use schemars::JsonSchema;
use serde::Deserialize;
use sluice_engine::mini::Platform;

use super::env::Env;
use super::provider;
use super::upstream::tls;
use crate::base::respond::Envelope;
use crate::base::units::Secret;
use crate::base::yaml::Place;
use crate::lasting::telemetry::apps::AppSeries;

/// Apps at most: each is a label.
const MAX_APPS: usize = 256;
/// Longest id, bytes.
const MAX_ID: usize = 64;

/// A mini-program.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "App")]
pub(crate) struct Config {
    /// Our own name of it: lower-case letters, digits, `-` and `_`; seen in metrics, logs and tokens.
    pub(crate) id: String,
    /// Whose platform it runs on.
    pub(crate) provider: Provider,
    /// The platform's id of it, like `wx0123456789abcdef`; only `provider: development` has none.
    #[serde(default)]
    pub(crate) appid: String,
    /// What it proves itself to the platform with; without one nobody logs in with it.
    #[serde(default)]
    pub(crate) secret: Option<Secret>,
    /// Where to ask at a login, in this order, instead of the platform's own addresses.
    #[serde(default)]
    pub(crate) api_base: Vec<String>,
    /// How a code is exchanged, for `provider: custom`.
    #[serde(default)]
    pub(crate) exchange: Option<Box<provider::Config>>,
    /// More parameters that `exchange` may name.
    #[serde(default)]
    pub(crate) params: BTreeMap<String, Secret>,
    /// TLS towards the platform.
    #[serde(default)]
    pub(crate) tls: tls::Config,
    /// Shape of refusals to this app; `errors.envelope` if not given.
    #[serde(default)]
    pub(crate) envelope: Option<Envelope>,
}

/// Platforms of mini-programs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Provider {
    /// WeChat.
    Wechat,
    /// WeChat, for an owner who has authorised a service provider; `params` hold `component_appid` and
    /// `component_access_token`.
    #[serde(rename = "wechat_service_provider")]
    WechatComponent,
    /// QQ.
    Qq,
    /// Douyin and Toutiao.
    Douyin,
    /// Feishu.
    Feishu,
    /// Baidu.
    Baidu,
    /// Alipay.
    Alipay,
    /// Kuaishou.
    Kuaishou,
    /// Any other; `exchange` says how people log in.
    Custom,
    /// No platform: every code is somebody's. Only where all listeners are on loopback addresses.
    Development,
}

impl Provider {
    /// Its word, in tokens.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Wechat => "wechat",
            Self::WechatComponent => "wechat_service_provider",
            Self::Qq => "qq",
            Self::Douyin => "douyin",
            Self::Feishu => "feishu",
            Self::Baidu => "baidu",
            Self::Alipay => "alipay",
            Self::Kuaishou => "kuaishou",
            Self::Custom => "custom",
            Self::Development => "development",
        }
    }

    /// The engine's word for it.
    pub(crate) fn platform(self) -> Platform {
        match self {
            Self::Wechat | Self::WechatComponent => Platform::Wechat,
            Self::Qq => Platform::Qq,
            Self::Douyin => Platform::Douyin,
            Self::Feishu => Platform::Feishu,
            Self::Baidu => Platform::Baidu,
            Self::Alipay => Platform::Alipay,
            Self::Kuaishou => Platform::Kuaishou,
            Self::Custom | Self::Development => Platform::Custom,
        }
    }
}

/// An app as compiled.
#[derive(Debug)]
pub(crate) struct App {
    pub(crate) id: Arc<str>,
    /// The id as a field value.
    pub(crate) id_value: HeaderValue,
    /// The platform's id as a field value.
    pub(crate) appid: HeaderValue,
    pub(crate) platform: Platform,
    pub(crate) envelope: Option<Envelope>,
    pub(crate) series: Arc<AppSeries>,
}

/// All of them.
#[derive(Debug, Default)]
pub(crate) struct Apps {
    all: Vec<App>,
    /// By id and by the platform's id.
    by_name: HashMap<String, u16>,
}

impl Apps {
    pub(crate) fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &App> {
        self.all.iter()
    }

    pub(crate) fn get(&self, index: u16) -> Option<&App> {
        self.all.get(usize::from(index))
    }

    /// The app that is called by this id, ours or the platform's.
    pub(crate) fn find(&self, name: &str) -> Option<u16> {
        self.by_name.get(name).copied()
    }

    /// Whether all of them run on this platform.
    pub(crate) fn all_on(&self, platform: Platform) -> bool {
        self.all.iter().all(|app| app.platform == platform)
    }

    /// The app that a config names by our own id, or a problem.
    pub(crate) fn named(&self, id: &str, at: &Place<'_>, env: &mut Env<'_>) -> Option<u16> {
        let found =
            self.find(id).filter(|found| self.get(*found).is_some_and(|app| *app.id == *id));
        if found.is_none() {
            let known: Vec<&str> = self.all.iter().map(|app| &*app.id).collect();
            let help = match crate::base::yaml::nearest(id, known.iter().copied()) {
                Some(near) => format!("did you mean `{near}`?"),
                None if known.is_empty() => "declare it under `apps:`".to_owned(),
                None => format!("apps have the ids {}", known.join(", ")),
            };
            env.problems.error(at, format!("there is no app `{id}`")).help(help);
        }
        found
    }
}

/// Compiles the list, or records every problem.
pub(crate) fn build(configs: &[Config], at: &Place<'_>, env: &mut Env<'_>) -> Option<Apps> {
    if configs.len() > MAX_APPS {
        let message = format!("{} apps; at most {MAX_APPS} are told apart", configs.len());
        env.problems.error(at, message);
        return None;
    }
    let mut apps = Apps::default();
    let mut whole = true;
    for (index, config) in configs.iter().enumerate() {
        let at = at.index(index);
        let fine = config.check(&at, env);
        let Ok(number) = u16::try_from(index) else { continue };
        for (key, name) in [("id", config.id.as_str()), ("appid", config.appid())] {
            let known = apps.by_name.insert(name.to_owned(), number);
            if known.is_some_and(|known| known != number) {
                whole = false;
                env.problems.error(&at.field(key), format!("another app is called `{name}` too"));
            }
        }
        match (fine, HeaderValue::try_from(&config.id), HeaderValue::try_from(config.appid())) {
            (true, Ok(id_value), Ok(appid)) => apps.all.push(App {
                id: config.id.as_str().into(),
                id_value,
                appid,
                platform: config.provider.platform(),
                envelope: config.envelope,
                series: series(&config.id, env),
            }),
            _ => whole = false,
        }
    }
    whole.then_some(apps)
}

/// The counters of an app, or of those that are none.
pub(crate) fn series(id: &str, env: &Env<'_>) -> Arc<AppSeries> {
    let workers = env.metrics.workers.len();
    env.retained.cell(&format!("series of app {id}"), || AppSeries::new(id.into(), workers))
}

impl Config {
    fn appid(&self) -> &str {
        match self.provider {
            Provider::Development if self.appid.is_empty() => &self.id,
            _ => &self.appid,
        }
    }

    fn check(&self, at: &Place<'_>, env: &mut Env<'_>) -> bool {
        let bounded = |text: &str| (1..=MAX_ID).contains(&text.len());
        let plain =
            |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, b'-' | b'_');
        let reserved = matches!(self.id.as_str(), "none" | "other");
        let id = bounded(&self.id) && self.id.bytes().all(plain) && !reserved;
        if !id {
            env.problems
                .error(&at.field("id"), format!("`{}` cannot be the id of an app", self.id))
                .help(
                    "write 1 to 64 lower-case letters, digits, `-` and `_`; not `none` or `other`",
                );
        }
        let plain = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'-' | b'_');
        let appid = bounded(self.appid()) && self.appid().bytes().all(plain);
        if !appid {
            env.problems.error(&at.field("appid"), format!("`{}` is no appid", self.appid));
        }
        id && appid
    }
}
