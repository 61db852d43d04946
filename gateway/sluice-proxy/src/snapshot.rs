//! Floor 4: the compiled whole. A snapshot is made off the request path, complete or not at all, and
//! takes the old one's place with one pointer store.

pub(crate) mod compile;
pub(crate) mod config;
pub(crate) mod live;
pub(crate) mod reference;
pub(crate) mod route;
pub(crate) mod schema;
