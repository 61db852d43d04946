//! A service behind the gateway: its endpoints, how they are chosen and talked to, how long that may
//! take, and when to stop trying. Or a service inside the gateway (`builtin`).

use std::sync::{Arc, Mutex};
use std::time::Duration;

use arc_swap::ArcSwap;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sluice_engine::balance as engine;

use super::breaker::{self, Breaker};
use super::bulkhead::{self, Bound};
use super::client_abort::OnClientAbort;
use super::env::Env;
use crate::base::units::{Percent, Span};
use crate::base::yaml::Place;
use crate::lasting::link::{Protocol, Shape};
use crate::lasting::tasks::Owned;
use crate::lasting::telemetry::metrics::UpstreamSeries;

pub(crate) mod balance;
mod builtin;
pub(crate) mod discovery;
pub(crate) mod ejection;
pub(crate) mod endpoints;
pub(crate) mod probe;
pub(crate) mod retries;
pub(crate) mod sticky;
pub(crate) mod tls;

use balance::{Balance, HashConfig, SlowStartConfig};
pub(crate) use builtin::Builtin;
use ejection::Ejection;
use endpoints::{EndpointConfig, EndpointSet, Plan, Talk};
use retries::Retries;
use sticky::{Affinity, Sticky};

/// A service that routes can name.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Config {
    /// Answer inside the gateway instead: `echo` shows the request, `health` says it is alive.
    #[serde(default)]
    builtin: Option<Builtin>,
    /// Where the service runs.
    #[serde(default)]
    endpoints: Vec<EndpointConfig>,
    /// How an endpoint is chosen.
    #[serde(default)]
    balance: Balance,
    /// What `balance: hash` keeps together.
    #[serde(default)]
    hash: Option<HashConfig>,
    /// Keep callers at their endpoint, as long as it is usable.
    #[serde(default)]
    sticky: Option<sticky::Config>,
    /// Give an endpoint that has just come, or come back, a growing share of its requests.
    #[serde(default)]
    slow_start: Option<SlowStartConfig>,
    /// What is spoken to the endpoints.
    #[serde(default)]
    protocol: ProtocolConfig,
    /// Talk TLS to the endpoints.
    #[serde(default)]
    tls: Option<tls::Config>,
    /// The Host the service sees: `client` (what the client asked for), `endpoint` (the endpoint's
    /// own address), or a name.
    #[serde(default = "default_host")]
    host: String,
    /// The pool of kept connections.
    #[serde(default)]
    keepalive: Keepalive,
    /// Time limits.
    #[serde(default)]
    timeouts: Timeouts,
    /// Ask the endpoints regularly whether they are well.
    #[serde(default)]
    health_check: Option<probe::Config>,
    /// Stop asking a service that keeps failing.
    #[serde(default)]
    breaker: Option<breaker::Config>,
    /// Stop asking an endpoint that keeps failing, as long as another one is left.
    #[serde(default)]
    endpoint_breaker: Option<breaker::Config>,
    /// Bound the requests in progress to all its endpoints.
    #[serde(default)]
    bulkhead: Option<bulkhead::Config>,
    /// Take endpoints out of use whose requests keep failing.
    #[serde(default)]
    ejection: ejection::Config,
    /// When fewer of its endpoints than this are up, backups aside, all of them are used: those that are
    /// left would not bear the load of all. `0%` for never.
    #[serde(default = "default_panic")]
    panic_threshold: Percent,
    /// How requests are tried again.
    #[serde(default)]
    retries: retries::Config,
    /// What becomes of a write whose client leaves before the answer.
    #[serde(default)]
    on_client_abort: OnClientAbort,
}

fn default_host() -> String {
    "client".to_owned()
}

fn default_panic() -> Percent {
    Percent(50)
}

/// What is spoken to endpoints.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum ProtocolConfig {
    /// HTTP/1.1.
    #[default]
    Http1,
    /// HTTP/2, needed for gRPC; without `tls` by prior knowledge (h2c).
    Http2,
}

/// The pool of kept connections, per endpoint.
#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Keepalive {
    /// Idle connections each worker keeps.
    idle_per_endpoint: usize,
    /// Requests on one connection before it is replaced.
    max_requests: u64,
    /// Idle time before a connection is closed; keep it below the service's own. A service that
    /// announces a shorter time (`Keep-Alive: timeout=`) is believed.
    idle_timeout: Span,
    /// Age before a connection is replaced, so that moved names are followed.
    max_age: Span,
    /// Connections open at a time, over all workers (HTTP/1).
    max_connections: usize,
    /// How long a request waits for one when all are in use.
    max_wait: Span,
}

impl Default for Keepalive {
    fn default() -> Self {
        Self {
            idle_per_endpoint: 256,
            max_requests: 100_000,
            // Many services close after 5s; a request sent in that moment is lost.
            idle_timeout: Span(Duration::from_secs(4)),
            max_age: Span(Duration::from_secs(600)),
            max_connections: 1024,
            max_wait: Span(Duration::from_millis(100)),
        }
    }
}

/// Time limits towards a service. None can be switched off.
#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Timeouts {
    /// TCP connect, and again the TLS handshake.
    pub(crate) connect: Span,
    /// From the request being sent to the head of the answer, each attempt; what is left of `total` if not
    /// given.
    pub(crate) head: Option<Span>,
    /// From the request's arrival to the head of the answer, all attempts together; at most 55s,
    /// since clients give up after a minute. Routes with `streaming` have no total.
    pub(crate) total: Span,
    /// Largest pause within the answer.
    pub(crate) idle: Span,
    /// A request with less time left than this is refused with 504 `deadline_exceeded`, and the service is
    /// not asked.
    pub(crate) floor: Span,
    /// Tell the service in `X-Request-Timeout`, or `grpc-timeout`, how much time is left, also where the
    /// client says nothing of it.
    pub(crate) tell: bool,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            connect: Span(Duration::from_secs(1)),
            head: None,
            total: Span(Duration::from_secs(15)),
            idle: Span(Duration::from_secs(30)),
            // Less could not be told on, which is done in whole milliseconds.
            floor: Span(Duration::from_millis(1)),
            tell: false,
        }
    }
}

// === Compiled ===

/// An upstream as compiled.
#[derive(Debug)]
pub(crate) struct Upstream {
    pub(crate) name: Arc<str>,
    pub(crate) kind: Kind,
}

#[derive(Debug)]
pub(crate) enum Kind {
    Builtin(Builtin),
    Service(Box<Service>),
}

/// A real service.
pub(crate) struct Service {
    /// Addresses, weights and cells as one pointer: a change of names never shows a half.
    pub(crate) endpoints: ArcSwap<EndpointSet>,
    /// How the set is made from what discovery finds.
    pub(crate) plan: Plan,
    pub(crate) position: Arc<engine::Cell>,
    rules: balance::Rules,
    sticky: Sticky,
    pub(crate) breaker: Option<Breaker>,
    /// The terms of its endpoints' breakers, whose cells are kept with them.
    pub(crate) endpoint_breaker: Option<breaker::Terms>,
    pub(crate) bulkhead: Option<Bound>,
    pub(crate) ejection: Option<Ejection>,
    pub(crate) retries: Retries,
    pub(crate) on_client_abort: OnClientAbort,
    pub(crate) host: HostMode,
    pub(crate) protocol: Protocol,
    pub(crate) timeouts: Timeouts,
    pub(crate) series: Arc<UpstreamSeries>,
    pub(crate) health_check: Option<probe::Probe>,
    /// Resolving and probing, for as long as this compilation is the current one.
    pub(crate) background: Mutex<Vec<Owned>>,
}

impl std::fmt::Debug for Service {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Service").field("plan", &self.plan).finish_non_exhaustive()
    }
}

/// The Host a service sees.
#[derive(Debug, Clone)]
pub(crate) enum HostMode {
    Client,
    Endpoint,
    Fixed(http::HeaderValue),
}

impl Config {
    /// Where the service runs, as it is written.
    pub(crate) fn endpoints(&self) -> &[EndpointConfig] {
        &self.endpoints
    }

    pub(crate) fn build(&self, name: &str, at: &Place<'_>, env: &mut Env<'_>) -> Option<Upstream> {
        let kind = match self.builtin {
            Some(builtin) => {
                if !self.endpoints.is_empty() {
                    env.problems
                        .error(&at.field("endpoints"), "a builtin upstream has no endpoints");
                    return None;
                }
                #[cfg(debug_assertions)]
                #[expect(clippy::panic, reason = "its purpose; debug builds only")]
                if builtin == Builtin::PanicWhenCompiled {
                    panic!("asked for by `builtin: panic_when_compiled`");
                }
                builtin.check(at, env);
                Kind::Builtin(builtin)
            }
            None => Kind::Service(Box::new(self.service(name, at, env)?)),
        };
        Some(Upstream { name: name.into(), kind })
    }

    fn service(&self, name: &str, at: &Place<'_>, env: &mut Env<'_>) -> Option<Service> {
        let timeouts = self.timeouts.check(&at.field("timeouts"), env);
        let host = self.host_mode(&at.field("host"), env);
        let longest = timeouts.as_ref().map(Timeouts::head);
        let breakers = self.breakers(name, longest, at, env);
        let bulkhead = match self.bulkhead {
            None => Some(None),
            Some(config) => {
                config.build(&format!("upstream:{name}"), &at.field("bulkhead"), env).map(Some)
            }
        };
        let ejection = self.ejection.build(name, &at.field("ejection"), env);
        let retries = self.retries.build(name, &at.field("retries"), env);
        let protocol = match self.protocol {
            ProtocolConfig::Http1 => Protocol::Http1,
            ProtocolConfig::Http2 => Protocol::Http2,
        };
        let health_check = match &self.health_check {
            None => Some(None),
            Some(config) => config.build(protocol, &at.field("health_check"), env).map(Some),
        };
        let tls = match &self.tls {
            None => Some(None),
            Some(config) => config.build(protocol, &at.field("tls"), env).map(Some),
        };
        let keepalive = self.keepalive.check(&at.field("keepalive"), env);
        let (timeouts, keepalive) = (timeouts?, keepalive?);
        let shape = Shape {
            tls: None,
            protocol,
            connect: timeouts.connect.0,
            idle_per_endpoint: keepalive.idle_per_endpoint,
            idle_timeout: keepalive.idle_timeout.0,
            max_requests: keepalive.max_requests,
            max_age: keepalive.max_age.0,
            max_connections: keepalive.max_connections,
            max_wait: keepalive.max_wait.0,
        };
        let (rules, sticky, slow_start) = self.choice(at, env)?;
        let (ejection, (breaker, endpoint_breaker)) = (ejection?, breakers?);
        let talk = Talk {
            policy: rules.policy,
            max_load: rules.max_load,
            slow_start,
            cookie: match &sticky {
                Sticky::Cookie(cookie) => Some(Arc::clone(cookie)),
                _ => None,
            },
            panic_percent: self.panic_threshold.0,
            ejects: ejection.is_some(),
            breaker: endpoint_breaker.map(|terms| terms.rules),
            shape,
            tls: tls?,
        };
        let plan = Plan::build(name, &self.endpoints, talk, &at.field("endpoints"), env)?;
        let workers = env.metrics.workers.len();
        Some(Service {
            endpoints: ArcSwap::from_pointee(plan.resolve(env.retained)),
            plan,
            position: env
                .retained
                .cell(&format!("position of upstream {name}"), engine::Cell::default),
            rules,
            sticky,
            breaker,
            endpoint_breaker,
            bulkhead: bulkhead?,
            ejection,
            retries: retries?,
            on_client_abort: self.on_client_abort,
            host: host?,
            protocol,
            timeouts,
            series: env
                .retained
                .cell(&format!("series of upstream {name}"), || UpstreamSeries::new(workers)),
            health_check: health_check?,
            background: Mutex::default(),
        })
    }

    /// How endpoints are chosen.
    fn choice(
        &self,
        at: &Place<'_>,
        env: &mut Env<'_>,
    ) -> Option<(balance::Rules, Sticky, Option<engine::SlowStart>)> {
        let slow_start = match self.slow_start {
            None => Some(None),
            Some(config) => config.build(&at.field("slow_start"), env).map(Some),
        };
        let rules = self.balance.build(self.hash.as_ref(), at, env)?;
        let sticky = match &self.sticky {
            None => Sticky::Nothing,
            Some(config) => config.build(&rules, &at.field("sticky"), env)?,
        };
        Some((rules, sticky, slow_start?))
    }

    /// The upstream's breaker, and the terms of its endpoints' ones.
    fn breakers(
        &self,
        name: &str,
        longest: Option<Duration>,
        at: &Place<'_>,
        env: &mut Env<'_>,
    ) -> Option<(Option<Breaker>, Option<breaker::Terms>)> {
        let name = format!("upstream:{name}");
        let own = self.breaker.as_ref();
        let own = own.map(|config| config.build(&name, longest, &at.field("breaker"), env));
        let each = self.endpoint_breaker.as_ref();
        let each = each.map(|config| config.terms(longest, &at.field("endpoint_breaker"), env));
        // Both are looked at, whatever is wrong with one of them.
        Some((
            own.map_or(Some(None), |own| own.map(Some))?,
            each.map_or(Some(None), |it| it.map(Some))?,
        ))
    }

    fn host_mode(&self, at: &Place<'_>, env: &mut Env<'_>) -> Option<HostMode> {
        match self.host.as_str() {
            "client" => Some(HostMode::Client),
            "endpoint" => Some(HostMode::Endpoint),
            name => match name.parse::<http::uri::Authority>() {
                Ok(_) => http::HeaderValue::try_from(name).ok().map(HostMode::Fixed),
                Err(_) => {
                    env.problems.error(
                        at,
                        format!("`{name}` is neither `client`, `endpoint` nor a host name"),
                    );
                    None
                }
            },
        }
    }
}

impl Service {
    /// What the requests of a route with these captures have to be asked; `at` is where the route names
    /// this upstream.
    pub(crate) fn affinity(
        &self,
        captures: &[String],
        at: &Place<'_>,
        env: &mut Env<'_>,
    ) -> Option<Affinity> {
        Affinity::build(&self.rules, &self.sticky, captures, at, env)
    }
}

impl Timeouts {
    fn check(self, at: &Place<'_>, env: &mut Env<'_>) -> Option<Self> {
        let mut whole = true;
        for (name, span, most) in [
            ("connect", Some(self.connect), 30),
            ("head", self.head, 55),
            ("total", Some(self.total), 55),
            ("idle", Some(self.idle), 3600),
            ("floor", Some(self.floor), 55),
        ] {
            let Some(span) = span else { continue };
            if !(Duration::from_millis(1)..=Duration::from_secs(most)).contains(&span.0) {
                whole = false;
                env.problems
                    .error(&at.field(name), format!("`{name}` must lie between 1ms and {most}s"));
            }
        }
        if self.floor.0 >= self.total.0 {
            whole = false;
            env.problems
                .error(&at.field("floor"), "`floor` is not shorter than `total`")
                .help("every request would be refused; try 1ms");
        }
        whole.then_some(self)
    }

    /// The longest wait for the head of one attempt's answer, where no route says otherwise.
    pub(crate) fn head(&self) -> Duration {
        self.head.unwrap_or(self.total).0
    }
}

impl Keepalive {
    fn check(self, at: &Place<'_>, env: &mut Env<'_>) -> Option<Self> {
        let mut whole = true;
        if !(1..=100_000).contains(&self.max_connections) {
            whole = false;
            env.problems.error(
                &at.field("max_connections"),
                "`max_connections` must lie between 1 and 100000",
            );
        }
        if self.max_requests == 0 {
            whole = false;
            env.problems
                .error(&at.field("max_requests"), "a connection must carry at least one request");
        }
        if self.max_wait.0 > Duration::from_secs(10) {
            whole = false;
            env.problems.error(
                &at.field("max_wait"),
                "nobody should wait longer than 10s for a connection",
            );
        }
        whole.then_some(self)
    }
}
