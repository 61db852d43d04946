//! Looks up names of hosts, for endpoints and for whatever else the gateway asks. What is done with the
//! answers is left to others. The one rule: names are whole, so no search list of the system is tried.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::OnceLock;
use std::time::Duration;

use hickory_resolver::TokioResolver;
use hickory_resolver::config::{ConnectionConfig, NameServerConfig, ResolverConfig};
use hickory_resolver::net::runtime::TokioRuntimeProvider;

/// Shortest and longest time an answer is used, whatever its time to live says.
pub(crate) const TTL: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(300));
/// Pause after a failed look-up.
pub(crate) const RETRY: Duration = Duration::from_secs(2);

/// Checked settings.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Settings {
    pub(crate) nameservers: Vec<SocketAddr>,
}

impl Settings {
    /// A resolver with these self.
    pub(crate) fn resolver(&self) -> Result<TokioResolver, hickory_resolver::net::NetError> {
        let mut builder = if self.nameservers.is_empty() {
            TokioResolver::builder_tokio()?
        } else {
            let servers = self
                .nameservers
                .iter()
                .map(|server| {
                    let connections =
                        [ConnectionConfig::udp(), ConnectionConfig::tcp()].map(|mut c| {
                            c.port = server.port();
                            c
                        });
                    NameServerConfig::new(server.ip(), true, connections.to_vec())
                })
                .collect();
            TokioResolver::builder_with_config(
                ResolverConfig::from_name_servers(servers),
                TokioRuntimeProvider::default(),
            )
        };
        let options = builder.options_mut();
        options.timeout = Duration::from_secs(2);
        options.attempts = 2;
        options.positive_max_ttl = Some(TTL.1);
        options.negative_max_ttl = Some(RETRY);
        builder.build()
    }
}

/// A resolver that is made when it is first needed.
#[derive(Default)]
pub(crate) struct Names {
    settings: Settings,
    resolver: OnceLock<TokioResolver>,
}

impl Names {
    pub(crate) fn new(settings: Settings) -> Self {
        Self { settings, resolver: OnceLock::new() }
    }

    /// Whether an operator has said whom to ask.
    pub(crate) fn are_chosen(&self) -> bool {
        !self.settings.nameservers.is_empty()
    }

    /// Whom to ask instead of the system.
    pub(crate) fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Addresses of a host, which may be an address itself.
    ///
    /// # Errors
    ///
    /// Why there are none, in words for people.
    pub(crate) async fn look_up(&self, host: &str) -> Result<Vec<IpAddr>, String> {
        if let Ok(address) = host.trim_matches(['[', ']']).parse() {
            return Ok(vec![address]);
        }
        // RFC 6761 section 6.3: nobody has to be asked for this one.
        if host.eq_ignore_ascii_case("localhost") {
            return Ok(vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()]);
        }
        let resolver = match self.resolver.get() {
            Some(resolver) => resolver,
            None => {
                let made = self.settings.resolver().map_err(|error| error.to_string())?;
                self.resolver.get_or_init(|| made)
            }
        };
        let name = format!("{}.", host.trim_end_matches('.'));
        let found = resolver.lookup_ip(name).await.map_err(|error| error.to_string())?;
        Ok(found.iter().collect())
    }
}
