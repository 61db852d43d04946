//! How long an answer is waited for. Ordinary requests have a moment at which patience ends; requests
//! of streaming routes may go on for as long as something moves.

use std::rc::Rc;
use std::time::Duration;

use crate::base::body::Meter;
use crate::base::clock::{self, Moment};
use crate::base::deadline::until;

/// Largest pause of a streaming route.
pub(super) const STREAM_IDLE: Duration = Duration::from_secs(300);

/// When waiting ends.
pub(super) enum Patience {
    /// At this moment.
    Until(Moment),
    /// When neither an answer has come nor the upload has moved for [`STREAM_IDLE`].
    WhileMoving(Option<Rc<Meter>>),
}

impl Patience {
    /// Waits for `step` until patience ends.
    pub(super) async fn wait<F: Future>(&self, step: F) -> Option<F::Output> {
        let meter = match self {
            Self::Until(limit) => return until(*limit, step).await,
            Self::WhileMoving(meter) => meter.as_deref(),
        };
        let mut step = std::pin::pin!(step);
        let mut last = clock::now();
        loop {
            if let Some(output) = until(last.after(STREAM_IDLE), step.as_mut()).await {
                return Some(output);
            }
            match meter.map(|meter| meter.moved.get()) {
                Some(moved) if moved > last => last = moved,
                _ => return None,
            }
        }
    }
}
