//! HAProxy: one thread, connections to the back end shared by all clients, routes in a map. It can do
//! most of Sluice's chain itself: request id, token, limit by a claim, health checks.

use super::Stage;
use crate::child::Line;
use crate::failure::Outcome;
use crate::ground::SECRET;
use crate::workloads::{Back, Chain, Front, Token};

/// The usual question in HTTP/1.1, which the back end insists on.
const HEALTH: &str =
    "option httpchk\n  http-check send meth GET uri /health ver HTTP/1.1 hdr Host 127.0.0.1";

pub(super) fn prepare(line: Line, stage: &Stage<'_>) -> Outcome<Line> {
    let map: String = stage.prefixes().map(|prefix| format!("{prefix} origin\n")).collect();
    let map_file = stage.write("routes.map", &map)?;
    let choose = if map.is_empty() {
        String::from("default_backend origin")
    } else {
        format!("use_backend %[path,map_beg({})]", map_file.display())
    };
    let config = stage.write("haproxy.cfg", &text(stage, &choose))?;
    // -db: in the foreground, as one process.
    Ok(line.args(["-db", "-f"]).arg(config))
}

fn text(stage: &Stage<'_>, choose: &str) -> String {
    let (port, backend) = (stage.port, stage.backend_port);
    let both = stage.ground.both.display();
    let words = match stage.workload.front {
        Front::Plain => String::new(),
        Front::Tls => format!("ssl crt {both} alpn http/1.1"),
        Front::Http2 => format!("ssl crt {both} alpn h2,http/1.1"),
        Front::Http2Plain => "proto h2".to_owned(),
    };
    let towards = match (stage.workload.back, stage.workload.chain) {
        (Back::Grpc, _) => "proto h2",
        (_, Some(_)) => "check inter 1s",
        (_, None) => "",
    };
    let health = if stage.workload.chain.is_some() { HEALTH } else { "" };
    let rules = stage.workload.chain.map_or_else(String::new, |chain| rules(stage, chain));
    format!(
        "\
global
  nbthread {}
  maxconn 9000
  ssl-default-bind-options ssl-min-ver TLSv1.3
defaults
  mode http
  option forwardfor
  http-reuse always
  timeout connect 5s
  timeout client 1h
  timeout server 1h
  timeout tunnel 1h
  timeout http-keep-alive 1h
frontend bench
  bind 127.0.0.1:{port} backlog 4096 {words}
{rules}  {choose}
backend origin
  {health}
  server one 127.0.0.1:{backend} pool-max-conn -1 pool-purge-delay 1h {towards}
",
        stage.workers
    )
}

/// The chain in HAProxy's own words.
fn rules(stage: &Stage<'_>, chain: Chain) -> String {
    let (algorithm, key) = match chain.token {
        Token::Hs256 => ("HS256", SECRET.to_owned()),
        Token::Es256 => ("ES256", stage.ground.ec_public_key.display().to_string()),
    };
    format!(
        "  \
  unique-id-format %{{+X}}o%ci%cp%Ts%rt
  unique-id-header X-Request-Id
  stick-table type string len 64 size 100k expire 1m store http_req_rate(1s)
  http-request set-var(txn.bearer) http_auth_bearer
  http-request set-var(txn.alg) var(txn.bearer),jwt_header_query('$.alg')
  http-request set-var(txn.exp) var(txn.bearer),jwt_payload_query('$.exp','int')
  http-request set-var(txn.openid) var(txn.bearer),jwt_payload_query('$.openid')
  http-request set-var(txn.now) date
  http-request deny deny_status 401 unless {{ var(txn.alg) -m str {algorithm} }}
  http-request deny deny_status 401 unless {{ var(txn.bearer),jwt_verify(txn.alg,\"{key}\") -m int 1 }}
  http-request deny deny_status 401 unless {{ var(txn.exp),sub(txn.now) -m int gt 0 }}
  http-request deny deny_status 401 unless {{ var(txn.openid) -m found }}
  http-request track-sc0 var(txn.openid)
  http-request deny deny_status 429 if {{ sc_http_req_rate(0) gt 1000000000 }}
  http-request del-header X-User-Openid
  http-request set-header X-User-Openid %[var(txn.openid)]
"
    )
}
