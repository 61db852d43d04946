//! Config in, snapshot out, or all problems. Start-up, reload and `sluice check` run this very code.
//!
//! Every section is compiled even if another one is wrong, so that all problems are told at once.
//! The one rule: a snapshot in which anything was left out comes with an error, and is thrown away.

use std::collections::{BTreeMap, HashSet};
use std::path::Path;
use std::sync::Arc;

use sluice_engine::matcher::{MethodSet, Router};

use super::config::{self, Config};
use super::route::Route;
use crate::base::problem::Problems;
use crate::base::yaml::{Lookup, Node, Place, Source, parse};
use crate::lasting::retained::Retained;
use crate::lasting::telemetry::metrics::{Metrics, RouteSeries};
use crate::parts::batch;
use crate::parts::broker::Broker;
use crate::parts::caller::Callers;
use crate::parts::env::{Env, Owner, digest};
use crate::parts::filters::{Filter, KeySource, List};
use crate::parts::listener::Listener;
use crate::parts::login::{Login, app};
use crate::parts::method_override::Overrides;
use crate::parts::proxies::{self, Proxies};
use crate::parts::upstream::{Kind, Upstream};

mod apart;
mod callers;
mod fallback;
mod routes;
mod settings;

pub(crate) use settings::Settings;

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
    pub(crate) proxies: Proxies,
    /// How mini-programs are known, where some are declared.
    pub(crate) callers: Option<Callers>,
    /// Which methods a POST may stand for.
    pub(crate) overrides: Overrides,
    /// Methods beyond the known ones that some route lists.
    pub(crate) methods: MethodSet,
    /// Headers that only the gateway sets; removed from every request.
    pub(crate) identity_headers: Vec<http::HeaderName>,
    /// Issuers whose keys are followed while it is in force.
    pub(crate) key_sets: Vec<Arc<KeySource>>,
    /// How people log in, if they do.
    pub(crate) login: Option<Arc<Login>>,
    /// Whether writes of some route go on when their clients leave.
    pub(crate) finishes: bool,
    /// What batches may be.
    pub(crate) batch: batch::Rules,
    /// Lists of addresses that are watched.
    pub(crate) lists: Vec<Arc<List>>,
    /// Access tokens of its apps, if they are asked for.
    pub(crate) broker: Option<Arc<Broker>>,
    pub(crate) settings: Settings,
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
            redis: None,
            has_login: config.login.is_some() || config.is_broken("login"),
            login: None,
            has_broker: config.token_broker.is_some() || config.is_broken("token_broker"),
            names: Arc::default(),
            key_sets: Vec::new(),
            lists: Vec::new(),
            apps: Arc::default(),
            base: input.base,
            development: config.development,
            may_write: input.may_write,
            limits: HashSet::new(),
            files: Vec::new(),
        };
        Compiler { config: &config, root: &root, env }
            .snapshot(digest(input.source.text.as_bytes()))
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

struct Compiler<'a> {
    config: &'a Config,
    root: &'a Node,
    env: Env<'a>,
}

impl<'a> Compiler<'a> {
    fn snapshot(mut self, hash: String) -> Option<Snapshot> {
        let at = Place::root(self.root);
        self.bounds(&at)?;
        let listeners = self.listeners(&at.field("listeners"));
        let apps = self.apps(&at);
        let proxies = self.proxies(&at.field("trusted_proxies"));
        let overrides =
            self.config.method_override.build(&at.field("method_override"), &mut self.env);
        let (settings, login) = (self.settings(&at), self.login(&at));
        let batch = self.config.batch.build(&at.field("batch"), &mut self.env);
        let broker = self.broker(&at);
        let upstreams = self.upstreams(&at.field("upstreams"));
        let owner = Owner { name: "global".to_owned(), captures: Vec::new() };
        let global = self.filters(&self.config.filters, &at.field("filters"), &owner);
        let groups = self.groups(&at.field("groups"));
        let callers = self.callers(&at);
        let tellers = self.tellers(&at);
        let contracts = self.contracts(&upstreams, &at.field("contract"));
        let around = routes::Around { upstreams: &upstreams, global: &global, groups: &groups };
        let mut routes = self.routes(&at.field("routes"), &around);
        if let (Some(mut tellers), Some((_, routes))) = (tellers, &mut routes) {
            for (route, declared) in routes.iter_mut().zip(&self.config.routes) {
                route.teller = self.teller(&mut tellers, declared.headers_profile);
                let named = declared.upstream.as_ref().zip(contracts.as_ref());
                route.contract = named.and_then(|(name, all)| all.get(name).map(Arc::clone));
            }
        }
        self.unused(&at.field("upstreams"));
        let (router, routes) = routes?;
        let identity_headers = identity_headers(&routes, &global);
        let series = self.series("none");
        let everywhere = global.iter().filter(|f| !f.serves()).map(Arc::clone).collect();
        apps?;
        contracts?;
        Some(Snapshot {
            hash,
            router,
            finishes: routes.iter().any(|route| route.finishes),
            unmatched: Route::bare("none", everywhere, series),
            routes,
            listeners: listeners?,
            upstreams,
            proxies: proxies?,
            callers: callers?,
            overrides: overrides?,
            methods: self.methods(),
            identity_headers,
            key_sets: self.env.key_sets,
            login,
            batch: batch?,
            lists: self.env.lists,
            broker,
            settings: settings?.watching(self.env.files),
        })
    }

    fn bounds(&mut self, at: &Place<'_>) -> Option<()> {
        let (routes, upstreams) = (self.config.routes.len(), self.config.upstreams.len());
        if routes == 0 && !self.config.is_broken("routes") {
            self.env
                .problems
                .error(&at.field("routes"), "there are no routes; an empty table serves nobody");
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
        if self.config.listeners.is_empty() && !self.config.is_broken("listeners") {
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

    fn proxies(&mut self, at: &Place<'_>) -> Option<Proxies> {
        proxies::build(&self.config.trusted_proxies, at, &mut self.env)
    }

    fn upstreams(&mut self, at: &Place<'_>) -> BTreeMap<String, Arc<Upstream>> {
        let mut upstreams = BTreeMap::new();
        for (name, config) in &self.config.upstreams {
            if let Some(upstream) = config.build(name, &at.field(name), &mut self.env) {
                upstreams.insert(name.clone(), Arc::new(upstream));
            }
        }
        upstreams
    }

    /// Apps, and how people log in with them.
    fn login(&mut self, at: &Place<'_>) -> Option<Arc<Login>> {
        let listeners = &self.config.listeners;
        let loopback = listeners.iter().all(|listener| listener.is_loopback());
        let config = self.config.login.as_ref()?;
        let told = self.env.problems.errors();
        let built = app::build(&self.config.apps, loopback, &at.field("apps"), &mut self.env);
        let whole = self.env.problems.errors() == told && !self.config.is_broken("apps");
        let login = config.build(&built, whole, &at.field("login"), &mut self.env);
        self.env.login.clone_from(&login);
        login
    }

    /// Who keeps the access tokens of apps.
    fn broker(&mut self, at: &Place<'_>) -> Option<Arc<Broker>> {
        let config = self.config.token_broker.as_ref()?;
        let keys = self.config.login.as_ref().map_or(&[][..], |login| &login.store_keys);
        let apps = (&self.config.apps[..], !self.config.is_broken("apps"));
        config.build(apps, keys, (&at.field("token_broker"), &at.field("apps")), &mut self.env)
    }

    /// Every method that some route names.
    fn methods(&self) -> MethodSet {
        let groups = self.config.groups.iter().map(|group| &group.matching);
        let all = self.config.routes.iter().map(|route| &route.matching).chain(groups);
        all.filter_map(|matching| {
            MethodSet::parse(matching.methods.iter().map(String::as_str)).ok()
        })
        .fold(MethodSet::default(), |all, some| all.union(&some))
    }

    fn unused(&mut self, at: &Place<'_>) {
        // A misspelt name in a route is told already; that nobody names the right one follows from it.
        if self.env.problems.has_errors() {
            return;
        }
        for name in self.config.upstreams.keys() {
            let used = |route: &config::Route| {
                let fallback = route.fallback.as_ref().and_then(|it| it.upstream.as_ref());
                route.upstream.as_ref() == Some(name) || fallback == Some(name)
            };
            if !self.config.routes.iter().any(used) && !self.is_pool(name) {
                self.env
                    .problems
                    .warn(&at.key(name), format!("no route leads to upstream `{name}`"));
            }
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
    /// Stops resolving, probing and following issuers for this snapshot, once another has taken over.
    pub(crate) fn retire(&self) {
        self.key_sets.iter().for_each(|source| source.retire());
        self.lists.iter().for_each(|list| list.retire());
        for upstream in self.upstreams.values() {
            if let Kind::Service(service) = &upstream.kind
                && let Ok(mut background) = service.background.lock()
            {
                background.clear();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::yaml::Source;

    struct Nothing;

    impl Lookup for Nothing {
        fn env(&self, _: &str) -> Option<String> {
            None
        }

        fn file(&self, _: &str) -> std::io::Result<String> {
            Err(std::io::ErrorKind::NotFound.into())
        }
    }

    /// A key that was replaced while its config was compiled must still be news.
    #[test]
    fn a_snapshot_remembers_what_was_read_and_not_what_is_there() {
        let folder = tempfile::tempdir().unwrap();
        let key = folder.path().join("secret.key");
        let first = "first-0123456789-0123456789-0123456789";
        std::fs::write(&key, first).unwrap();
        let text = "version: 1\nlisteners: [{ name: main, address: \"127.0.0.1:0\" }]\n\
            upstreams: { echo: { builtin: echo } }\nroutes: [{ id: a, upstream: echo, filters: \
            [{ jwt: { keys: [{ kid: main, alg: HS256, secret_file: secret.key }] } }] }]\n";
        let source = Source { name: "routes.yaml".to_owned(), text: text.to_owned().into() };
        let input =
            Input { source: &source, base: folder.path(), lookup: &Nothing, may_write: false };
        let workshop = Workshop {
            retained: Arc::new(Retained::default()),
            metrics: Arc::new(Metrics::new(1)),
        };
        let (snapshot, _) = compile(&input, &workshop).unwrap();
        std::fs::write(&key, "second").unwrap();
        assert_eq!(snapshot.settings.read.get(&key), Some(&digest(first.as_bytes())));
    }
}
