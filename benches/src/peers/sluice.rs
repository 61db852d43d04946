//! Sluice: one worker and the defaults, so that every safety that is built is switched on. Only
//! what would close connections during a run is moved out of the way.

use super::Stage;
use crate::child::Line;
use crate::failure::Outcome;
use crate::workloads::{Back, Chain, Limit, Token};

pub(super) fn prepare(line: Line, stage: &Stage<'_>) -> Outcome<Line> {
    let config = stage.write("routes.yaml", &text(stage))?;
    let workers = stage.workers.to_string();
    Ok(line.args(["run", "--workers", &workers, "--log", "warn", "--config"]).arg(config))
}

fn text(stage: &Stage<'_>) -> String {
    let (port, admin) = (stage.port, stage.admin_port);
    let chain = stage.workload.chain;
    let log = match chain {
        Some(chain) if chain.access_log => stage.folder.join("access.log").display().to_string(),
        _ => "off".to_owned(),
    };
    let tls = if stage.workload.is_encrypted() {
        let (certificate, key) = (stage.ground.certificate.display(), stage.ground.key.display());
        format!(
            "    tls:\n      min_version: \"1.3\"\n      \
             certificates: [{{ cert_file: {certificate}, key_file: {key} }}]\n"
        )
    } else {
        String::new()
    };
    let filters = match (chain, stage.workload.limit) {
        (Some(chain), _) => filters(stage, chain),
        (None, Some(limit)) => limited(stage, limit),
        (None, None) => String::new(),
    };
    format!(
        "\
version: 1
listeners:
  - name: bench
    address: \"127.0.0.1:{port}\"
    limits: {{ requests_per_connection: 1000000000 }}
    timeouts: {{ keepalive: 1h }}
{tls}admin: {{ address: \"127.0.0.1:{admin}\" }}
access_log: {{ output: \"{log}\" }}
shutdown: {{ delay: 0s, grace: 1s }}
{filters}upstreams:
{}routes:
{}",
        upstream(stage),
        routes(stage)
    )
}

fn upstream(stage: &Stage<'_>) -> String {
    let backend = stage.backend_port;
    let mut text = format!(
        "  origin:\n    endpoints: [{{ address: \"127.0.0.1:{backend}\" }}]\n    \
         keepalive: {{ max_requests: 1000000000, idle_timeout: 1h }}\n"
    );
    if stage.workload.back == Back::Grpc {
        text.push_str("    protocol: http2\n");
    }
    if stage.workload.chain.is_some() {
        text.push_str("    breaker: { failure_rate: 50% }\n");
        text.push_str("    health_check: { http: /health, interval: 1s }\n");
    }
    text
}

fn routes(stage: &Stage<'_>) -> String {
    let more = if stage.workload.back == Back::WebSocket { ", websocket: true" } else { "" };
    let route = |id: &str, path: &str| {
        format!("  - {{ id: {id}, match: {{ path: \"{path}**\" }}, upstream: origin{more} }}\n")
    };
    let many = stage.prefixes().enumerate();
    let many: String = many.map(|(number, prefix)| route(&format!("r{number}"), &prefix)).collect();
    if many.is_empty() { route("bench", "/") } else { many }
}

fn filters(stage: &Stage<'_>, chain: Chain) -> String {
    let key = match chain.token {
        Token::Hs256 => {
            format!("alg: HS256, secret_file: {}", stage.ground.hmac_secret.display())
        }
        Token::Es256 => {
            format!("alg: ES256, public_key_file: {}", stage.ground.ec_public_key.display())
        }
    };
    let (redis, store) = counted(stage, chain.limit);
    format!(
        "\
{redis}filters:
  - request_id: {{}}
  - jwt:
      keys: [{{ kid: bench, {key} }}]
      required_claims: [openid]
      claims_to_headers: {{ X-User-Openid: openid }}
  - rate_limit: {{ limit: 1000000000, per: 1s, key: \"claim:openid\", {store} }}
"
    )
}

/// A limit by address alone.
fn limited(stage: &Stage<'_>, limit: Limit) -> String {
    let (redis, store) = counted(stage, limit);
    format!(
        "{redis}filters:\n  - rate_limit: {{ limit: 1000000000, per: 1s, key: address, {store} }}\n"
    )
}

/// The section `redis:`, and the limit's words about it.
fn counted(stage: &Stage<'_>, limit: Limit) -> (String, &'static str) {
    let redis = || format!("redis: {{ url: \"redis://127.0.0.1:{}\" }}\n", stage.redis_port);
    match limit {
        Limit::Local => (String::new(), "store: local"),
        Limit::Redis => (redis(), "store: redis, prepay: false"),
        Limit::Leased => (redis(), "store: redis"),
    }
}
