//! The whole gateway: builds everything, runs it, stops it.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::sync::mpsc;

use super::balance::Underway;
pub use super::input::{Environment, Origin};
pub use super::reload::Rejected;
use super::reload::{Reloader, load};
use super::shared::{Places, Shared, Status};
use super::{admin, broker, listeners, memory, stop, thread};
use crate::base::problem::render;
use crate::lasting::retained::Retained;
use crate::lasting::tasks;
use crate::lasting::telemetry::metrics::Metrics;
use crate::snapshot::compile::{Snapshot, Workshop};
use crate::snapshot::live::Live;

/// How to run.
#[derive(Debug, Clone)]
pub struct Options {
    pub origin: Origin,
    pub environment: Environment,
    /// Worker threads.
    pub workers: usize,
    /// Share ports with a gateway that already runs, to replace it.
    pub takeover: bool,
}

/// Why the gateway did not start, or did not run to its end.
#[derive(Debug)]
pub enum RunError {
    /// The config is not usable; the text is for the operator.
    Config(String),
    /// The system did not give what is needed.
    System(std::io::Error),
}

impl From<std::io::Error> for RunError {
    fn from(error: std::io::Error) -> Self {
        Self::System(error)
    }
}

/// Facts about a gateway that has started, for its greeting.
#[derive(Debug)]
pub struct Started {
    pub config: String,
    pub hash: String,
    pub routes: usize,
    pub upstreams: usize,
    pub workers: usize,
    /// Name, address, and whether TLS is served.
    pub listeners: Vec<(String, std::net::SocketAddr, bool)>,
    pub admin: std::net::SocketAddr,
    pub development: bool,
    /// The Redis that limits are counted in; in this process if there is none.
    pub redis: Option<String>,
    /// Warnings about the config, rendered.
    pub warnings: String,
}

/// Runs the gateway until it is told to stop; `started` is called once it serves.
///
/// # Errors
///
/// [`RunError::Config`] if the config cannot be used, [`RunError::System`] for everything else.
pub fn run(options: Options, started: impl FnOnce(&Started)) -> Result<(), RunError> {
    // The one provider; a second call in a process finds it installed.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    raise_descriptors();
    let workers = options.workers.max(1);
    let (shared, facts) = prepare(&options, workers)?;
    let admin = listeners::bind_one(facts.admin, options.takeover)
        .map_err(|error| RunError::Config(format!("admin.address {}: {error}", facts.admin)))?;
    let broker = bind_broker(&shared, options.takeover)?;
    let threads = start_workers(&shared, workers)?;
    let control = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .max_blocking_threads(4)
        .thread_name("control")
        .enable_all()
        .build()?;
    let for_admin = Arc::clone(&shared);
    std::thread::Builder::new().name("admin".to_owned()).spawn(move || {
        if let Err(error) = admin::run(for_admin, admin) {
            tracing::error!(%error, "the admin interface is gone");
        }
    })?;
    if let Some(socket) = broker {
        let shared = Arc::clone(&shared);
        std::thread::Builder::new().name("broker".to_owned()).spawn(move || {
            if let Err(error) = broker::run(shared, socket) {
                tracing::error!(%error, "the token broker is gone");
            }
        })?;
    }
    let cut = control.block_on(operate(&shared, options, || started(&facts)))?;
    if cut > 0 {
        tracing::warn!(connections = cut, "cut at the end of the grace period");
    }
    tracing::info!("stopped");
    shared.workers.lock().unwrap_or_else(PoisonError::into_inner).clear();
    control.shutdown_background();
    for thread in threads {
        // A worker ends when its commands end; what it still holds is cut.
        let _ = thread.join();
    }
    Ok(())
}

/// The door for services, where there are some.
fn bind_broker(shared: &Shared, takeover: bool) -> Result<Option<std::net::TcpListener>, RunError> {
    let snapshot = shared.live.snapshot();
    let Some(address) = snapshot.broker.as_ref().and_then(|broker| broker.address) else {
        return Ok(None);
    };
    listeners::bind_one(address, takeover)
        .map(Some)
        .map_err(|error| RunError::Config(format!("token_broker.address {address}: {error}")))
}

/// Takes as many descriptors as the process may have: the soft limit is 1,024 on most systems, for programs
/// that use select(2).
fn raise_descriptors() {
    let limit = getrlimit(Resource::Nofile);
    if limit.current != limit.maximum {
        let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
        // What is refused stays as it was, and the limit of connections follows what is there.
        let _ = setrlimit(Resource::Nofile, raised);
    }
}

fn prepare(options: &Options, workers: usize) -> Result<(Arc<Shared>, Started), RunError> {
    let workshop = Workshop {
        retained: Arc::new(Retained::default()),
        metrics: Arc::new(Metrics::new(workers)),
    };
    let Compiled { snapshot, warnings } =
        compile_with(&workshop, &options.origin, &options.environment, true)
            .map_err(|rejected| RunError::Config(rejected.0))?;
    let places = Places::new(snapshot.settings.overload.connections);
    let facts = facts(&snapshot, options, workers, warnings);
    let shared = Arc::new(Shared {
        live: Live::new(Arc::new(snapshot)),
        workshop,
        status: Status::default(),
        workers: Mutex::default(),
        underway: Underway::new(workers),
        places,
        log: Mutex::default(),
    });
    Ok((shared, facts))
}

fn facts(snapshot: &Snapshot, options: &Options, workers: usize, warnings: String) -> Started {
    Started {
        config: options.origin.name(),
        hash: snapshot.hash.clone(),
        routes: snapshot.routes.len(),
        upstreams: snapshot.upstreams.len(),
        workers,
        listeners: snapshot
            .listeners
            .iter()
            .map(|l| (l.name.to_string(), l.address, l.tls.is_some()))
            .collect(),
        admin: snapshot.settings.admin,
        development: snapshot.settings.development,
        redis: snapshot.settings.redis.as_ref().map(|redis| redis.address()),
        warnings,
    }
}

fn start_workers(
    shared: &Arc<Shared>,
    workers: usize,
) -> std::io::Result<Vec<std::thread::JoinHandle<()>>> {
    let mut threads = Vec::with_capacity(workers);
    for index in 0..workers {
        let (sender, commands) = mpsc::unbounded_channel();
        let shared_too = Arc::clone(shared);
        let work = move || {
            if let Err(error) = thread::run(index, &shared_too, commands) {
                tracing::error!(worker = index, %error, "a worker could not start");
            }
        };
        threads.push(std::thread::Builder::new().name(format!("worker-{index}")).spawn(work)?);
        shared.workers.lock().unwrap_or_else(PoisonError::into_inner).push(sender);
    }
    Ok(threads)
}

/// The control plane: opens the doors, reloads, and stops when told to.
async fn operate(
    shared: &Arc<Shared>,
    options: Options,
    started: impl FnOnce(),
) -> Result<u64, RunError> {
    let mut signals = stop::Signals::install()?;
    let takeover = options.takeover;
    let mut reloader = Reloader::new(Arc::clone(shared), options.origin, options.environment);
    reloader.start(takeover).await.map_err(|rejected| RunError::Config(rejected.0))?;
    shared.status.serving.store(true, Ordering::Release);
    started();
    // Outside systemd there is nobody to tell.
    let _ = sd_notify::notify(&[sd_notify::NotifyState::Ready]);
    let (demand, demands) = mpsc::channel(1);
    let reloading = Arc::new(tokio::sync::Mutex::new((reloader, demands)));
    tasks::control(tasks::supervise("reload", move || {
        let reloading = Arc::clone(&reloading);
        async move {
            let mut guard = reloading.lock().await;
            let (reloader, demands) = &mut *guard;
            reloader.run(demands).await;
        }
    }));
    let watched = Arc::clone(shared);
    tasks::control(tasks::supervise("memory", move || memory::watch(Arc::clone(&watched))));
    signals.until_stop(shared, &demand).await;
    let _ = sd_notify::notify(&[sd_notify::NotifyState::Stopping]);
    Ok(stop::drain(shared, &mut signals).await)
}

// === Without running ===

struct Compiled {
    snapshot: Snapshot,
    warnings: String,
}

fn compile_with(
    workshop: &Workshop,
    origin: &Origin,
    environment: &Environment,
    may_write: bool,
) -> Result<Compiled, Rejected> {
    let (snapshot, problems, source) = load(workshop, origin, environment, may_write)?;
    let warnings =
        if problems.is_empty() { String::new() } else { render(&problems, Some(&source)) };
    Ok(Compiled { snapshot, warnings })
}

/// A config that `run` would accept.
#[derive(Debug)]
pub struct Checked {
    snapshot: Snapshot,
    /// Warnings, rendered; empty if there are none.
    pub warnings: String,
}

/// Compiles a config exactly as `run` does, but opens and writes nothing.
///
/// # Errors
///
/// Every problem of the config, rendered with places.
pub fn check(origin: &Origin, environment: &Environment) -> Result<Checked, Rejected> {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let workshop =
        Workshop { retained: Arc::new(Retained::default()), metrics: Arc::new(Metrics::new(1)) };
    let Compiled { snapshot, warnings } = compile_with(&workshop, origin, environment, false)?;
    Ok(Checked { snapshot, warnings })
}

/// One line of a listing of routes.
#[derive(Debug, serde::Serialize)]
pub struct RouteLine {
    pub id: String,
    pub hosts: Vec<String>,
    pub path: String,
    pub methods: Vec<String>,
    pub filters: Vec<String>,
    pub upstream: Option<String>,
}

impl Checked {
    pub(super) fn snapshot(&self) -> &Snapshot {
        &self.snapshot
    }

    /// First 16 hex digits of the file's SHA-256.
    #[must_use]
    pub fn hash(&self) -> &str {
        &self.snapshot.hash
    }

    /// The admin address.
    #[must_use]
    pub fn admin(&self) -> std::net::SocketAddr {
        self.snapshot.settings.admin
    }

    /// Routes in the order in which they are tried.
    #[must_use]
    pub fn routes(&self) -> Vec<RouteLine> {
        let line = |index: usize| {
            let route = self.snapshot.routes.get(index)?;
            let outline = route.outline.clone();
            Some(RouteLine {
                id: route.id.to_string(),
                hosts: outline.hosts,
                path: outline.path,
                methods: outline.methods,
                filters: outline.filters,
                upstream: outline.upstream,
            })
        };
        self.snapshot.router.order().into_iter().filter_map(line).collect()
    }
}
