//! Room for so many at a time who do something that should not take long. When it is full, a newcomer
//! takes the place of the one who has been there for the longest, if that one has had time enough; else
//! nobody enters. So those who dawdle cannot keep others out, and a crowd does not undo all its work.

use std::cell::RefCell;
use std::collections::{HashMap, VecDeque};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;

use super::clock::Moment;

/// Rooms by name; one exists as long as somebody is in it.
#[derive(Debug, Default)]
pub(crate) struct Rooms(Rc<RefCell<HashMap<Arc<str>, Room>>>);

/// Who is inside, the longest first.
#[derive(Debug, Default)]
struct Room {
    inside: VecDeque<Guest>,
    next: u64,
}

#[derive(Debug)]
struct Guest {
    id: u64,
    since: Moment,
    out: Rc<Notify>,
}

/// A place in a room, given back when dropped.
#[derive(Debug)]
pub(crate) struct Place {
    rooms: Rc<RefCell<HashMap<Arc<str>, Room>>>,
    name: Arc<str>,
    id: u64,
    out: Rc<Notify>,
}

impl Rooms {
    /// A place among `most`; nothing if all are taken and nobody has been there for `enough`.
    pub(crate) fn enter(
        &self,
        name: &Arc<str>,
        most: usize,
        enough: Duration,
        now: Moment,
    ) -> Option<Place> {
        let mut rooms = self.0.borrow_mut();
        let room = rooms.entry(Arc::clone(name)).or_default();
        if room.inside.len() >= most {
            let longest = room.inside.front()?;
            if now.saturating_since(longest.since) < enough {
                return None;
            }
            room.inside.pop_front()?.out.notify_one();
        }
        let (id, out) = (room.next, Rc::new(Notify::new()));
        room.next += 1;
        room.inside.push_back(Guest { id, since: now, out: Rc::clone(&out) });
        Some(Place { rooms: Rc::clone(&self.0), name: Arc::clone(name), id, out })
    }
}

impl Place {
    /// Waits until the place is needed for somebody else.
    pub(crate) async fn needed(&self) {
        self.out.notified().await;
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut rooms = self.rooms.borrow_mut();
        let Some(room) = rooms.get_mut(&self.name) else { return };
        if let Ok(at) = room.inside.binary_search_by_key(&self.id, |guest| guest.id) {
            room.inside.remove(at);
        }
        if room.inside.is_empty() {
            rooms.remove(&self.name);
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    const ENOUGH: Duration = Duration::from_secs(1);

    fn at(millis: u64) -> Moment {
        Moment::from_nanos(millis * 1_000_000)
    }

    #[test]
    fn a_full_room_takes_nobody_until_somebody_leaves() {
        let (rooms, name) = (Rooms::default(), "a".into());
        let first = rooms.enter(&name, 2, ENOUGH, at(0)).unwrap();
        let _second = rooms.enter(&name, 2, ENOUGH, at(1)).unwrap();
        assert!(rooms.enter(&name, 2, ENOUGH, at(999)).is_none());
        assert!(rooms.enter(&"b".into(), 2, ENOUGH, at(999)).is_some(), "another room");
        drop(first);
        assert!(rooms.enter(&name, 2, ENOUGH, at(999)).is_some());
    }

    #[test]
    fn who_has_had_time_enough_gives_way() {
        let (rooms, name) = (Rooms::default(), "a".into());
        let places: Vec<Place> =
            (0..3).map(|n| rooms.enter(&name, 3, ENOUGH, at(n)).unwrap()).collect();
        let _new = rooms.enter(&name, 3, ENOUGH, at(1_000)).unwrap();
        let told: Vec<bool> =
            places.iter().map(|place| place.needed().now_or_never().is_some()).collect();
        assert_eq!(told, [true, false, false]);
        assert!(rooms.enter(&name, 3, ENOUGH, at(1_000)).is_none());
        drop(places);
        assert_eq!(rooms.0.borrow()["a"].inside.len(), 1);
    }

    #[test]
    fn empty_rooms_are_forgotten() {
        let rooms = Rooms::default();
        drop(rooms.enter(&"a".into(), 1, ENOUGH, at(0)));
        assert!(rooms.0.borrow().is_empty());
    }
}
