//! Which builds of a mini-program fit which builds of a service. While a platform rolls a release out, two
//! builds of the program are live for days; each is sent to a pool of the service that its own build was
//! made for, or refused with a reason, or let pass where nobody is hurt.
//!
//! The one rule: a pool is chosen among those that the contract names for the build; what a client says
//! never leads anywhere else.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sluice_engine::mini::{Client, Env as MiniEnv};

use super::apps::Apps;
use super::env::Env;
use super::upstream::{Kind, Upstream};
use crate::base::problem::Problems;
use crate::base::yaml::{Lookup, Place, Source, nearest, parse, read};
use crate::lasting::telemetry::apps::{ContractSeries, Kept};

/// Which builds fit which.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Contract")]
pub(crate) struct Config {
    /// The file that says which build of an app fits which builds of services, like
    /// `file:contracts.yaml`; a change of it is a change of the config.
    pub(crate) source: String,
    /// Services under contract, by the upstream that routes name: their pools, the newest build first.
    pub(crate) pools: BTreeMap<String, Vec<PoolConfig>>,
    /// What happens to a build that fits none of the pools, by the kind of build.
    #[serde(default)]
    pub(crate) on_mismatch: OnMismatch,
}

/// One build of a service, and where it runs.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Pool")]
pub(crate) struct PoolConfig {
    /// Its commit.
    pub(crate) build: String,
    /// The upstream in which it runs.
    pub(crate) upstream: String,
}

/// What happens to a build that fits none of the pools, by the kind of build.
#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct OnMismatch {
    /// For releases, and for those that do not say what they are.
    pub(crate) release: Action,
    /// For testers' builds.
    pub(crate) trial: Action,
    /// For developers' builds.
    pub(crate) develop: Action,
}

impl Default for OnMismatch {
    fn default() -> Self {
        Self { release: Action::RouteToPrevious, trial: Action::Block, develop: Action::Warn }
    }
}

/// What happens to a build that fits none of the pools.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Action {
    /// It goes to the second pool, the one that users had before.
    RouteToPrevious,
    /// It is refused with 409.
    Block,
    /// It passes, and is counted.
    Warn,
}

/// A line of the file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    /// The commit of the app.
    client: String,
    /// `service@build`, several.
    accepts: Vec<String>,
}

/// The contracts of one service, as compiled.
#[derive(Debug)]
pub(crate) struct ServiceContract {
    pools: Vec<Arc<Upstream>>,
    /// By app and its build: which of the pools fit, the newest first.
    fits: HashMap<(u16, String), Vec<usize>>,
    on_mismatch: OnMismatch,
    /// What a refused client is told, as JSON.
    told: Arc<str>,
    series: Arc<ContractSeries>,
}

/// Where a request goes.
#[derive(Debug)]
pub(crate) enum Choice<'a> {
    To(&'a Arc<Upstream>),
    /// Nowhere; this is what the client is told.
    Nowhere(Arc<str>),
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

/// All contracts, by the upstream that routes name.
pub(crate) type Contracts = BTreeMap<String, Arc<ServiceContract>>;

impl Config {
    /// Compiles it, or records every problem.
    pub(crate) fn build(
        &self,
        apps: &Apps,
        upstreams: &BTreeMap<String, Arc<Upstream>>,
        at: &Place<'_>,
        env: &mut Env<'_>,
    ) -> Option<Contracts> {
        let entries = self.entries(&at.field("source"), env);
        let mut contracts = Contracts::new();
        for (service, pools) in &self.pools {
            let at = at.field("pools").field(service);
            if let Some(found) = self.pools(service, pools, upstreams, &at, env) {
                let told = serde_json::json!({
                    "service": service,
                    "builds": pools.iter().map(|pool| &pool.build).collect::<Vec<_>>(),
                    "action": "restart",
                });
                contracts.insert(
                    service.clone(),
                    Arc::new(ServiceContract {
                        pools: found,
                        fits: fits(service, pools, &entries, apps),
                        on_mismatch: self.on_mismatch,
                        told: told.to_string().into(),
                        series: env.retained.cell(&format!("contracts of {service}"), || {
                            ContractSeries::new(service.as_str().into())
                        }),
                    }),
                );
            }
        }
        self.check(&entries?, apps, &at.field("source"), env)?;
        (contracts.len() == self.pools.len()).then_some(contracts)
    }

    fn entries(&self, at: &Place<'_>, env: &mut Env<'_>) -> Option<BTreeMap<String, Vec<Entry>>> {
        let Some(path) = self.source.strip_prefix("file:") else {
            env.problems
                .error(at, format!("`{}` is no source of contracts", self.source))
                .help("write `file:` and the path of a file, like file:contracts.yaml");
            return None;
        };
        let bytes = env.file(at, path)?;
        let text = String::from_utf8_lossy(&bytes).into_owned().into();
        let source = Source { name: path.to_owned(), text };
        let mut problems = Problems::new(path);
        let read = match parse(&source, &Nothing) {
            Ok(root) => read(&Place::root(&root), &mut problems),
            Err(found) => {
                problems = found;
                None
            }
        };
        if read.is_none() || problems.has_errors() {
            let found: Vec<_> = problems.sorted().iter().map(|problem| problem.brief()).collect();
            env.problems
                .error(at, format!("in `{path}`: {}", found.join("; ")))
                .help("write `shop: [ { client: a1b2c3d, accepts: [orders@9f8e] } ]`");
            return None;
        }
        read
    }

    /// Whether the file names apps and services that exist. Builds may be gone.
    fn check(
        &self,
        entries: &BTreeMap<String, Vec<Entry>>,
        apps: &Apps,
        at: &Place<'_>,
        env: &mut Env<'_>,
    ) -> Option<()> {
        let mut whole = true;
        for (app, lines) in entries {
            whole &= apps.named(app, at, env).is_some();
            for accepted in lines.iter().flat_map(|line| &line.accepts) {
                let service = accepted.split_once('@').map(|(service, _)| service);
                if !service.is_some_and(|service| self.pools.contains_key(service)) {
                    whole = false;
                    env.problems
                        .error(at, format!("`{accepted}` of app `{app}` is no `service@build`"))
                        .help("services are those under `pools`");
                }
            }
        }
        whole.then_some(())
    }

    fn pools(
        &self,
        service: &str,
        pools: &[PoolConfig],
        upstreams: &BTreeMap<String, Arc<Upstream>>,
        at: &Place<'_>,
        env: &mut Env<'_>,
    ) -> Option<Vec<Arc<Upstream>>> {
        let mut found = Vec::new();
        for (index, pool) in pools.iter().enumerate() {
            let at = at.index(index).field("upstream");
            match upstreams.get(&pool.upstream) {
                Some(upstream) => found.push(Arc::clone(upstream)),
                None => {
                    let near = nearest(&pool.upstream, upstreams.keys().map(String::as_str));
                    let message = format!("there is no upstream `{}`", pool.upstream);
                    let problem = env.problems.error(&at, message);
                    if let Some(near) = near {
                        problem.help(format!("did you mean `{near}`?"));
                    }
                }
            }
        }
        if !upstreams.contains_key(service) {
            env.problems
                .error(at, format!("there is no upstream `{service}` that routes could name"));
            return None;
        }
        let actions = [self.on_mismatch.release, self.on_mismatch.trial, self.on_mismatch.develop];
        if pools.len() < 2 && actions.contains(&Action::RouteToPrevious) {
            env.problems.error(at, "there is no previous pool to route to").help(
                "list two builds, the newest first, or write `on_mismatch: { release: block }`",
            );
            return None;
        }
        let spoken = |upstream: &Arc<Upstream>| match &upstream.kind {
            Kind::Service(service) => Some(service.protocol),
            Kind::Builtin(_) => None,
        };
        let first = upstreams.get(service).and_then(spoken);
        if found.iter().any(|upstream| spoken(upstream) != first) {
            env.problems.error(at, "the pools of a service speak the same protocol");
            return None;
        }
        (found.len() == pools.len()).then_some(found)
    }
}

fn fits(
    service: &str,
    pools: &[PoolConfig],
    entries: &Option<BTreeMap<String, Vec<Entry>>>,
    apps: &Apps,
) -> HashMap<(u16, String), Vec<usize>> {
    let mut fits = HashMap::new();
    for (app, lines) in entries.iter().flatten() {
        let Some(app) = apps.find(app) else { continue };
        for line in lines {
            let builds = line.accepts.iter().filter_map(|accepted| {
                let (of, build) = accepted.split_once('@')?;
                (of == service).then_some(build)
            });
            let builds: Vec<&str> = builds.collect();
            let known = pools.iter().enumerate();
            let known = known.filter(|(_, pool)| builds.contains(&pool.build.as_str()));
            fits.insert((app, line.client.clone()), known.map(|(at, _)| at).collect());
        }
    }
    fits
}

impl ServiceContract {
    /// Where the request of a client goes; `usual` is where the route leads.
    pub(crate) fn choose<'a>(
        &'a self,
        client: Option<&Client>,
        usual: &'a Arc<Upstream>,
    ) -> Choice<'a> {
        let said =
            client.and_then(|client| Some((client.app?, client.build.as_deref()?, client.env)));
        let Some((app, build, env)) = said else {
            // Pages of other origins, partners, older builds: nothing is known, nothing is broken.
            self.series.add(Kept::Unsaid);
            return Choice::To(usual);
        };
        let fitting = self.fits.get(&(app, build.to_owned())).and_then(|pools| pools.first());
        if let Some(pool) = fitting.and_then(|pool| self.pools.get(*pool)) {
            self.series.add(Kept::Fitting);
            return Choice::To(pool);
        }
        let action = match env {
            Some(MiniEnv::Release) | None => self.on_mismatch.release,
            Some(MiniEnv::Trial) => self.on_mismatch.trial,
            Some(MiniEnv::Develop) => self.on_mismatch.develop,
        };
        match (action, self.pools.get(1)) {
            (Action::RouteToPrevious, Some(previous)) => {
                self.series.add(Kept::Previous);
                Choice::To(previous)
            }
            (Action::Warn, _) => {
                self.series.add(Kept::Warned);
                Choice::To(usual)
            }
            (Action::Block | Action::RouteToPrevious, _) => {
                self.series.add(Kept::Blocked);
                Choice::Nowhere(Arc::clone(&self.told))
            }
        }
    }
}
