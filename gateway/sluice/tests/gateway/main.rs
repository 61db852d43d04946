//! The whole gateway over real sockets: the real binary, real peers, one file per story.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    clippy::too_many_lines,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::large_futures,
    reason = "tests say what they expect by panicking"
)]

mod support;
mod tokens;

mod access_log;
mod admin;
mod admission;
mod answers;
mod api_keys;
mod authz;
mod balance;
mod batch;
mod bodies;
mod breakers;
mod broker;
mod bulkheads;
mod caching;
mod cancel;
mod clocks;
mod configs;
mod crowds;
mod discovery;
mod drain;
mod examples;
mod exhaustion;
mod filters;
mod floods;
mod frames;
mod grpc;
mod headers;
mod heads;
mod hoards;
mod hostile;
mod http2;
mod login;
mod logs;
mod long;
mod machine;
mod mini;
mod open_data;
mod overload;
mod panic;
mod parked;
mod paths;
mod phone;
mod policy;
mod privacy;
mod proxy_protocol;
mod redis;
mod redis_cluster;
mod redis_faults;
mod redis_returns;
mod regressions;
mod reload;
mod replace;
mod retry_race;
mod routing;
mod secrets;
mod signatures;
mod smuggling;
mod streaming;
mod timeouts;
mod tls;
mod traps;
mod tunnels;
mod unattended;
mod upstreams;
mod wall_clock;
mod websocket;
