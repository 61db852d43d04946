//! Limits how often a key may call, by a sliding window kept in Redis or in this process. A call over
//! the limit gets 429 with `Retry-After`; refused calls are not counted, so a caller that hammers
//! recovers.
//!
//! A limit keyed by address alone needs to know nothing of the caller and runs before tokens are
//! read; every other limit runs after the caller is known.

use std::sync::Arc;
use std::time::Duration;

use http::request::Parts;
use http::{HeaderName, HeaderValue, Response};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sluice_engine::window::{Rules, Verdict};

use super::{Flow, Hooks};
use crate::base::body::Body;
use crate::base::clock;
use crate::base::cx::{Cx, LimitState};
use crate::base::fault::Fault;
use crate::base::respond::whole_seconds;
use crate::base::units::Span;
use crate::base::yaml::Place;
use crate::lasting::limits::Table;
use crate::lasting::redis::Target;
use crate::parts::env::{Env, Owner};
use crate::parts::text::push_claim;

static LIMIT: HeaderName = HeaderName::from_static("ratelimit-limit");
static REMAINING: HeaderName = HeaderName::from_static("ratelimit-remaining");
static RESET: HeaderName = HeaderName::from_static("ratelimit-reset");
static MODE: HeaderName = HeaderName::from_static("x-sluice-ratelimit-mode");

/// At most `limit` calls in any span of `per`, counted separately for each key.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Config {
    /// Calls admitted.
    limit: u64,
    /// The span they are counted over.
    per: Span,
    /// What is counted: `address`, `route`, `claim:NAME`, `header:NAME`, `capture:NAME`, or several
    /// joined by `+`. A part that a request lacks is replaced by its address: nobody is unlimited.
    #[serde(default = "default_key")]
    key: String,
    /// Tells two limits of one owner apart.
    #[serde(default)]
    label: Option<String>,
    /// Where calls are counted.
    #[serde(default)]
    store: StoreConfig,
    /// What happens to a call while Redis cannot be asked.
    #[serde(default)]
    on_store_error: OnStoreError,
}

/// Where calls are counted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum StoreConfig {
    /// In Redis if `redis.url` is set, else in this process.
    #[default]
    Auto,
    /// In Redis; an error if `redis.url` is not set.
    Redis,
    /// In this process, whatever `redis.url` says.
    Local,
}

/// What happens to a call while Redis cannot be asked.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum OnStoreError {
    /// It is counted in this process.
    #[default]
    Local,
    /// It passes.
    Allow,
    /// It is refused with 503.
    Deny,
}

fn default_key() -> String {
    "address".to_owned()
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Address,
    Route,
    Claim(String),
    Header(HeaderName),
    Capture(usize),
}

impl Config {
    pub(crate) fn build(
        &self,
        at: &Place<'_>,
        owner: &Owner,
        env: &mut Env<'_>,
    ) -> Option<RateLimit> {
        let parts = self.parts(at, owner, env)?;
        let per = self.per.0;
        if self.limit == 0 {
            env.problems
                .error(&at.field("limit"), "a limit of 0 refuses every call")
                .help("to refuse everybody use `respond: { status: 403 }`");
            return None;
        }
        if !(Duration::from_millis(100)..=Duration::from_secs(86_400)).contains(&per) {
            env.problems.error(&at.field("per"), "`per` must lie between 100ms and 1d");
            return None;
        }
        let label = self.label.as_deref().unwrap_or("");
        // The width of the window is part of the name: counts of another width mean nothing.
        let name = format!("limit {} {} {}ms {}", owner.name, label, per.as_millis(), self.key);
        let guard = parts.iter().all(|part| matches!(part, Part::Address | Part::Route));
        if !env.limits.insert(name.clone()) {
            env.problems
                .error(at, "another limit here counts the same key over the same time")
                .help("give one of them a `label`, or they would count every call twice");
            return None;
        }
        let redis = match (self.store, &env.redis) {
            (StoreConfig::Local, _) | (StoreConfig::Auto, None) => None,
            (_, Some(redis)) => Some(Arc::clone(redis)),
            (StoreConfig::Redis, None) => {
                env.problems
                    .error(&at.field("store"), "there is no Redis to count in")
                    .help("set `redis: { url: redis://host:6379 }`, or leave `store` out");
                return None;
            }
        };
        Some(RateLimit {
            rules: Rules { limit: self.limit, per },
            table: env.retained.cell(&name, Table::new),
            name,
            redis,
            on_store_error: self.on_store_error,
            parts,
            guard,
        })
    }

    fn parts(&self, at: &Place<'_>, owner: &Owner, env: &mut Env<'_>) -> Option<Vec<Part>> {
        let at = at.field("key");
        let mut parts = Vec::new();
        for word in self.key.split('+').map(str::trim) {
            let part = match word.split_once(':') {
                None if word == "address" => Some(Part::Address),
                None if word == "route" => Some(Part::Route),
                Some(("claim", name)) if !name.is_empty() => Some(Part::Claim(name.to_owned())),
                Some(("header", name)) => HeaderName::try_from(name).ok().map(Part::Header),
                Some(("capture", name)) => match owner.captures.iter().position(|c| c == name) {
                    Some(at) => Some(Part::Capture(at)),
                    None => {
                        env.problems
                            .error(&at, format!("the path of this route captures no `{name}`"));
                        return None;
                    }
                },
                _ => None,
            };
            let Some(part) = part else {
                env.problems.error(&at, format!("`{word}` is not a limit key")).help(
                    "write address, route, claim:NAME, header:NAME or capture:NAME, joined by +",
                );
                return None;
            };
            parts.push(part);
        }
        Some(parts)
    }
}

pub(crate) struct RateLimit {
    rules: Rules,
    parts: Vec<Part>,
    table: Arc<Table>,
    /// The limit's name, the same on every gateway that has this config.
    name: String,
    redis: Option<Arc<Target>>,
    on_store_error: OnStoreError,
    guard: bool,
}

impl std::fmt::Debug for RateLimit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RateLimit")
            .field("rules", &self.rules)
            .field("parts", &self.parts)
            .finish_non_exhaustive()
    }
}

impl RateLimit {
    /// Whether it may run before the caller is known.
    pub(crate) fn is_guard(&self) -> bool {
        self.guard
    }

    /// Counts a call where it is to be counted, and says where that was if it could be elsewhere.
    /// `None` lets it pass uncounted.
    async fn count(&self, key: &[u8]) -> Result<Option<(Verdict, Option<&'static str>)>, Fault> {
        let Some(redis) = &self.redis else { return Ok(Some((self.count_here(key), None))) };
        // The state of a command in flight is large; limits in this process should not carry it.
        if let Some(verdict) = Box::pin(redis.hit(&self.name, key, &self.rules)).await {
            return Ok(Some((verdict, Some("shared"))));
        }
        match self.on_store_error {
            OnStoreError::Local => Ok(Some((self.count_here(key), Some("local")))),
            OnStoreError::Allow => Ok(None),
            OnStoreError::Deny => Err(Fault::LimitStoreDown),
        }
    }

    fn count_here(&self, key: &[u8]) -> Verdict {
        self.table.hit(key, &self.rules, clock::now())
    }

    fn key(&self, cx: &Cx, head: &Parts) -> Key {
        let mut key = Key::default();
        for part in &self.parts {
            match part {
                Part::Address => key.address(cx.client),
                // The table belongs to one owner already; a constant keeps the tuple well-formed.
                Part::Route => key.push(b"*"),
                Part::Capture(at) => key.push(cx.capture(*at).as_bytes()),
                Part::Claim(name) => match cx.claim(name) {
                    Some(claim) => {
                        let mut text = String::new();
                        push_claim(claim, &mut text);
                        key.push(text.as_bytes());
                    }
                    None => key.address(cx.client),
                },
                Part::Header(name) => match head.headers.get(name) {
                    Some(value) => key.push(value.as_bytes()),
                    None => key.address(cx.client),
                },
            }
        }
        key
    }
}

impl Hooks for RateLimit {
    async fn on_request(&self, cx: &mut Cx, head: &mut Parts) -> Result<Flow, Fault> {
        let key = self.key(cx, head);
        let Some((verdict, mode)) = self.count(key.0.as_slice()).await? else {
            return Ok(Flow::Next);
        };
        let state = LimitState {
            limit: self.rules.limit,
            remaining: verdict.remaining,
            reset: verdict.reset_after,
            mode,
        };
        // Of several limits the client is told the one it will meet first.
        if cx.limit.is_none_or(|known| state.remaining < known.remaining || !verdict.admitted) {
            cx.limit = Some(state);
        }
        if verdict.admitted {
            return Ok(Flow::Next);
        }
        cx.retry_after = Some(verdict.retry_after.max(Duration::from_secs(1)));
        Err(Fault::RateLimited)
    }

    fn on_response(&self, cx: &mut Cx, response: &mut Response<Body>) {
        let Some(state) = cx.limit.take() else { return };
        let headers = response.headers_mut();
        headers.insert(&LIMIT, number(state.limit));
        headers.insert(&REMAINING, number(state.remaining));
        headers.insert(&RESET, number(whole_seconds(state.reset)));
        if let Some(mode) = state.mode {
            headers.insert(&MODE, HeaderValue::from_static(mode));
        }
    }
}

/// A number as a field's value; `http`'s own conversion allocates twice.
fn number(number: u64) -> HeaderValue {
    let mut buffer = itoa::Buffer::new();
    HeaderValue::from_str(buffer.format(number)).unwrap_or_else(|_| HeaderValue::from(number))
}

/// A limit key under construction: length-prefixed parts, so that no two tuples are alike.
#[derive(Default)]
struct Key(smallvec::SmallVec<[u8; 64]>);

impl Key {
    fn push(&mut self, part: &[u8]) {
        self.0.push(b'=');
        self.part(part);
    }

    fn part(&mut self, part: &[u8]) {
        self.0.extend_from_slice(&part.len().to_be_bytes());
        self.0.extend_from_slice(part);
    }

    /// IPv6 callers are counted by /64, which one of them has whole.
    fn address(&mut self, address: std::net::IpAddr) {
        // Told apart from a value, or a caller could name another's address as its own key.
        self.0.push(b'@');
        match address {
            std::net::IpAddr::V4(v4) => self.part(&v4.octets()),
            std::net::IpAddr::V6(v6) => self.part(v6.octets().get(..8).unwrap_or(&[])),
        }
    }
}
