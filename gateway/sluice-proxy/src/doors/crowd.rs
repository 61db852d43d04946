//! A worker's client connections, to find those that can be done without: the longest at rest when others
//! need their places, the largest when memory runs out. Ending one drops all it holds.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use slab::Slab;
use tokio::task::AbortHandle;

use crate::base::clock::Moment;
use crate::base::clocks::Clocks;

/// Of those that can go, the share that goes at a time.
const SHARE: usize = 16;
/// Who has been at rest for less may be about to ask.
const AT_REST: Duration = Duration::from_secs(1);

/// The connections of one worker.
#[derive(Debug, Default)]
pub(crate) struct Crowd(RefCell<Slab<Member>>);

#[derive(Debug)]
struct Member {
    listener: Arc<str>,
    clocks: Arc<Clocks>,
    /// Missing for the moment between being counted and being started.
    task: Option<AbortHandle>,
}

/// A connection's membership, until it is dropped.
#[derive(Debug)]
pub(crate) struct Seat {
    crowd: Rc<Crowd>,
    index: usize,
}

impl Crowd {
    pub(crate) fn join(self: &Rc<Self>, listener: &Arc<str>, clocks: &Arc<Clocks>) -> Seat {
        let (listener, clocks) = (Arc::clone(listener), Arc::clone(clocks));
        let index = self.0.borrow_mut().insert(Member { listener, clocks, task: None });
        Seat { crowd: Rc::clone(self), index }
    }

    /// Tells how to end the connection of that index.
    pub(crate) fn started(&self, index: usize, task: AbortHandle) {
        if let Some(member) = self.0.borrow_mut().get_mut(index) {
            member.task = Some(task);
        }
    }

    /// Ends some of the connections that have been at rest for longest, of one listener or of all; returns
    /// how many.
    pub(crate) fn make_room(&self, listener: Option<&str>, now: Moment) -> usize {
        let rest = |member: &Member| {
            let since = member.clocks.resting_since()?;
            (since.after(AT_REST) <= now).then(|| now.saturating_since(since).as_nanos())
        };
        let mine = |member: &Member| listener.is_none_or(|name| *name == *member.listener);
        self.end(|member| if mine(member) { rest(member) } else { None })
    }

    /// Cuts some of the connections that hold most; returns how many.
    pub(crate) fn shed(&self) -> usize {
        self.end(|member| {
            let weight = u128::from(member.clocks.weight());
            (weight > 0).then_some(weight)
        })
    }

    /// Ends a share of those that have a rank, the highest first.
    fn end(&self, rank: impl Fn(&Member) -> Option<u128>) -> usize {
        // Ended tasks leave the crowd, and so nothing is held while they are told.
        let mut ranked: Vec<(u128, AbortHandle, Arc<Clocks>)> = {
            let members = self.0.borrow();
            let known = members.iter().filter_map(|(_, member)| {
                Some((rank(member)?, member.task.clone()?, Arc::clone(&member.clocks)))
            });
            known.collect()
        };
        ranked.sort_by_key(|(rank, _, _)| std::cmp::Reverse(*rank));
        ranked.truncate(ranked.len().div_ceil(SHARE));
        for (_, task, clocks) in &ranked {
            clocks.set_shed();
            task.abort();
        }
        ranked.len()
    }
}

impl Seat {
    pub(crate) fn index(&self) -> usize {
        self.index
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        // Dropped only after the loan, with the entry's own handle on this very task.
        let gone = self.crowd.0.borrow_mut().try_remove(self.index);
        drop(gone);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::clock;

    fn idle_task() -> tokio::task::JoinHandle<()> {
        tokio::task::spawn_local(std::future::pending())
    }

    fn join(crowd: &Rc<Crowd>, listener: &str) -> (Seat, Arc<Clocks>, tokio::task::JoinHandle<()>) {
        let clocks = Clocks::start();
        let seat = crowd.join(&listener.into(), &clocks);
        let task = idle_task();
        crowd.started(seat.index(), task.abort_handle());
        (seat, clocks, task)
    }

    async fn is_ended(task: tokio::task::JoinHandle<()>) -> bool {
        tokio::task::yield_now().await;
        task.is_finished()
    }

    #[tokio::test]
    async fn those_at_rest_make_room_and_those_in_use_stay() {
        tokio::task::LocalSet::new()
            .run_until(async {
                let crowd = Rc::new(Crowd::default());
                let (_a, _, resting) = join(&crowd, "web");
                let (_b, busy, working) = join(&crowd, "web");
                let (_c, _, elsewhere) = join(&crowd, "other");
                busy.begin();
                assert_eq!(crowd.make_room(None, clock::now()), 0, "who has just come stays");
                let later = clock::now().after(Duration::from_secs(5));
                assert_eq!(crowd.make_room(Some("web"), later), 1);
                assert!(is_ended(resting).await);
                assert!(!is_ended(working).await && !is_ended(elsewhere).await);
            })
            .await;
    }

    #[tokio::test]
    async fn the_largest_are_shed_first_and_seats_come_back() {
        tokio::task::LocalSet::new()
            .run_until(async {
                let crowd = Rc::new(Crowd::default());
                let (_a, small, little) = join(&crowd, "web");
                let (seat, large, much) = join(&crowd, "web");
                small.begin();
                (0..100).for_each(|_| large.begin());
                assert_eq!(crowd.shed(), 1);
                assert!(is_ended(much).await && !is_ended(little).await);
                assert!(large.is_shed() && !small.is_shed());
                drop(seat);
                assert_eq!(crowd.0.borrow().len(), 1);
            })
            .await;
    }
}
