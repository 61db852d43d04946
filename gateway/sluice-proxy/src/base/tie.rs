//! What a request and whoever holds its future tell each other about a client that leaves: whether the
//! service has all of the request by then, and later that nobody waits for the answer any more. Both run on
//! one thread.
//!
//! The one rule: what was left may end what it has begun, and begins nothing more.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use super::body::Meter;
use super::clock::Moment;

/// Shared by a request that may go on without its client and its holder.
#[derive(Debug, Default)]
pub(crate) struct Tie {
    /// Until when the service that is being asked may answer; nothing while none is asked. Writer:
    /// `path::forward`.
    asked: Cell<Option<Moment>>,
    /// What is known of the body that it gets. Writer: `path::forward`.
    upload: RefCell<Option<Rc<Meter>>>,
    /// When the client left. Writer: `path::unattended`.
    left: Cell<Option<Moment>>,
}

impl Tie {
    /// A service is being asked, and may answer until then.
    pub(crate) fn ask(&self, until: Moment, upload: Option<Rc<Meter>>) {
        self.upload.replace(upload);
        self.asked.set(Some(until));
    }

    /// No service is being asked any more.
    pub(crate) fn rest(&self) {
        self.asked.set(None);
    }

    /// Until when a service may answer that has got all that the client had to say.
    pub(crate) fn answered_until(&self) -> Option<Moment> {
        let whole = self.upload.borrow().as_ref().is_none_or(|meter| meter.whole.get());
        self.asked.get().filter(|_| whole)
    }

    /// The client has left.
    pub(crate) fn leave(&self, now: Moment) {
        self.left.set(Some(now));
    }

    /// When it did.
    pub(crate) fn left(&self) -> Option<Moment> {
        self.left.get()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_who_has_all_of_the_request_can_end_it() {
        let (tie, meter, end) = (Tie::default(), Rc::<Meter>::default(), Moment::from_nanos(9));
        assert_eq!(tie.answered_until(), None, "nobody is asked");
        tie.ask(end, Some(Rc::clone(&meter)));
        assert_eq!(tie.answered_until(), None, "the body is on its way");
        meter.whole.set(true);
        assert_eq!(tie.answered_until(), Some(end));
        tie.rest();
        assert_eq!(tie.answered_until(), None, "the attempt is over");
        tie.ask(end, None);
        assert_eq!(tie.answered_until(), Some(end), "there is no body");
    }
}
