//! What the gateway does for mini-programs.

mod hygiene;
