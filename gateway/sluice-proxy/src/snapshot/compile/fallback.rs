//! A route's fallback, and what has to fit between it and the route.

use std::sync::Arc;
use std::time::Duration;

use super::Compiler;
use super::routes::Around;
use crate::base::units::Span;
use crate::base::yaml::Place;
use crate::lasting::link::Protocol;
use crate::parts::env::Owner;
use crate::parts::fallback::{self, Fallback};
use crate::parts::upstream::Service;
use crate::snapshot::config;

/// Clients wait for a minute, and the answer has to get to them.
const PATIENCE: Duration = Duration::from_secs(55);

impl Compiler<'_> {
    pub(super) fn fallback(
        &mut self,
        config: &fallback::Config,
        declared: &config::Route,
        (around, owner): (&Around<'_, '_>, &Owner),
        service: Option<&Service>,
        at: &Place<'_>,
    ) -> Option<Fallback> {
        let own = declared.upstream.as_deref().unwrap_or_default();
        let missing = !own.is_empty() && !around.upstreams.contains_key(own);
        let Some(service) = service else {
            // A missing one has been told.
            if !missing {
                self.env
                    .problems
                    .error(at, "there is no service that could fail")
                    .help("a fallback belongs to a route with an `upstream:` that has endpoints");
            }
            return None;
        };
        let other = config.upstream.as_ref().and_then(|name| {
            let found = around.upstreams.get(name).map(Arc::clone);
            if found.is_none() && !self.config.upstreams.contains_key(name) {
                let known: Vec<&str> = self.config.upstreams.keys().map(String::as_str).collect();
                self.unknown(&at.field("upstream"), "upstream", name, &known);
            }
            found
        });
        let built = config.build((&declared.id, owner), own, other, at, &mut self.env)?;
        if let Some((upstream, other)) = built.service() {
            let at = at.field("upstream");
            if declared.websocket.is_on() && other.protocol == Protocol::Http2 {
                let message = format!("upstream `{}` is spoken to in HTTP/2", upstream.name);
                self.env
                    .problems
                    .error(&at, message)
                    .help("WebSockets need an upstream with `protocol: http1`");
            }
            let own = declared.timeout.map_or(service.timeouts.total.0, |timeout| timeout.0);
            let both = own + other.timeouts.total.0;
            if both > PATIENCE && !declared.streaming {
                let message = format!(
                    "both together may take {}; clients give up after a minute",
                    Span(both)
                );
                self.env.problems.warn(&at, message).help("shorten `timeout` of the route");
            }
        }
        Some(built)
    }
}
