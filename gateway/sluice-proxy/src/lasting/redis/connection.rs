//! One connection to Redis, shared by all that a worker asks at a time. Commands are collected and
//! written together when the worker gets to it, and replies are handed out in order: many commands
//! cost one write and one read.
//!
//! It belongs to a thread. Dropping the handle ends the connection; who waits is told. The one rule:
//! a command that was sent keeps its place in line whatever becomes of who asked, so that no reply is ever
//! taken for another's.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Sleep;

use super::resp::{self, Reply};
use crate::base::clock::{self, Moment};

/// Commands on their way at a time; more decide without Redis.
const IN_FLIGHT: usize = 1024;
/// Room for what is read at a time; it grows while a reply is longer, up to [`REPLY`].
const READ: usize = 16 * 1024;
const REPLY: usize = 1024 * 1024;
/// Buffers that grew beyond this are given back when they are empty.
const KEPT: usize = 64 * 1024;

/// Why there is no reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Failure {
    /// None came in time; whether the command was carried out is not known.
    Late,
    /// The connection has ended.
    Lost,
    /// Too many commands wait already; this one was not sent.
    Full,
}

/// The handle of a connection.
#[derive(Debug)]
pub(super) struct Connection(Rc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    /// Commands that were not written yet.
    out: RefCell<Vec<u8>>,
    /// Commands without a reply, in the order they were sent.
    line: RefCell<VecDeque<Waiting>>,
    /// Whoever drives the connection.
    driver: RefCell<Option<Waker>>,
    ended: Cell<bool>,
}

#[derive(Debug)]
struct Waiting {
    /// Nobody, when it was given up.
    asker: Option<Rc<Slot>>,
    until: Moment,
}

#[derive(Debug, Default)]
struct Slot {
    result: RefCell<Option<Result<Reply, Failure>>>,
    waker: RefCell<Option<Waker>>,
}

/// A reply that will come; dropping it gives it up.
struct Answer(Rc<Slot>);

impl Connection {
    /// A connection over this stream, and what drives it until it ends. The driver has to be polled by
    /// the thread that uses the handle.
    pub(super) fn over<S: AsyncRead + AsyncWrite + Unpin>(
        stream: S,
    ) -> (Self, impl Future<Output = ()>) {
        let shared = Rc::new(Shared::default());
        (Self(Rc::clone(&shared)), drive(stream, shared))
    }

    /// Sends the command that `write` appends, and waits for its reply; or with `second` two commands,
    /// and waits for the reply to the second.
    pub(super) async fn ask(
        &self,
        write: impl FnOnce(&mut Vec<u8>),
        until: Moment,
        second: bool,
    ) -> Result<Reply, Failure> {
        let slot = Rc::new(Slot::default());
        self.0.send(write, second, Some(Rc::clone(&slot)), until)?;
        Answer(slot).await
    }

    /// Ends the connection; who waits is told.
    pub(super) fn close(&self) {
        self.0.ended.set(true);
        self.0.wake();
    }

    /// Sends a command whose reply nobody wants.
    pub(super) fn tell(
        &self,
        write: impl FnOnce(&mut Vec<u8>),
        until: Moment,
    ) -> Result<(), Failure> {
        self.0.send(write, false, None, until)
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.close();
    }
}

impl Shared {
    /// Puts one command in line, or all of two: a command without a place would shift all replies.
    fn send(
        &self,
        write: impl FnOnce(&mut Vec<u8>),
        second: bool,
        asker: Option<Rc<Slot>>,
        until: Moment,
    ) -> Result<(), Failure> {
        if self.ended.get() {
            return Err(Failure::Lost);
        }
        let mut line = self.line.borrow_mut();
        if line.len() + usize::from(second) >= IN_FLIGHT {
            return Err(Failure::Full);
        }
        if second {
            line.push_back(Waiting { asker: None, until });
        }
        line.push_back(Waiting { asker, until });
        let mut out = self.out.borrow_mut();
        let first = out.is_empty();
        write(&mut out);
        drop((line, out));
        // Whoever comes before the driver gets to it joins the same write.
        if first {
            self.wake();
        }
        Ok(())
    }

    fn wake(&self) {
        if let Some(driver) = self.driver.borrow_mut().take() {
            driver.wake();
        }
    }

    /// Hands out the replies in `input`; returns how many bytes of it they were.
    fn hand_out(&self, input: &[u8]) -> Result<usize, resp::Garbled> {
        let mut used = 0;
        while let Some((reply, length)) = resp::reply(input.get(used..).unwrap_or_default())? {
            used += length;
            // A reply that nobody asked for is no reply.
            let waiting = self.line.borrow_mut().pop_front().ok_or(resp::Garbled)?;
            if let Some(asker) = waiting.asker {
                asker.settle(Ok(reply));
            }
        }
        Ok(used)
    }

    /// Gives up who has waited for too long; returns until when the next one waits.
    fn give_up(&self, now: Moment) -> Option<Moment> {
        let mut next: Option<Moment> = None;
        for waiting in self.line.borrow_mut().iter_mut() {
            if waiting.until > now && waiting.asker.is_some() {
                next = Some(next.map_or(waiting.until, |next| next.min(waiting.until)));
            } else if let Some(asker) = waiting.asker.take() {
                asker.settle(Err(Failure::Late));
            }
        }
        next
    }

    /// Until when the first one waits.
    fn soonest(&self) -> Option<Moment> {
        let line = self.line.borrow();
        line.iter().find(|waiting| waiting.asker.is_some()).map(|waiting| waiting.until)
    }

    fn end(&self) {
        self.ended.set(true);
        for waiting in self.line.borrow_mut().drain(..) {
            if let Some(asker) = waiting.asker {
                asker.settle(Err(Failure::Lost));
            }
        }
    }
}

impl Slot {
    fn settle(&self, result: Result<Reply, Failure>) {
        *self.result.borrow_mut() = Some(result);
        if let Some(waker) = self.waker.borrow_mut().take() {
            waker.wake();
        }
    }
}

impl Future for Answer {
    type Output = Result<Reply, Failure>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        if let Some(result) = self.0.result.borrow_mut().take() {
            return Poll::Ready(result);
        }
        *self.0.waker.borrow_mut() = Some(cx.waker().clone());
        Poll::Pending
    }
}

/// Writes, reads and keeps time until the connection ends or nobody holds it any more.
async fn drive<S: AsyncRead + AsyncWrite + Unpin>(mut stream: S, shared: Rc<Shared>) {
    // Also when the driver itself is dropped, who waits must be told.
    let ending = Ending(Rc::clone(&shared));
    let mut state = Driver::default();
    poll_fn(|cx| {
        if shared.ended.get() {
            return Poll::Ready(());
        }
        match state.step(&mut stream, &shared, cx) {
            // Kept until the next command wakes it; readiness and time hold wakers of their own.
            Ok(()) => {
                *shared.driver.borrow_mut() = Some(cx.waker().clone());
                Poll::Pending
            }
            Err(Over) => Poll::Ready(()),
        }
    })
    .await;
    drop(ending);
}

struct Ending(Rc<Shared>);

impl Drop for Ending {
    fn drop(&mut self) {
        self.0.end();
    }
}

/// The connection is over.
struct Over;

#[derive(Default)]
struct Driver {
    writing: Vec<u8>,
    written: usize,
    /// All of it may be read into; the first `held` bytes are the beginning of a reply.
    input: Vec<u8>,
    held: usize,
    /// When somebody has waited for too long; none while nobody waits.
    timer: Option<Pin<Box<Sleep>>>,
}

impl Driver {
    fn step<S: AsyncRead + AsyncWrite + Unpin>(
        &mut self,
        stream: &mut S,
        shared: &Shared,
        cx: &mut Context<'_>,
    ) -> Result<(), Over> {
        self.write(stream, shared, cx)?;
        self.read(stream, shared, cx)?;
        self.keep_time(shared, cx);
        Ok(())
    }

    fn write<S: AsyncWrite + Unpin>(
        &mut self,
        stream: &mut S,
        shared: &Shared,
        cx: &mut Context<'_>,
    ) -> Result<(), Over> {
        loop {
            if self.written >= self.writing.len() {
                self.writing.clear();
                self.writing.shrink_to(KEPT);
                self.written = 0;
                std::mem::swap(&mut self.writing, &mut shared.out.borrow_mut());
                if self.writing.is_empty() {
                    return Ok(());
                }
            }
            let rest = self.writing.get(self.written..).unwrap_or_default();
            match Pin::new(&mut *stream).poll_write(cx, rest) {
                Poll::Ready(Ok(written @ 1..)) => self.written += written,
                Poll::Ready(_) => return Err(Over),
                Poll::Pending => return Ok(()),
            }
        }
    }

    fn read<S: AsyncRead + Unpin>(
        &mut self,
        stream: &mut S,
        shared: &Shared,
        cx: &mut Context<'_>,
    ) -> Result<(), Over> {
        loop {
            if self.held == self.input.len() {
                if self.held >= REPLY {
                    return Err(Over);
                }
                self.input.resize((2 * self.held).max(READ), 0);
            }
            let mut room = ReadBuf::new(self.input.get_mut(self.held..).unwrap_or_default());
            let outcome = Pin::new(&mut *stream).poll_read(cx, &mut room);
            match (outcome, room.filled().len()) {
                (Poll::Ready(Ok(())), read @ 1..) => {
                    self.held += read;
                    let whole = self.input.get(..self.held).unwrap_or_default();
                    let used = shared.hand_out(whole).map_err(|resp::Garbled| Over)?;
                    self.input.copy_within(used..self.held, 0);
                    self.held -= used;
                }
                (Poll::Ready(_), _) => return Err(Over),
                (Poll::Pending, _) => return Ok(()),
            }
        }
    }

    /// One timer for all that wait: it is set anew only when it has run out.
    fn keep_time(&mut self, shared: &Shared, cx: &mut Context<'_>) {
        loop {
            match &mut self.timer {
                None => {
                    let Some(next) = shared.soonest() else { return };
                    let sleep = tokio::time::sleep_until(clock::deadline(next));
                    self.timer = Some(Box::pin(sleep));
                }
                Some(timer) => {
                    if timer.as_mut().poll(cx).is_pending() {
                        return;
                    }
                    match shared.give_up(clock::now()) {
                        Some(next) => timer.as_mut().reset(clock::deadline(next)),
                        None => {
                            self.timer = None;
                            return;
                        }
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};

    use super::*;

    fn soon() -> Moment {
        clock::now().after(Duration::from_secs(10))
    }

    fn get(key: &'static str) -> impl FnOnce(&mut Vec<u8>) {
        move |out| {
            resp::words(2, out);
            resp::word(b"GET", out);
            resp::word(key.as_bytes(), out);
        }
    }

    /// Runs a story against the other end of a connection that is driven.
    async fn told(story: impl AsyncFnOnce(Connection, DuplexStream)) {
        let (near, far) = tokio::io::duplex(64 * 1024);
        let (connection, driver) = Connection::over(near);
        tokio::join!(driver, story(connection, far));
    }

    async fn heard(far: &mut DuplexStream, commands: usize) {
        let mut buffer = vec![0; commands * 20];
        far.read_exact(&mut buffer).await.unwrap();
        assert!(buffer.starts_with(b"*2\r\n$3\r\nGET\r\n$1\r\n"));
    }

    #[tokio::test]
    async fn replies_go_to_who_asked_also_when_others_have_left() {
        told(async |connection, mut far| {
            let (a, c) =
                (connection.ask(get("a"), soon(), false), connection.ask(get("c"), soon(), false));
            // Gives up after its command was sent; its reply must not be taken for another's.
            let leaves = tokio::time::timeout(
                Duration::from_millis(5),
                connection.ask(get("b"), soon(), false),
            );
            let answers = async {
                heard(&mut far, 3).await;
                tokio::time::sleep(Duration::from_millis(20)).await;
                far.write_all(b":1\r\n:2").await.unwrap();
                tokio::task::yield_now().await;
                far.write_all(b"\r\n:3\r\n").await.unwrap();
            };
            let (a, left, c, ()) = tokio::join!(a, leaves, c, answers);
            assert!(left.is_err());
            assert_eq!((a, c), (Ok(Reply::Number(1)), Ok(Reply::Number(3))));
        })
        .await;
    }

    #[tokio::test]
    async fn who_waits_too_long_is_told_and_later_replies_fit() {
        told(async |connection, mut far| {
            let early = clock::now().after(Duration::from_millis(20));
            let begun = clock::now();
            assert_eq!(connection.ask(get("a"), early, false).await, Err(Failure::Late));
            assert!(clock::now().saturating_since(begun) >= Duration::from_millis(20));
            let late = async {
                heard(&mut far, 2).await;
                far.write_all(b":1\r\n:2\r\n").await.unwrap();
            };
            let (b, ()) = tokio::join!(connection.ask(get("b"), soon(), false), late);
            assert_eq!(b, Ok(Reply::Number(2)));
        })
        .await;
    }

    #[tokio::test]
    async fn garbage_an_unasked_reply_and_an_end_cost_the_connection() {
        for bytes in [&b"HTTP/1.1 400 Bad Request\r\n\r\n"[..], b":1\r\n:2\r\n", b":1"] {
            told(async |connection, mut far| {
                let asked = connection.ask(get("a"), soon(), false);
                let says = async {
                    heard(&mut far, 1).await;
                    far.write_all(bytes).await.unwrap();
                    drop(far);
                };
                let (first, ()) = tokio::join!(asked, says);
                let whole = bytes.starts_with(b":1\r");
                assert_eq!(first, if whole { Ok(Reply::Number(1)) } else { Err(Failure::Lost) });
                tokio::task::yield_now().await;
                assert_eq!(connection.ask(get("b"), soon(), false).await, Err(Failure::Lost));
            })
            .await;
        }
    }

    #[tokio::test]
    async fn commands_in_flight_are_bounded() {
        told(async |connection, far| {
            for _ in 0..IN_FLIGHT {
                assert_eq!(connection.tell(get("a"), soon()), Ok(()));
            }
            assert_eq!(connection.tell(get("a"), soon()), Err(Failure::Full));
            drop(far);
        })
        .await;
    }

    #[tokio::test]
    async fn two_commands_are_sent_together_or_not_at_all() {
        told(async |connection, mut far| {
            for _ in 0..IN_FLIGHT - 1 {
                assert_eq!(connection.tell(get("a"), soon()), Ok(()));
            }
            let both = connection.ask(get("b"), soon(), true).await;
            assert_eq!(both, Err(Failure::Full));
            let last = connection.ask(get("c"), soon(), false);
            let replies = async {
                heard(&mut far, IN_FLIGHT).await;
                far.write_all(&b":1\r\n".repeat(IN_FLIGHT - 1)).await.unwrap();
                far.write_all(b":2\r\n").await.unwrap();
            };
            let (last, ()) = tokio::join!(last, replies);
            assert_eq!(last, Ok(Reply::Number(2)));
            let pair = connection.ask(get("d"), soon(), true);
            let replies = async {
                heard(&mut far, 1).await;
                far.write_all(b"+OK\r\n:3\r\n").await.unwrap();
            };
            let (pair, ()) = tokio::join!(pair, replies);
            assert_eq!(pair, Ok(Reply::Number(3)));
        })
        .await;
    }
}
