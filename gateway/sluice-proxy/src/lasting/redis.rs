//! The Redis that gateways share. Each worker has one multiplexed connection of its own. A command
//! has 20 ms; who finds Redis slow or gone is told at once and decides without it, and after a few
//! failures nobody asks until a connection made in the background has answered.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use aws_lc_rs::digest;
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Client, IntoConnectionInfo as _, RedisError};
use sluice_engine::window::Verdict;

use super::tasks::{self, Kind};
use crate::base::clock::{self, Moment};
use crate::base::seat;

mod counting;

use counting::Scripts;
pub(crate) use counting::{Rules, most};

/// Longest wait for an answer.
const OPERATION: Duration = Duration::from_millis(20);
/// Longest wait for a connection.
const CONNECT: Duration = Duration::from_millis(200);
/// Failures in a row after which nobody asks any more.
const TOLERATED: u32 = 5;
/// Shortest and longest pause between two attempts to connect.
const PAUSE: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(1));
/// Commands on their way at a time, per worker; more decide without Redis.
const IN_FLIGHT: usize = 1024;
/// A Redis that has been silent for so long, while [`DOUBTED`] commands wait, is asked nothing more until it
/// answers or they fail: a hung one is waited for by few.
const SILENCE: Duration = Duration::from_millis(5);
const DOUBTED: u32 = 8;
/// How often gateways say that they are alive.
const BEAT: Duration = Duration::from_secs(1);

/// One Redis by its address, shared by all workers and kept over reloads.
pub(crate) struct Target {
    id: u64,
    client: Client,
    scripts: Scripts,
    /// This process among the gateways that share this Redis.
    own: String,
    /// Gateways that were alive when that was last asked, this one among them.
    gateways: AtomicU64,
    pub(crate) commands: AtomicU64,
    pub(crate) errors: AtomicU64,
    /// Workers that have a connection that answers.
    pub(crate) connected: AtomicUsize,
}

impl std::fmt::Debug for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Target").field(&self.address()).finish()
    }
}

/// One worker's connection.
struct Link {
    target: Weak<Target>,
    state: RefCell<State>,
    /// Commands without an answer so far.
    waiting: Cell<u32>,
    /// When the last answer came, or, if later, when the first of those that wait was sent.
    heard: Cell<Moment>,
}

enum State {
    /// A connection, and how often in a row it has failed.
    Up { connection: MultiplexedConnection, failures: u32 },
    /// None; a task is making one.
    Down,
}

thread_local! {
    /// Connections of this worker's thread, by target. A worker is a thread, and a connection must
    /// not be woken from another.
    static LINKS: RefCell<HashMap<u64, Rc<Link>>> = RefCell::default();
}

impl Target {
    /// Understands the address; connects to nothing yet.
    pub(crate) fn new(url: &str) -> Result<Self, RedisError> {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let info = url.into_connection_info()?;
        let settings = info.tcp_settings().clone().set_nodelay(true);
        Ok(Self {
            id: NEXT.fetch_add(1, Ordering::Relaxed),
            client: Client::open(info.set_tcp_settings(settings))?,
            scripts: Scripts::new(),
            own: uuid::Uuid::new_v4().to_string(),
            gateways: AtomicU64::new(1),
            commands: AtomicU64::new(0),
            errors: AtomicU64::new(0),
            connected: AtomicUsize::new(0),
        })
    }

    /// Host and port, without user or password.
    pub(crate) fn address(&self) -> String {
        self.client.get_connection_info().addr().to_string()
    }

    /// Gateways that share this Redis, this one among them; at least one.
    pub(crate) fn gateways(&self) -> u64 {
        self.gateways.load(Ordering::Relaxed).max(1)
    }

    /// Counts `cost` calls of `key` by a limit whose name must be the same on every gateway. `None` when
    /// Redis cannot say, and the caller has to decide without it.
    pub(crate) async fn hit(
        self: &Arc<Self>,
        limit: &str,
        key: &[u8],
        rules: &Rules<'_>,
        cost: u64,
    ) -> Option<Verdict> {
        let call = self.scripts.call(rules, name(rules, limit, key), cost);
        let answer: counting::Answer = self.ask(&call).await?;
        Some(counting::verdict(&answer, rules, cost))
    }

    /// Runs a script within [`OPERATION`].
    async fn ask<T: redis::FromRedisValue>(
        self: &Arc<Self>,
        call: &redis::ScriptInvocation<'_>,
    ) -> Option<T> {
        let link = self.link();
        let mut connection = link.connection()?;
        let asked = link.asks()?;
        self.commands.fetch_add(1, Ordering::Relaxed);
        let deadline = clock::deadline(clock::now().after(OPERATION));
        let answer =
            tokio::time::timeout_at(deadline, call.invoke_async::<T>(&mut connection)).await;
        drop(asked);
        match answer {
            Ok(Ok(answer)) => {
                link.succeeded();
                Some(answer)
            }
            Ok(Err(error)) => {
                tracing::debug!(redis = %self.address(), %error, "decided without Redis");
                self.failed(&link);
                None
            }
            Err(_) => {
                self.failed(&link);
                None
            }
        }
    }

    /// Says every second that this gateway is alive, while Redis is. One worker does so for all.
    fn keep_beating(self: &Arc<Self>) {
        if seat::number() != 0 {
            return;
        }
        let target = Arc::downgrade(self);
        tasks::local(Kind::Upstream, async move {
            loop {
                let Some(target) = target.upgrade() else { return };
                let call = target.scripts.beat(&target.own);
                // What was last known is the best there is while Redis is gone.
                if let Some(alive) = target.ask::<u64>(&call).await {
                    target.gateways.store(alive, Ordering::Relaxed);
                }
                drop(call);
                drop(target);
                tokio::time::sleep_until(clock::deadline(clock::now().after(BEAT))).await;
            }
        });
    }

    fn link(self: &Arc<Self>) -> Rc<Link> {
        LINKS.with_borrow_mut(|links| {
            let link = links.entry(self.id).or_insert_with(|| {
                let state = RefCell::new(State::Down);
                let (waiting, heard) = (Cell::new(0), Cell::new(clock::now()));
                let link = Rc::new(Link { target: Arc::downgrade(self), state, waiting, heard });
                self.connect(&link);
                self.keep_beating();
                link
            });
            Rc::clone(link)
        })
    }

    fn failed(self: &Arc<Self>, link: &Rc<Link>) {
        self.errors.fetch_add(1, Ordering::Relaxed);
        let mut state = link.state.borrow_mut();
        let State::Up { failures, .. } = &mut *state else { return };
        *failures += 1;
        if *failures >= TOLERATED {
            *state = State::Down;
            drop(state);
            self.connected.fetch_sub(1, Ordering::Relaxed);
            tracing::warn!(redis = %self.address(), "Redis does not answer; deciding without it");
            self.connect(link);
        }
    }

    /// Tries until a connection answers, or nobody wants it any more.
    fn connect(self: &Arc<Self>, link: &Rc<Link>) {
        let (target, link) = (Arc::downgrade(self), Rc::downgrade(link));
        tasks::local(Kind::Upstream, async move {
            let mut pause = PAUSE.0;
            loop {
                let Some(strong) = target.upgrade() else { return };
                let made = strong.open().await;
                let Some(link) = link.upgrade() else { return };
                match made {
                    Ok(connection) => {
                        *link.state.borrow_mut() = State::Up { connection, failures: 0 };
                        strong.connected.fetch_add(1, Ordering::Relaxed);
                        tracing::info!(redis = %strong.address(), "connected to Redis");
                        return;
                    }
                    Err(error) => {
                        tracing::debug!(redis = %strong.address(), %error, "no connection to Redis");
                    }
                }
                drop((strong, link));
                // Full jitter keeps many gateways from coming back in step.
                let wait = PAUSE.0 + pause.mul_f64(fastrand::f64());
                tokio::time::sleep_until(clock::deadline(clock::now().after(wait))).await;
                pause = (pause * 2).min(PAUSE.1);
            }
        });
    }

    async fn open(&self) -> Result<MultiplexedConnection, RedisError> {
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(CONNECT))
            .set_response_timeout(Some(CONNECT))
            .set_pipeline_buffer_size(IN_FLIGHT)
            .set_concurrency_limit(IN_FLIGHT);
        let mut connection =
            self.client.get_multiplexed_async_connection_with_config(&config).await?;
        redis::cmd("PING").exec_async(&mut connection).await?;
        Ok(connection)
    }
}

impl Link {
    fn connection(&self) -> Option<MultiplexedConnection> {
        match &*self.state.borrow() {
            State::Up { connection, .. } => Some(connection.clone()),
            State::Down => None,
        }
    }

    /// Counts a command as waiting, unless too many have been waiting for too long.
    fn asks(self: &Rc<Self>) -> Option<Asked> {
        let (waiting, now) = (self.waiting.get(), clock::now());
        if waiting == 0 {
            self.heard.set(now);
        } else if waiting >= DOUBTED && now.saturating_since(self.heard.get()) > SILENCE {
            return None;
        }
        self.waiting.set(waiting + 1);
        Some(Asked(Rc::clone(self)))
    }

    fn succeeded(&self) {
        self.heard.set(clock::now());
        if let State::Up { failures, .. } = &mut *self.state.borrow_mut() {
            *failures = 0;
        }
    }
}

/// Closes this worker's connections to targets that are gone with the last snapshot that named them.
pub(crate) fn sweep() {
    LINKS.with_borrow_mut(|links| links.retain(|_, link| link.target.strong_count() > 0));
}

/// A command without an answer.
struct Asked(Rc<Link>);

impl Drop for Asked {
    fn drop(&mut self) {
        self.0.waiting.set(self.0.waiting.get().saturating_sub(1));
    }
}

/// The key in Redis: a digest, so that no identity of a caller can be read there. The braces keep a
/// counter on one node of a cluster.
fn name(rules: &Rules<'_>, limit: &str, key: &[u8]) -> String {
    let mut context = digest::Context::new(&digest::SHA256);
    context.update(limit.as_bytes());
    context.update(&[0]);
    context.update(key);
    let digest = context.finish();
    let hex: String = digest.as_ref().iter().take(16).map(|byte| format!("{byte:02x}")).collect();
    format!("sluice:{}:{{{hex}}}", rules.letter())
}
