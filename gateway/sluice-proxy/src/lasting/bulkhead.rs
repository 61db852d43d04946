//! A bound on requests in progress, with a short queue in front of it: the whole gateway has one, and
//! routes and upstreams may have their own. The cell counts and queues; how much is allowed comes from the
//! snapshot with each request, so a reload never resets what is in progress.
//!
//! Entering is one atomic step while there is room. Who has to wait is served in order, and who gives up
//! (its future is dropped) is passed over. The one rule: a place is taken before anybody may see it as
//! free, and given on before it is given back, so nobody overtakes the queue.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::sync::atomic::Ordering::{Relaxed, SeqCst};
use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Poll;
use std::time::Duration;

use futures_util::task::AtomicWaker;

use crate::base::clock::Moment;
use crate::base::deadline::until;

/// What is allowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Rules {
    /// Requests in progress.
    pub(crate) requests: u32,
    /// Requests that wait for a place.
    pub(crate) queue: u32,
    /// Longest wait.
    pub(crate) max_wait: Duration,
}

/// What is in progress.
#[derive(Debug)]
pub(crate) struct Bulkhead {
    /// For metrics: `gateway`, `route:x` or `upstream:x`.
    pub(crate) name: String,
    in_progress: AtomicU32,
    waiting: AtomicU32,
    refused: AtomicU64,
    /// Locked for a few lines, and only while somebody waits. Holds who gave up until its turn, or until
    /// there are too many of those.
    queue: Mutex<VecDeque<Arc<Waiter>>>,
}

/// A request's place; dropping it gives it to the next.
#[derive(Debug)]
pub(crate) struct Place(Arc<Bulkhead>);

/// There is no place, and none in the queue, or none became free in time.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Full;

#[derive(Debug)]
struct Waiter {
    state: AtomicU8,
    waker: AtomicWaker,
    /// The limit that held when it came.
    requests: u32,
}

const WAITING: u8 = 0;
const GRANTED: u8 = 1;
const GONE: u8 = 2;

impl Bulkhead {
    pub(crate) fn new(name: String) -> Self {
        Self {
            name,
            in_progress: AtomicU32::new(0),
            waiting: AtomicU32::new(0),
            refused: AtomicU64::new(0),
            queue: Mutex::default(),
        }
    }

    /// Requests in progress.
    pub(crate) fn in_progress(&self) -> u32 {
        self.in_progress.load(Relaxed)
    }

    /// Requests in the queue.
    pub(crate) fn waiting(&self) -> u32 {
        self.waiting.load(Relaxed)
    }

    /// Requests that were refused since the start.
    pub(crate) fn refused(&self) -> u64 {
        self.refused.load(Relaxed)
    }

    /// A place, if there is one and nobody waits for it.
    pub(crate) fn try_enter(self: &Arc<Self>, rules: &Rules) -> Option<Place> {
        let entered = self.waiting.load(SeqCst) == 0 && self.take(rules.requests);
        entered.then(|| Place(Arc::clone(self)))
    }

    /// A place as soon as there is one, or word that it would take too long; at the latest at `limit`.
    pub(crate) async fn enter(
        self: &Arc<Self>,
        rules: &Rules,
        now: Moment,
        limit: Option<Moment>,
    ) -> Result<Place, Full> {
        if let Some(place) = self.try_enter(rules) {
            return Ok(place);
        }
        let end = now.after(rules.max_wait);
        let end = limit.map_or(end, |limit| limit.min(end));
        let place = match self.line_up(rules) {
            Some(turn) => until(end, turn.wait()).await.flatten(),
            None => None,
        };
        place.ok_or_else(|| {
            self.refused.fetch_add(1, Relaxed);
            Full
        })
    }

    fn take(&self, requests: u32) -> bool {
        let more = |taken| (taken < requests).then_some(taken + 1);
        self.in_progress.fetch_update(SeqCst, SeqCst, more).is_ok()
    }

    /// Joins the queue, if it has room.
    fn line_up(self: &Arc<Self>, rules: &Rules) -> Option<Turn> {
        let mut queue = self.lock();
        if self.waiting.load(SeqCst) >= rules.queue {
            return None;
        }
        // Counted before places are looked at again: who leaves meanwhile sees that somebody waits.
        self.waiting.fetch_add(1, SeqCst);
        if queue.len() >= 2 * rules.queue as usize {
            queue.retain(|waiter| waiter.state.load(SeqCst) == WAITING);
        }
        let waiter = Arc::new(Waiter {
            state: AtomicU8::new(WAITING),
            waker: AtomicWaker::new(),
            requests: rules.requests,
        });
        queue.push_back(Arc::clone(&waiter));
        self.serve(&mut queue);
        Some(Turn { bulkhead: Some(Arc::clone(self)), waiter })
    }

    /// Gives free places to those who wait, in order.
    fn serve(&self, queue: &mut VecDeque<Arc<Waiter>>) {
        while let Some(waiter) = queue.front() {
            if waiter.state.load(SeqCst) == WAITING {
                if !self.take(waiter.requests) {
                    return;
                }
                if waiter.settle(GRANTED) {
                    self.waiting.fetch_sub(1, SeqCst);
                    waiter.waker.wake();
                } else {
                    // It gave up while the place was taken for it.
                    self.in_progress.fetch_sub(1, SeqCst);
                }
            }
            queue.pop_front();
        }
    }

    fn serve_if_any(&self) {
        if self.waiting.load(SeqCst) > 0 {
            self.serve(&mut self.lock());
        }
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<Arc<Waiter>>> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.in_progress.fetch_sub(1, SeqCst);
        self.0.serve_if_any();
    }
}

impl Waiter {
    /// Whether it was still undecided.
    fn settle(&self, state: u8) -> bool {
        self.state.compare_exchange(WAITING, state, SeqCst, SeqCst).is_ok()
    }
}

/// A request's turn in the queue; dropping it gives it up.
struct Turn {
    /// None once the place is in other hands.
    bulkhead: Option<Arc<Bulkhead>>,
    waiter: Arc<Waiter>,
}

impl Turn {
    async fn wait(mut self) -> Option<Place> {
        poll_fn(|cx| {
            self.waiter.waker.register(cx.waker());
            if self.waiter.state.load(SeqCst) == GRANTED { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
        self.bulkhead.take().map(Place)
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let Some(bulkhead) = self.bulkhead.take() else { return };
        if self.waiter.settle(GONE) {
            bulkhead.waiting.fetch_sub(1, SeqCst);
            // Who came after it may have been allowed more.
            bulkhead.serve_if_any();
        } else {
            drop(Place(bulkhead));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::pin::Pin;
    use std::task::{Context, Waker};

    use super::*;

    type Waiting = Pin<Box<dyn Future<Output = Option<Place>>>>;

    fn rules(requests: u32, queue: u32) -> Rules {
        Rules { requests, queue, max_wait: Duration::from_secs(1) }
    }

    fn bulkhead() -> Arc<Bulkhead> {
        Arc::new(Bulkhead::new("test".to_owned()))
    }

    fn line_up(bulkhead: &Arc<Bulkhead>, rules: &Rules) -> Option<Waiting> {
        bulkhead.line_up(rules).map(|turn| Box::pin(turn.wait()) as Waiting)
    }

    fn poll(waiting: &mut Waiting) -> Option<Place> {
        match waiting.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(place) => place,
            Poll::Pending => None,
        }
    }

    #[test]
    fn places_go_round_in_order() {
        let (bulkhead, rules) = (bulkhead(), rules(2, 8));
        let first = bulkhead.try_enter(&rules).unwrap();
        let second = bulkhead.try_enter(&rules).unwrap();
        let mut third = line_up(&bulkhead, &rules).unwrap();
        let mut fourth = line_up(&bulkhead, &rules).unwrap();
        assert!(poll(&mut third).is_none() && poll(&mut fourth).is_none());
        drop(first);
        assert!(bulkhead.try_enter(&rules).is_none(), "nobody overtakes the queue");
        assert!(poll(&mut fourth).is_none(), "the third comes first");
        let third = poll(&mut third).unwrap();
        drop((second, third));
        drop(poll(&mut fourth).unwrap());
        assert_eq!((bulkhead.in_progress(), bulkhead.waiting()), (0, 0));
    }

    #[test]
    fn who_gives_up_is_passed_over() {
        let (bulkhead, rules) = (bulkhead(), rules(1, 8));
        let first = bulkhead.try_enter(&rules).unwrap();
        let early = line_up(&bulkhead, &rules).unwrap();
        let mut late = line_up(&bulkhead, &rules).unwrap();
        drop(early);
        assert_eq!(bulkhead.waiting(), 1);
        drop(first);
        assert!(poll(&mut late).is_some());
    }

    #[test]
    fn who_gives_up_with_a_place_in_hand_gives_it_on() {
        let (bulkhead, rules) = (bulkhead(), rules(1, 8));
        let first = bulkhead.try_enter(&rules).unwrap();
        let early = line_up(&bulkhead, &rules).unwrap();
        let mut late = line_up(&bulkhead, &rules).unwrap();
        drop(first);
        drop(early);
        assert!(poll(&mut late).is_some());
        assert_eq!((bulkhead.in_progress(), bulkhead.waiting()), (0, 0));
    }

    #[test]
    fn the_queue_is_bounded_also_by_those_who_left() {
        let (bulkhead, rules) = (bulkhead(), rules(1, 4));
        let _first = bulkhead.try_enter(&rules).unwrap();
        for _ in 0..1_000 {
            drop(line_up(&bulkhead, &rules).unwrap());
        }
        assert!(bulkhead.lock().len() <= 8);
        let full: Vec<_> = (0..4).map(|_| line_up(&bulkhead, &rules).unwrap()).collect();
        assert!(line_up(&bulkhead, &rules).is_none());
        drop(full);
        assert_eq!(bulkhead.waiting(), 0);
    }

    #[test]
    fn a_changed_limit_counts_for_those_who_come_after_it() {
        let bulkhead = bulkhead();
        let _first = bulkhead.try_enter(&rules(1, 4)).unwrap();
        let old = line_up(&bulkhead, &rules(1, 4)).unwrap();
        let mut new = line_up(&bulkhead, &rules(2, 4)).unwrap();
        assert!(poll(&mut new).is_none(), "it waits behind the old one");
        drop(old);
        assert!(poll(&mut new).is_some());
        assert!(bulkhead.try_enter(&rules(1, 4)).is_none(), "less is allowed at once");
    }

    #[test]
    fn no_place_is_lost_or_made_among_threads() {
        let (bulkhead, rules) = (bulkhead(), rules(3, 64));
        let most = AtomicU32::new(0);
        let inside = AtomicU32::new(0);
        std::thread::scope(|scope| {
            for thread in 0..4_u32 {
                let (bulkhead, inside, most) = (&bulkhead, &inside, &most);
                scope.spawn(move || {
                    for turn in 0..2_000_u32 {
                        let place = bulkhead.try_enter(&rules).or_else(|| {
                            let mut waiting = line_up(bulkhead, &rules)?;
                            // Some wait for long, some give up at once.
                            let tries = if (turn + thread) % 5 == 0 { 1 } else { 200 };
                            (0..tries).find_map(|_| {
                                std::thread::yield_now();
                                poll(&mut waiting)
                            })
                        });
                        if place.is_some() {
                            most.fetch_max(inside.fetch_add(1, SeqCst) + 1, SeqCst);
                            std::thread::yield_now();
                            inside.fetch_sub(1, SeqCst);
                        }
                    }
                });
            }
        });
        assert!(most.load(SeqCst) <= 3, "{most:?} were inside");
        assert_eq!((bulkhead.in_progress(), bulkhead.waiting()), (0, 0));
    }
}
