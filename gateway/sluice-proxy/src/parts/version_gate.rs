//! Which versions of a mini-program are still served. Who is too old is told to restart, which is how a
//! mini-program gets its new version; who is old is given a hint. The build that the platform reviews now
//! counts as a release, although it says that it is in development.
//!
//! The one rule: versions are what callers say. The gate helps honest clients, and protects nothing.

use std::sync::Arc;

use schemars::JsonSchema;
use serde::Deserialize;
use sluice_engine::mini::version::Version;
use sluice_engine::mini::{Client, Env as MiniEnv};

use super::apps::Apps;
use super::env::Env;
use super::exempt::{self, Exempt};
use crate::base::clock;
use crate::base::yaml::Place;

/// Longest message, bytes.
const MAX_MESSAGE: usize = 512;

/// What versions of one app are served.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "VersionGate")]
pub(crate) struct Config {
    /// The app, by its id.
    app: String,
    /// Versions below this one are refused with 426.
    #[serde(default)]
    min_version: Option<String>,
    /// Versions below this one are served, with `X-MP-Upgrade: available` in the answer.
    #[serde(default)]
    soft_min: Option<String>,
    /// Refuse builds that do not say their version too.
    #[serde(default)]
    require_version: bool,
    /// What to show to the user of a version that is refused.
    #[serde(default = "default_message")]
    message: String,
    /// Routes by id, or paths, that every version may call.
    #[serde(default)]
    exempt: Vec<String>,
    /// The build that the platform reviews now.
    #[serde(default)]
    review_window: Option<ReviewWindow>,
}

/// The build under review: what it gets is what releases get, whatever kind of build it says it is.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ReviewWindow {
    /// Its version.
    #[serde(default)]
    version: Option<String>,
    /// Its commit, instead of the version or beside it.
    #[serde(default)]
    build: Option<String>,
    /// When the window closes, like `2026-12-01T00:00:00+08:00`.
    until: String,
}

fn default_message() -> String {
    "This version is no longer served; restart to get the new one.".to_owned()
}

/// The gates of all apps.
#[derive(Debug, Default)]
pub(crate) struct Gates(Vec<Gate>);

#[derive(Debug)]
struct Gate {
    app: u16,
    min: Option<Version>,
    soft: Option<Version>,
    require: bool,
    /// What a refused client is told, as JSON.
    told: Arc<str>,
    exempt: Exempt,
    review: Option<Review>,
}

#[derive(Debug)]
struct Review {
    version: Option<Version>,
    build: Option<String>,
    /// Seconds since 1970.
    until: u64,
}

/// What a gate says.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Fine,
    /// It is served, and should know that there is a newer version.
    Old,
    /// It is not served; this is what it is told.
    TooOld(Arc<str>),
}

/// Compiles the list, or records every problem.
pub(crate) fn build(
    configs: &[Config],
    apps: &Apps,
    routes: &[&str],
    at: &Place<'_>,
    env: &mut Env<'_>,
) -> Option<Gates> {
    let mut gates = Gates::default();
    for (index, config) in configs.iter().enumerate() {
        let at = at.index(index);
        let Some(gate) = config.build(apps, routes, &at, env) else { continue };
        if gates.0.iter().any(|other| other.app == gate.app) {
            let message = format!("`{}` has a gate already", config.app);
            env.problems.error(&at.field("app"), message);
            continue;
        }
        gates.0.push(gate);
    }
    (gates.0.len() == configs.len()).then_some(gates)
}

impl Config {
    fn build(
        &self,
        apps: &Apps,
        routes: &[&str],
        at: &Place<'_>,
        env: &mut Env<'_>,
    ) -> Option<Gate> {
        let app = apps.named(&self.app, &at.field("app"), env);
        let min = version(self.min_version.as_ref(), &at.field("min_version"), env);
        let soft = version(self.soft_min.as_ref(), &at.field("soft_min"), env);
        let exempt = exempt::build(&self.exempt, routes, &at.field("exempt"), env);
        let review = match &self.review_window {
            None => Some(None),
            Some(window) => window.build(&at.field("review_window"), env).map(Some),
        };
        let (min, soft) = (min?, soft?);
        if self.message.len() > MAX_MESSAGE {
            let message = format!("a message has up to {MAX_MESSAGE} bytes");
            env.problems.error(&at.field("message"), message);
            return None;
        }
        if let (Some(min), Some(soft)) = (&min, &soft)
            && soft <= min
        {
            env.problems
                .error(&at.field("soft_min"), "no version is below `soft_min` and not refused")
                .help("`soft_min` lies above `min_version`");
            return None;
        }
        if min.is_none() && soft.is_none() && self.review_window.is_none() && !self.require_version
        {
            env.problems
                .error(at, "this gate lets everybody pass")
                .help("give it a `min_version`, a `soft_min` or a `review_window`");
            return None;
        }
        let told = serde_json::json!({
            "min": min.as_ref().map(ToString::to_string),
            "message": self.message,
            "action": "restart",
        });
        Some(Gate {
            app: app?,
            min,
            soft,
            require: self.require_version,
            told: told.to_string().into(),
            exempt: exempt?,
            review: review?,
        })
    }
}

impl ReviewWindow {
    fn build(&self, at: &Place<'_>, env: &mut Env<'_>) -> Option<Review> {
        let version = version(self.version.as_ref(), &at.field("version"), env)?;
        if version.is_none() && self.build.is_none() {
            env.problems
                .error(at, "the build under review is known by its `version` or its `build`");
            return None;
        }
        let until = self.until.parse::<jiff::Timestamp>().ok();
        let until = until.and_then(|until| u64::try_from(until.as_second()).ok());
        let Some(until) = until else {
            let message = format!("`{}` is no moment", self.until);
            env.problems
                .error(&at.field("until"), message)
                .help("write date, time and offset, like 2026-12-01T00:00:00+08:00");
            return None;
        };
        if until <= clock::unix_seconds() {
            env.problems.warn(&at.field("until"), "this window is closed already");
        }
        Some(Review { version, build: self.build.clone(), until })
    }
}

#[expect(clippy::option_option, reason = "not given and unusable are different answers")]
fn version(text: Option<&String>, at: &Place<'_>, env: &mut Env<'_>) -> Option<Option<Version>> {
    let Some(text) = text else { return Some(None) };
    let parsed = Version::parse(text);
    if parsed.is_none() {
        env.problems
            .error(at, format!("`{text}` is no version"))
            .help("write one like 3.2.0, in quotes if it looks like a number: \"3.2\"");
    }
    parsed.map(Some)
}

impl Gates {
    /// Makes a release of the build under review.
    pub(crate) fn review(&self, client: &mut Client) {
        let Some(review) = self.of(client).and_then(|gate| gate.review.as_ref()) else { return };
        let same = |mine: bool, given: bool| !given || mine;
        let version = client.version.is_some() && client.version == review.version;
        let build = client.build.is_some() && client.build.as_deref() == review.build.as_deref();
        if client.env != Some(MiniEnv::Release)
            && same(version, review.version.is_some())
            && same(build, review.build.is_some())
            && clock::unix_seconds() < review.until
        {
            client.env = Some(MiniEnv::Release);
            client.reviewed = true;
        }
    }

    /// Judges a client's version.
    pub(crate) fn judge(&self, client: &Client, route: Option<usize>, path: &str) -> Verdict {
        let Some(gate) = self.of(client) else { return Verdict::Fine };
        let below = |bound: &Option<Version>| match (bound, &client.version) {
            (Some(bound), Some(version)) => version < bound,
            _ => false,
        };
        if below(&gate.min) || gate.require && client.version.is_none() {
            return if gate.exempt.holds(route, path) {
                Verdict::Old
            } else {
                Verdict::TooOld(Arc::clone(&gate.told))
            };
        }
        if below(&gate.soft) { Verdict::Old } else { Verdict::Fine }
    }

    fn of(&self, client: &Client) -> Option<&Gate> {
        self.0.iter().find(|gate| Some(gate.app) == client.app)
    }
}
