//! One request of a load: a connection from the pool or a new one, a response, and the count.
//!
//! The one rule: a request is sent a second time only when an idle connection broke before any byte
//! of an answer, and then on a new connection.

use std::{
    io::ErrorKind,
    net::SocketAddr,
    sync::Mutex,
    time::{Duration, Instant},
};

use super::{ERRORS, Plan, Tally};
use crate::{
    raw::{Response, read_response},
    wire::{self, Pipe},
};

/// What all requests of a load share.
pub(super) struct Range {
    addr: SocketAddr,
    method: String,
    bytes: Vec<u8>,
    keepalive: bool,
    deadline: Duration,
    /// Held for a few lines, never over an await.
    idle: Mutex<Vec<Pipe>>,
    /// Held for a few lines, never over an await.
    tally: Mutex<Tally>,
}

/// Why there is no whole response.
enum Miss {
    Refused,
    /// The connection broke before any byte of an answer.
    Unanswered,
    Other(String),
}

impl Range {
    pub(super) fn new(bytes: Vec<u8>, plan: &Plan) -> Self {
        Self {
            addr: plan.addr,
            method: plan.method.clone(),
            bytes,
            keepalive: plan.keepalive,
            deadline: plan.deadline,
            idle: Mutex::new(Vec::new()),
            tally: Mutex::new(Tally::default()),
        }
    }

    /// The numbers by now.
    pub(super) fn tally(&self, sent: u64) -> Tally {
        let mut tally = self.tally.lock().expect("no panic while it is held").clone();
        tally.sent = sent;
        tally.latencies.sort_unstable();
        tally
    }

    pub(super) fn fail(&self, error: String) {
        self.count(|tally| {
            tally.failed += 1;
            if tally.errors.len() < ERRORS {
                tally.errors.push(error);
            }
        });
    }

    /// Sends one request that was due at `due` and counts what came of it.
    pub(super) async fn shoot(&self, due: Instant) {
        let Ok(ended) = tokio::time::timeout(self.deadline, self.exchange()).await else {
            return self.fail(format!("no whole response within {:?}", self.deadline));
        };
        let latency = due.elapsed();
        match ended {
            Ok(response) => self.count(|tally| {
                tally.ok += u64::from((200..300).contains(&response.status));
                *tally.by_status.entry(response.status).or_default() += 1;
                tally.latencies.push(latency);
            }),
            Err(Miss::Refused) => self.count(|tally| tally.refused += 1),
            Err(Miss::Unanswered) => self.fail("closed before it had answered".to_owned()),
            Err(Miss::Other(error)) => self.fail(error),
        }
    }

    async fn exchange(&self) -> Result<Response, Miss> {
        if let Some(pipe) = self.take_idle() {
            match self.exchange_over(pipe).await {
                Err(Miss::Unanswered) => self.count(|tally| tally.reconnects += 1),
                ended => return ended,
            }
        }
        let stream = wire::connect(self.addr).await.map_err(|error| match error.kind() {
            ErrorKind::ConnectionRefused => Miss::Refused,
            _ => Miss::Other(format!("no connection: {error}")),
        })?;
        self.exchange_over(Pipe::new(Box::new(stream))).await
    }

    async fn exchange_over(&self, mut pipe: Pipe) -> Result<Response, Miss> {
        // A server that has answered without reading on breaks the sending and is heard all the
        // same.
        let sent = pipe.send(&self.bytes).await;
        let Some(response) = read_response(&mut pipe, &self.method).await else {
            let unanswered = pipe.is_drained();
            return Err(if unanswered {
                Miss::Unanswered
            } else {
                Miss::Other("closed within a response head".to_owned())
            });
        };
        if !response.complete {
            return Err(Miss::Other(format!("a response {} was cut", response.status)));
        }
        let reusable = sent.is_ok() && !response.announces_close() && !pipe.ended();
        if self.keepalive && reusable {
            self.idle.lock().expect("no panic while it is held").push(pipe);
        }
        Ok(response)
    }

    fn take_idle(&self) -> Option<Pipe> {
        self.idle.lock().expect("no panic while it is held").pop()
    }

    fn count(&self, count: impl FnOnce(&mut Tally)) {
        count(&mut self.tally.lock().expect("no panic while it is held"));
    }
}
