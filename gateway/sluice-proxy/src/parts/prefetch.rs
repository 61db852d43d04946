//! Routes for WeChat's pre-fetch: while a mini-program starts, WeChat's servers ask for the data of its first
//! page, and the client finds it there. They send no Referer and no version, come from a few addresses, and
//! keep an answer only if it is text of a bounded size.
//!
//! The one rule: nothing but a token that is verified tells who the data is for. That WeChat is asking is not
//! proven by anything in the request; whoever finds the address can ask too.

use std::sync::Arc;

use http::header::{ACCEPT_ENCODING, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_LENGTH};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Response};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use schemars::JsonSchema;
use serde::Deserialize;
use sluice_engine::mini::version::Version;
use sluice_engine::mini::{Client, Platform, Trust};

use super::apps::Apps;
use super::env::Env;
use crate::base::body::Body;
use crate::base::clock::{self, Moment};
use crate::base::cx::Cx;
use crate::base::fault::Fault;
use crate::base::units::ByteSize;
use crate::base::yaml::Place;

/// What WeChat keeps at most.
const MAX_ANSWER: u64 = 256 * 1024;

/// Answers WeChat's pre-fetch (数据预拉取).
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(rename = "Prefetch")]
pub(crate) struct Config {
    /// Apps whose data may be asked for; all of WeChat if not given.
    apps: Vec<String>,
    /// Largest answer; WeChat keeps no more than 256KiB.
    max_answer: ByteSize,
}

impl Default for Config {
    fn default() -> Self {
        Self { apps: Vec::new(), max_answer: ByteSize(MAX_ANSWER) }
    }
}

/// As compiled.
#[derive(Debug)]
pub(crate) struct Prefetch {
    declared: Arc<Apps>,
    apps: Vec<u16>,
    max_answer: usize,
}

impl Config {
    /// Compiles it, or records every problem.
    pub(crate) fn build(&self, at: &Place<'_>, env: &mut Env<'_>) -> Option<Prefetch> {
        let declared = Arc::clone(&env.apps);
        let of_wechat =
            |index: &u16| declared.get(*index).is_some_and(|app| app.platform == Platform::Wechat);
        let mut apps = Vec::new();
        for (index, id) in self.apps.iter().enumerate() {
            let at = at.field("apps").index(index);
            let app = declared.named(id, &at, env)?;
            if !of_wechat(&app) {
                env.problems.error(&at, format!("`{id}` is no app of WeChat, which alone fetches"));
                return None;
            }
            apps.push(app);
        }
        if self.apps.is_empty() {
            let all = 0..u16::try_from(declared.iter().count()).unwrap_or(u16::MAX);
            apps.extend(all.filter(of_wechat));
        }
        if apps.is_empty() {
            env.problems
                .error(at, "no app of WeChat is declared, so nobody would ask")
                .help("declare it under `apps:` with `provider: wechat`");
            return None;
        }
        if !(1..=MAX_ANSWER).contains(&self.max_answer.0) {
            env.problems
                .error(&at.field("max_answer"), "WeChat keeps answers of 1B to 256KiB")
                .help("write `256KiB`, or leave it out");
            return None;
        }
        let max_answer = usize::try_from(self.max_answer.0).ok()?;
        Some(Prefetch { declared, apps, max_answer })
    }
}

impl Prefetch {
    /// Reads who asks for what from the query, or refuses.
    pub(crate) fn admit(&self, cx: &mut Cx, head: &mut Parts) -> Result<(), Fault> {
        let query = head.uri.query().unwrap_or_default();
        // WeChat writes names as they are; another reader could take an encoded one for the same.
        let plain = |pair: &str| !pair.split('=').next().unwrap_or_default().contains(['%', '+']);
        let app = self.app(query).filter(|_| query.split('&').all(plain));
        let app = app.ok_or(Fault::PrefetchRefused)?;
        // WeChat sends one of the two; with both nobody knows who is meant.
        if times(query, "token") + times(query, "code") > 1 {
            return Err(Fault::PrefetchRefused);
        }
        cx.mini = Some(Box::new(Client {
            app: Some(app),
            platform: Some(Platform::Wechat),
            version: value(query, "customMiniprogramVersion").and_then(Version::parse),
            trust: Trust::Claimed,
            ..Client::default()
        }));
        if let Some(app) = self.declared.get(app) {
            cx.envelope = app.envelope.unwrap_or(cx.envelope);
        }
        // What is encoded could not be judged, and WeChat hands the client what it gets.
        head.headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        Ok(())
    }

    /// Refuses a token of another app than the one that is asked for.
    pub(crate) fn agree(&self, cx: &Cx, head: &Parts) -> Result<(), Fault> {
        let asked = self.app(head.uri.query().unwrap_or_default());
        let proven = cx.mini.as_ref().filter(|client| client.trust == Trust::Proven);
        match proven {
            Some(client) if client.app != asked => Err(Fault::PrefetchRefused),
            _ => Ok(()),
        }
    }

    fn app(&self, query: &str) -> Option<u16> {
        if times(query, "appid") != 1 {
            return None;
        }
        let appid = value(query, "appid")?;
        let known = |index: &&u16| {
            self.declared.get(**index).is_some_and(|app| app.appid.as_bytes() == appid.as_bytes())
        };
        self.apps.iter().find(known).copied()
    }

    /// The answer, once it is known that WeChat will keep it.
    pub(crate) async fn fit(
        &self,
        answer: Response<Body>,
        latest: Moment,
    ) -> Result<Response<Body>, Fault> {
        let (mut head, body) = answer.into_parts();
        if is_encoded(&head.headers) {
            return Err(Fault::PrefetchUnfit);
        }
        let whole = Limited::new(body, self.max_answer).collect();
        let read = tokio::time::timeout_at(clock::deadline(latest), whole).await;
        let body = read.map_err(|_| Fault::UpstreamTimeout)?.map_err(|error| {
            if error.is::<LengthLimitError>() { Fault::PrefetchUnfit } else { Fault::UpstreamReset }
        })?;
        let body = body.to_bytes();
        if std::str::from_utf8(&body).is_err() {
            return Err(Fault::PrefetchUnfit);
        }
        // It is somebody's data, under an address that may hold a token.
        head.headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if head.headers.contains_key(CONTENT_LENGTH) && !body.is_empty() {
            head.headers.insert(CONTENT_LENGTH, HeaderValue::from(body.len()));
        }
        Ok(Response::from_parts(head, Body::full(body)))
    }
}

fn is_encoded(headers: &HeaderMap) -> bool {
    headers
        .get_all(CONTENT_ENCODING)
        .iter()
        .any(|coding| !coding.as_bytes().trim_ascii().eq_ignore_ascii_case(b"identity"))
}

fn pairs<'q>(query: &'q str, name: &str) -> impl Iterator<Item = &'q str> {
    query.split('&').filter_map(move |pair| {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        (key == name).then_some(value)
    })
}

fn times(query: &str, name: &str) -> usize {
    pairs(query, name).count()
}

fn value<'q>(query: &'q str, name: &str) -> Option<&'q str> {
    pairs(query, name).next()
}
