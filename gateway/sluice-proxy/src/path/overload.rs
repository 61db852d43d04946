//! What a request passes because there are others: the gateway's own bulkhead, then its route's and its
//! upstream's, and the refusal when memory is short. Nothing here is asked of what the gateway answers
//! itself: health checks and refusals stay cheap and always come.

use std::time::Duration;

use http::{Response, StatusCode};
use sluice_engine::pressure::Stage;

use super::record::Record;
use crate::base::body::Body;
use crate::base::clock;
use crate::base::fault::Fault;
use crate::parts::bulkhead::Bound;
use crate::parts::upstream::{Kind, Service};
use crate::snapshot::route::Route;

/// Refuses what leads to a service while memory is short, before its filters do any work.
pub(super) fn refuse_if_short(record: &mut Record, route: &Route) -> Result<(), Fault> {
    if record.worker.stage.get() < Stage::Refusing {
        return Ok(());
    }
    match route.upstream.as_deref().map(|upstream| &upstream.kind) {
        Some(Kind::Service(_)) => Err(later(record, Fault::MemoryShort)),
        _ => Ok(()),
    }
}

/// Takes the places that the request needs, waiting in line where that is allowed. The narrowest comes
/// first: who waits for a slow upstream must not hold a place of the whole gateway.
pub(super) async fn enter(
    record: &mut Record,
    route: &Route,
    service: &Service,
) -> Result<(), Fault> {
    let view = std::rc::Rc::clone(&record.view);
    let bounds = [
        (service.bulkhead.as_ref(), Fault::BulkheadFull),
        (route.bulkhead.as_ref(), Fault::BulkheadFull),
        (Some(&view.settings.overload.requests), Fault::Overloaded),
    ];
    for (index, (bound, fault)) in bounds.into_iter().enumerate() {
        let Some(bound) = bound else { continue };
        let place = match bound.try_enter() {
            Some(place) => place,
            None => Box::pin(wait(record, bound, service, fault)).await?,
        };
        if let Some(slot) = record.places.get_mut(index) {
            *slot = Some(place);
        }
    }
    Ok(())
}

async fn wait(
    record: &mut Record,
    bound: &Bound,
    service: &Service,
    fault: Fault,
) -> Result<crate::lasting::bulkhead::Place, Fault> {
    let limit = record.cx.started.after(service.timeouts.total.0);
    bound.enter(clock::now(), Some(limit)).await.map_err(|_| later(record, fault))
}

/// Streams and tunnels give their places back with the head of the answer: they last, and what they hold
/// is bounded by their connections.
pub(super) fn let_go(record: &mut Record, route: &Route, answer: &Result<Response<Body>, Fault>) {
    let switched = |answer: &Response<Body>| answer.status() == StatusCode::SWITCHING_PROTOCOLS;
    if route.streaming || answer.as_ref().is_ok_and(switched) {
        record.places = [None, None, None];
    }
}

/// Says when to come back: soon, but not all at once.
fn later(record: &mut Record, fault: Fault) -> Fault {
    record.cx.retry_after = Some(Duration::from_secs(fastrand::u64(1..=3)));
    fault
}
