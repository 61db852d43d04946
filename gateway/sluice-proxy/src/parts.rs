//! Floor 3: what operators can declare. Each part is one file that holds, in this order, the words
//! (`Config`), how they are compiled (`build`), and what they do.

pub(crate) mod admin;
pub(crate) mod apps;
pub(crate) mod batch;
pub(crate) mod breaker;
pub(crate) mod broker;
pub(crate) mod bulkhead;
pub(crate) mod caller;
pub(crate) mod client_abort;
pub(crate) mod contract;
pub(crate) mod env;
pub(crate) mod exempt;
pub(crate) mod fallback;
pub(crate) mod filters;
pub(crate) mod key;
pub(crate) mod key_records;
pub(crate) mod listener;
pub(crate) mod login;
pub(crate) mod masters;
pub(crate) mod method_override;
pub(crate) mod open_data;
pub(crate) mod overload;
pub(crate) mod platform_breaker;
pub(crate) mod prefetch;
pub(crate) mod profile;
pub(crate) mod provider;
pub(crate) mod proxies;
pub(crate) mod redis;
pub(crate) mod repeats;
pub(crate) mod routing;
pub(crate) mod static_files;
pub(crate) mod text;
pub(crate) mod tls;
pub(crate) mod upstream;
pub(crate) mod version_gate;
pub(crate) mod websocket;
