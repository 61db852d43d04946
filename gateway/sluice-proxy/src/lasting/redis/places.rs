//! Requests in progress that all gateways count together. Each has a place in Redis under a name of its own
//! and for a lease; its gateway renews it while the request lasts, so the places of one that died are free
//! again when their leases end.
//!
//! A place is held here whether Redis has said so or not: what was let in while Redis was gone is taken
//! there when it is back, and a command whose answer was lost does no harm.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::counting::Command;
use super::resp::Reply;
use super::{Client, Name, Target, name};
use crate::base::clock::{self, Moment};

/// Places that are renewed by one command.
const AT_ONCE: usize = 100;

/// A request's place; dropping it gives it back.
pub(crate) struct Place {
    client: Weak<Client>,
    number: u64,
}

/// What Redis said of a place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Entry {
    /// It is taken, and so many were before it.
    Taken(u64),
    /// All are taken.
    Full,
}

/// The places of a worker.
#[derive(Default)]
pub(super) struct Held(RefCell<HashMap<u64, Seat>>);

struct Seat {
    key: Name,
    name: Box<[u8]>,
    lease: Duration,
    /// When it was taken or renewed last.
    at: Moment,
}

impl Target {
    /// Asks for one of `limit` places of `key`. The place is to be held as long as the request lasts also
    /// when Redis cannot say, unless it says that all are taken.
    pub(crate) async fn enter(
        self: &Arc<Self>,
        limit: &str,
        key: &[u8],
        places: u64,
        lease: Duration,
    ) -> (Option<Entry>, Place) {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let (client, key) = (self.client(), name(b'p', limit, key));
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let own: Box<[u8]> = format!("{}:{number}", self.own).into_bytes().into();
        let seat = Seat { key, name: own.clone(), lease, at: clock::now() };
        // Held before it is asked for: if the client leaves meanwhile, it is given back all the same.
        client.places.0.borrow_mut().insert(number, seat);
        let place = Place { client: Rc::downgrade(&client), number };
        let reply = self.ask(&self.scripts.enter(&key, &own, places, lease)).await;
        let told = reply.as_ref().map_or(&[][..], Reply::items);
        let entry = match told.iter().map(Reply::number).collect::<Vec<_>>()[..] {
            [Some(1), _, Some(taken)] => Some(Entry::Taken(taken)),
            [Some(0), ..] => {
                // There is nothing to give back.
                client.places.0.borrow_mut().remove(&number);
                Some(Entry::Full)
            }
            _ => None,
        };
        (entry, place)
    }
}

/// A place to renew: its number here and its name in Redis.
type Due = (u64, Box<[u8]>);

impl Held {
    /// Renews the places whose leases are a third over.
    pub(super) async fn renew(&self, target: &Arc<Target>) {
        let now = clock::now();
        let mut due: HashMap<(Name, Duration), Vec<Due>> = HashMap::new();
        for (number, seat) in &*self.0.borrow() {
            if now.saturating_since(seat.at) >= seat.lease / 3 {
                due.entry((seat.key, seat.lease)).or_default().push((*number, seat.name.clone()));
            }
        }
        for ((key, lease), seats) in due {
            for seats in seats.chunks(AT_ONCE) {
                let names = seats.iter().map(|(_, name)| &**name);
                if target.ask(&target.scripts.renew(&key, names, lease)).await.is_none() {
                    // Tried again with the next beat.
                    continue;
                }
                let mut held = self.0.borrow_mut();
                for (number, _) in seats {
                    if let Some(seat) = held.get_mut(number) {
                        seat.at = now;
                    }
                }
            }
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let Some(client) = self.client.upgrade() else { return };
        let Some(seat) = client.places.0.borrow_mut().remove(&self.number) else { return };
        let Some(target) = client.target.upgrade() else { return };
        // If it does not arrive, the lease ends it.
        client.tell(&target, &Command::leave(&seat.key, &seat.name));
    }
}
