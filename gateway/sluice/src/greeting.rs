//! What the gateway says when it serves: where it listens, what it runs on, and what to try next.

use std::fmt::Write as _;

use sluice_proxy::Started;

/// The text, ready to be printed.
pub(crate) fn text(started: &Started) -> String {
    let mut out = String::new();
    let mut line = |name: &str, text: &str| {
        let _ = writeln!(out, "  {name:<10} {text}");
    };
    line(
        "config",
        &format!(
            "{} (hash {}): {} routes, {} upstreams",
            started.config, started.hash, started.routes, started.upstreams
        ),
    );
    for (name, address, tls) in &started.listeners {
        let scheme = if *tls { "https" } else { "http" };
        line("listening", &format!("{scheme}://{address} ({name})"));
    }
    line(
        "admin",
        &format!("http://{} (/metrics /readyz /routes /upstreams /config)", started.admin),
    );
    match &started.redis {
        Some(redis) => line("limits", &format!("counted in Redis at {redis}")),
        None => line("limits", "counted in this process (redis.url is empty)"),
    }
    line("workers", &started.workers.to_string());
    if started.development {
        line(
            "note",
            "development: true — certificates and secrets of this config are made up; do not use it in production",
        );
    }
    if let Some((_, address, tls)) = started.listeners.first() {
        let (scheme, insecure) = if *tls { ("https", "-k ") } else { ("http", "") };
        line("try", &format!("curl -i {insecure}{scheme}://127.0.0.1:{}/hello", address.port()));
        line("", "edit the config and save it: it is reloaded at once, or refused with reasons");
    }
    format!("sluice {} is serving\n{out}", env!("CARGO_PKG_VERSION"))
}
