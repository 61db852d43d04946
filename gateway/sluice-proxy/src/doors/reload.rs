//! Changes of the config while the gateway runs: notice, wait until the file is quiet, compile, bind
//! new listeners, and only then put the new snapshot in force. Whatever goes wrong on the way leaves
//! the old one untouched.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use tokio::sync::mpsc;
use zeroize::Zeroizing;

use super::expiry::Reminder;
use super::input::{Environment, Origin, Values};
use super::listeners;
use super::shared::{Command, Shared};
use super::watch::Watch;
use crate::base::clock;
use crate::base::problem::{Problems, render};
use crate::base::yaml::Source;
use crate::lasting::telemetry::access::{Output, Writer};
use crate::parts::env::digest;
use crate::parts::filters::follow_keys;
use crate::parts::upstream::{discovery, probe};
use crate::snapshot::compile::{Input, Snapshot, Workshop, compile};

/// Quiet time after a change before the file is read.
const SETTLE: Duration = Duration::from_millis(200);
/// Longest wait for quiet.
const SETTLE_MOST: Duration = Duration::from_secs(2);
/// How often files are compared without being told, for mounts that tell nothing.
const POLL: Duration = Duration::from_secs(5);
/// A table must have this many routes before its halving looks like an accident.
const SHRINK_FROM: usize = 4;

/// Keeps the snapshot in step with the config.
pub(crate) struct Reloader {
    pub(crate) shared: Arc<Shared>,
    pub(crate) origin: Origin,
    pub(crate) environment: Environment,
    /// Listeners that are open.
    open: HashMap<Arc<str>, SocketAddr>,
    log: Option<Output>,
    reminder: Reminder,
    /// Fingerprint of the files that were read last, good or bad.
    seen: Option<String>,
}

/// A config that cannot be put in force, in words for people.
#[derive(Debug)]
pub struct Rejected(pub String);

impl std::fmt::Display for Rejected {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

/// Reads and compiles a config.
pub(crate) fn load(
    workshop: &Workshop,
    origin: &Origin,
    environment: &Environment,
    may_write: bool,
) -> Result<(Snapshot, Problems, Source), Rejected> {
    let source = origin
        .read()
        .map_err(|error| Rejected(format!("{}: error: cannot be read: {error}", origin.name())))?;
    let base = origin.base();
    let lookup = Values { environment, base: &base };
    let input = Input { source: &source, base: &base, lookup: &lookup, may_write };
    match compile(&input, workshop) {
        Ok((snapshot, warnings)) => Ok((snapshot, warnings, source)),
        Err(problems) => Err(Rejected(report(&problems, &source))),
    }
}

/// Every problem, and how many there are.
fn report(problems: &Problems, source: &Source) -> String {
    let count = |n: usize, what: &str| format!("{n} {what}{}", if n == 1 { "" } else { "s" });
    let mut text = render(problems, Some(source));
    text.push_str(&count(problems.errors(), "error"));
    if problems.warnings() > 0 {
        text.push_str(", ");
        text.push_str(&count(problems.warnings(), "warning"));
    }
    text.push('\n');
    text
}

impl Reloader {
    pub(crate) fn new(shared: Arc<Shared>, origin: Origin, environment: Environment) -> Self {
        let (open, reminder) = (HashMap::new(), Reminder::default());
        Self { shared, origin, environment, open, log: None, reminder, seen: None }
    }

    /// Puts the first snapshot in force: it is published already, its listeners are bound here.
    pub(crate) async fn start(&mut self, takeover: bool) -> Result<(), Rejected> {
        let snapshot = self.shared.live.snapshot();
        self.remember(&snapshot);
        let bound = self.bind(&snapshot, takeover)?;
        self.resolve(&snapshot).await;
        self.put_in_force(&snapshot, bound);
        self.shared.status.accepted(false);
        Ok(())
    }

    /// Reloads on every change and on demand, until the program ends.
    pub(crate) async fn run(&mut self, demands: &mut mpsc::Receiver<()>) {
        let (changes, mut changed) = mpsc::channel(1);
        let mut watch = Watch::start(self.files(), changes.clone());
        loop {
            let forced = tokio::select! {
                demand = demands.recv() => match demand { Some(()) => true, None => return },
                _ = changed.recv() => false,
                () = pause(POLL) => false,
            };
            if !forced && !self.is_news() {
                self.reminder.look(&self.shared.live.snapshot());
                continue;
            }
            if !forced {
                settle(&mut changed).await;
            }
            self.reload().await;
            watch = watch.follow(self.files(), &changes);
        }
    }

    /// Tries the config as it is now.
    async fn reload(&mut self) {
        let attempt = self.attempt().await;
        let status = &self.shared.status;
        match attempt {
            Ok(()) => {
                status.accepted(true);
                let snapshot = self.shared.live.snapshot();
                tracing::info!(
                    config = %self.origin.name(),
                    hash = %snapshot.hash,
                    generation = status.generation.load(Ordering::Relaxed),
                    routes = snapshot.routes.len(),
                    "config reloaded"
                );
            }
            Err(rejected) => {
                tracing::error!("config rejected, the old one stays in force\n{rejected}");
                status.rejected(rejected.0);
            }
        }
    }

    async fn attempt(&mut self) -> Result<(), Rejected> {
        let (shared, origin) = (Arc::clone(&self.shared), self.origin.clone());
        let environment = self.environment.clone();
        // Taken before the files are read: what changes while they are compiled must stay news.
        let old = self.shared.live.snapshot();
        self.seen = Some(self.fingerprint(&old));
        // Compiling takes its time on a large table and must not keep the control plane from its work.
        let compiled = tokio::task::spawn_blocking(move || {
            load(&shared.workshop, &origin, &environment, true)
        })
        .await;
        let (snapshot, warnings, source) = match compiled {
            Ok(loaded) => loaded?,
            // The panic has been logged; a table that cannot be compiled is a table refused.
            Err(_) => {
                return Err(Rejected(
                    "the config made the compiler fail; please report it".to_owned(),
                ));
            }
        };
        guard_against_loss(&old, &snapshot, &self.origin.name())?;
        if !warnings.is_empty() {
            tracing::warn!("config warnings\n{}", render(&warnings, Some(&source)));
        }
        if old.settings.admin != snapshot.settings.admin {
            tracing::warn!("a change of admin.address needs a restart; the old address stays");
        }
        let door = |snapshot: &Snapshot| snapshot.broker.as_ref().and_then(|broker| broker.address);
        if door(&old) != door(&snapshot) {
            tracing::warn!("a change of token_broker.address needs a restart; the old one stays");
        }
        let bound = self.bind(&snapshot, false)?;
        if old.settings.files != snapshot.settings.files {
            self.remember(&snapshot);
        }
        let snapshot = Arc::new(snapshot);
        self.resolve(&snapshot).await;
        let old = self.shared.live.publish(Arc::clone(&snapshot));
        self.put_in_force(&snapshot, bound);
        old.retire();
        drop(old);
        self.shared.workshop.retained.sweep();
        Ok(())
    }

    fn bind(&self, snapshot: &Snapshot, takeover: bool) -> Result<listeners::Bound, Rejected> {
        let workers = self.shared.workshop.metrics.workers.len();
        listeners::bind(&snapshot.listeners, &self.open, workers, takeover)
            .map_err(|error| Rejected(format!("{}: error: {error}", self.origin.name())))
    }

    async fn resolve(&self, snapshot: &Snapshot) {
        let upstreams = snapshot.upstreams.values().map(Arc::clone);
        let retained = &self.shared.workshop.retained;
        let names = discovery::follow(upstreams, &snapshot.settings.resolver, retained);
        snapshot.lists.iter().for_each(|list| list.follow());
        tokio::join!(names, follow_keys(&snapshot.key_sets));
    }

    /// What follows from a published snapshot: sockets, log, probes.
    fn put_in_force(&mut self, snapshot: &Snapshot, bound: listeners::Bound) {
        self.shared.places.resize(snapshot.settings.overload.connections);
        snapshot.upstreams.values().for_each(probe::watch);
        self.reminder.look(snapshot);
        self.change_log(snapshot.settings.access_log.as_ref());
        let kept = |name: &Arc<str>, address: &SocketAddr| {
            snapshot.listeners.iter().any(|l| l.name == *name && l.address == *address)
        };
        let gone: Vec<Arc<str>> = self
            .open
            .iter()
            .filter(|(name, address)| !kept(name, address))
            .map(|(name, _)| Arc::clone(name))
            .collect();
        let mut bound: Vec<_> = bound.into_iter().map(Some).collect();
        let sockets = std::sync::Mutex::new(&mut bound);
        self.shared.command(|_| Command::Unlisten(gone.clone()));
        self.shared.command(|worker| {
            let mut sockets = sockets.lock().unwrap_or_else(PoisonError::into_inner);
            Command::Listen(sockets.get_mut(worker).and_then(Option::take).unwrap_or_default())
        });
        self.open = snapshot
            .listeners
            .iter()
            .map(|listener| (Arc::clone(&listener.name), listener.address))
            .collect();
    }

    fn change_log(&mut self, wanted: Option<&Output>) {
        if self.log.as_ref() == wanted {
            return;
        }
        let writer = wanted.and_then(|output| {
            let metrics = Arc::clone(&self.shared.workshop.metrics);
            Writer::start(output.clone(), metrics)
                .inspect_err(|error| tracing::error!(%error, "no access log"))
                .ok()
                .map(Arc::new)
        });
        self.shared.command(|_| Command::Log(writer.as_ref().map(|writer| writer.log())));
        *self.shared.log.lock().unwrap_or_else(PoisonError::into_inner) = writer;
        self.log = wanted.cloned();
    }

    // === Noticing ===

    /// The config and every certificate it names.
    fn files(&self) -> Vec<PathBuf> {
        let mut files = self.shared.live.snapshot().settings.files.clone();
        if let Origin::File(path) = &self.origin {
            files.push(path.clone());
        }
        files
    }

    fn is_news(&self) -> bool {
        self.seen.as_ref() != Some(&self.fingerprint(&self.shared.live.snapshot()))
    }

    /// Remembers the config and the files that were compiled, which may not be those that are there by now.
    fn remember(&mut self, snapshot: &Snapshot) {
        let config = match &self.origin {
            Origin::File(_) => snapshot.hash.clone(),
            Origin::Embedded(_) => String::new(),
        };
        let read = &snapshot.settings.read;
        let digests = snapshot
            .settings
            .files
            .iter()
            .map(|file| read.get(file).map_or_else(|| digest(&content(file)), String::clone));
        self.seen = Some(digests.fold(config, |all, one| all + &one));
    }

    /// Changes when any file's content does. A file that cannot be read counts as empty: its loss is
    /// news once, and its return again.
    fn fingerprint(&self, snapshot: &Snapshot) -> String {
        let config = match &self.origin {
            Origin::File(path) => digest(&content(path)),
            Origin::Embedded(_) => String::new(),
        };
        with_files(config, snapshot)
    }
}

fn with_files(mut all: String, snapshot: &Snapshot) -> String {
    for file in &snapshot.settings.files {
        all.push_str(&digest(&content(file)));
    }
    all
}

/// Wiped after a look at it: it may be a key.
fn content(file: &Path) -> Zeroizing<Vec<u8>> {
    std::fs::read(file).unwrap_or_default().into()
}

/// A file cut off by a full disk or a half-done copy is often valid, only shorter.
fn guard_against_loss(old: &Snapshot, new: &Snapshot, name: &str) -> Result<(), Rejected> {
    let (before, after) = (old.routes.len(), new.routes.len());
    if before < SHRINK_FROM || after * 2 >= before || new.settings.allow_shrink {
        return Ok(());
    }
    Err(Rejected(format!(
        "{name}: error: only {after} of {before} routes are left, which looks like a file cut short\n  \
         help: if this is meant, write `allow_shrink: true` at the top of the file"
    )))
}

async fn pause(time: Duration) {
    tokio::time::sleep_until(clock::deadline(clock::now().after(time))).await;
}

/// Waits until no more changes come in.
async fn settle(changed: &mut mpsc::Receiver<()>) {
    let most = clock::now().after(SETTLE_MOST);
    loop {
        let quiet = clock::deadline(clock::now().after(SETTLE).min(most));
        match tokio::time::timeout_at(quiet, changed.recv()).await {
            Ok(Some(())) if clock::now() < most => {}
            _ => return,
        }
    }
}
