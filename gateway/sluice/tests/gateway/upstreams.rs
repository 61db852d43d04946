//! Services behind the gateway: who is asked, who is not asked any more, over which connections.

mod again;
mod balance;
mod breaker;
mod budget;
mod compared;
mod dead;
mod ejection;
mod goodbyes;
mod health;
mod policies;
mod pool;
mod races;
mod remaining;
mod replay;
mod restarts;

use sluice_chaos::recorder::Recorder;

use crate::support::{Gateway, Setup};

/// A gateway with one upstream, in whose config `{0}`, `{1}` … stand for the recorders.
async fn start(workers: usize, upstream: &str, recorders: &[&Recorder]) -> Gateway {
    let mut upstream = upstream.to_owned();
    for (index, recorder) in recorders.iter().enumerate() {
        upstream = upstream.replace(&format!("{{{index}}}"), &recorder.addr().to_string());
    }
    let config =
        format!("upstreams: {{ up: {upstream} }}\nroutes: [ {{ id: up, upstream: up }} ]\n");
    Gateway::start_with(&config, Setup { workers: Some(workers), ..Setup::default() }).await
}

/// Requests that a recorder has got, health checks aside.
fn served(recorder: &Recorder) -> usize {
    recorder.requests().iter().filter(|request| request.target != "/health").count()
}

async fn closed(gateway: &Gateway, reason: &str) -> f64 {
    gateway.metric(&format!("sluice_pool_closed_total{{reason=\"{reason}\"}}")).await
}
