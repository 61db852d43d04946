//! A value that peers change and tests wait upon.
//!
//! The one rule: the lock is held for the length of a closure, so closures neither block nor await.

use tokio::sync::watch;

use crate::ground::DEADLINE;

/// A shared value whose changes can be awaited.
#[derive(Debug)]
pub(crate) struct Watched<T>(watch::Sender<T>);

impl<T> Watched<T> {
    pub(crate) fn new(value: T) -> Self {
        Self(watch::Sender::new(value))
    }

    pub(crate) fn change<R>(&self, change: impl FnOnce(&mut T) -> R) -> R {
        let mut result = None;
        self.0.send_modify(|value| result = Some(change(value)));
        result.expect("the closure has run")
    }

    pub(crate) fn look<R>(&self, look: impl FnOnce(&T) -> R) -> R {
        look(&self.0.borrow())
    }

    /// Waits until `count` reaches at least `wanted`.
    pub(crate) async fn reaches(&self, wanted: u64, what: &str, count: impl Fn(&T) -> u64) {
        let ready = |seen| seen >= wanted;
        self.until(&format!("{wanted} {what}"), count, ready, DEADLINE).await;
    }

    /// Waits until `count` is exactly `wanted`.
    pub(crate) async fn settles(&self, wanted: u64, what: &str, count: impl Fn(&T) -> u64) {
        let ready = |seen| seen == wanted;
        self.until(&format!("exactly {wanted} {what}"), count, ready, DEADLINE).await;
    }

    async fn until(
        &self,
        what: &str,
        count: impl Fn(&T) -> u64,
        ready: impl Fn(u64) -> bool,
        limit: std::time::Duration,
    ) {
        let mut changes = self.0.subscribe();
        let waited = tokio::time::timeout(limit, changes.wait_for(|value| ready(count(value))));
        // The guard must not live into the panic below, which looks at the value again.
        let late = waited.await.is_err();
        if late {
            let seen = self.look(&count);
            panic!("waited {limit:?} in vain for {what}, saw {seen}");
        }
    }
}

impl<T: Clone> Watched<Vec<T>> {
    pub(crate) fn push(&self, item: T) {
        self.change(|items| items.push(item));
    }

    pub(crate) fn all(&self) -> Vec<T> {
        self.look(Clone::clone)
    }

    /// Everything, once there are at least `wanted` of them.
    pub(crate) async fn all_of(&self, wanted: usize, what: &str) -> Vec<T> {
        self.reaches(wanted as u64, what, |items| items.len() as u64).await;
        self.all()
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::Arc, time::Duration};

    use super::*;

    #[tokio::test]
    async fn waiting_sees_changes_of_another_thread() {
        let list = Arc::new(Watched::new(Vec::new()));
        let writer = Arc::clone(&list);
        std::thread::spawn(move || (0..3).for_each(|n| writer.push(n)));
        assert_eq!(list.all_of(3, "numbers").await, [0, 1, 2]);
        list.settles(3, "numbers", |items| items.len() as u64).await;
    }

    #[tokio::test]
    #[should_panic(expected = "in vain for 2 knocks, saw 1")]
    async fn waiting_in_vain_says_what_was_seen() {
        let knocks = Watched::new(1);
        knocks.until("2 knocks", |seen| *seen, |seen| seen >= 2, Duration::from_millis(10)).await;
    }
}
