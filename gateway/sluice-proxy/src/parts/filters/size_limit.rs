//! Caps the request body. An announced length over the cap is refused before anything is forwarded;
//! a body that grows beyond it on the way is cut, and the service's request is aborted.

use http::header::CONTENT_LENGTH;
use http::request::Parts;
use schemars::JsonSchema;
use serde::Deserialize;

use super::{Flow, Hooks};
use crate::base::cx::Cx;
use crate::base::fault::Fault;
use crate::base::units::ByteSize;
use crate::base::yaml::Place;
use crate::parts::env::{Env, Owner};

/// Caps the request body; the default without this filter is 10MiB.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Config {
    /// Largest request body.
    body: ByteSize,
}

impl Config {
    #[expect(clippy::unnecessary_wraps, reason = "every filter's build has this shape")]
    pub(crate) fn build(&self, _: &Place<'_>, _: &Owner, _: &mut Env<'_>) -> Option<SizeLimit> {
        Some(SizeLimit { body: self.body.0 })
    }
}

#[derive(Debug)]
pub(crate) struct SizeLimit {
    body: u64,
}

impl Hooks for SizeLimit {
    async fn on_request(&self, cx: &mut Cx, head: &mut Parts) -> Result<Flow, Fault> {
        cx.body_limit = Some(self.body);
        check_announced(head, self.body)?;
        Ok(Flow::Next)
    }
}

/// Refuses a body whose announced length is over `limit`.
pub(crate) fn check_announced(head: &Parts, limit: u64) -> Result<(), Fault> {
    let announced = head
        .headers
        .get(CONTENT_LENGTH)
        .and_then(|value| value.to_str().ok())
        .and_then(|text| text.parse::<u64>().ok());
    match announced {
        Some(length) if length > limit => Err(Fault::BodyTooLarge),
        _ => Ok(()),
    }
}
