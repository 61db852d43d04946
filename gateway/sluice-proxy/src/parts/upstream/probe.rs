//! Active health checks: asks every endpoint regularly and takes those out of use that do not answer
//! well. The verdict is kept with the address and survives reloads; the asking belongs to the current
//! compilation.
//!
//! How one question is asked is in `ask`. The one rule: every endpoint has its own times, so that one that
//! does not answer delays nobody else's verdict.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::{Arc, Weak};
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use schemars::JsonSchema;
use serde::Deserialize;

use super::endpoints::{Endpoint, EndpointSet};
use super::{Kind, Upstream};
use crate::base::clock::{self, Moment};
use crate::base::units::{Percent, Span};
use crate::base::yaml::Place;
use crate::lasting::link::{Checked, Protocol};
use crate::lasting::tasks::{self, Owned};
use crate::parts::env::Env;

mod ask;

use ask::{Question, Statuses, ask};

/// Questions that are on their way at a time, of one upstream.
const AT_ONCE: usize = 64;
/// A new address is noticed at least so often.
const LOOK: Duration = Duration::from_secs(1);

/// Regular questions to every endpoint: exactly one of `http`, `tcp` and `grpc`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Config {
    /// Path to ask with GET.
    #[serde(default)]
    http: Option<String>,
    /// `true`: it is well when it takes a connection.
    #[serde(default)]
    tcp: bool,
    /// Service to ask for by gRPC's own health protocol (`grpc.health.v1`), empty for all of the server; it
    /// is well when it says SERVING. Needs `protocol: http2`.
    #[serde(default)]
    grpc: Option<String>,
    /// `http`: statuses that are well, like `"204"` or `"200-299"`; `"200-399"` if not given.
    #[serde(default)]
    expect: Option<Vec<String>>,
    /// `http` and `grpc`: the host to ask for; the endpoint's own address if not given.
    #[serde(default)]
    host: Option<String>,
    /// Time between questions to one endpoint.
    #[serde(default = "default_interval")]
    interval: Span,
    /// The same while its answers speak against the verdict in force, so that it changes soon.
    #[serde(default = "default_fast_interval")]
    fast_interval: Span,
    /// How much longer or shorter these times are by chance.
    #[serde(default = "default_jitter")]
    jitter: Percent,
    /// How long an answer may take.
    #[serde(default = "default_timeout")]
    timeout: Span,
    /// Good answers in a row that bring an endpoint back.
    #[serde(default = "default_rise")]
    rise: u32,
    /// Bad answers in a row that take an endpoint out.
    #[serde(default = "default_fall")]
    fall: u32,
}

fn default_interval() -> Span {
    Span(Duration::from_secs(5))
}

fn default_fast_interval() -> Span {
    Span(Duration::from_secs(1))
}

fn default_jitter() -> Percent {
    Percent(10)
}

fn default_timeout() -> Span {
    Span(Duration::from_secs(2))
}

fn default_rise() -> u32 {
    2
}

fn default_fall() -> u32 {
    3
}

/// A compiled health check.
#[derive(Debug, Clone)]
pub(crate) struct Probe {
    question: Question,
    interval: Duration,
    fast_interval: Duration,
    jitter: Percent,
    timeout: Duration,
    rise: u32,
    fall: u32,
}

impl Config {
    pub(crate) fn build(
        &self,
        protocol: Protocol,
        at: &Place<'_>,
        env: &mut Env<'_>,
    ) -> Option<Probe> {
        let question = self.question(protocol, at, env);
        let fine = Duration::from_millis(50)..=Duration::from_secs(600);
        let mut whole = true;
        for (key, span) in [
            ("interval", self.interval),
            ("fast_interval", self.fast_interval),
            ("timeout", self.timeout),
        ] {
            if !fine.contains(&span.0) {
                whole = false;
                env.problems
                    .error(&at.field(key), format!("`{key}` must lie between 50ms and 10m"));
            }
        }
        for (key, count) in [("rise", self.rise), ("fall", self.fall)] {
            if count == 0 {
                whole = false;
                env.problems.error(&at.field(key), format!("`{key}` starts at 1"));
            }
        }
        whole.then_some(())?;
        Some(Probe {
            question: question?,
            interval: self.interval.0,
            fast_interval: self.fast_interval.0.min(self.interval.0),
            jitter: self.jitter,
            timeout: self.timeout.0,
            rise: self.rise,
            fall: self.fall,
        })
    }

    fn question(&self, protocol: Protocol, at: &Place<'_>, env: &mut Env<'_>) -> Option<Question> {
        let host = match &self.host {
            None => None,
            Some(host) => match host.parse::<http::uri::Authority>() {
                Ok(host) => Some(host),
                Err(_) => {
                    env.problems.error(&at.field("host"), format!("`{host}` is not a host"));
                    return None;
                }
            },
        };
        for (word, given, fits) in [
            ("expect", self.expect.is_some(), self.http.is_some()),
            ("host", self.host.is_some(), !self.tcp),
        ] {
            if given && !fits {
                env.problems
                    .error(&at.field(word), format!("`{word}` has no meaning for this question"));
                return None;
            }
        }
        match (&self.http, self.tcp, &self.grpc) {
            (Some(path), false, None) => {
                let all = vec!["200-399".to_owned()];
                let expect: Option<Vec<Statuses>> = self
                    .expect
                    .as_ref()
                    .unwrap_or(&all)
                    .iter()
                    .enumerate()
                    .map(|(index, text)| {
                        let statuses = Statuses::parse(text);
                        if statuses.is_none() {
                            env.problems
                                .error(
                                    &at.field("expect").index(index),
                                    format!("`{text}` is no status"),
                                )
                                .help(
                                    "write a status or a span of them, like \"204\" or \"200-399\"",
                                );
                        }
                        statuses
                    })
                    .collect();
                let path: Option<http::uri::PathAndQuery> =
                    path.starts_with('/').then(|| path.parse().ok()).flatten();
                if path.is_none() {
                    let wrong = self.http.as_deref().unwrap_or_default();
                    env.problems
                        .error(&at.field("http"), format!("`{wrong}` is not a path"))
                        .help("write the path to ask for, like /health");
                }
                Some(Question::Http { path: path?, host, expect: expect? })
            }
            (None, true, None) => Some(Question::Tcp),
            (None, false, Some(service)) => {
                if protocol != Protocol::Http2 {
                    env.problems
                        .error(&at.field("grpc"), "gRPC is spoken over HTTP/2 only")
                        .help("set `protocol: http2` for this upstream");
                    return None;
                }
                if service.len() > ask::MAX_SERVICE {
                    env.problems.error(&at.field("grpc"), "a service's name has at most 127 bytes");
                    return None;
                }
                Some(Question::Grpc { service: service.clone(), host })
            }
            _ => {
                env.problems
                    .error(at, "a health check needs exactly one of `http`, `tcp` and `grpc`")
                    .help("write `http: /health`, `tcp: true`, or `grpc: \"\"`");
                None
            }
        }
    }
}

/// Starts asking.
pub(crate) fn watch(upstream: &Arc<Upstream>) {
    let Kind::Service(service) = &upstream.kind else { return };
    let Some(probe) = service.health_check.clone() else {
        // Without a check nobody would ever bring back what an earlier one took out.
        for endpoint in &service.endpoints.load().endpoints {
            endpoint.target.set_up(true);
            endpoint.target.note_check(None);
        }
        return;
    };
    let weak = Arc::downgrade(upstream);
    let asking =
        tasks::supervise("health_check", move || rounds(Weak::clone(&weak), probe.clone()));
    let task = Owned::new(tasks::control(asking));
    if let Ok(mut background) = service.background.lock() {
        background.push(task);
    }
}

/// One endpoint's place in the rounds.
struct Turn {
    /// When it is asked next; `None` while it is.
    due: Option<Moment>,
    /// Answers in a row that differ from the verdict in force.
    against: u32,
    since: Moment,
}

/// What came of a question to an endpoint of this link; no answer if that says nothing.
type Asked = (Arc<EndpointSet>, usize, Option<Result<(), String>>);
type Asking = FuturesUnordered<Pin<Box<dyn Future<Output = Asked> + Send>>>;

async fn rounds(upstream: Weak<Upstream>, probe: Probe) {
    let probe = Arc::new(probe);
    let mut turns: HashMap<u64, Turn> = HashMap::new();
    let mut asking = Asking::new();
    loop {
        let Some(current) = upstream.upgrade() else { return };
        let Kind::Service(service) = &current.kind else { return };
        let set = service.endpoints.load_full();
        let now = clock::now();
        turns.retain(|id, _| set.endpoints.iter().any(|endpoint| endpoint.link.id == *id));
        let mut next = now.after(LOOK);
        for (index, endpoint) in set.endpoints.iter().enumerate() {
            let new = || Turn { due: Some(now), against: 0, since: now };
            let turn = turns.entry(endpoint.link.id).or_insert_with(new);
            match turn.due {
                Some(due) if due <= now && asking.len() < AT_ONCE => {
                    turn.due = None;
                    let (set, probe) = (Arc::clone(&set), Arc::clone(&probe));
                    asking.push(Box::pin(async move {
                        let answer = match set.endpoints.get(index) {
                            Some(endpoint) => ask(endpoint, &probe.question, probe.timeout).await,
                            None => None,
                        };
                        (set, index, answer)
                    }));
                }
                Some(due) => next = next.min(due),
                None => {}
            }
        }
        drop((set, current));
        let pause = tokio::time::sleep_until(clock::deadline(next));
        let full = asking.len() >= AT_ONCE;
        tokio::select! {
            Some((set, index, answer)) = asking.next(), if !asking.is_empty() => {
                let Some(current) = upstream.upgrade() else { return };
                if let Some(endpoint) = set.endpoints.get(index)
                    && let Some(turn) = turns.get_mut(&endpoint.link.id)
                {
                    let now = clock::now();
                    if let Some(answer) = answer {
                        judge(&current.name, endpoint, answer, &probe, turn, now);
                    }
                    turn.due = Some(now.after(probe.pause(turn.against > 0)));
                }
            }
            () = pause, if !full => {}
        }
    }
}

impl Probe {
    /// The time to the next question.
    fn pause(&self, hurried: bool) -> Duration {
        let pause = if hurried { self.fast_interval } else { self.interval };
        let part = f64::from(self.jitter.0) / 100.0;
        pause.mul_f64(1.0 - part + 2.0 * part * fastrand::f64())
    }
}

fn judge(
    upstream: &str,
    endpoint: &Endpoint,
    answer: Result<(), String>,
    probe: &Probe,
    turn: &mut Turn,
    now: Moment,
) {
    let target = &endpoint.target;
    let up = target.is_up();
    turn.against = if answer.is_ok() == up { 0 } else { turn.against.saturating_add(1) };
    let needed = if up { probe.fall } else { probe.rise };
    if turn.against >= needed {
        turn.against = 0;
        turn.since = now;
        target.set_up(!up);
        match &answer {
            Ok(()) => {
                target.came(now);
                tracing::info!(upstream, endpoint = %endpoint.label, "healthy again");
            }
            Err(why) => {
                tracing::warn!(upstream, endpoint = %endpoint.label, why, "unhealthy; taken out of use");
            }
        }
    }
    // A verdict that an earlier config came to is older than this one's first question.
    let since = target.checked().map_or(turn.since, |before| before.since.min(turn.since));
    let since = if target.is_up() == up { since } else { now };
    let answer = answer.err().unwrap_or_else(|| "well".to_owned());
    target.note_check(Some(Checked { since, asked: now, answer, against: turn.against }));
}
