//! Config in, snapshot out, or all problems. Start-up, reload and `sluice check` run this very code.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use aws_lc_rs::digest;
use sluice_engine::cidr;
use sluice_engine::matcher::{BuildFault, MethodSet, RouteSpec, Router};

use super::config::{self, Config};
use super::route::{Outline, Route};
use crate::base::problem::Problems;
use crate::base::respond::Envelope;
use crate::base::yaml::{Lookup, Node, Place, Source, parse};
use crate::lasting::retained::Retained;
use crate::lasting::telemetry::access::Output;
use crate::lasting::telemetry::metrics::{Metrics, RouteSeries};
use crate::parts::env::{Env, Owner};
use crate::parts::filters::{Declared, Filter};
use crate::parts::listener::Listener;
use crate::parts::routing;
use crate::parts::upstream::{Kind, Upstream, discovery};

/// Routes at most.
const MAX_ROUTES: usize = 50_000;
/// Upstreams at most.
const MAX_UPSTREAMS: usize = 5_000;

/// Everything the request path needs, as one immutable whole.
#[derive(Debug)]
pub(crate) struct Snapshot {
    /// First 16 hex digits of the SHA-256 of the file.
    pub(crate) hash: String,
    pub(crate) router: Router,
    /// In the order of the file.
    pub(crate) routes: Vec<Route>,
    /// For requests no route matches: the global filters, then 404.
    pub(crate) unmatched: Route,
    pub(crate) listeners: Vec<Arc<Listener>>,
    pub(crate) upstreams: BTreeMap<String, Arc<Upstream>>,
    pub(crate) trusted: cidr::Set,
    /// Methods beyond the known ones that some route lists.
    pub(crate) methods: MethodSet,
    /// Headers that only the gateway sets; removed from every request.
    pub(crate) identity_headers: Vec<http::HeaderName>,
    pub(crate) settings: Settings,
}

/// What is not per route.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    pub(crate) development: bool,
    pub(crate) application: String,
    pub(crate) admin: std::net::SocketAddr,
    pub(crate) envelope: Envelope,
    pub(crate) forwarded_header: bool,
    pub(crate) access_log: Option<Output>,
    pub(crate) resolver: discovery::Settings,
    pub(crate) shutdown: config::Shutdown,
    pub(crate) allow_shrink: bool,
    pub(crate) files: Vec<PathBuf>,
}

/// What outlives compilations.
pub(crate) struct Workshop {
    pub(crate) retained: Arc<Retained>,
    pub(crate) metrics: Arc<Metrics>,
}

/// A config as text, and where relative paths in it start.
pub(crate) struct Input<'a> {
    pub(crate) source: &'a Source,
    pub(crate) base: &'a Path,
    pub(crate) lookup: &'a dyn Lookup,
    /// Whether missing development files may be written.
    pub(crate) may_write: bool,
}

/// Compiles a config. Warnings come with the snapshot, errors instead of it.
pub(crate) fn compile(
    input: &Input<'_>,
    workshop: &Workshop,
) -> Result<(Snapshot, Problems), Problems> {
    let root = parse(input.source, input.lookup)?;
    let mut problems = Problems::new(input.source.name.as_str());
    let config = Config::read(&root, &mut problems);
    let snapshot = config.and_then(|config| {
        let env = Env {
            retained: &workshop.retained,
            metrics: &workshop.metrics,
            problems: &mut problems,
            base: input.base,
            development: config.development,
            may_write: input.may_write,
        };
        Compiler { config: &config, root: &root, env }.snapshot(hash(&input.source.text))
    });
    match snapshot {
        Some(snapshot) if !problems.has_errors() => Ok((snapshot, problems)),
        _ => {
            if !problems.has_errors() {
                problems.error_at(0, 0, "the config could not be compiled");
            }
            Err(problems)
        }
    }
}

/// First 16 hex digits of the text's SHA-256.
pub(crate) fn hash(text: &str) -> String {
    let digest = digest::digest(&digest::SHA256, text.as_bytes());
    digest.as_ref().iter().take(8).map(|byte| format!("{byte:02x}")).collect()
}

struct Compiler<'a> {
    config: &'a Config,
    root: &'a Node,
    env: Env<'a>,
}

/// A group's compiled filters.
struct Group<'a> {
    declared: &'a config::Group,
    filters: Vec<Arc<Filter>>,
}

impl<'a> Compiler<'a> {
    fn snapshot(mut self, hash: String) -> Option<Snapshot> {
        let at = Place::root(self.root);
        self.bounds(&at)?;
        let listeners = self.listeners(&at.field("listeners"));
        let trusted = routing::trusted(
            &self.config.trusted_proxies,
            &at.field("trusted_proxies"),
            &mut self.env,
        );
        let settings = self.settings(&at);
        let upstreams = self.upstreams(&at.field("upstreams"));
        let owner = Owner { name: "global".to_owned(), captures: Vec::new() };
        let global = self.filters(&self.config.filters, &at.field("filters"), &owner);
        let groups = self.groups(&at.field("groups"));
        let (Some(upstreams), Some(global), Some(groups)) = (upstreams, global, groups) else {
            return None;
        };
        let (specs, routes) = self.routes(&at.field("routes"), &upstreams, &global, &groups)?;
        let methods = specs.iter().fold(MethodSet::default(), |all, spec| all.union(&spec.methods));
        let router = self.router(specs, &at.field("routes"))?;
        self.unused(&at.field("upstreams"));
        let identity_headers = identity_headers(&routes, &global);
        let series = self.series("none");
        Some(Snapshot {
            hash,
            router,
            unmatched: Route {
                id: "none".into(),
                chain: Route::sorted(
                    global.iter().filter(|f| !f.serves()).map(Arc::clone).collect(),
                ),
                upstream: None,
                websocket: false,
                streaming: false,
                series,
                outline: Outline {
                    hosts: Vec::new(),
                    path: String::new(),
                    methods: Vec::new(),
                    group: None,
                    filters: Vec::new(),
                    upstream: None,
                },
            },
            routes,
            listeners: listeners?,
            upstreams,
            trusted: trusted?,
            methods,
            identity_headers,
            settings: settings?,
        })
    }

    fn bounds(&mut self, at: &Place<'_>) -> Option<()> {
        let (routes, upstreams) = (self.config.routes.len(), self.config.upstreams.len());
        if self.config.routes.is_empty() {
            self.env
                .problems
                .error(&at.field("routes"), "there are no routes; an empty table serves nobody");
            return None;
        }
        if routes > MAX_ROUTES {
            self.env.problems.error(
                &at.field("routes"),
                format!("{routes} routes; at most {MAX_ROUTES} are served"),
            );
            return None;
        }
        if upstreams > MAX_UPSTREAMS {
            self.env.problems.error(
                &at.field("upstreams"),
                format!("{upstreams} upstreams; at most {MAX_UPSTREAMS} are served"),
            );
            return None;
        }
        Some(())
    }

    fn listeners(&mut self, at: &Place<'_>) -> Option<Vec<Arc<Listener>>> {
        let mut listeners: Vec<Arc<Listener>> = Vec::new();
        if self.config.listeners.is_empty() {
            self.env.problems.error(at, "the gateway needs at least one listener");
        }
        for (index, config) in self.config.listeners.iter().enumerate() {
            let at = at.index(index);
            if listeners.iter().any(|known| *known.name == *config.name) {
                self.env
                    .problems
                    .error(&at.field("name"), format!("two listeners are named `{}`", config.name));
                continue;
            }
            if let Some(listener) = config.build(&at, &mut self.env) {
                if let Some(twin) = listeners
                    .iter()
                    .find(|l| l.address == listener.address && listener.address.port() != 0)
                {
                    let message = format!("listener `{}` has this address already", twin.name);
                    self.env.problems.error(&at.field("address"), message);
                    continue;
                }
                listeners.push(Arc::new(listener));
            }
        }
        (!listeners.is_empty() && listeners.len() == self.config.listeners.len())
            .then_some(listeners)
    }

    fn settings(&mut self, at: &Place<'_>) -> Option<Settings> {
        let config = self.config;
        let resolver = config.resolver.build(&at.field("resolver"), &mut self.env);
        if !config.admin.address.ip().is_loopback() {
            self.env
                .problems
                .error(
                    &at.field("admin").field("address"),
                    "the admin address must be a loopback address",
                )
                .help(
                    "write 127.0.0.1:9901; let Prometheus reach it through an agent on this host",
                );
            return None;
        }
        if !config.redis.url.is_empty() {
            self.env
                .problems
                .error(
                    &at.field("redis").field("url"),
                    "limits in Redis are not served by this version",
                )
                .help("leave `redis.url` empty: limits are then counted in this process");
            return None;
        }
        let shutdown = config.shutdown;
        let longest = std::time::Duration::from_secs(600);
        if shutdown.delay.0 > longest || shutdown.grace.0 > longest {
            self.env
                .problems
                .error(&at.field("shutdown"), "`delay` and `grace` may be 10m at most");
            return None;
        }
        let access_log = match config.access_log.output.as_str() {
            "off" => None,
            "stdout" => Some(Output::Stdout),
            path => Some(Output::File(self.env.path(path))),
        };
        let files = config
            .listeners
            .iter()
            .filter_map(|listener| listener.tls.as_ref())
            .flat_map(|tls| &tls.certificates)
            .flat_map(|pair| [self.env.path(&pair.cert_file), self.env.path(&pair.key_file)])
            .collect();
        Some(Settings {
            development: config.development,
            application: config.application.clone(),
            admin: config.admin.address,
            envelope: config.errors.envelope,
            forwarded_header: config.forwarded_header,
            access_log,
            resolver: resolver?,
            shutdown,
            allow_shrink: config.allow_shrink,
            files,
        })
    }

    fn upstreams(&mut self, at: &Place<'_>) -> Option<BTreeMap<String, Arc<Upstream>>> {
        let mut upstreams = BTreeMap::new();
        for (name, config) in &self.config.upstreams {
            if let Some(upstream) = config.build(name, &at.field(name), &mut self.env) {
                upstreams.insert(name.clone(), Arc::new(upstream));
            }
        }
        (upstreams.len() == self.config.upstreams.len()).then_some(upstreams)
    }

    fn filters(
        &mut self,
        declared: &[Declared],
        at: &Place<'_>,
        owner: &Owner,
    ) -> Option<Vec<Arc<Filter>>> {
        let filters: Vec<Arc<Filter>> = declared
            .iter()
            .enumerate()
            .filter_map(|(index, one)| {
                one.build(&at.index(index), owner, &mut self.env).map(Arc::new)
            })
            .collect();
        (filters.len() == declared.len()).then_some(filters)
    }

    fn groups(&mut self, at: &Place<'_>) -> Option<HashMap<String, Group<'a>>> {
        let config: &'a Config = self.config;
        let mut groups = HashMap::new();
        let mut whole = true;
        for (index, declared) in config.groups.iter().enumerate() {
            let at = at.index(index);
            if groups.contains_key(&declared.name) {
                self.env
                    .problems
                    .error(&at.field("name"), format!("two groups are named `{}`", declared.name));
                whole = false;
                continue;
            }
            let owner = Owner { name: format!("group:{}", declared.name), captures: Vec::new() };
            match self.filters(&declared.filters, &at.field("filters"), &owner) {
                Some(filters) => {
                    groups.insert(declared.name.clone(), Group { declared, filters });
                }
                None => whole = false,
            }
        }
        whole.then_some(groups)
    }

    fn routes(
        &mut self,
        at: &Place<'_>,
        upstreams: &BTreeMap<String, Arc<Upstream>>,
        global: &[Arc<Filter>],
        groups: &HashMap<String, Group<'_>>,
    ) -> Option<(Vec<RouteSpec>, Vec<Route>)> {
        let mut seen: HashMap<&str, u32> = HashMap::new();
        let (mut specs, mut routes) = (Vec::new(), Vec::new());
        for (index, declared) in self.config.routes.iter().enumerate() {
            let at = at.index(index);
            if let Some(line) = seen.insert(&declared.id, at.line()) {
                self.env.problems.error(
                    &at.field("id"),
                    format!(
                        "two routes have the id `{}`; the other is on line {line}",
                        declared.id
                    ),
                );
                continue;
            }
            if let Some((spec, route)) = self.route(declared, &at, upstreams, global, groups) {
                specs.push(spec);
                routes.push(route);
            }
        }
        (routes.len() == self.config.routes.len()).then_some((specs, routes))
    }

    fn route(
        &mut self,
        declared: &config::Route,
        at: &Place<'_>,
        upstreams: &BTreeMap<String, Arc<Upstream>>,
        global: &[Arc<Filter>],
        groups: &HashMap<String, Group<'_>>,
    ) -> Option<(RouteSpec, Route)> {
        if declared.id.is_empty() || declared.id == "none" || declared.id.len() > 128 {
            self.env
                .problems
                .error(&at.field("id"), "an id has 1 to 128 characters and is not `none`");
            return None;
        }
        let group = match &declared.group {
            None => None,
            Some(name) => match groups.get(name) {
                Some(group) => Some(group),
                None => {
                    let place = at.field("group");
                    let known = groups.keys().map(String::as_str);
                    self.unknown(&place, "group", name, &known.collect::<Vec<_>>());
                    return None;
                }
            },
        };
        let matching = match group {
            Some(group) => declared.matching.within(&group.declared.matching),
            None => declared.matching.clone(),
        };
        let spec = matching.build(&at.field("match"), &mut self.env)?;
        let owner = Owner {
            name: format!("route:{}", declared.id),
            captures: spec.path.capture_names().to_vec(),
        };
        let own = self.filters(&declared.filters, &at.field("filters"), &owner)?;
        let shared = group.map_or(&[][..], |group| &group.filters);
        let chain: Vec<Arc<Filter>> =
            global.iter().chain(shared).chain(&own).map(Arc::clone).collect();
        let upstream = self.target(declared, at, upstreams, &chain)?;
        let chain = Route::sorted(chain);
        let outline = Outline {
            hosts: matching.hosts.clone(),
            path: matching.path.or(matching.path_regex).unwrap_or_else(|| "/**".to_owned()),
            methods: matching.methods.clone(),
            group: declared.group.clone(),
            filters: chain.iter().map(|filter| filter.name().to_owned()).collect(),
            upstream: declared.upstream.clone(),
        };
        let route = Route {
            id: declared.id.as_str().into(),
            chain,
            upstream,
            websocket: declared.websocket,
            streaming: declared.streaming,
            series: self.series(&declared.id),
            outline,
        };
        Some((spec, route))
    }

    #[expect(
        clippy::option_option,
        reason = "no upstream and a wrong upstream are different answers"
    )]
    fn target(
        &mut self,
        declared: &config::Route,
        at: &Place<'_>,
        upstreams: &BTreeMap<String, Arc<Upstream>>,
        chain: &[Arc<Filter>],
    ) -> Option<Option<Arc<Upstream>>> {
        let serves = chain.iter().any(|filter| filter.serves());
        let Some(name) = &declared.upstream else {
            if serves {
                return Some(None);
            }
            self.env
                .problems
                .error(at, format!("route `{}` leads nowhere", declared.id))
                .help("name an `upstream:`, or answer with a `redirect` or `respond` filter");
            return None;
        };
        match upstreams.get(name) {
            Some(upstream) => Some(Some(Arc::clone(upstream))),
            None => {
                let known: Vec<&str> = upstreams.keys().map(String::as_str).collect();
                self.unknown(&at.field("upstream"), "upstream", name, &known);
                None
            }
        }
    }

    fn router(&mut self, specs: Vec<RouteSpec>, at: &Place<'_>) -> Option<Router> {
        let faults = match Router::build(specs) {
            Ok(router) => return Some(router),
            Err(faults) => faults,
        };
        let id = |index: usize| self.config.routes.get(index).map_or("", |route| route.id.as_str());
        for fault in faults {
            match fault {
                BuildFault::Unreachable { route, because_of } => {
                    let message = format!(
                        "route `{}` can never match: `{}` on line {} asks for the same and comes first",
                        id(route),
                        id(because_of),
                        at.index(because_of).line(),
                    );
                    self.env
                        .problems
                        .error(&at.index(route), message)
                        .help("give one of them another path, method, predicate or priority");
                }
                BuildFault::TooManyCaptures { route, count } => {
                    let message = format!("the path captures {count} parts; at most 16 are kept");
                    self.env.problems.error(&at.index(route).field("match"), message);
                }
            }
        }
        None
    }

    fn unused(&mut self, at: &Place<'_>) {
        for name in self.config.upstreams.keys() {
            let used = |route: &config::Route| route.upstream.as_ref() == Some(name);
            if !self.config.routes.iter().any(used) {
                self.env
                    .problems
                    .warn(&at.key(name), format!("no route leads to upstream `{name}`"));
            }
        }
    }

    fn unknown(&mut self, at: &Place<'_>, what: &str, name: &str, known: &[&str]) {
        let problem = self.env.problems.error(at, format!("there is no {what} `{name}`"));
        if let Some(near) = crate::base::yaml::nearest(name, known.iter().copied()) {
            problem.help(format!("did you mean `{near}`?"));
        } else if known.is_empty() {
            problem.help(format!("no {what} is declared"));
        }
    }

    fn series(&self, id: &str) -> Arc<RouteSeries> {
        let workers = self.env.metrics.workers.len();
        self.env
            .retained
            .cell(&format!("series of route {id}"), || RouteSeries::new(id.into(), workers))
    }
}

/// Every header that some filter sets as the caller's identity.
fn identity_headers(routes: &[Route], global: &[Arc<Filter>]) -> Vec<http::HeaderName> {
    let chains = routes.iter().flat_map(|route| &route.chain);
    let mut names: Vec<http::HeaderName> =
        chains.chain(global).flat_map(|filter| filter.identity_headers()).collect();
    names.sort_by(|a, b| a.as_str().cmp(b.as_str()));
    names.dedup();
    names
}

impl Snapshot {
    /// Stops resolving and probing for this snapshot, once another has taken over.
    pub(crate) fn retire(&self) {
        for upstream in self.upstreams.values() {
            if let Kind::Service(service) = &upstream.kind
                && let Ok(mut background) = service.background.lock()
            {
                background.clear();
            }
        }
    }
}
