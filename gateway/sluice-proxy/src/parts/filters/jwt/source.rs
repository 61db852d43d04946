//! Where a set of keys comes from: a file beside the config, which is read when the config is, or an
//! issuer that is asked for it. The one rule: two filters that name one source share its keys, so they
//! have to agree on how it is asked.

use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue};
use schemars::JsonSchema;
use serde::Deserialize;

use super::super::headers::OURS;
use super::jwk::{self, Unusable};
use super::key::Alg;
use super::keys::Keys;
use super::keyset::{KeySet, Looked};
use crate::base::units::{Secret, Span};
use crate::base::yaml::Place;
use crate::lasting::fetch::{Client, Limits, Url};
use crate::lasting::link::{Protocol, Tls};
use crate::lasting::tasks::Owned;
use crate::parts::env::{Env, digest};
use crate::parts::upstream::tls;

/// Header fields that may be sent to an issuer.
const MOST_HEADERS: usize = 16;

/// A set of keys (JSON Web Key Set, RFC 7517) from a file or from an issuer.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Config {
    /// File with the set; a change of it is a change of the config.
    #[serde(default)]
    file: Option<String>,
    /// Address of the set, `https`; `http` only on this machine, or with `allow_http`.
    #[serde(default)]
    url: Option<Secret>,
    /// Algorithms that tokens may have. If none are given, all but those of secrets (HS256 to HS512),
    /// which are taken from a file only.
    #[serde(default)]
    algorithms: Vec<Alg>,
    /// Time between two looks at the issuer's set.
    #[serde(default = "default_refresh")]
    refresh: Span,
    /// How long keys are used after the issuer was last seen to have them.
    #[serde(default = "default_max_stale")]
    max_stale: Span,
    /// Shortest time between two looks for the sake of a token whose key is not known.
    #[serde(default = "default_cooldown")]
    cooldown: Span,
    /// How long such a request waits for the look.
    #[serde(default = "default_wait")]
    wait: Span,
    /// How long the issuer's whole answer may take.
    #[serde(default = "default_timeout")]
    timeout: Span,
    /// Where the last good set is kept for the next start; not kept if not given.
    #[serde(default)]
    cache_file: Option<String>,
    /// Header fields to send to the issuer.
    #[serde(default)]
    headers: std::collections::BTreeMap<String, Secret>,
    /// TLS towards the issuer; its certificate is always verified.
    #[serde(default)]
    tls: Option<tls::Config>,
    /// Takes keys from another machine without TLS: whoever is on the way can then make tokens.
    #[serde(default)]
    allow_http: bool,
}

fn default_refresh() -> Span {
    Span(Duration::from_secs(600))
}

fn default_max_stale() -> Span {
    // An issuer that is away for a night must not lock out those whom it has let in.
    Span(Duration::from_secs(86_400))
}

fn default_cooldown() -> Span {
    Span(Duration::from_secs(30))
}

fn default_wait() -> Span {
    Span(Duration::from_secs(1))
}

fn default_timeout() -> Span {
    Span(Duration::from_secs(5))
}

/// When to look, and for how long to believe.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Rules {
    pub(super) refresh: Duration,
    pub(super) max_stale: Duration,
    pub(super) cooldown: Duration,
    pub(super) wait: Duration,
    pub(super) timeout: Duration,
}

/// How an issuer is asked, and for what.
pub(super) struct Plan {
    pub(super) set: Arc<KeySet>,
    pub(super) url: Url,
    pub(super) headers: HeaderMap,
    pub(super) client: Client,
    pub(super) algorithms: Vec<Alg>,
    pub(super) rules: Rules,
    pub(super) cache_file: Option<PathBuf>,
    /// Names the source: the same address, asked in the same way, for the same algorithms.
    pub(super) identity: String,
}

/// An issuer, as one snapshot asks it.
pub(crate) struct Source {
    pub(super) plan: Arc<Plan>,
    pub(super) background: Mutex<Option<Owned>>,
}

impl std::fmt::Debug for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Source").field(&self.plan.url).finish()
    }
}

/// Where the keys of a filter are.
#[derive(Debug)]
pub(super) enum Trust {
    /// Fixed until the config changes.
    Fixed(Box<Keys>),
    Issuer(Arc<Source>),
}

impl Config {
    pub(super) fn build(&self, at: &Place<'_>, env: &mut Env<'_>) -> Option<Trust> {
        match (&self.file, &self.url) {
            (Some(file), None) => self.read(file, at, env).map(|keys| Trust::Fixed(Box::new(keys))),
            (None, Some(url)) => self.ask(url, at, env).map(Trust::Issuer),
            _ => {
                env.problems
                    .error(at, "keys come from exactly one of `file` and `url`")
                    .help("write `jwks: { url: https://login.example.com/jwks.json }`");
                None
            }
        }
    }

    fn read(&self, file: &str, at: &Place<'_>, env: &mut Env<'_>) -> Option<Keys> {
        let place = at.field("file");
        for key in ["cache_file", "headers", "tls"] {
            if at.field(key).node().is_some() {
                env.problems.error(&at.field(key), format!("`{key}` is for keys from a `url`"));
            }
        }
        let text = env.file(&place, file)?;
        let (keys, flaws) = match jwk::read(&text, &self.algorithms, true) {
            Ok(set) => (Some(set.keys), set.flaws),
            Err(Unusable::Flawed(flaw)) => (None, vec![flaw]),
            Err(Unusable::Empty(flaws)) if !flaws.is_empty() => (None, flaws),
            Err(empty) => {
                env.problems.error(&place, format!("{file}: {empty}"));
                return None;
            }
        };
        for flaw in &flaws {
            env.problems.error(&place, format!("{file}:{flaw}"));
        }
        keys.filter(|_| flaws.is_empty())
    }

    fn ask(&self, url: &Secret, at: &Place<'_>, env: &mut Env<'_>) -> Option<Arc<Source>> {
        let url = self.url(url, &at.field("url"), env);
        let rules = self.rules(at, env);
        let headers = self.headers(&at.field("headers"), env);
        let url = url?;
        let (tls, fingerprint) = self.tls(&url, &at.field("tls"), env)?;
        let (rules, headers) = (rules?, headers?);
        let identity = self.identity(&fingerprint);
        let cache_file = self.cache_file.as_ref().map(|path| env.path(path));
        let same = env.key_sets.iter().find(|known| known.plan.identity == identity);
        if let Some(same) = same {
            if same.plan.rules == rules && same.plan.cache_file == cache_file {
                return Some(Arc::clone(same));
            }
            env.problems
                .error(
                    at,
                    "these keys are taken from the same source elsewhere, with other settings",
                )
                .help("write the settings once, and share them with an anchor");
            return None;
        }
        let (label, mark) = (url.to_string(), identity.chars().take(4).collect());
        let set = env.retained.cell(&format!("keys of {identity}"), || KeySet::new(label, mark));
        let limits = Limits {
            connect: rules.timeout.min(Duration::from_secs(2)),
            total: rules.timeout,
            body: jwk::MAX_SET,
        };
        let client = Client { names: Arc::clone(&env.names), tls, limits };
        let algorithms = self.algorithms.clone();
        let plan = Plan { set, url, headers, client, algorithms, rules, cache_file, identity };
        let source = Arc::new(Source { plan: Arc::new(plan), background: Mutex::default() });
        env.key_sets.push(Arc::clone(&source));
        Some(source)
    }

    fn url(&self, text: &Secret, at: &Place<'_>, env: &mut Env<'_>) -> Option<Url> {
        let Some(url) = Url::parse(text.expose()) else {
            env.problems
                .error(at, "this is not an address to fetch from")
                .help("write https://host/path, without a user and without `#`");
            return None;
        };
        if url.is_secure() || url.is_local() || self.allow_http {
            return Some(url);
        }
        env.problems
            .error(at, "keys that come without TLS can be replaced on their way")
            .help("write https, or `allow_http: true` if the way is safe");
        None
    }

    fn rules(&self, at: &Place<'_>, env: &mut Env<'_>) -> Option<Rules> {
        let second = Duration::from_secs(1);
        let day = 86_400 * second;
        let mut whole = true;
        for (key, span, least, most) in [
            ("refresh", self.refresh, second / 10, day),
            ("max_stale", self.max_stale, 2 * self.refresh.0.min(day), 30 * day),
            ("cooldown", self.cooldown, second / 10, day),
            ("wait", self.wait, Duration::ZERO, 10 * second),
            ("timeout", self.timeout, second / 10, 60 * second),
        ] {
            if !(least..=most).contains(&span.0) {
                whole = false;
                let message =
                    format!("`{key}` must lie between {} and {}", Span(least), Span(most));
                env.problems.error(&at.field(key), message);
            }
        }
        whole.then_some(Rules {
            refresh: self.refresh.0,
            max_stale: self.max_stale.0,
            cooldown: self.cooldown.0,
            wait: self.wait.0,
            timeout: self.timeout.0,
        })
    }

    fn headers(&self, at: &Place<'_>, env: &mut Env<'_>) -> Option<HeaderMap> {
        let mut headers = HeaderMap::new();
        for (name, value) in &self.headers {
            let taken = OURS.contains(&name.to_ascii_lowercase().as_str());
            let key = HeaderName::try_from(name.as_str()).ok().filter(|_| !taken);
            match (key, HeaderValue::try_from(value.expose())) {
                (Some(key), Ok(mut value)) => {
                    value.set_sensitive(true);
                    headers.insert(key, value);
                }
                _ => {
                    env.problems
                        .error(&at.key(name), "this is not a header field that can be sent");
                }
            }
        }
        if self.headers.len() > MOST_HEADERS {
            env.problems.error(at, format!("at most {MOST_HEADERS} header fields can be sent"));
        }
        (headers.len() == self.headers.len() && headers.len() <= MOST_HEADERS).then_some(headers)
    }

    /// TLS for `https`, and what tells it from other settings.
    fn tls(&self, url: &Url, at: &Place<'_>, env: &mut Env<'_>) -> Option<(Option<Tls>, String)> {
        if !url.is_secure() {
            if self.tls.is_some() {
                env.problems.error(at, "`tls` is for https");
                return None;
            }
            return Some((None, String::new()));
        }
        let default = tls::Config::default();
        let config = self.tls.as_ref().unwrap_or(&default);
        let compiled = config.build(Protocol::Http1, at, env)?;
        let Some(server_name) = compiled.for_host(url.host()) else {
            env.problems.error(at, format!("`{}` is not a name to verify", url.host()));
            return None;
        };
        let fingerprint = format!("{} {server_name:?}", compiled.key);
        Some((Some(Tls { config: compiled.config, server_name }), fingerprint))
    }

    fn identity(&self, fingerprint: &str) -> String {
        let url = self.url.as_ref().map_or("", Secret::expose);
        let headers: Vec<_> =
            self.headers.iter().map(|(name, value)| (name, value.expose())).collect();
        digest(format!("{:?}", (url, headers, &self.algorithms, fingerprint)).as_bytes())
    }
}

// === For requests ===

impl Trust {
    /// Changes when the keys do.
    pub(super) fn generation(&self) -> u64 {
        match self {
            Self::Fixed(_) => 0,
            Self::Issuer(source) => source.plan.set.generation(),
        }
    }

    /// Whether a key is still trusted.
    pub(super) fn has(&self, key: u64) -> bool {
        self.look(|keys, _| keys.is_some_and(|keys| keys.has(key)))
    }

    /// Shows the keys that are trusted now, if there are any, and their generation.
    pub(super) fn look<T>(&self, look: impl FnOnce(Option<&Keys>, u64) -> T) -> T {
        match self {
            Self::Fixed(keys) => look(Some(keys), 0),
            Self::Issuer(source) => {
                let known = source.plan.set.known();
                let known = known.as_ref();
                look(known.map(|known| &known.keys), known.map_or(0, |known| known.generation))
            }
        }
    }
}

impl Source {
    pub(super) async fn look_again(&self) -> Looked {
        let rules = &self.plan.rules;
        self.plan.set.look_again(rules.cooldown, rules.wait).await
    }
}
