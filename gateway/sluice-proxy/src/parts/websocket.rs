//! Whether a route lets WebSocket upgrades pass: from pages of which origins, and how long a tunnel
//! may be silent and may last. The same-origin policy does not hold for WebSockets (RFC 6455 section
//! 10.2), so whoever authenticates by cookies needs the list.

use std::time::Duration;

use http::HeaderMap;
use http::header::ORIGIN;
use schemars::JsonSchema;
use serde::Deserialize;

use super::env::Env;
use super::filters::Origin;
use crate::base::units::Span;
use crate::base::yaml::Place;

/// `true`, or settings of the tunnels.
#[derive(Debug, Clone, JsonSchema)]
#[schemars(untagged, title = "WebSocket")]
pub(crate) enum Config {
    /// Let upgrades pass, or serve them as plain HTTP.
    Switch(bool),
    /// Let them pass, with these settings.
    Settings(Settings),
}

/// Settings of tunnels.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(title = "Settings of tunnels")]
pub(crate) struct Settings {
    /// Origins like `https://h5.example.com` or `https://*.example.com` whose pages may open one; none
    /// means all. Who sends no `Origin` is no browser and passes.
    origins: Vec<String>,
    /// Longest silence of both sides.
    idle: Span,
    /// Longest life of a tunnel, for tokens that expire and routes that change; `0s` means no limit.
    max_age: Span,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            origins: Vec::new(),
            // Longer than the pings of common libraries are apart.
            idle: Span(Duration::from_secs(300)),
            max_age: Span(Duration::ZERO),
        }
    }
}

impl Default for Config {
    fn default() -> Self {
        Self::Switch(false)
    }
}

impl<'de> Deserialize<'de> for Config {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;
        impl<'de> serde::de::Visitor<'de> for Either {
            type Value = Config;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("true, false, or settings like `{ origins: [...] }`")
            }

            fn visit_bool<E: serde::de::Error>(self, on: bool) -> Result<Config, E> {
                Ok(Config::Switch(on))
            }

            fn visit_map<A: serde::de::MapAccess<'de>>(self, map: A) -> Result<Config, A::Error> {
                let settings = serde::de::value::MapAccessDeserializer::new(map);
                Settings::deserialize(settings).map(Config::Settings)
            }
        }
        deserializer.deserialize_any(Either)
    }
}

impl Config {
    /// Whether upgrades may pass at all.
    pub(crate) fn is_on(&self) -> bool {
        !matches!(self, Self::Switch(false))
    }

    /// Compiles the settings; `None` where upgrades do not pass, or where a problem was recorded.
    pub(crate) fn build(&self, at: &Place<'_>, env: &mut Env<'_>) -> Option<WebSocket> {
        let settings = match self {
            Self::Switch(false) => return None,
            Self::Switch(true) => Settings::default(),
            Self::Settings(settings) => settings.clone(),
        };
        let mut origins = Vec::new();
        for (index, text) in settings.origins.iter().enumerate() {
            match Origin::parse(text) {
                Some(origin) => origins.push(origin),
                None => {
                    env.problems
                        .error(
                            &at.field("origins").index(index),
                            format!("`{text}` is not an origin"),
                        )
                        .help("write scheme and host, like https://h5.example.com, without a path");
                }
            }
        }
        if settings.idle.0.is_zero() {
            env.problems
                .error(&at.field("idle"), "a tunnel needs some time to be silent")
                .help("write `5m`, or leave it out");
        }
        let max_age = Some(settings.max_age.0).filter(|age| !age.is_zero());
        Some(WebSocket { origins, tunnel: Tunnel { idle: settings.idle.0, max_age } })
    }
}

/// A route's compiled settings.
#[derive(Debug)]
pub(crate) struct WebSocket {
    /// None for all.
    origins: Vec<Origin>,
    pub(crate) tunnel: Tunnel,
}

/// How long a tunnel lives.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Tunnel {
    /// Longest silence of both sides.
    pub(crate) idle: Duration,
    pub(crate) max_age: Option<Duration>,
}

impl WebSocket {
    /// Whether the page that asks may. Of several `Origin` fields nobody knows which one counts.
    pub(crate) fn admits(&self, headers: &HeaderMap) -> bool {
        let mut values = headers.get_all(ORIGIN).iter();
        match (values.next(), values.next()) {
            _ if self.origins.is_empty() => true,
            (None, _) => true,
            (Some(origin), None) => origin
                .to_str()
                .is_ok_and(|origin| self.origins.iter().any(|known| known.admits(origin))),
            (Some(_), Some(_)) => false,
        }
    }
}
