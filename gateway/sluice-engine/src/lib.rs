//! The mechanisms of the gateway, without the gateway.
//!
//! The promise of this crate: no I/O, no clock, no runtime, no logging, no global state. Each
//! mechanism reads *rules × cell × now → verdict*. Rules are immutable settings, compiled by the
//! caller from a configuration. Cells hold observations and nothing else, so they live on when the
//! rules are exchanged by a reload. Time comes in as a [`moment::Moment`] and randomness as a number,
//! so that every verdict can be repeated in a test.
//!
//! | module | decides |
//! |---|---|
//! | [`http1`] | where the parts of an HTTP/1.1 message begin and end |
//! | [`http2`] | what kinds of frames an HTTP/2 client sends |
//! | [`canon`] | what a request path really names, or that it names nothing |
//! | [`matcher`] | which route a request takes |
//! | [`cidr`] | whether an address is in a set, and whether it may pass |
//! | [`forwarded`] | whose address a request came from, behind trusted proxies |
//! | [`window`] | whether a hit is within a rate |
//! | [`exact`] | the same, never over it, at the price of remembering each hit |
//! | [`bucket`] | the same with bursts, or with a queue |
//! | [`quota`] | whether a hit is within what a day or a month allows |
//! | [`breaker`] | whether an endpoint may be called |
//! | [`balance`] | which endpoint to call |
//! | [`pressure`] | what is done when memory is short |
//! | [`ejection`] | whether an endpoint that keeps failing is taken out of use |
//! | [`budget`] | whether a request may be sent a second time |
//! | [`backoff`] | how long to wait before that |
//! | [`signature`] | what a signed request says, and over which text |
//! | [`template`] | how a text with holes is filled |
//! | [`mask`] | what of a text must not stand in a log |
//! | [`mini`] | which mini-program is calling, and in which version |
//! | [`proxy_protocol`] | whose connection a proxy in front passes on |
//! | [`timeout`] | how long a caller waits, as it says itself |
//! | [`trace`] | where a request stands in a distributed trace |
//!
//! The one rule: nothing here may learn of HTTP libraries, sockets or configuration formats. Lookup
//! paths do not allocate, and locks are held for a few lines.
#![warn(missing_docs)]

pub mod backoff;
pub mod balance;
pub mod breaker;
pub mod bucket;
pub mod budget;
pub mod canon;
pub mod cidr;
pub mod devices;
pub mod ejection;
pub mod exact;
pub mod forwarded;
pub mod http1;
pub mod http2;
pub mod mask;
pub mod matcher;
pub mod mini;
pub mod moment;
pub mod pressure;
pub mod proxy_protocol;
pub mod quota;
pub mod rotation;
pub mod signature;
pub mod template;
pub mod timeout;
pub mod trace;
pub mod window;
