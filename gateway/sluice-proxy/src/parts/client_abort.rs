//! `on_client_abort:` of an upstream or a route: what becomes of a write whose client leaves before the
//! answer.
//!
//! Reads are always cancelled: nobody gets what they would find. A write is finished if nothing else is said.
//! Most services do not notice that their client has gone, or notice it only when they answer, so cancelling
//! saves them nothing; it costs the connection, and the gateway learns nothing of a change that was made all
//! the same. Mini-programs lose every unfinished request 5 s after they went into the background, which is no
//! wish to undo it.

use schemars::JsonSchema;
use serde::Deserialize;

/// What becomes of a write whose client leaves before the answer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum OnClientAbort {
    /// The service's connection is closed, or its stream reset, as it always is for GET, HEAD and OPTIONS, for
    /// gRPC, and for a request that has not come whole.
    Cancel,
    /// The answer is waited for until the request's time is over, and read for the log and the counters.
    #[default]
    Finish,
}
