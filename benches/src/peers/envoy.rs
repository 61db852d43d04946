//! Envoy: one worker, no request ids, no headers of its own, routes in a prefix map (its list of
//! routes is searched one by one).

use serde_json::{Value, json};

use super::Stage;
use crate::child::Line;
use crate::failure::Outcome;
use crate::workloads::{Back, Front};

const MANAGER: &str = "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager\
                       .v3.HttpConnectionManager";
const ROUTER: &str = "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router";
const UPSTREAM: &str = "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions";
const TLS: &str =
    "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext";
const INPUT: &str = "type.googleapis.com/envoy.type.matcher.v3.HttpRequestHeaderMatchInput";
const ROUTE: &str = "type.googleapis.com/envoy.config.route.v3.Route";
/// More than any workload has at a time.
const PLENTY: u32 = 100_000;

pub(super) fn prepare(line: Line, stage: &Stage<'_>) -> Outcome<Line> {
    let config = json!({ "static_resources": {
        "listeners": [listener(stage)],
        "clusters": [cluster(stage)],
    }});
    let config = stage.write("envoy.json", &config.to_string())?;
    let workers = stage.workers.to_string();
    let words =
        ["--concurrency", &workers, "--use-dynamic-base-id", "--log-level", "warning", "-c"];
    Ok(line.args(words).arg(config))
}

fn listener(stage: &Stage<'_>) -> Value {
    let manager = json!({
        "@type": MANAGER,
        "stat_prefix": "bench",
        "use_remote_address": true,
        "generate_request_id": false,
        "common_http_protocol_options": { "idle_timeout": "3600s" },
        "upgrade_configs": [{ "upgrade_type": "websocket" }],
        "route_config": { "name": "bench", "virtual_hosts": [host(stage)] },
        "http_filters": [{
            "name": "envoy.filters.http.router",
            "typed_config": { "@type": ROUTER, "suppress_envoy_headers": true },
        }],
    });
    let mut chain = json!({
        "filters": [{
            "name": "envoy.filters.network.http_connection_manager",
            "typed_config": manager,
        }],
    });
    if let (true, Some(chain)) = (stage.workload.is_encrypted(), chain.as_object_mut()) {
        chain.insert("transport_socket".into(), tls(stage));
    }
    json!({
        "name": "bench",
        "address": address(stage.port),
        "filter_chains": [chain],
        "enable_reuse_port": true,
    })
}

fn tls(stage: &Stage<'_>) -> Value {
    let protocols: &[&str] = match stage.workload.front {
        Front::Http2 => &["h2", "http/1.1"],
        _ => &["http/1.1"],
    };
    json!({
        "name": "envoy.transport_sockets.tls",
        "typed_config": { "@type": TLS, "common_tls_context": {
            "tls_params": { "tls_minimum_protocol_version": "TLSv1_3" },
            "tls_certificates": [{
                "certificate_chain": { "filename": stage.ground.certificate },
                "private_key": { "filename": stage.ground.key },
            }],
            "alpn_protocols": protocols,
        }},
    })
}

fn host(stage: &Stage<'_>) -> Value {
    let timeout = if stage.workload.back == Back::WebSocket { "0s" } else { "15s" };
    let towards = json!({ "cluster": "origin", "timeout": timeout });
    let entry = |prefix: String| {
        let route = json!({ "@type": ROUTE, "match": { "prefix": prefix }, "route": towards });
        (prefix, json!({ "action": { "name": "route", "typed_config": route } }))
    };
    let map: serde_json::Map<String, Value> = stage.prefixes().map(entry).collect();
    if map.is_empty() {
        let routes = json!([{ "match": { "prefix": "/" }, "route": towards }]);
        return json!({ "name": "bench", "domains": ["*"], "routes": routes });
    }
    let input =
        json!({ "name": "path", "typed_config": { "@type": INPUT, "header_name": ":path" } });
    let tree = json!({ "input": input, "prefix_match_map": { "map": map } });
    json!({ "name": "bench", "domains": ["*"], "matcher": { "matcher_tree": tree } })
}

fn cluster(stage: &Stage<'_>) -> Value {
    let protocol = if stage.workload.back == Back::Grpc {
        json!({ "http2_protocol_options": {} })
    } else {
        json!({ "http_protocol_options": {} })
    };
    json!({
        "name": "origin",
        "type": "STATIC",
        "connect_timeout": "5s",
        "load_assignment": { "cluster_name": "origin", "endpoints": [{ "lb_endpoints": [
            { "endpoint": { "address": address(stage.backend_port) } },
        ]}]},
        "circuit_breakers": { "thresholds": [{
            "max_connections": PLENTY,
            "max_pending_requests": PLENTY,
            "max_requests": PLENTY,
        }]},
        "typed_extension_protocol_options": {
            "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                "@type": UPSTREAM,
                "explicit_http_config": protocol,
            },
        },
    })
}

fn address(port: u16) -> Value {
    json!({ "socket_address": { "address": "127.0.0.1", "port_value": port } })
}
