//! Floor 6: where the world comes in: connections, signals, the config file, operators.

pub(crate) mod accept;
pub(crate) mod admin;
pub(crate) mod app;
pub(crate) mod balance;
mod breakers;
mod broker;
pub(crate) mod connection;
pub(crate) mod crowd;
mod expiry;
pub(crate) mod input;
mod inspect;
pub(crate) mod key;
pub(crate) mod listeners;
pub(crate) mod memory;
pub(crate) mod reload;
pub(crate) mod scrape;
pub(crate) mod shared;
pub(crate) mod stop;
pub(crate) mod thread;
pub(crate) mod token;
mod watch;
