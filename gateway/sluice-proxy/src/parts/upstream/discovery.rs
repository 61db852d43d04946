//! Follows host names: resolves each again when its time to live has passed, and keeps the last good
//! answer for as long as there is no better one. Runs on the control plane; the request path only
//! ever reads a finished set.

use std::sync::Arc;
use std::time::Duration;

use hickory_resolver::TokioResolver;
use schemars::JsonSchema;
use serde::Deserialize;

use super::{Kind, Upstream};
use crate::base::clock;
use crate::base::yaml::Place;
pub(crate) use crate::lasting::resolver::Settings;
use crate::lasting::resolver::{RETRY, TTL};
use crate::lasting::retained::Retained;
use crate::lasting::tasks::{self, Owned};
use crate::parts::env::Env;

/// How long start-up and reload wait for names before they go on without them.
const FIRST: Duration = Duration::from_secs(2);

/// How host names of endpoints are resolved.
#[derive(Debug, Default, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Config {
    /// Name servers as `address:port`; the system's (`/etc/resolv.conf`) if there are none.
    #[serde(default)]
    nameservers: Vec<String>,
}

impl Config {
    pub(crate) fn build(&self, at: &Place<'_>, env: &mut Env<'_>) -> Option<Settings> {
        let mut nameservers = Vec::new();
        for (index, text) in self.nameservers.iter().enumerate() {
            match text.parse() {
                Ok(address) => nameservers.push(address),
                Err(_) => {
                    env.problems
                        .error(
                            &at.field("nameservers").index(index),
                            format!("`{text}` is not address:port"),
                        )
                        .help("write an IP address with its port, like 10.0.0.53:53");
                }
            }
        }
        (nameservers.len() == self.nameservers.len()).then_some(Settings { nameservers })
    }
}

/// Starts following the names of all upstreams, and waits a little for the first answers, so that a
/// fresh start does not refuse its first requests.
pub(crate) async fn follow(
    upstreams: impl Iterator<Item = Arc<Upstream>>,
    settings: &Settings,
    retained: &Arc<Retained>,
) {
    let mut resolver = None;
    let mut first = Vec::new();
    for upstream in upstreams {
        let Kind::Service(service) = &upstream.kind else { continue };
        for name in service.plan.names() {
            let resolver = match &resolver {
                Some(resolver) => Arc::clone(resolver),
                None => match settings.resolver() {
                    Ok(built) => Arc::clone(resolver.insert(Arc::new(built))),
                    Err(error) => {
                        tracing::error!(%error, "no name resolution");
                        return;
                    }
                },
            };
            let (answered, answer) = tokio::sync::oneshot::channel();
            first.push(answer);
            let (weak, retained) = (Arc::downgrade(&upstream), Arc::clone(retained));
            let mut answered = Some(answered);
            let task = tasks::supervise("resolve", move || {
                let weak = std::sync::Weak::clone(&weak);
                let (resolver, retained) = (Arc::clone(&resolver), Arc::clone(&retained));
                keep_up(weak, name.clone(), resolver, retained, answered.take())
            });
            if let Ok(mut background) = service.background.lock() {
                background.push(Owned::new(tasks::control(task)));
            }
        }
    }
    let all = futures_util::future::join_all(first);
    let _ = tokio::time::timeout_at(clock::deadline(clock::now().after(FIRST)), all).await;
}

async fn keep_up(
    upstream: std::sync::Weak<Upstream>,
    name: String,
    resolver: Arc<TokioResolver>,
    retained: Arc<Retained>,
    mut answered: Option<tokio::sync::oneshot::Sender<()>>,
) {
    loop {
        let looked_up = resolver.lookup_ip(format!("{name}.")).await;
        let Some(upstream) = upstream.upgrade() else { return };
        let Kind::Service(service) = &upstream.kind else { return };
        let pause = match looked_up {
            Ok(found) => {
                let addresses: Vec<_> = found.iter().collect();
                if addresses.is_empty() {
                    tracing::warn!(upstream = %upstream.name, host = %name,
                        "the name stands for nobody; the last good addresses stay");
                }
                if service.plan.learn(&name, addresses, clock::now()) {
                    service.endpoints.store(Arc::new(service.plan.resolve(&retained)));
                    tracing::info!(upstream = %upstream.name, host = %name, "addresses changed");
                }
                let valid = found.valid_until();
                let left =
                    valid.saturating_duration_since(clock::deadline(clock::now()).into_std());
                left.clamp(TTL.0, TTL.1)
            }
            Err(error) => {
                service.plan.miss(&name, error.to_string(), clock::now());
                tracing::warn!(upstream = %upstream.name, host = %name, %error,
                    "the name cannot be resolved; the last good addresses stay");
                RETRY
            }
        };
        drop(upstream);
        if let Some(answered) = answered.take() {
            let _ = answered.send(());
        }
        tokio::time::sleep_until(clock::deadline(clock::now().after(pause))).await;
    }
}
