//! What a request passes because there are others: the gateway's own bulkhead, then its route's and its
//! upstream's, and the refusal when memory is short. Nothing here is asked of what the gateway answers
//! itself: health checks and refusals stay cheap and always come.

use std::time::Duration;

use http::{Response, StatusCode};
use sluice_engine::pressure::Stage;

use super::record::Record;
use super::remaining;
use crate::base::body::Body;
use crate::base::clock;
use crate::base::fault::Fault;
use crate::lasting::bulkhead::Place;
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

/// Refuses what leads to a service and has too little time left for it, before its filters do any work.
pub(super) fn refuse_if_doomed(record: &Record, route: &Route) -> Result<(), Fault> {
    let Some(deadline) = record.cx.deadline else { return Ok(()) };
    match route.upstream.as_deref().map(|upstream| &upstream.kind) {
        Some(Kind::Service(service))
            if remaining::is_doomed(Some(deadline), service.timeouts.floor.0, clock::now()) =>
        {
            Err(Fault::DeadlineExceeded)
        }
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
    let bounds = bounds(route, service, &view.settings.overload.requests);
    for (index, (bound, fault)) in bounds.into_iter().enumerate() {
        let Some(bound) = bound else { continue };
        let place = match bound.try_enter() {
            Some(place) => place,
            None => Box::pin(wait(record, route, bound, fault)).await?,
        };
        if let Some(slot) = record.places.get_mut(index) {
            *slot = Some(place);
        }
    }
    Ok(())
}

/// Takes a place of the service that is asked instead, for that of the one that has failed, and what else
/// the request needs and does not have. Nobody waits for it: there has been waiting enough.
pub(super) fn exchange(record: &mut Record, route: &Route, service: &Service) -> Result<(), Fault> {
    let view = std::rc::Rc::clone(&record.view);
    let bounds = bounds(route, service, &view.settings.overload.requests);
    for (index, (bound, fault)) in bounds.into_iter().enumerate() {
        let Some(slot) = record.places.get_mut(index) else { continue };
        if index == 0 {
            *slot = None;
        }
        let Some(bound) = bound.filter(|_| slot.is_none()) else { continue };
        match bound.try_enter() {
            Some(place) => *slot = Some(place),
            None => return Err(later(record, fault)),
        }
    }
    Ok(())
}

/// The bulkheads on the way to a service, the narrowest first.
fn bounds<'a>(
    route: &'a Route,
    service: &'a Service,
    gateway: &'a Bound,
) -> [(Option<&'a Bound>, Fault); 3] {
    [
        (service.bulkhead.as_ref(), Fault::BulkheadFull),
        (route.bulkhead.as_ref(), Fault::BulkheadFull),
        (Some(gateway), Fault::Overloaded),
    ]
}

async fn wait(
    record: &mut Record,
    route: &Route,
    bound: &Bound,
    fault: Fault,
) -> Result<Place, Fault> {
    let total = route.total.map(|total| record.cx.started.after(total));
    let limit = total.into_iter().chain(record.cx.deadline).min();
    match bound.enter(clock::now(), limit).await {
        Ok(place) => Ok(place),
        // Coming back would not help: the time was too short.
        Err(_) if limit.is_some_and(|limit| limit <= clock::now()) => Err(Fault::DeadlineExceeded),
        Err(_) => Err(later(record, fault)),
    }
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
