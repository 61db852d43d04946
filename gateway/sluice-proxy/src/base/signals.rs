//! What the parts of an HTTP/1 connection tell each other while hyper stands between them: the gate
//! that reads the stream, the service that is given requests, and the watchdog. All of them run on one
//! thread; the cells are atomic only because a stream must be able to move to a tunnel. The one rule:
//! whoever passes a head on to hyper counts it here, and whoever is given its request takes it off.

use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU16, AtomicU32, Ordering};

use super::fault::Fault;

/// Signals of one connection.
#[derive(Debug, Default)]
pub(crate) struct Signals {
    /// Heads passed on of which hyper has made no request yet.
    passed: AtomicU32,
    /// Why the last head passed on is only a stand-in: its fault's position plus one.
    refused: AtomicU16,
    /// Whether the head that is being read has taken too long.
    overdue: AtomicBool,
    /// Whether bytes of a body are still to come.
    body: AtomicBool,
    /// Whether the answer under way will switch protocols.
    switching: AtomicU8,
    /// Whether hyper is being taken down without the stream.
    parking: AtomicBool,
    /// Whether the stream's writing side has been closed.
    closed: AtomicBool,
}

const NEVER_ASKED: u8 = 0;
const UNDECIDED: u8 = 1;
const STAYS: u8 = 2;
const STAYED: u8 = 3;
const SWITCHES: u8 = 4;

// === Heads ===

impl Signals {
    /// A head goes to hyper; `refused` if it stands for one that may not be seen by anybody.
    pub(crate) fn pass(&self, refused: Option<Fault>) {
        self.passed.store(self.passed.load(Ordering::Relaxed).wrapping_add(1), Ordering::Relaxed);
        if let Some(place) = refused.and_then(|fault| u16::try_from(fault.index() + 1).ok()) {
            self.refused.store(place, Ordering::Relaxed);
        }
    }

    /// A request was made of a head; the fault to answer it with, if it is a stand-in. Nothing is passed
    /// on behind a stand-in, so it is the last.
    pub(crate) fn take(&self) -> Option<Fault> {
        let left = self.passed.load(Ordering::Relaxed).saturating_sub(1);
        self.passed.store(left, Ordering::Relaxed);
        if left > 0 {
            return None;
        }
        let place = usize::from(self.refused.load(Ordering::Relaxed)).checked_sub(1)?;
        Fault::ALL.get(place).copied()
    }

    /// Whether hyper holds nothing that it has not made a request of, and waits for no body. A hyper that
    /// was ever offered another protocol would hand over the stream instead of giving it back.
    pub(crate) fn is_between_requests(&self) -> bool {
        self.passed.load(Ordering::Relaxed) == 0
            && !self.body.load(Ordering::Relaxed)
            && self.switching.load(Ordering::Relaxed) == NEVER_ASKED
    }

    pub(crate) fn set_overdue(&self) {
        self.overdue.store(true, Ordering::Relaxed);
    }

    pub(crate) fn is_overdue(&self) -> bool {
        self.overdue.load(Ordering::Relaxed)
    }

    pub(crate) fn set_body(&self, expected: bool) {
        self.body.store(expected, Ordering::Relaxed);
    }
}

// === Switches of protocols ===

impl Signals {
    /// A head was passed on behind which there may be no more HTTP.
    pub(crate) fn ask_to_switch(&self) {
        self.switching.store(UNDECIDED, Ordering::Relaxed);
    }

    /// The service has answered.
    pub(crate) fn answered(&self, switches: bool) {
        if self.switching.load(Ordering::Relaxed) == UNDECIDED
            && self.passed.load(Ordering::Relaxed) == 0
        {
            self.switching.store(if switches { SWITCHES } else { STAYS }, Ordering::Relaxed);
        }
    }

    /// Whether the protocol was switched, once that is known.
    pub(crate) fn switched(&self) -> Option<bool> {
        match self.switching.load(Ordering::Relaxed) {
            UNDECIDED => None,
            SWITCHES => Some(true),
            _ => Some(false),
        }
    }

    /// Whether it has just become known that there is more HTTP to read.
    pub(crate) fn take_stay(&self) -> bool {
        let stays = self.switching.load(Ordering::Relaxed) == STAYS;
        if stays {
            self.switching.store(STAYED, Ordering::Relaxed);
        }
        stays
    }
}

// === The stream ===

impl Signals {
    pub(crate) fn set_parking(&self, parking: bool) {
        self.parking.store(parking, Ordering::Relaxed);
    }

    pub(crate) fn is_parking(&self) -> bool {
        self.parking.load(Ordering::Relaxed)
    }

    pub(crate) fn close(&self) {
        self.closed.store(true, Ordering::Relaxed);
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_last_head_is_a_stand_in() {
        let signals = Signals::default();
        signals.pass(None);
        signals.pass(Some(Fault::HeadMalformed));
        assert!(!signals.is_between_requests());
        assert_eq!(signals.take(), None);
        assert_eq!(signals.take(), Some(Fault::HeadMalformed));
        assert!(signals.is_between_requests());
    }

    #[test]
    fn an_earlier_answer_does_not_decide_a_switch() {
        let signals = Signals::default();
        signals.pass(None);
        signals.pass(None);
        signals.ask_to_switch();
        signals.take();
        signals.answered(false);
        assert_eq!(signals.switched(), None);
        signals.take();
        signals.answered(false);
        assert_eq!(signals.switched(), Some(false));
        assert!(signals.take_stay() && !signals.take_stay());
        assert!(!signals.is_between_requests(), "hyper would let go of the stream");
    }
}
