//! HTTP/2 on the wire, as far as one can tell from outside the one who speaks it.
//!
//! | module | decides |
//! |---|---|
//! | [`frames`] | what kinds of frames a client sends, and whether one of them is incomplete |

pub mod frames;
