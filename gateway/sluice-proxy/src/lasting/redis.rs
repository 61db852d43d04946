//! The Redis that gateways share: a server, a cluster, or whichever server sentinels name. Each worker has
//! one connection of its own to each server it asks, which carries many commands at a time. A command has
//! 20 ms; who finds Redis slow or gone is told at once and decides without it.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use arc_swap::ArcSwap;
use aws_lc_rs::digest;
use sluice_engine::trace::write_hex;

use super::resolver::Names;
use super::tasks::{self, Kind};
use crate::base::clock::{self, Moment};
use crate::base::seat;

pub(crate) mod address;
mod cluster;
mod connection;
mod counting;
mod link;
mod open;
mod places;
mod resp;
mod values;
mod why;

use address::{Address, Servers};
use cluster::{Elsewhere, Slots};
use counting::{Command, Scripts};
pub(crate) use counting::{Granted, Order, Rules, most};
use link::{Link, Need};
pub(crate) use places::Entry;
use resp::Reply;
pub(crate) use values::{Gone, hidden};
pub(crate) use why::{Failures, Why};

/// Longest wait for an answer.
const OPERATION: Duration = Duration::from_millis(20);
/// Longest wait for a connection, and for all that is said first on it.
const CONNECT: Duration = Duration::from_millis(200);
/// How often gateways say that they are alive, and places are renewed.
const BEAT: Duration = Duration::from_secs(1);
/// How often the nodes of a cluster are asked who has what, if nothing has been heard of a change.
const SURVEY: Duration = Duration::from_secs(10);
/// How often a command is sent on to another node, or sent whole, before it is given up.
const TRIES: usize = 4;
/// Servers that a worker has connections to at most.
const LINKS: usize = 1_000;
/// How often the log is told of the same kind of failure.
const TOLD: Duration = Duration::from_secs(10);

/// One Redis by its address, shared by all workers and kept over reloads.
pub(crate) struct Target {
    id: u64,
    servers: Servers,
    names: Arc<Names>,
    scripts: Scripts,
    /// This process among the gateways that share this Redis.
    own: String,
    /// Gateways that were alive when that was last asked, this one among them.
    gateways: AtomicU64,
    /// Who has which keys of a cluster.
    slots: ArcSwap<Slots>,
    /// Somebody found the slots to be elsewhere, or a node gone.
    stale: AtomicBool,
    /// When the log was told of each kind of failure last.
    told: Mutex<[Option<Moment>; Why::ALL.len()]>,
    pub(crate) commands: AtomicU64,
    /// Commands that failed.
    pub(crate) failures: Failures,
    /// Connections that could not be made, or are over.
    pub(crate) connect_failures: Failures,
    /// Connections that answer, of all workers.
    pub(crate) connected: AtomicUsize,
}

impl std::fmt::Debug for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Target").field(&self.address()).finish()
    }
}

/// What a worker keeps of a target.
struct Client {
    target: Weak<Target>,
    /// The links that stay: of a cluster to the nodes that the config names, else the only one.
    named: Vec<Rc<Link>>,
    /// Those to other nodes of the cluster.
    others: RefCell<HashMap<Address, Rc<Link>>>,
    places: places::Held,
}

thread_local! {
    /// By target. A worker is a thread, and a connection must not be woken from another.
    static CLIENTS: RefCell<HashMap<u64, Rc<Client>, foldhash::fast::RandomState>> =
        RefCell::default();
}

impl Target {
    /// Connects to nothing yet.
    pub(crate) fn new(servers: Servers, names: Arc<Names>) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        Self {
            id: NEXT.fetch_add(1, Ordering::Relaxed),
            servers,
            names,
            scripts: Scripts::new(),
            own: uuid::Uuid::new_v4().simple().to_string(),
            gateways: AtomicU64::new(1),
            slots: ArcSwap::default(),
            stale: AtomicBool::new(true),
            told: Mutex::default(),
            commands: AtomicU64::new(0),
            failures: Failures::default(),
            connect_failures: Failures::default(),
            connected: AtomicUsize::new(0),
        }
    }

    /// Hosts and ports, without user or password.
    pub(crate) fn address(&self) -> String {
        let list =
            |addresses: &mut dyn Iterator<Item = String>| addresses.collect::<Vec<_>>().join(",");
        match &self.servers {
            Servers::One(address, _) => address.to_string(),
            Servers::Cluster(nodes, _) => list(&mut nodes.iter().map(Address::to_string)),
            Servers::Sentinel { sentinels, name, .. } => {
                let sentinels = list(&mut sentinels.iter().map(|(address, _)| address.to_string()));
                format!("{name}@{sentinels}")
            }
        }
    }

    /// Gateways that share this Redis, this one among them; at least one.
    pub(crate) fn gateways(&self) -> u64 {
        self.gateways.load(Ordering::Relaxed).max(1)
    }

    /// Counts calls of `key` by a limit whose name must be the same on every gateway. `None` when Redis cannot
    /// say, and the caller has to decide without it.
    pub(crate) async fn hit(
        self: &Arc<Self>,
        limit: &str,
        key: &[u8],
        rules: &Rules<'_>,
        order: Order,
    ) -> Option<Granted> {
        let name = name(rules.letter(), limit, key);
        let reply = self.ask(&self.scripts.count(rules, &name, order)).await?;
        counting::granted(&reply, rules)
    }

    /// Runs a command within [`OPERATION`], on the server that has its key.
    async fn ask(self: &Arc<Self>, command: &Command<'_>) -> Option<Reply> {
        let client = self.client();
        let link = client.link(self, command.key)?;
        self.pursue(command, &client, link, clock::now().after(OPERATION), Need::Wanted).await
    }

    /// For who cannot go on without an answer: waits longer, for a worker's first connection too, and is not
    /// turned away because others wait.
    async fn ask_within(
        self: &Arc<Self>,
        patience: Duration,
        command: &Command<'_>,
    ) -> Option<Reply> {
        let client = self.client();
        client.link(self, command.key)?.first_tried().await;
        // By now it may be known which node of a cluster has the key.
        let link = client.link(self, command.key)?;
        self.pursue(command, &client, link, clock::now().after(patience), Need::Required).await
    }

    async fn pursue(
        self: &Arc<Self>,
        command: &Command<'_>,
        client: &Client,
        mut link: Rc<Link>,
        until: Moment,
        need: Need,
    ) -> Option<Reply> {
        let (mut whole, mut asking) = (false, false);
        for _ in 0..TRIES {
            let sent = link.ask(
                |out| {
                    if asking {
                        resp::words(1, out);
                        resp::word(b"ASKING", out);
                    }
                    command.write(whole, out);
                },
                until,
                asking,
                need,
            );
            // Not asked at all: that it is gone is known already.
            let reply = sent.await?;
            self.commands.fetch_add(1, Ordering::Relaxed);
            asking = false;
            let error = match reply {
                Ok(Reply::Error(error)) => error,
                Ok(reply) => {
                    link.succeeded();
                    return Some(reply);
                }
                Err(why) => {
                    self.failed(&link, why);
                    return None;
                }
            };
            if error.starts_with("NOSCRIPT") {
                whole = true;
                continue;
            }
            let node = match Elsewhere::read(&error, &link.address) {
                Some(Elsewhere::Moved(node)) => {
                    self.stale.store(true, Ordering::Relaxed);
                    node
                }
                Some(Elsewhere::Ask(node)) => {
                    asking = true;
                    node
                }
                None => {
                    self.failed(&link, Why::of(&error));
                    return None;
                }
            };
            link = client.node(self, &node)?;
        }
        self.failed(&link, Why::Cluster);
        None
    }

    fn failed(&self, link: &Link, why: Why) {
        self.failures.add(why);
        // A replica will not count whatever it is asked: another connection may lead to who does.
        let given_up = link.failed(why == Why::ReadOnly);
        if given_up || why == Why::Cluster {
            self.stale.store(true, Ordering::Relaxed);
        }
        self.tell(why);
    }

    /// A connection could not be made, or is over.
    fn note(&self, why: Why) {
        self.connect_failures.add(why);
        self.stale.store(true, Ordering::Relaxed);
        self.tell(why);
    }

    /// Tells the log, of one kind of failure once in a while.
    fn tell(&self, why: Why) {
        let now = clock::now();
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(at) = told.get_mut(why as usize) else { return };
        if at.is_some_and(|at| now.saturating_since(at) < TOLD) {
            return;
        }
        *at = Some(now);
        drop(told);
        let (redis, why) = (self.address(), why.as_str());
        tracing::warn!(redis, why, "Redis does not answer; limits are decided without it");
    }

    /// What this worker keeps of it; made when it is first asked for.
    fn client(self: &Arc<Self>) -> Rc<Client> {
        CLIENTS.with_borrow_mut(|clients| {
            Rc::clone(clients.entry(self.id).or_insert_with(|| Client::new(self)))
        })
    }
}

impl Client {
    fn new(target: &Arc<Target>) -> Rc<Self> {
        let addresses: Vec<Address> = match &target.servers {
            Servers::One(address, _) => vec![address.clone()],
            Servers::Cluster(nodes, _) => nodes.clone(),
            // Found anew for each connection.
            Servers::Sentinel { name, .. } => vec![Address::Tcp(name.clone(), 0)],
        };
        let client = Rc::new(Self {
            target: Arc::downgrade(target),
            named: addresses.into_iter().map(|address| Link::new(target, address)).collect(),
            others: RefCell::default(),
            places: places::Held::default(),
        });
        let weak = Rc::downgrade(&client);
        drop(tasks::local(Kind::Upstream, async move {
            let mut surveyed = Moment::default();
            while let Some(client) = weak.upgrade() {
                let Some(target) = client.target.upgrade() else { return };
                client.tend(&target, &mut surveyed).await;
                drop((client, target));
                tokio::time::sleep_until(clock::deadline(clock::now().after(BEAT))).await;
            }
        }));
        client
    }

    /// What has to be done every second. What concerns the whole process is done by one worker for all.
    async fn tend(&self, target: &Arc<Target>, surveyed: &mut Moment) {
        if seat::number() == 0 {
            let now = clock::now();
            let due = now.saturating_since(*surveyed) >= SURVEY || *surveyed == Moment::default();
            let stale = target.stale.swap(false, Ordering::Relaxed);
            if matches!(target.servers, Servers::Cluster(..)) && (due || stale) {
                *surveyed = now;
                self.survey(target).await;
            }
            // What was last known is the best there is while Redis is gone.
            if let Some(Reply::Number(alive)) = target.ask(&target.scripts.beat(&target.own)).await
            {
                target.gateways.store(u64::try_from(alive).unwrap_or(1), Ordering::Relaxed);
            }
        }
        self.drop_strangers(target);
        self.places.renew(target).await;
    }

    /// Asks the nodes who has what, until one says.
    async fn survey(&self, target: &Arc<Target>) {
        let others: Vec<_> = self.others.borrow().values().map(Rc::clone).collect();
        for link in self.named.iter().chain(&others) {
            let until = clock::now().after(OPERATION);
            let asked = link.ask(
                |out| {
                    resp::words(2, out);
                    resp::word(b"CLUSTER", out);
                    resp::word(b"SLOTS", out);
                },
                until,
                false,
                Need::Wanted,
            );
            if let Some(Ok(reply)) = asked.await
                && let Some(slots) = Slots::read(&reply, &link.address)
            {
                target.slots.store(Arc::new(slots));
                return;
            }
        }
        target.stale.store(true, Ordering::Relaxed);
    }

    /// The way to who has this key.
    fn link(&self, target: &Arc<Target>, key: &[u8]) -> Option<Rc<Link>> {
        if let (Servers::Cluster(..), slots) = (&target.servers, target.slots.load())
            && let Some(node) = slots.node(cluster::slot(key))
        {
            return self.node(target, node);
        }
        // Of a cluster that is not known yet anybody can say who has it.
        let up = self.named.iter().find(|link| link.is_up());
        up.or_else(|| self.named.first()).map(Rc::clone)
    }

    /// Sends a command whose reply nobody wants, if there is a way to who has its key.
    fn tell(&self, target: &Target, command: &Command<'_>) {
        let link = match &target.servers {
            Servers::Cluster(..) => {
                let slots = target.slots.load();
                let Some(node) = slots.node(cluster::slot(command.key)) else { return };
                let named = self.named.iter().find(|link| link.address == *node).map(Rc::clone);
                named.or_else(|| self.others.borrow().get(node).map(Rc::clone))
            }
            _ => self.named.first().map(Rc::clone),
        };
        if let Some(link) = link {
            target.commands.fetch_add(1, Ordering::Relaxed);
            link.tell(|out| command.write(false, out));
        }
    }

    /// The way to a node of the cluster.
    fn node(&self, target: &Arc<Target>, node: &Address) -> Option<Rc<Link>> {
        if let Some(link) = self.named.iter().find(|link| link.address == *node) {
            return Some(Rc::clone(link));
        }
        if !matches!(target.servers, Servers::Cluster(..)) {
            return None;
        }
        let mut others = self.others.borrow_mut();
        if let Some(link) = others.get(node) {
            return Some(Rc::clone(link));
        }
        if others.len() >= LINKS {
            return None;
        }
        let link = Link::new(target, node.clone());
        others.insert(node.clone(), Rc::clone(&link));
        Some(link)
    }

    /// Closes connections to nodes that have nothing and do not answer.
    fn drop_strangers(&self, target: &Target) {
        let slots = target.slots.load();
        self.others
            .borrow_mut()
            .retain(|node, link| link.is_up() || slots.nodes().any(|known| known == node));
    }
}

/// Connects this worker to the Redis of the snapshot in force, before anybody asks.
pub(crate) fn attend(target: &Arc<Target>) {
    drop(target.client());
}

/// Closes this worker's connections to targets that are gone with the last snapshot that named them.
pub(crate) fn sweep() {
    CLIENTS.with_borrow_mut(|clients| {
        clients.retain(|_, client| client.target.strong_count() > 0);
    });
}

/// A key in Redis: a digest, so that no identity of a caller can be read there. The braces keep a
/// counter on one node of a cluster.
type Name = [u8; 43];

fn name(letter: u8, limit: &str, key: &[u8]) -> Name {
    let mut context = digest::Context::new(&digest::SHA256);
    context.update(limit.as_bytes());
    context.update(&[0]);
    context.update(key);
    let digest = context.finish();
    let mut name = *b"sluice:?:{00000000000000000000000000000000}";
    if let Some(place) = name.get_mut(7) {
        *place = letter;
    }
    if let (Some(hex), Some(half)) = (name.get_mut(10..42), digest.as_ref().get(..16)) {
        write_hex(half, hex);
    }
    name
}
