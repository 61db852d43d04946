//! Where the gateway listens, and what it grants to whoever connects.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sluice_engine::cidr;

use super::env::Env;
use super::tls::{self, Certificates};
use crate::base::units::{ByteSize, Span};
use crate::base::yaml::Place;

/// One address to listen on.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Config {
    /// A unique name, seen in logs.
    pub(crate) name: String,
    /// Address and port, like `0.0.0.0:8080` or `[::]:8443`.
    pub(crate) address: String,
    /// Serve TLS here.
    #[serde(default)]
    pub(crate) tls: Option<tls::Config>,
    /// Time limits of client connections.
    #[serde(default)]
    pub(crate) timeouts: Timeouts,
    /// Size limits of client connections.
    #[serde(default)]
    pub(crate) limits: Limits,
    /// How connections are spread over the workers.
    #[serde(default)]
    pub(crate) connection_balance: ConnectionBalance,
    /// Every connection begins with a PROXY header (version 1 or 2).
    #[serde(default)]
    pub(crate) proxy_protocol: Option<ProxyProtocol>,
}

/// Proxies in front that say whose connection they pass on before anything else.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ProxyProtocol {
    /// Their addresses and networks. Connections from anywhere else are closed.
    pub(crate) from: Vec<String>,
}

/// How connections are spread over the workers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum ConnectionBalance {
    /// By the kernel, which hashes addresses: nothing is handed over, and many connections spread well.
    #[default]
    ReusePort,
    /// To the worker with the fewest connections in use. For few and long-lived connections, such as those
    /// of another proxy in front.
    LeastConnections,
}

/// Time limits of a client connection. None can be switched off.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Timeouts {
    /// PROXY header, TLS handshake, and the first bytes of a connection, all together.
    pub(crate) handshake: Span,
    /// From a request's first byte to the end of its head.
    pub(crate) head: Span,
    /// Largest pause within a request body, and of all its pauses together, but for a second for each 128
    /// bytes of it. Streaming routes have limits of their own.
    pub(crate) body: Span,
    /// Longest stall while the client does not read its answer, and of all stalls together, but for a
    /// second for each 128 bytes it reads.
    pub(crate) write: Span,
    /// Idle time between requests.
    pub(crate) keepalive: Span,
    /// Age after which a connection ends in good order with its next answer, give or take a tenth.
    pub(crate) max_age: Span,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            handshake: Span(Duration::from_secs(10)),
            head: Span(Duration::from_secs(10)),
            body: Span(Duration::from_secs(30)),
            write: Span(Duration::from_secs(30)),
            // A little over a minute, as nginx has it: mobile clients pause about that long.
            keepalive: Span(Duration::from_secs(75)),
            max_age: Span(Duration::from_secs(3600)),
        }
    }
}

/// Size limits of client connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Limits {
    /// Connections open at a time, shared equally among the workers.
    pub(crate) connections: u32,
    /// Requests on one connection before it is closed in good order.
    pub(crate) requests_per_connection: u64,
    /// Size of a request head.
    pub(crate) head: ByteSize,
    /// HTTP/2 streams open at a time on one connection.
    pub(crate) streams: u32,
    /// TLS handshakes under way at a time, for each worker. A further client takes the place of one that
    /// has not been done after a second, or is refused.
    pub(crate) handshakes: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 10_000,
            requests_per_connection: 10_000,
            head: ByteSize(32 * 1024),
            streams: 100,
            handshakes: 128,
        }
    }
}

/// A listener as compiled.
#[derive(Debug)]
pub(crate) struct Listener {
    pub(crate) name: Arc<str>,
    pub(crate) address: SocketAddr,
    pub(crate) tls: Option<Arc<Certificates>>,
    pub(crate) timeouts: Timeouts,
    pub(crate) limits: Limits,
    pub(crate) connection_balance: ConnectionBalance,
    pub(crate) proxy_protocol: Option<ProxiesInFront>,
}

/// As compiled.
#[derive(Debug)]
pub(crate) struct ProxiesInFront {
    pub(crate) from: cidr::Set,
}

impl ProxyProtocol {
    fn build(&self, at: &Place<'_>, env: &mut Env<'_>) -> Option<ProxiesInFront> {
        let at = at.field("from");
        if self.from.is_empty() {
            env.problems
                .error(&at, "nobody could connect")
                .help("name the proxies in front, like [10.0.0.0/24]");
            return None;
        }
        Some(ProxiesInFront { from: super::filters::nets(&self.from, &at, env)? })
    }
}

impl Config {
    /// Whether only this machine can reach it.
    pub(crate) fn is_loopback(&self) -> bool {
        self.address.parse::<SocketAddr>().is_ok_and(|address| address.ip().is_loopback())
    }

    pub(crate) fn build(&self, at: &Place<'_>, env: &mut Env<'_>) -> Option<Listener> {
        let address = self.address.parse::<SocketAddr>();
        if address.is_err() {
            env.problems
                .error(
                    &at.field("address"),
                    format!("`{}` is not an address to listen on", self.address),
                )
                .help("write an IP address and a port, like 0.0.0.0:8080 or [::]:8080");
        }
        let checked = self.check(at, env);
        let proxies = self.proxy_protocol.as_ref();
        let proxies = proxies.map(|config| config.build(&at.field("proxy_protocol"), env));
        let tls = match &self.tls {
            None => None,
            Some(config) => Some(Arc::new(config.build(&self.name, &at.field("tls"), env)?)),
        };
        checked?;
        Some(Listener {
            name: self.name.as_str().into(),
            address: address.ok()?,
            tls,
            timeouts: self.timeouts,
            limits: self.limits,
            connection_balance: self.connection_balance,
            proxy_protocol: match proxies {
                None => None,
                Some(compiled) => Some(compiled?),
            },
        })
    }

    fn check(&self, at: &Place<'_>, env: &mut Env<'_>) -> Option<()> {
        let spans = [
            ("handshake", self.timeouts.handshake),
            ("head", self.timeouts.head),
            ("body", self.timeouts.body),
            ("write", self.timeouts.write),
            ("keepalive", self.timeouts.keepalive),
        ];
        let mut whole = true;
        let (age, day) = (self.timeouts.max_age.0, Duration::from_secs(86_400));
        if !(Duration::from_secs(1)..=day).contains(&age) {
            whole = false;
            let place = at.field("timeouts").field("max_age");
            env.problems.error(&place, "`max_age` must lie between 1s and 1d");
        }
        for (name, span) in spans {
            let fine = Duration::from_millis(100)..=Duration::from_secs(3600);
            if !fine.contains(&span.0) {
                whole = false;
                env.problems.error(
                    &at.field("timeouts").field(name),
                    format!("`{name}` must lie between 100ms and 1h"),
                );
            }
        }
        let limits = at.field("limits");
        if !(8 * 1024..=1024 * 1024).contains(&self.limits.head.0) {
            whole = false;
            env.problems.error(&limits.field("head"), "`head` must lie between 8KiB and 1MiB");
        }
        for (key, count) in [
            ("connections", u64::from(self.limits.connections)),
            ("requests_per_connection", self.limits.requests_per_connection),
            ("handshakes", u64::from(self.limits.handshakes)),
        ] {
            if count == 0 {
                whole = false;
                env.problems.error(&limits.field(key), format!("`{key}: 0` would serve nobody"));
            }
        }
        if !(1..=1000).contains(&self.limits.streams) {
            whole = false;
            env.problems.error(&limits.field("streams"), "`streams` must lie between 1 and 1000");
        }
        whole.then_some(())
    }
}
