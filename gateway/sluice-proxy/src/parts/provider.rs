//! Platforms that people log in at, described by data: how a code is exchanged for an identity, what an
//! answer means, and which of its errors say what. The shipped ones are files below; an app may bring its
//! own description. Sending is left to others.

use std::collections::BTreeMap;

use http::{HeaderName, HeaderValue};
use schemars::JsonSchema;
use serde::Deserialize;
use sluice_engine::template::Template;

use super::apps::Provider as Kind;
use super::env::Env;
use crate::base::fault::Fault;
use crate::base::problem::Problems;
use crate::base::yaml::{Lookup, Place, Source, parse, read};
use crate::lasting::fetch::Url;

pub(crate) mod exchange;
pub(crate) mod signer;

/// The description that is shipped with the gateway, if there is one.
fn text(kind: Kind) -> Option<&'static str> {
    Some(match kind {
        Kind::Wechat => include_str!("provider/wechat.yaml"),
        Kind::WechatComponent => include_str!("provider/wechat_service_provider.yaml"),
        Kind::Qq => include_str!("provider/qq.yaml"),
        Kind::Douyin => include_str!("provider/douyin.yaml"),
        Kind::Baidu => include_str!("provider/baidu.yaml"),
        Kind::Kuaishou => include_str!("provider/kuaishou.yaml"),
        Kind::Alipay => include_str!("provider/alipay.yaml"),
        Kind::Feishu | Kind::Custom | Kind::Development => return None,
    })
}

/// How a code becomes an identity.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Config {
    /// Schemes and hosts to ask, in this order; the next one only while nothing was sent.
    #[serde(default)]
    api_base: Vec<String>,
    /// What is sent.
    request: RequestConfig,
    /// How an answer shows that all is well; without it, that there is an `open_id`.
    #[serde(default)]
    success: Option<Success>,
    /// Where in an answer the identity stands.
    map: Map,
    /// What the platform's errors mean.
    #[serde(default)]
    errors: Errors,
}

/// The request that exchanges a code. Texts may hold `{code}`, `{appid}`, `{secret}`, `{device}` and
/// names of the app's `params`.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct RequestConfig {
    /// GET or POST.
    method: Method,
    /// The path below `api_base`.
    path: String,
    /// Where the parameters stand.
    send: Placement,
    /// Parameters by name.
    #[serde(default)]
    params: BTreeMap<String, String>,
    /// Header fields.
    #[serde(default)]
    headers: BTreeMap<String, String>,
    /// How it is signed.
    #[serde(default)]
    sign: Option<signer::Scheme>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
enum Method {
    #[serde(rename = "GET")]
    Get,
    #[serde(rename = "POST")]
    Post,
}

/// Where parameters stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Placement {
    /// In the query.
    Query,
    /// In the body, as a form.
    Form,
    /// In the body, as a JSON object of strings.
    Json,
}

/// A test for a good answer.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Success {
    /// The member that tells, as a JSON pointer (RFC 6901).
    pointer: String,
    /// What it holds when all is well; a number is written as text.
    equals: String,
    /// Whether all is well, too, where there is no such member.
    #[serde(default)]
    or_absent: bool,
}

/// Where the identity stands, as JSON pointers; the first that holds a text counts.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Map {
    /// Who it is, for this app.
    open_id: Vec<String>,
    /// Who it is, for all apps of one owner.
    #[serde(default)]
    union_id: Vec<String>,
    /// The key of the user's session at the platform.
    #[serde(default)]
    session_key: Vec<String>,
}

/// What the platform's errors mean.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
struct Errors {
    /// The members that may hold the error's code, as JSON pointers; the first that is there counts.
    pointer: Vec<String>,
    /// Meanings by code; a number is written as text.
    codes: BTreeMap<String, Meaning>,
    /// What every other code means.
    default: Meaning,
}

/// What an error means for whoever logs in.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Meaning {
    /// The code is wrong or too old: 401.
    InvalidCode,
    /// The code was used before: 401.
    CodeUsed,
    /// Too many logins: 429.
    RateLimited,
    /// The platform does not want this user: 403.
    UserBlocked,
    /// The app's id or secret is wrong: 500.
    Misconfigured,
    /// The platform cannot at present: 503.
    #[default]
    ProviderBusy,
}

impl Meaning {
    pub(crate) fn fault(self) -> Fault {
        match self {
            Self::InvalidCode => Fault::InvalidCode,
            Self::CodeUsed => Fault::CodeUsed,
            Self::RateLimited => Fault::RateLimited,
            Self::UserBlocked => Fault::UserBlocked,
            Self::Misconfigured => Fault::Misconfigured,
            Self::ProviderBusy => Fault::ProviderBusy,
        }
    }
}

// === Compiled ===

/// What a hole in a parameter stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Hole {
    Code,
    Appid,
    Secret,
    Device,
    Param(String),
}

/// A platform as it is asked.
#[derive(Debug)]
pub(crate) struct Provider {
    /// Where to ask, in this order.
    pub(crate) bases: Vec<Url>,
    method: http::Method,
    path: String,
    placement: Placement,
    params: Vec<(String, Template<Hole>)>,
    headers: Vec<(HeaderName, Template<Hole>)>,
    pub(crate) sign: Option<signer::Scheme>,
    success: Option<Success>,
    map: Map,
    errors: Errors,
}

/// Hosts of one platform at most.
const MAX_BASES: usize = 8;

/// The shipped description of a platform. `None` where there is none.
pub(crate) fn shipped(kind: Kind, problems: &mut Problems) -> Option<Config> {
    let text = text(kind)?;
    let name = format!("{}.yaml", kind.as_str());
    let source = Source { name: name.clone(), text: text.to_owned().into() };
    // Our own files hold no holes for the environment, and a test reads each of them.
    let mut own = Problems::new(name.as_str());
    let config = parse(&source, &Nothing).ok().and_then(|root| read(&Place::root(&root), &mut own));
    if config.is_none() {
        problems.error_at(0, 0, format!("the description of `{}` cannot be read", kind.as_str()));
    }
    config
}

struct Nothing;

impl Lookup for Nothing {
    fn env(&self, _: &str) -> Option<String> {
        None
    }

    fn file(&self, _: &str) -> std::io::Result<String> {
        Err(std::io::ErrorKind::NotFound.into())
    }
}

impl Config {
    /// Compiles it for an app with parameters of these names that asks at `bases`, where it names some.
    pub(crate) fn build(
        &self,
        bases: &[String],
        names: &[&str],
        at: &Place<'_>,
        env: &mut Env<'_>,
    ) -> Option<Provider> {
        let own = bases.is_empty();
        let bases = self::bases(if own { &self.api_base } else { bases }, at, env);
        let request = &self.request;
        let path = request.path.starts_with('/') && !request.path.contains(['?', '#', ' ']);
        if !path {
            env.problems.error(
                &at.field("exchange").field("request").field("path"),
                "the path begins with `/` and has no query",
            );
        }
        let params = templates(&request.params, names, "params", at, env);
        let headers = templates(&request.headers, names, "headers", at, env);
        let headers = headers.map(|all| {
            all.into_iter()
                .filter_map(|(name, text)| Some((HeaderName::try_from(name).ok()?, text)))
                .collect::<Vec<_>>()
        });
        if request.method == Method::Get && request.send != Placement::Query {
            env.problems
                .error(
                    &at.field("exchange").field("request").field("send"),
                    "a GET has no body to send parameters in",
                )
                .help("write `send: query`, or `method: POST`");
            return None;
        }
        let pointers = self.map.open_id.iter().chain(&self.map.union_id);
        let pointers = pointers.chain(&self.map.session_key).chain(&self.errors.pointer);
        let success = self.success.iter().map(|success| &success.pointer);
        let mut all = pointers.chain(success);
        if let Some(pointer) = all.find(|pointer| !pointer.starts_with('/')) {
            env.problems
                .error(&at.field("exchange"), format!("`{pointer}` is not a JSON pointer"))
                .help("write it like /data/openid");
            return None;
        }
        path.then_some(())?;
        Some(Provider {
            bases: bases?,
            method: if request.method == Method::Get {
                http::Method::GET
            } else {
                http::Method::POST
            },
            path: request.path.clone(),
            placement: request.send,
            params: params?,
            headers: headers?,
            sign: request.sign,
            success: self.success.clone(),
            map: self.map.clone(),
            errors: self.errors.clone(),
        })
    }
}

fn bases(bases: &[String], at: &Place<'_>, env: &mut Env<'_>) -> Option<Vec<Url>> {
    let at = at.field("api_base");
    if bases.is_empty() || bases.len() > MAX_BASES {
        env.problems
            .error(&at, format!("an app asks at 1 to {MAX_BASES} addresses"))
            .help("write `api_base: [\"https://api.example.com\"]`");
        return None;
    }
    let mut whole = Some(Vec::new());
    for (index, text) in bases.iter().enumerate() {
        let url = Url::parse(text.trim_end_matches('/')).filter(Url::is_base);
        let problem = match &url {
            None => {
                Some(("is not the address of a platform", "write it like https://api.example.com"))
            }
            Some(url) if !url.is_secure() && !url.is_local() => Some((
                "would be told the app's secret without TLS",
                "write https://; http:// is for loopback addresses only",
            )),
            Some(_) => None,
        };
        if let Some((message, help)) = problem {
            env.problems.error(&at.index(index), format!("`{text}` {message}")).help(help);
            whole = None;
        } else if let (Some(all), Some(url)) = (&mut whole, url) {
            all.push(url);
        }
    }
    whole
}

fn templates(
    texts: &BTreeMap<String, String>,
    names: &[&str],
    word: &str,
    at: &Place<'_>,
    env: &mut Env<'_>,
) -> Option<Vec<(String, Template<Hole>)>> {
    let at = at.field("exchange").field("request").field(word);
    let resolve = |name: &str| {
        Some(match name {
            "code" => Hole::Code,
            "appid" => Hole::Appid,
            "secret" => Hole::Secret,
            "device" => Hole::Device,
            name if names.contains(&name) => Hole::Param(name.to_owned()),
            _ => return None,
        })
    };
    let mut whole = Some(Vec::new());
    for (name, text) in texts {
        if word == "headers" && HeaderName::try_from(name.as_str()).is_err() {
            env.problems.error(&at.key(name), format!("`{name}` is not a header name"));
            whole = None;
        }
        match (Template::parse(text, resolve), &mut whole) {
            (Ok(template), Some(all)) => all.push((name.clone(), template)),
            (Ok(_), None) => {}
            (Err(error), _) => {
                env.problems.error(&at.field(name), error.message).help(
                    "known here: {code}, {appid}, {secret}, {device} and the names of the app's \
                     `params`; a brace itself is written twice",
                );
                whole = None;
            }
        }
    }
    whole
}

/// A header value that is never shown.
fn sensitive(text: &str) -> Option<HeaderValue> {
    let mut value = HeaderValue::try_from(text).ok()?;
    value.set_sensitive(true);
    Some(value)
}
