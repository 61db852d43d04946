//! Values by name in this process, each for its time. The one rule: there are never more than
//! [`CAPACITY`]; a new one takes the place of the one that would go first.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::base::clock::Moment;

/// Values at most.
const CAPACITY: usize = 50_000;

/// Held for a few lines, never over an await.
#[derive(Default)]
pub(crate) struct Shelf(Mutex<Values>);

#[derive(Default)]
struct Values {
    by_name: HashMap<String, (Moment, Vec<u8>)>,
    /// When each ends, the first one first.
    ends: BTreeSet<(Moment, String)>,
}

impl Shelf {
    pub(crate) fn get(&self, name: &str, now: Moment) -> Option<Vec<u8>> {
        let mut values = self.lock();
        values.expire(now);
        values.by_name.get(name).map(|(_, value)| value.clone())
    }

    pub(crate) fn touch(&self, name: &str, now: Moment, life: Duration) -> Option<Vec<u8>> {
        let mut values = self.lock();
        values.expire(now);
        let (_, value) = values.by_name.get(name)?;
        let value = value.clone();
        values.put(name, value.clone(), now.after(life));
        Some(value)
    }

    pub(crate) fn put(&self, name: &str, value: Vec<u8>, now: Moment, life: Duration) {
        let mut values = self.lock();
        values.expire(now);
        values.put(name, value, now.after(life));
    }

    pub(crate) fn put_new(&self, name: &str, value: Vec<u8>, now: Moment, life: Duration) -> bool {
        let mut values = self.lock();
        values.expire(now);
        let new = !values.by_name.contains_key(name);
        if new {
            values.put(name, value, now.after(life));
        }
        new
    }

    pub(crate) fn swap(
        &self,
        name: &str,
        old: &[u8],
        value: Vec<u8>,
        now: Moment,
        life: Duration,
    ) -> bool {
        let mut values = self.lock();
        values.expire(now);
        let same = values.by_name.get(name).is_some_and(|(_, stands)| stands == old);
        if same {
            values.put(name, value, now.after(life));
        }
        same
    }

    pub(crate) fn remove(&self, name: &str) {
        self.lock().remove(name);
    }

    fn lock(&self) -> MutexGuard<'_, Values> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Values {
    fn put(&mut self, name: &str, value: Vec<u8>, ends: Moment) {
        self.remove(name);
        while self.by_name.len() >= CAPACITY
            && let Some((_, first)) = self.ends.pop_first()
        {
            self.by_name.remove(&first);
        }
        self.by_name.insert(name.to_owned(), (ends, value));
        self.ends.insert((ends, name.to_owned()));
    }

    fn remove(&mut self, name: &str) {
        if let Some((ends, _)) = self.by_name.remove(name) {
            self.ends.remove(&(ends, name.to_owned()));
        }
    }

    fn expire(&mut self, now: Moment) {
        while self.ends.first().is_some_and(|(ends, _)| *ends <= now)
            && let Some((_, name)) = self.ends.pop_first()
        {
            self.by_name.remove(&name);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Moment {
        Moment::default().after(Duration::from_secs(seconds))
    }

    const LIFE: Duration = Duration::from_secs(10);

    #[test]
    fn values_live_for_their_time_and_are_swapped_only_if_unchanged() {
        let shelf = Shelf::default();
        assert!(shelf.put_new("a", vec![1], at(0), LIFE));
        assert!(!shelf.put_new("a", vec![2], at(9), LIFE));
        assert_eq!(shelf.get("a", at(10)), None);
        assert!(shelf.put_new("a", vec![2], at(10), LIFE));
        assert!(!shelf.swap("a", &[1], vec![3], at(11), LIFE));
        assert!(shelf.swap("a", &[2], vec![3], at(11), LIFE));
        assert_eq!(shelf.touch("a", at(20), LIFE), Some(vec![3]));
        assert_eq!(shelf.get("a", at(29)), Some(vec![3]));
        shelf.remove("a");
        assert_eq!(shelf.get("a", at(29)), None);
    }

    #[test]
    fn there_is_room_for_so_many() {
        let shelf = Shelf::default();
        for n in 0..CAPACITY as u64 + 10 {
            shelf.put(&n.to_string(), Vec::new(), at(0), Duration::from_secs(100 + n));
        }
        let values = shelf.lock();
        assert_eq!((values.by_name.len(), values.ends.len()), (CAPACITY, CAPACITY));
        assert!(!values.by_name.contains_key("9") && values.by_name.contains_key("10"));
    }
}
