//! A worker's way to one server: a connection, or a task that is making one. Who finds it slow or gone is
//! told at once, and after a few failures nobody asks until a new connection has answered.

use std::cell::{Cell, RefCell};
use std::pin::pin;
use std::rc::{Rc, Weak as Weakly};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::sync::Notify;

use super::address::Address;
use super::connection::Connection;
use super::resp::Reply;
use super::why::Why;
use super::{CONNECT, Target, open};
use crate::base::clock::{self, Moment};
use crate::lasting::tasks::{self, Kind};

/// Failures in a row after which nobody asks any more.
const TOLERATED: u32 = 5;
/// Shortest and longest pause between two attempts to connect.
const PAUSE: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(1));
/// A server that has been silent for so long, while [`DOUBTED`] commands wait, is asked nothing more until it
/// answers or they fail: a hung one is waited for by few.
const SILENCE: Duration = Duration::from_millis(5);
const DOUBTED: u32 = 8;

/// The way to one server.
pub(super) struct Link {
    pub(super) address: Address,
    up: RefCell<Option<Up>>,
    /// Commands without an answer so far.
    waiting: Cell<u32>,
    /// When the last answer came, or, if later, when the first of those that wait was sent.
    heard: Cell<Moment>,
    /// Whether the first attempt to connect has come to its end, and who is told of that.
    tried: Cell<bool>,
    made: Notify,
}

/// How much an answer is needed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Need {
    /// Who asks can go on without it.
    Wanted,
    /// Without it a request is refused: it is asked for also where others wait already.
    Required,
}

struct Up {
    connection: Rc<Connection>,
    /// How often in a row it has failed.
    failures: u32,
}

impl Link {
    /// A link that connects as long as somebody holds it.
    pub(super) fn new(target: &Arc<Target>, address: Address) -> Rc<Self> {
        let link = Rc::new(Self {
            address,
            up: RefCell::default(),
            waiting: Cell::new(0),
            heard: Cell::new(clock::now()),
            tried: Cell::new(false),
            made: Notify::new(),
        });
        let (target, weak) = (Arc::downgrade(target), Rc::downgrade(&link));
        drop(tasks::local(Kind::Upstream, keep_connected(target, weak)));
        link
    }

    /// Waits for the first attempt to connect to come to its end; later ones are not waited for.
    pub(super) async fn first_tried(&self) {
        let made = self.made.notified();
        if !self.tried.get() {
            let late = clock::deadline(clock::now().after(CONNECT));
            let _ = tokio::time::timeout_at(late, made).await;
        }
    }

    fn has_tried(&self) {
        if !self.tried.replace(true) {
            self.made.notify_waiters();
        }
    }

    pub(super) fn is_up(&self) -> bool {
        self.up.borrow().is_some()
    }

    /// Sends what `write` appends and waits for the reply, or with `asking` for the second of two. Nothing
    /// when the server is not asked, because it is gone or has stopped answering.
    pub(super) async fn ask(
        self: &Rc<Self>,
        write: impl FnOnce(&mut Vec<u8>),
        until: Moment,
        asking: bool,
        need: Need,
    ) -> Option<Result<Reply, Why>> {
        let connection = self.up.borrow().as_ref().map(|up| Rc::clone(&up.connection))?;
        let asked = self.asks(need)?;
        let reply = connection.ask(write, until, asking).await;
        drop(asked);
        if reply.is_ok() {
            self.heard.set(clock::now());
        }
        Some(reply.map_err(Why::from))
    }

    /// Sends what `write` appends, whose reply nobody wants.
    pub(super) fn tell(&self, write: impl FnOnce(&mut Vec<u8>)) {
        if let Some(up) = &*self.up.borrow() {
            // What does not fit is not sent; that is known from other commands.
            let _ = up.connection.tell(write, clock::now());
        }
    }

    /// It has done what it was asked.
    pub(super) fn succeeded(&self) {
        if let Some(up) = &mut *self.up.borrow_mut() {
            up.failures = 0;
        }
    }

    /// It has not; after a few times in a row, or if it `cannot` do any better, the connection is given
    /// up. Returns whether it was.
    pub(super) fn failed(&self, cannot: bool) -> bool {
        let mut state = self.up.borrow_mut();
        let Some(up) = &mut *state else { return false };
        up.failures += 1;
        let over = cannot || up.failures >= TOLERATED;
        if over {
            up.connection.close();
            *state = None;
        }
        over
    }

    /// Counts a command as waiting, unless too many have been waiting for too long.
    fn asks(self: &Rc<Self>, need: Need) -> Option<Asked> {
        let (waiting, now) = (self.waiting.get(), clock::now());
        if waiting == 0 {
            self.heard.set(now);
        } else if need == Need::Wanted
            && waiting >= DOUBTED
            && now.saturating_since(self.heard.get()) > SILENCE
        {
            return None;
        }
        self.waiting.set(waiting + 1);
        Some(Asked(Rc::clone(self)))
    }
}

/// A command without an answer.
struct Asked(Rc<Link>);

impl Drop for Asked {
    fn drop(&mut self) {
        self.0.waiting.set(self.0.waiting.get().saturating_sub(1));
    }
}

/// Connects, drives the connection to its end, and connects again, until nobody wants it any more.
async fn keep_connected(target: Weak<Target>, link: Weakly<Link>) {
    let mut pause = PAUSE.0;
    loop {
        let began = clock::now();
        let Some(why) = live(&target, &link).await else { return };
        if let Some(link) = link.upgrade() {
            link.has_tried();
        }
        let Some(strong) = target.upgrade() else { return };
        strong.note(why);
        drop(strong);
        if clock::now().saturating_since(began) > PAUSE.1 {
            pause = PAUSE.0;
        }
        // Full jitter keeps many gateways from coming back in step.
        let wait = PAUSE.0 / 2 + pause.mul_f64(fastrand::f64());
        tokio::time::sleep_until(clock::deadline(clock::now().after(wait))).await;
        pause = (pause * 2).min(PAUSE.1);
    }
}

/// One connection from its beginning to its end; says why it ended, or nothing when nobody wants another.
async fn live(target: &Weak<Target>, link: &Weakly<Link>) -> Option<Why> {
    let strong = target.upgrade()?;
    let address = link.upgrade()?.address.clone();
    let stream = match open::dial(&strong.servers, &strong.names, &address).await {
        Ok(stream) => stream,
        Err(why) => return Some(why),
    };
    let (connection, driver) = Connection::over(stream);
    let mut driver = pin!(driver);
    let greeting = open::greet(&connection, &strong.servers, &strong.scripts);
    if let Err(why) = open::driven(driver.as_mut(), greeting).await {
        return Some(why);
    }
    let made = link.upgrade()?;
    *made.up.borrow_mut() = Some(Up { connection: Rc::new(connection), failures: 0 });
    made.has_tried();
    drop(made);
    strong.connected.fetch_add(1, Ordering::Relaxed);
    tracing::info!(redis = %address, "connected to Redis");
    drop(strong);
    driver.await;
    if let Some(target) = target.upgrade() {
        target.connected.fetch_sub(1, Ordering::Relaxed);
        tracing::warn!(redis = %address, "the connection to Redis is over; deciding without it");
    }
    link.upgrade()?.up.borrow_mut().take();
    Some(Why::Lost)
}
