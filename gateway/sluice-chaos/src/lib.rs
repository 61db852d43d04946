//! Peers of the gateway for tests: upstreams that lie, upstreams that take notes, clients that
//! break off, stores and resolvers that can be stopped.
//!
//! | module | is |
//! |---|---|
//! | [`rogue`] | a scripted TCP upstream, with ready scripts for the usual misdeeds |
//! | [`recorder`] | an honest HTTP/1.1 upstream that keeps every request |
//! | [`h2up`] | an HTTP/2 and gRPC upstream that sees the frames it is sent |
//! | [`raw`] | an HTTP/1.1 client that sends any bytes |
//! | [`client`] | well-behaved HTTP/1.1, HTTP/2 and gRPC clients |
//! | [`ws`] | a WebSocket client and an echo upstream |
//! | [`pki`] | a certificate authority for one test |
//! | [`load`] | an open-loop load driver |
//! | [`process`] | child processes, Redis among them |
//! | [`dns`] | a DNS server with a table |
//! | [`provider`] | a provider of keys (JWKS) and logins (`code2Session`) |
//! | [`faults`] | a TCP proxy that delays, slows, holds back, corrupts and cuts |
//! | [`record`] | what upstreams note down about a request |
//!
//! Servers stop when their handle is dropped. They run on a runtime of this crate, so a test of any
//! flavour may start them, even one that blocks its own thread. Tokio's paused clock does not go
//! with sockets; tests that use it have no business here.
//!
//! The one rule: nothing leaves the loopback interface, and nothing waits for ever. A wait that
//! outlasts [`DEADLINE`] panics and says what was expected.
#![warn(missing_docs)]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "this crate is test code: a broken expectation must fail the test that made it"
)]
#![allow(
    clippy::disallowed_methods,
    reason = "the bans guard the gateway's invented time and counted tasks; a peer has its own"
)]

pub mod client;
pub mod dns;
pub mod faults;
mod framing;
mod ground;
pub mod h2up;
pub mod load;
pub mod pki;
mod ports;
pub mod process;
pub mod provider;
pub mod raw;
pub mod record;
pub mod recorder;
pub mod rogue;
mod serve;
mod watched;
mod wire;
pub mod ws;

pub use ground::DEADLINE;
