//! The calls of a batch under way: each begins when the answers it needs are there, so many at a time, until
//! the time of the batch is over. Dropped with the client, and all calls with it.

use std::collections::VecDeque;
use std::pin::Pin;
use std::rc::Rc;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use serde_json::Value;

use super::item::{self, Around, Done};
use super::plan::{Plan, WEIGHT};
use super::references::{Answers, Reference};
use super::weight;
use crate::base::clock;
use crate::base::fault::Fault;

/// How long calls have to say that their time is over.
const GRACE: Duration = Duration::from_millis(50);

type UnderWay = Pin<Box<dyn Future<Output = (usize, Done)>>>;

/// A batch.
pub(super) struct Run {
    plan: Plan,
    around: Rc<Around>,
    states: Vec<State>,
    under_way: FuturesUnordered<UnderWay>,
    /// Over without having been made.
    refused: VecDeque<(usize, Done)>,
    /// What answers may still weigh that are kept for others.
    room: usize,
}

enum State {
    Waits,
    UnderWay,
    /// With its answer, if others need that and can have it.
    Over(Option<Value>),
}

/// What references may find.
struct Known<'a>(&'a Plan, &'a [State]);

impl Answers for Known<'_> {
    fn find(&self, reference: &Reference) -> Option<&Value> {
        match self.1.get(*self.0.places.get(&reference.id)?)? {
            State::Over(Some(value)) => value.pointer(&reference.pointer),
            State::Over(None) | State::Waits | State::UnderWay => None,
        }
    }
}

impl Run {
    pub(super) fn new(plan: Plan, around: Around) -> Self {
        let states = plan.calls.iter().map(|_| State::Waits).collect();
        let (under_way, refused) = (FuturesUnordered::new(), VecDeque::new());
        let room = around.max_answer().saturating_mul(WEIGHT);
        Self { plan, around: Rc::new(around), states, under_way, refused, room }
    }

    pub(super) fn len(&self) -> usize {
        self.plan.calls.len()
    }

    /// What the client calls the call at this place.
    pub(super) fn id(&self, at: usize) -> &str {
        self.plan.calls.get(at).map_or("", |call| &call.id)
    }

    /// The next call that is over, with its place; `None` behind the last one.
    pub(super) async fn next(&mut self) -> Option<(usize, Done)> {
        loop {
            self.begin();
            if let Some((at, done)) = self.refused.pop_front() {
                return Some(self.note(at, done));
            }
            let until = clock::deadline(self.around.until.after(GRACE));
            match tokio::time::timeout_at(until, self.under_way.next()).await {
                Ok(Some((at, done))) => return Some(self.note(at, done)),
                Ok(None) => return None,
                Err(_) => self.give_up(),
            }
        }
    }

    /// Begins what can begin.
    fn begin(&mut self) {
        for (at, call) in self.plan.calls.iter().enumerate() {
            if self.under_way.len() >= self.around.parallel() {
                return;
            }
            if !matches!(self.states.get(at), Some(State::Waits)) {
                continue;
            }
            let over = |need: &usize| matches!(self.states.get(*need), Some(State::Over(_)));
            if !call.needs.iter().all(over) {
                continue;
            }
            match item::prepare(call, &Known(&self.plan, &self.states), &self.around) {
                Ok(made) => {
                    let around = Rc::clone(&self.around);
                    let made = async move { (at, item::make(&around, made).await) };
                    self.under_way.push(Box::pin(made));
                }
                Err(done) => self.refused.push_back((at, *done)),
            }
            if let Some(state) = self.states.get_mut(at) {
                *state = State::UnderWay;
            }
        }
    }

    /// The time is over: what is not there by now will not be waited for.
    fn give_up(&mut self) {
        self.under_way.clear();
        for (at, state) in self.states.iter_mut().enumerate() {
            if matches!(state, State::Waits | State::UnderWay) {
                *state = State::UnderWay;
                let done = Done::refused(&self.around, Fault::DeadlineExceeded, None);
                self.refused.push_back((at, done));
            }
        }
    }

    fn note(&mut self, at: usize, done: Done) -> (usize, Done) {
        let needed = self.plan.calls.get(at).is_some_and(|call| call.needed);
        let value = if needed { self.value(&done) } else { None };
        if let Some(state) = self.states.get_mut(at) {
            *state = State::Over(value);
        }
        self.around.count(&done);
        (at, done)
    }

    /// What others may refer to, if there is room to keep it.
    fn value(&mut self, done: &Done) -> Option<Value> {
        let left = self.room.checked_sub(weight::of(&done.body))?;
        let value = done.value()?;
        self.room = left;
        Some(value)
    }
}
