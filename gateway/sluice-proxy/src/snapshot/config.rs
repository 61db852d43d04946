//! The document: it only composes what the parts declare.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;
use serde::de::{DeserializeOwned, IgnoredAny};

use crate::base::problem::Problems;
use crate::base::respond::Envelope;
use crate::base::units::{Secret, Span};
use crate::base::yaml::{Node, Place, nearest, read};
use crate::parts::cache_control::CacheControl;
use crate::parts::client_abort::OnClientAbort;
use crate::parts::contract;
use crate::parts::filters::Declared;
use crate::parts::profile::{Profile, signature};
use crate::parts::version_gate;
use crate::parts::{
    admin, apps, batch, breaker, broker, bulkhead, caller, fallback, listener, login,
    method_override, overload, prefetch, proxies, redis, repeats, routing, static_files, upstream,
    websocket,
};

/// The route table. Unknown keys are refused; keys that begin with `x-` are free for anchors.
#[derive(Debug, JsonSchema)]
pub(crate) struct Config {
    /// Version of this format.
    #[schemars(range(min = 1, max = 1))]
    #[expect(dead_code, reason = "checked when it is read; here for the schema")]
    version: u32,
    /// For trying things out: missing certificates and JWT secrets are made at start.
    #[serde(default)]
    pub(crate) development: bool,
    /// The constant label `application` of all metrics.
    #[serde(default = "default_application")]
    pub(crate) application: String,
    /// Where to listen.
    pub(crate) listeners: Vec<listener::Config>,
    /// Where operators and Prometheus look.
    #[serde(default)]
    pub(crate) admin: admin::Config,
    /// Where requests are logged.
    #[serde(default)]
    pub(crate) access_log: AccessLog,
    /// What refusals look like.
    #[serde(default)]
    pub(crate) errors: Errors,
    /// Proxies in front, whose `X-Forwarded-For` is believed: networks, or mappings that say more.
    #[serde(default)]
    pub(crate) trusted_proxies: Vec<proxies::Config>,
    /// The mini-programs that call.
    #[serde(default)]
    pub(crate) apps: Vec<apps::Config>,
    /// How they are known; only where `apps` are declared.
    #[serde(default)]
    pub(crate) client_identity: caller::Config,
    /// Which versions of them are served.
    #[serde(default)]
    pub(crate) version_gate: Vec<version_gate::Config>,
    /// Which builds of them fit which builds of services.
    #[serde(default)]
    pub(crate) contract: Option<contract::Config>,
    /// By which names services are told who is calling; `neutral` where `apps` are declared, else `none`.
    #[serde(default)]
    pub(crate) headers_profile: Option<Profile>,
    /// Value of `X-WX-ENV`, which profile `wxcloud` sets.
    #[serde(default)]
    pub(crate) wx_env: Option<String>,
    /// Sign what services are told, so that they can prove who told them.
    #[serde(default)]
    pub(crate) identity_signature: Option<signature::Config>,
    /// Let POST stand for methods that clients cannot send.
    #[serde(default)]
    pub(crate) method_override: method_override::Config,
    /// Tell services where a request came from in `Forwarded` (RFC 7239) too, beside
    /// `X-Forwarded-*`.
    #[serde(default)]
    pub(crate) forwarded_header: bool,
    /// How host names of endpoints are resolved.
    #[serde(default)]
    pub(crate) resolver: upstream::discovery::Config,
    /// The Redis that gateways share.
    #[serde(default)]
    pub(crate) redis: redis::Config,
    /// How people log in with the apps.
    #[serde(default)]
    pub(crate) login: Option<login::Config>,
    /// How large batches of calls may be, for `builtin: batch`.
    #[serde(default)]
    pub(crate) batch: batch::Config,
    /// Access tokens of the apps, for services.
    #[serde(default)]
    pub(crate) token_broker: Option<broker::Config>,
    /// What the gateway takes on at most.
    #[serde(default)]
    pub(crate) overload: overload::Config,
    /// How the gateway stops.
    #[serde(default)]
    pub(crate) shutdown: Shutdown,
    /// Accept a reload that removes more than half of the routes.
    #[serde(default)]
    pub(crate) allow_shrink: bool,
    /// Filters of every route.
    #[serde(default)]
    pub(crate) filters: Vec<Declared>,
    /// Services by name.
    #[serde(default)]
    pub(crate) upstreams: BTreeMap<String, upstream::Config>,
    /// Small files at fixed paths, for anybody: `/MP_verify_abc.txt: "abc"`.
    #[serde(default)]
    pub(crate) static_files: static_files::Config,
    /// Routes that share a match and filters.
    #[serde(default)]
    pub(crate) groups: Vec<Group>,
    /// What is served.
    pub(crate) routes: Vec<Route>,
    /// Sections that could not be read and stand here as if they were empty.
    #[schemars(skip)]
    broken: Vec<&'static str>,
}

/// Where requests are logged, one JSON line each.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct AccessLog {
    /// `stdout`, `off`, or a file, which SIGUSR1 opens anew.
    pub(crate) output: String,
    /// Query parameters to log, by name; no others are. What they hold is masked.
    pub(crate) query: Vec<String>,
    /// What is masked besides credentials, numbers of phones and cards, and identities.
    pub(crate) mask: Mask,
}

/// What is masked in the access log, beside what always is.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Mask {
    /// More fields whose values are not shown: `name`, `id_card`. Letters, digits, `-` and `_`;
    /// capitals, `-` and `_` make no difference.
    pub(crate) fields: Vec<String>,
    /// Key of the fingerprints that stand for identities, at least 32 bytes: gateways with the same
    /// key write the same fingerprint. Without one it is made at start.
    pub(crate) secret: Option<Secret>,
}

impl Default for AccessLog {
    fn default() -> Self {
        Self { output: "stdout".to_owned(), query: Vec::new(), mask: Mask::default() }
    }
}

/// What refusals look like.
#[derive(Debug, Clone, Copy, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Errors {
    /// Shape of the body.
    pub(crate) envelope: Envelope,
}

/// How the gateway stops on SIGTERM.
#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Shutdown {
    /// Time between failing readiness and closing the listeners, for balancers to notice.
    pub(crate) delay: Span,
    /// Time for requests in flight to finish after that.
    pub(crate) grace: Span,
}

impl Default for Shutdown {
    fn default() -> Self {
        Self {
            delay: Span(std::time::Duration::from_secs(5)),
            grace: Span(std::time::Duration::from_secs(25)),
        }
    }
}

/// Routes that share a match and filters.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Group {
    /// A unique name.
    pub(crate) name: String,
    /// What all its routes require; a route's own words replace these.
    #[serde(default, rename = "match")]
    pub(crate) matching: routing::Config,
    /// Filters that run before the routes' own of the same stage.
    #[serde(default)]
    pub(crate) filters: Vec<Declared>,
}

/// One route.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Route {
    /// A unique name; seen in metrics and logs.
    pub(crate) id: String,
    /// The group it belongs to.
    #[serde(default)]
    pub(crate) group: Option<String>,
    /// Which requests it is for.
    #[serde(default, rename = "match")]
    pub(crate) matching: routing::Config,
    /// Its own filters.
    #[serde(default)]
    pub(crate) filters: Vec<Declared>,
    /// The service it leads to; not needed where a filter answers.
    #[serde(default)]
    pub(crate) upstream: Option<String>,
    /// Bound the requests of this route that are in progress.
    #[serde(default)]
    pub(crate) bulkhead: Option<bulkhead::Config>,
    /// Stop asking the service for this route while that keeps failing.
    #[serde(default)]
    pub(crate) breaker: Option<breaker::Config>,
    /// What callers get instead where the service cannot be asked, or does not answer.
    #[serde(default)]
    pub(crate) fallback: Option<fallback::Config>,
    /// By which names the service is told who is calling, if not as the rest.
    #[serde(default)]
    pub(crate) headers_profile: Option<Profile>,
    /// Which of its requests may be sent twice, and after which answers they are.
    #[serde(default)]
    pub(crate) retries: repeats::Config,
    /// From a request's arrival to the head of its answer, all attempts together, instead of the
    /// upstream's `timeouts.total`; at most 55s.
    #[serde(default)]
    pub(crate) timeout: Option<Span>,
    /// What becomes of a write whose client leaves before the answer, instead of what the upstream says.
    #[serde(default)]
    pub(crate) on_client_abort: Option<OnClientAbort>,
    /// Let WebSocket upgrades pass: `true`, or `{ origins: [...], idle: 5m, max_age: 0s }`.
    #[serde(default)]
    pub(crate) websocket: websocket::Config,
    /// For answers and uploads that last: no total time limit and no cap on the body; a pause of 5m
    /// ends them.
    #[serde(default)]
    pub(crate) streaming: bool,
    /// What becomes of a redirect by the service to itself.
    #[serde(default)]
    pub(crate) location: Location,
    /// What is said of keeping an answer that says nothing of it by itself.
    #[serde(default)]
    pub(crate) cache_control: CacheControl,
    /// Shape of refusals on this route, whoever calls; else that of the app, else `errors.envelope`.
    #[serde(default)]
    pub(crate) envelope: Option<Envelope>,
    /// Answer WeChat's pre-fetch (数据预拉取): `{}`, or `{ apps: [...], max_answer: 64KiB }`.
    #[serde(default)]
    pub(crate) prefetch: Option<prefetch::Config>,
    /// For payments and the like: while it cannot be said whether a token was revoked, nobody is let in.
    #[serde(default)]
    pub(crate) sensitive: bool,
    /// Which calls of batches may take this route: `none`, those that change nothing (`safe`), or `all`.
    #[serde(default)]
    pub(crate) batch: batch::Permission,
}

/// What becomes of a `Location` that names the service.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Location {
    /// It names the host, the scheme and the path that clients know. Other redirects stay as they are.
    #[default]
    Rewrite,
    /// It stays as the service has written it.
    Pass,
}

fn default_application() -> String {
    "sluice".to_owned()
}

/// The document's keys, to name unknown ones.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "only its keys matter")]
struct Keys {
    #[serde(default)]
    version: IgnoredAny,
    #[serde(default)]
    development: IgnoredAny,
    #[serde(default)]
    application: IgnoredAny,
    #[serde(default)]
    listeners: IgnoredAny,
    #[serde(default)]
    admin: IgnoredAny,
    #[serde(default)]
    access_log: IgnoredAny,
    #[serde(default)]
    errors: IgnoredAny,
    #[serde(default)]
    trusted_proxies: IgnoredAny,
    #[serde(default)]
    apps: IgnoredAny,
    #[serde(default)]
    client_identity: IgnoredAny,
    #[serde(default)]
    version_gate: IgnoredAny,
    #[serde(default)]
    contract: IgnoredAny,
    #[serde(default)]
    headers_profile: IgnoredAny,
    #[serde(default)]
    wx_env: IgnoredAny,
    #[serde(default)]
    identity_signature: IgnoredAny,
    #[serde(default)]
    method_override: IgnoredAny,
    #[serde(default)]
    forwarded_header: IgnoredAny,
    #[serde(default)]
    resolver: IgnoredAny,
    #[serde(default)]
    redis: IgnoredAny,
    #[serde(default)]
    login: IgnoredAny,
    #[serde(default)]
    batch: IgnoredAny,
    #[serde(default)]
    token_broker: IgnoredAny,
    #[serde(default)]
    overload: IgnoredAny,
    #[serde(default)]
    shutdown: IgnoredAny,
    #[serde(default)]
    allow_shrink: IgnoredAny,
    #[serde(default)]
    filters: IgnoredAny,
    #[serde(default)]
    upstreams: IgnoredAny,
    #[serde(default)]
    static_files: IgnoredAny,
    #[serde(default)]
    groups: IgnoredAny,
    #[serde(default)]
    routes: IgnoredAny,
}

impl Config {
    /// Reads every section on its own, so that a problem in one does not hide those of others.
    /// `None` if there are no sections; what could not be read is an error among `problems`.
    pub(crate) fn read(root: &Node, problems: &mut Problems) -> Option<Self> {
        let at = Place::root(root);
        read::<Keys>(&at, problems);
        missing(&at, problems);
        at.entries().next()?;
        let mut sections = Sections { at, problems, broken: Vec::new() };
        let version = sections.read("version", || 1);
        if version != 1 {
            let at = sections.at.field("version");
            sections.problems.error(&at, "only version 1 is known").help("write `version: 1`");
        }
        Some(Self {
            version,
            development: sections.read("development", || false),
            application: sections.read("application", default_application),
            listeners: sections.read("listeners", Vec::new),
            admin: sections.read("admin", admin::Config::default),
            access_log: sections.read("access_log", AccessLog::default),
            errors: sections.read("errors", Errors::default),
            trusted_proxies: sections.read("trusted_proxies", Vec::new),
            apps: sections.read("apps", Vec::new),
            client_identity: sections.read("client_identity", caller::Config::default),
            version_gate: sections.read("version_gate", Vec::new),
            contract: sections.read("contract", || None),
            headers_profile: sections.read("headers_profile", || None),
            wx_env: sections.read("wx_env", || None),
            identity_signature: sections.read("identity_signature", || None),
            method_override: sections.read("method_override", method_override::Config::default),
            forwarded_header: sections.read("forwarded_header", || false),
            resolver: sections.read("resolver", upstream::discovery::Config::default),
            redis: sections.read("redis", redis::Config::default),
            login: sections.read("login", || None),
            batch: sections.read("batch", batch::Config::default),
            token_broker: sections.read("token_broker", || None),
            overload: sections.read("overload", overload::Config::default),
            shutdown: sections.read("shutdown", Shutdown::default),
            allow_shrink: sections.read("allow_shrink", || false),
            filters: sections.read("filters", Vec::new),
            upstreams: sections.read("upstreams", BTreeMap::new),
            static_files: sections.read("static_files", BTreeMap::new),
            groups: sections.read("groups", Vec::new),
            routes: sections.read("routes", Vec::new),
            broken: sections.broken,
        })
    }

    /// Whether a section is missing or could not be read, which has been told.
    pub(crate) fn is_broken(&self, section: &str) -> bool {
        self.broken.contains(&section)
    }
}

/// Sections that must be there.
const REQUIRED: [&str; 3] = ["version", "listeners", "routes"];

/// Tells of every section that must be there and is not, unless a misspelt one was told of.
fn missing(at: &Place<'_>, problems: &mut Problems) {
    for name in REQUIRED {
        let given = |(key, _): (&str, Place<'_>)| nearest(key, REQUIRED) == Some(name);
        if !at.entries().any(given) {
            problems.error(at, format!("missing field `{name}`"));
        }
    }
}

struct Sections<'a> {
    at: Place<'a>,
    problems: &'a mut Problems,
    broken: Vec<&'static str>,
}

impl Sections<'_> {
    fn read<T: DeserializeOwned>(&mut self, name: &'static str, default: impl FnOnce() -> T) -> T {
        let at = self.at.field(name);
        if at.node().is_none() {
            if REQUIRED.contains(&name) {
                self.broken.push(name);
            }
            return default();
        }
        read(&at, self.problems).unwrap_or_else(|| {
            self.broken.push(name);
            default()
        })
    }
}
