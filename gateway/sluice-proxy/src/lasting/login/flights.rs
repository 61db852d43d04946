//! Exchanges under way, by a digest of app and code: whoever comes with the same code waits for the same
//! answer, on whichever worker. The one rule: an exchange belongs to nobody who waits for it, so that a
//! client that goes away does not waste a code.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::watch;

use crate::base::fault::Fault;

/// A digest of app and code.
pub(crate) type Key = [u8; 32];

/// Why nobody was logged in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Refused {
    pub(crate) fault: Fault,
    pub(crate) retry_after: Option<Duration>,
}

/// How it ended: the answer's body, or why there is none.
pub(crate) type Settled = Result<Bytes, Refused>;

/// What is waited for; nothing while it is under way.
pub(crate) type Landing = watch::Receiver<Option<Settled>>;

/// Held for a few lines, never over an await.
#[derive(Default)]
pub(crate) struct Flights(Mutex<HashMap<Key, Landing>>);

/// An exchange that somebody has to make. Dropped, it was given up.
pub(crate) struct Flight {
    flights: Arc<Flights>,
    key: Key,
    landed: watch::Sender<Option<Settled>>,
}

/// Exchanges under way at most; beyond it nobody logs in.
const MOST: usize = 20_000;

impl From<Fault> for Refused {
    fn from(fault: Fault) -> Self {
        Self { fault, retry_after: None }
    }
}

impl Flights {
    /// What to wait for, and the exchange to make, if nobody makes it yet. `None` if too many are under way.
    pub(crate) fn join(self: &Arc<Self>, key: Key) -> Option<(Landing, Option<Flight>)> {
        let mut flights = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(landing) = flights.get(&key) {
            return Some((landing.clone(), None));
        }
        if flights.len() >= MOST {
            return None;
        }
        let (landed, landing) = watch::channel(None);
        flights.insert(key, landing.clone());
        Some((landing, Some(Flight { flights: Arc::clone(self), key, landed })))
    }
}

impl Flight {
    /// Tells everybody who waits.
    pub(crate) fn land(self, settled: Settled) {
        self.landed.send_replace(Some(settled));
    }
}

impl Drop for Flight {
    fn drop(&mut self) {
        self.flights.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_same_code_is_one_flight_and_the_next_one_another() {
        let flights = Arc::new(Flights::default());
        let (mut first, flight) = flights.join([1; 32]).unwrap();
        let (mut second, none) = flights.join([1; 32]).unwrap();
        assert!(none.is_none());
        assert!(flights.join([2; 32]).unwrap().1.is_some());
        flight.unwrap().land(Ok(Bytes::from_static(b"x")));
        for landing in [&mut first, &mut second] {
            let settled = landing.wait_for(Option::is_some).await.unwrap().clone();
            assert_eq!(settled, Some(Ok(Bytes::from_static(b"x"))));
        }
        assert!(flights.join([1; 32]).unwrap().1.is_some());
    }

    #[tokio::test]
    async fn who_waits_for_a_flight_that_was_given_up_is_told() {
        let flights = Arc::new(Flights::default());
        let (mut landing, flight) = flights.join([1; 32]).unwrap();
        drop(flight);
        assert!(landing.wait_for(Option::is_some).await.is_err());
    }
}
