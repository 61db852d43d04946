//! A worker's keep-alive connections to services, one [`Pool`] per [`Link`]. A connection never leaves
//! its worker. The number of open connections per endpoint is bounded over all workers; who finds
//! none free waits, bounded in number and time, and other workers give up an idle one.
//!
//! A connection goes back only when the answer's last byte was read; anything else closes it.

use std::cell::{Cell, RefCell};
use std::collections::{HashMap, VecDeque};
use std::rc::Rc;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};

use foldhash::fast::RandomState;
use tokio::sync::{OwnedSemaphorePermit, oneshot};

use super::link::{Close, Counts, Link, Protocol};
use crate::base::body::Upload;
use crate::base::clock::{self, Moment};
use crate::base::fault::Fault;
use crate::base::http1::Exchange;

mod connect;
mod lease;

pub(crate) use lease::{Lease, Lost};

/// Requests of one worker that may wait for a connection to one endpoint.
const MAX_WAITERS: usize = 128;

/// All pools of one worker.
pub(crate) struct Pools {
    by_link: RefCell<HashMap<u64, Rc<Pool>, RandomState>>,
    /// Asks the other workers to give up one idle connection of a link.
    yield_elsewhere: Box<dyn Fn(u64)>,
}

/// Connections of one worker to one link.
pub(crate) struct Pool {
    /// Weak, here and in every kept connection, so that a removed endpoint's pool can be told by its
    /// link being gone.
    link: Weak<Link>,
    idle: RefCell<Vec<Kept>>,
    waiters: RefCell<VecDeque<oneshot::Sender<Kept>>>,
    /// The one HTTP/2 connection, made by the first who needs it while others wait.
    shared: tokio::sync::Mutex<Option<Shared>>,
    /// How many attempts at making it have failed, and how the last one did.
    failed: Cell<(u64, Fault)>,
}

/// An HTTP/1 connection between requests.
struct Kept {
    exchange: Exchange,
    permit: Permit,
    uses: u64,
    born: Moment,
    since: Moment,
}

struct Shared {
    sender: hyper::client::conn::http2::SendRequest<Upload>,
    permit: Rc<Permit>,
    uses: u64,
    born: Moment,
}

/// Proof that a connection was counted; dropping it uncounts.
pub(crate) struct Permit {
    link: Weak<Link>,
    counts: Arc<Counts>,
    _permit: Option<OwnedSemaphorePermit>,
}

// === impl Pools ===

impl Pools {
    pub(crate) fn new(yield_elsewhere: Box<dyn Fn(u64)>) -> Self {
        Self { by_link: RefCell::default(), yield_elsewhere }
    }

    /// A kept connection to `link`, if one is free.
    pub(crate) fn kept(&self, link: &Arc<Link>, now: Moment) -> Option<Lease> {
        if link.shape.protocol == Protocol::Http2 {
            return None;
        }
        let pool = self.of(link);
        let kept = pool.take_idle(link, now)?;
        Some(Lease::one(pool, link, kept))
    }

    /// A connection to `link` where none is kept, or where it has to be one that was made since `fresh`.
    pub(crate) async fn lease(
        &self,
        link: &Arc<Link>,
        fresh: Option<Moment>,
    ) -> Result<Lease, Fault> {
        let pool = self.of(link);
        if link.shape.protocol == Protocol::Http2 {
            return pool.share(link, fresh).await;
        }
        let permit = match Arc::clone(&link.permits).try_acquire_owned() {
            Ok(permit) => permit,
            Err(_) if fresh.is_some() => self.wait_for_room(&pool, link).await?,
            Err(_) => match self.wait(&pool, link).await? {
                Free::Connection(kept) => return Ok(Lease::one(pool, link, kept)),
                Free::Room(permit) => permit,
            },
        };
        let kept = Kept::open(link, permit).await?;
        Ok(Lease::one(pool, link, kept))
    }

    /// Drops what is too old, and pools of endpoints that are gone.
    pub(crate) fn sweep(&self, now: Moment) {
        self.by_link.borrow_mut().retain(|_, pool| match pool.link.upgrade() {
            Some(link) => {
                pool.sweep(&link, now);
                true
            }
            None => false,
        });
    }

    /// Closes one idle connection so that another worker may open one.
    pub(crate) fn yield_one(&self, link: u64) {
        let pool = self.by_link.borrow().get(&link).map(Rc::clone);
        if let Some(pool) = pool
            && let Some(kept) = pool.pop()
        {
            kept.close(Close::Yielded);
        }
    }

    fn of(&self, link: &Arc<Link>) -> Rc<Pool> {
        let mut pools = self.by_link.borrow_mut();
        Rc::clone(pools.entry(link.id).or_insert_with(|| Rc::new(Pool::new(link))))
    }

    /// Waits for the right to open a connection; one that is kept already would not do.
    async fn wait_for_room(
        &self,
        pool: &Pool,
        link: &Arc<Link>,
    ) -> Result<OwnedSemaphorePermit, Fault> {
        if link.waiting.load(Ordering::Relaxed) >= MAX_WAITERS {
            return Err(Fault::PoolExhausted);
        }
        let _waiting = Waiting::count(link);
        match pool.pop() {
            Some(kept) => kept.close(Close::Yielded),
            None => (self.yield_elsewhere)(link.id),
        }
        let limit = clock::deadline(clock::now().after(link.shape.max_wait));
        let room = tokio::time::timeout_at(limit, Arc::clone(&link.permits).acquire_owned()).await;
        room.ok().and_then(Result::ok).ok_or(Fault::PoolExhausted)
    }

    async fn wait(&self, pool: &Rc<Pool>, link: &Arc<Link>) -> Result<Free, Fault> {
        let connection = {
            let mut waiters = pool.waiters.borrow_mut();
            waiters.retain(|waiter| !waiter.is_closed());
            if waiters.len() >= MAX_WAITERS {
                return Err(Fault::PoolExhausted);
            }
            let (hand, connection) = oneshot::channel();
            waiters.push_back(hand);
            connection
        };
        let _waiting = Waiting::count(link);
        (self.yield_elsewhere)(link.id);
        let room = Arc::clone(&link.permits).acquire_owned();
        tokio::select! {
            biased;
            Ok(kept) = connection => Ok(Free::Connection(kept)),
            Ok(permit) = room => Ok(Free::Room(permit)),
            () = tokio::time::sleep_until(clock::deadline(clock::now().after(link.shape.max_wait))) =>
                Err(Fault::PoolExhausted),
            else => Err(Fault::PoolExhausted),
        }
    }
}

/// What a waiting request got.
enum Free {
    /// A connection that was just given back.
    Connection(Kept),
    /// Permission to open one.
    Room(OwnedSemaphorePermit),
}

struct Waiting<'a>(&'a Link);

impl<'a> Waiting<'a> {
    fn count(link: &'a Link) -> Self {
        link.waiting.fetch_add(1, Ordering::Relaxed);
        Self(link)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::Relaxed);
    }
}

// === impl Pool ===

impl Pool {
    fn new(link: &Arc<Link>) -> Self {
        Self {
            link: Arc::downgrade(link),
            idle: RefCell::default(),
            waiters: RefCell::default(),
            shared: tokio::sync::Mutex::new(None),
            failed: Cell::new((0, Fault::ConnectFailed)),
        }
    }

    /// The connection used last, which is the least likely to be closed by the service.
    fn take_idle(&self, link: &Link, now: Moment) -> Option<Kept> {
        while let Some(kept) = self.pop() {
            match kept.verdict(link, now) {
                None => {
                    link.counts.reused.fetch_add(1, Ordering::Relaxed);
                    return Some(kept);
                }
                Some(why) => kept.close(why),
            }
        }
        None
    }

    fn pop(&self) -> Option<Kept> {
        let kept = self.idle.borrow_mut().pop()?;
        if let Some(link) = self.link.upgrade() {
            link.idle.fetch_sub(1, Ordering::Relaxed);
        }
        Some(kept)
    }

    fn give_back(&self, mut kept: Kept, now: Moment) {
        kept.since = now;
        let Some(link) = self.link.upgrade() else { return kept.close(Close::Gone) };
        // Who waits would otherwise keep a connection in use beyond its age and number of requests.
        if let Some(why) = kept.worn(&link, now) {
            return kept.close(why);
        }
        loop {
            let Some(waiter) = self.waiters.borrow_mut().pop_front() else { break };
            if !kept.exchange.is_quiet() {
                self.waiters.borrow_mut().push_front(waiter);
                return kept.close(Close::Peer);
            }
            match waiter.send(kept) {
                Ok(()) => {
                    link.counts.reused.fetch_add(1, Ordering::Relaxed);
                    return;
                }
                Err(back) => kept = back,
            }
        }
        if link.waiting.load(Ordering::Relaxed) > 0 {
            kept.close(Close::Yielded);
        } else if self.idle.borrow().len() >= link.shape.idle_per_endpoint {
            kept.close(Close::Surplus);
        } else {
            link.idle.fetch_add(1, Ordering::Relaxed);
            self.idle.borrow_mut().push(kept);
        }
    }

    fn sweep(&self, link: &Link, now: Moment) {
        self.idle.borrow_mut().retain(|kept| match kept.verdict(link, now) {
            None => true,
            Some(why) => {
                kept.exchange.close();
                link.counts.count_close(why);
                link.idle.fetch_sub(1, Ordering::Relaxed);
                false
            }
        });
    }

    /// A handle on the one HTTP/2 connection, which is made anew when it is gone or worn out, or older
    /// than `fresh`: many requests that were lost with one connection share the next. Who waited for an attempt that failed shares its failure, else each would wait for one of its own.
    async fn share(
        self: Rc<Self>,
        link: &Arc<Link>,
        fresh: Option<Moment>,
    ) -> Result<Lease, Fault> {
        let pool = Rc::clone(&self);
        let (failures, _) = self.failed.get();
        let mut shared = self.shared.lock().await;
        let now = clock::now();
        let usable = shared.as_ref().is_some_and(|shared| {
            fresh.is_none_or(|since| shared.born >= since)
                && !shared.sender.is_closed()
                && shared.uses < link.shape.max_requests
                && now.saturating_since(shared.born) < link.shape.max_age
        });
        if !usable {
            if let Some(old) = shared.take() {
                let why = if old.sender.is_closed() { Close::Peer } else { Close::Age };
                link.counts.count_close(why);
            }
            let (seen, fault) = self.failed.get();
            if seen != failures {
                return Err(fault);
            }
            let made = Shared::open(link).await;
            *shared = Some(made.inspect_err(|fault| self.failed.set((seen + 1, *fault)))?);
        }
        let Some(live) = shared.as_mut() else { return Err(Fault::ConnectFailed) };
        let reused = live.uses > 0;
        if reused {
            link.counts.reused.fetch_add(1, Ordering::Relaxed);
        }
        live.uses += 1;
        Ok(Lease::many(pool, link, live.sender.clone(), Rc::clone(&live.permit), reused))
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        while let Some(kept) = self.pop() {
            kept.close(Close::Gone);
        }
        if let Some(shared) = self.shared.get_mut().take() {
            shared.permit.counts.count_close(Close::Gone);
        }
    }
}

// === impl Kept ===

impl Kept {
    async fn open(link: &Arc<Link>, permit: OwnedSemaphorePermit) -> Result<Self, Fault> {
        let permit = Permit::new(link, Some(permit));
        let exchange = Exchange::new(connect::http1(link).await?);
        link.counts.opened.fetch_add(1, Ordering::Relaxed);
        let now = clock::now();
        Ok(Self { exchange, permit, uses: 0, born: now, since: now })
    }

    /// Why it may not be used again, if so.
    fn verdict(&self, link: &Link, now: Moment) -> Option<Close> {
        if self.exchange.is_quiet() { self.worn(link, now) } else { Some(Close::Peer) }
    }

    /// Which limit of its use it has reached, if any.
    fn worn(&self, link: &Link, now: Moment) -> Option<Close> {
        if now.saturating_since(self.since) >= link.idle_timeout() {
            Some(Close::Idle)
        } else if now.saturating_since(self.born) >= link.shape.max_age {
            Some(Close::Age)
        } else if self.uses >= link.shape.max_requests {
            Some(Close::Requests)
        } else {
            None
        }
    }

    fn close(self, why: Close) {
        self.exchange.close();
        self.permit.counts.count_close(why);
    }
}

impl Shared {
    async fn open(link: &Arc<Link>) -> Result<Self, Fault> {
        let permit = Rc::new(Permit::new(link, None));
        let sender = connect::http2(link, Rc::clone(&permit)).await?;
        link.counts.opened.fetch_add(1, Ordering::Relaxed);
        Ok(Self { sender, permit, uses: 0, born: clock::now() })
    }
}

impl Permit {
    fn new(link: &Arc<Link>, permit: Option<OwnedSemaphorePermit>) -> Self {
        link.open.fetch_add(1, Ordering::Relaxed);
        Self { link: Arc::downgrade(link), counts: Arc::clone(&link.counts), _permit: permit }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if let Some(link) = self.link.upgrade() {
            link.open.fetch_sub(1, Ordering::Relaxed);
        }
    }
}
