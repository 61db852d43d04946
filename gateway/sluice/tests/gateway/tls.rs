//! TLS on both sides: which certificate a client gets, how it is replaced, and whom the gateway
//! itself trusts.

mod chain;
mod clients;
mod crowds;
mod mutual;
mod replaced;
mod services;
