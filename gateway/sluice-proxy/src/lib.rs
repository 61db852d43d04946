//! The data plane and the life of the gateway, in floors. Each floor may use those above it in this
//! list, never those below:
//!
//! 0. the engine crate: mechanisms without IO or clock;
//! 1. [`base`]: the words everyone uses;
//! 2. [`lasting`]: what outlives a reload;
//! 3. [`parts`]: what operators can declare;
//! 4. [`snapshot`]: the compiled whole;
//! 5. [`path`]: a request's way;
//! 6. [`doors`]: where the world comes in.

mod base;
mod doors;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzzing;
mod lasting;
mod parts;
mod path;
mod snapshot;

pub use base::fault::faults_markdown;
pub use doors::app::{
    Checked, Environment, Options, Origin, Rejected, RouteLine, RunError, Started, check, run,
};
pub use doors::key::{api_key, api_key_hash};
pub use doors::token::{TokenRequest, mint};
pub use lasting::telemetry::journal::Journal;
pub use parts::tls::{Pair, self_signed};
pub use snapshot::reference::markdown as config_reference;
pub use snapshot::schema::json as config_schema;
