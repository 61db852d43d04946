//! Deadlines of what a worker is doing: coarse, so that setting one costs next to nothing. Each request
//! has several and hardly any is ever reached; the runtime's own timers cost a lock and a place in a
//! wheel each time.
//!
//! A deadline is noticed up to [`GRAIN`] late, never early. When the thread did not run for a while (a
//! stopped process, a paused machine), nobody could keep a deadline meanwhile: all move by that time. The one rule: a thread that uses them runs
//! [`keep`], or nobody is ever woken.

use std::cell::RefCell;
use std::marker::PhantomData;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use super::clock::{self, Moment};

/// How late a deadline may be noticed.
const GRAIN: Duration = Duration::from_millis(10);
/// A thread that comes this late was kept from running.
const STALL: Duration = Duration::from_millis(500);

/// How often a thread came that late.
static STALLS: AtomicU64 = AtomicU64::new(0);

thread_local! {
    static TABLE: RefCell<Table> = RefCell::default();
}

/// A moment that somebody waits for. Dropping it forgets it.
#[derive(Debug)]
pub(crate) struct Deadline {
    slot: usize,
    /// It belongs to its thread.
    _local: PhantomData<*const ()>,
}

#[derive(Default)]
struct Table {
    slots: Vec<Slot>,
    free: Vec<usize>,
    /// No deadline is earlier; `None` if there is none at all.
    soonest: Option<Moment>,
    /// The keeper, when it sleeps without end because there is nothing to keep.
    keeper: Option<Waker>,
}

#[derive(Default)]
struct Slot {
    at: Moment,
    state: State,
}

#[derive(Default)]
enum State {
    #[default]
    Free,
    Set(Option<Waker>),
    Passed,
}

impl Deadline {
    pub(crate) fn at(moment: Moment) -> Self {
        let slot = TABLE.with_borrow_mut(|table| table.set(moment));
        Self { slot, _local: PhantomData }
    }

    /// Ready when it has passed; otherwise the task is woken when it has.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        TABLE.with_borrow_mut(|table| table.poll(self.slot, cx))
    }
}

impl Drop for Deadline {
    fn drop(&mut self) {
        // A thread that ends may have dropped the table first.
        let _ = TABLE.try_with(|table| table.borrow_mut().forget(self.slot));
    }
}

impl Table {
    fn set(&mut self, at: Moment) -> usize {
        let slot = Slot { at, state: State::Set(None) };
        self.hurry(at);
        if let Some(index) = self.free.pop()
            && let Some(place) = self.slots.get_mut(index)
        {
            *place = slot;
            return index;
        }
        self.slots.push(slot);
        self.slots.len() - 1
    }

    fn hurry(&mut self, at: Moment) {
        self.soonest = Some(self.soonest.map_or(at, |soonest| soonest.min(at)));
        if let Some(keeper) = self.keeper.take() {
            keeper.wake();
        }
    }

    fn poll(&mut self, index: usize, cx: &mut Context<'_>) -> Poll<()> {
        match self.slots.get_mut(index).map(|slot| &mut slot.state) {
            Some(State::Set(waker)) => {
                match waker {
                    Some(known) if known.will_wake(cx.waker()) => {}
                    _ => *waker = Some(cx.waker().clone()),
                }
                Poll::Pending
            }
            Some(State::Passed | State::Free) | None => Poll::Ready(()),
        }
    }

    fn forget(&mut self, index: usize) {
        if let Some(slot) = self.slots.get_mut(index) {
            slot.state = State::Free;
            self.free.push(index);
        }
    }

    /// Gives everybody the time back in which nothing was done here.
    fn move_by(&mut self, late: Duration) {
        for slot in &mut self.slots {
            if let State::Set(_) = slot.state {
                slot.at = slot.at.after(late);
            }
        }
        self.soonest = self.soonest.map(|soonest| soonest.after(late));
    }

    /// Takes the wakers of what has passed.
    fn pass(&mut self, now: Moment) -> Vec<Waker> {
        let mut wakers = Vec::new();
        if self.soonest.is_none_or(|soonest| soonest > now) {
            return wakers;
        }
        self.soonest = None;
        for slot in &mut self.slots {
            let State::Set(waker) = &mut slot.state else { continue };
            if slot.at <= now {
                wakers.extend(waker.take());
                slot.state = State::Passed;
            } else {
                self.soonest = Some(self.soonest.map_or(slot.at, |soonest| soonest.min(slot.at)));
            }
        }
        if self.soonest.is_none() && self.free.len() == self.slots.len() {
            // After a crowd nobody needs the room.
            *self = Self::default();
        }
        wakers
    }
}

/// How often a worker was kept from its work for half a second or more, in this process.
pub(crate) fn stalls() -> u64 {
    STALLS.load(Ordering::Relaxed)
}

/// Notices what has passed on this thread, for ever.
pub(crate) async fn keep() {
    loop {
        std::future::poll_fn(|cx| {
            TABLE.with_borrow_mut(|table| {
                if table.soonest.is_some() {
                    return Poll::Ready(());
                }
                table.keeper = Some(cx.waker().clone());
                Poll::Pending
            })
        })
        .await;
        let slept = clock::now();
        tokio::time::sleep(GRAIN).await;
        let now = clock::now();
        let late = now.saturating_since(slept.after(GRAIN));
        let wakers = TABLE.with_borrow_mut(|table| {
            if late >= STALL {
                STALLS.fetch_add(1, Ordering::Relaxed);
                table.move_by(late);
            }
            table.pass(now)
        });
        wakers.into_iter().for_each(Waker::wake);
    }
}

/// Waits for `step` until `limit`.
pub(crate) async fn until<F: Future>(limit: Moment, step: F) -> Option<F::Output> {
    let mut step = std::pin::pin!(step);
    let mut deadline = None;
    std::future::poll_fn(move |cx| {
        if let Poll::Ready(output) = step.as_mut().poll(cx) {
            return Poll::Ready(Some(output));
        }
        deadline.get_or_insert_with(|| Deadline::at(limit)).poll(cx).map(|()| None)
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Moment {
        Moment::from_nanos(millis * 1_000_000)
    }

    #[test]
    fn only_what_has_passed_is_woken() {
        let cx = &mut Context::from_waker(Waker::noop());
        let mut table = Table::default();
        let (early, late) = (table.set(at(10)), table.set(at(20)));
        assert!(table.poll(early, cx).is_pending() && table.poll(late, cx).is_pending());
        assert!(table.pass(at(9)).is_empty());
        assert_eq!(table.pass(at(10)).len(), 1);
        assert!(table.poll(early, cx).is_ready() && table.poll(late, cx).is_pending());
        assert_eq!(table.pass(at(20)).len(), 1);
        assert!(table.pass(at(40)).is_empty(), "nobody is woken twice");
    }

    #[test]
    fn places_are_used_again_and_given_back() {
        let mut table = Table::default();
        for _ in 0..3 {
            let slots: Vec<usize> = (0..100).map(|n| table.set(at(n))).collect();
            assert_eq!(table.slots.len(), 100);
            slots.into_iter().for_each(|slot| table.forget(slot));
        }
        assert!(table.pass(at(1000)).is_empty(), "nobody is woken for what was forgotten");
        assert_eq!(table.slots.len(), 0);
    }

    #[test]
    fn a_pause_moves_what_was_waited_for() {
        let cx = &mut Context::from_waker(Waker::noop());
        let mut table = Table::default();
        let slot = table.set(at(10));
        assert!(table.poll(slot, cx).is_pending());
        table.move_by(Duration::from_millis(3_000));
        assert!(table.pass(at(3_009)).is_empty());
        assert_eq!(table.pass(at(3_010)).len(), 1);
    }

    #[tokio::test]
    async fn a_step_that_takes_too_long_is_given_up() {
        let limit = clock::now().after(Duration::from_millis(30));
        tokio::select! {
            () = keep() => {}
            outcome = until(limit, std::future::pending::<()>()) => assert!(outcome.is_none()),
        }
        assert!(clock::now() >= limit);
        assert_eq!(until(limit, async { 1 }).await, Some(1), "what is done at once needs no time");
    }
}
