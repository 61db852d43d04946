//! Floor 1: the words everyone uses. Nothing here knows a config file, a pool or a route.

pub(crate) mod body;
pub(crate) mod clock;
pub(crate) mod clocks;
pub(crate) mod cx;
pub(crate) mod deadline;
pub(crate) mod fault;
pub(crate) mod hop;
pub(crate) mod http1;
pub(crate) mod identity;
pub(crate) mod inlet;
pub(crate) mod pace;
pub(crate) mod problem;
pub(crate) mod respond;
pub(crate) mod room;
pub(crate) mod seat;
pub(crate) mod secured;
pub(crate) mod session_key;
pub(crate) mod signals;
pub(crate) mod tie;
pub(crate) mod units;
pub(crate) mod yaml;
