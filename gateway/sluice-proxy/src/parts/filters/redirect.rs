//! Answers with a redirect instead of asking a service.

use http::header::LOCATION;
use http::request::Parts;
use http::{HeaderValue, Response, StatusCode};
use schemars::JsonSchema;
use serde::Deserialize;

use super::{Flow, Hooks};
use crate::base::body::Body;
use crate::base::cx::Cx;
use crate::base::fault::Fault;
use crate::base::yaml::Place;
use crate::parts::env::{Env, Owner};
use crate::parts::text::Text;

/// Sends the caller elsewhere.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Config {
    /// The new address, with captures: `https://{host}/new/{id}`. The query string is appended.
    to: String,
    /// 301, 302, 303, 307 or 308.
    #[serde(default = "default_status")]
    status: u16,
}

fn default_status() -> u16 {
    // Keeps the method, and is not remembered for ever by browsers.
    307
}

impl Config {
    pub(crate) fn build(
        &self,
        at: &Place<'_>,
        owner: &Owner,
        env: &mut Env<'_>,
    ) -> Option<Redirect> {
        if !matches!(self.status, 301 | 302 | 303 | 307 | 308) {
            env.problems.error(
                &at.field("status"),
                format!("{} is not a redirect; write 301, 302, 303, 307 or 308", self.status),
            );
            return None;
        }
        let place = at.field("to");
        if !(self.to.starts_with('/')
            || self.to.starts_with("http://")
            || self.to.starts_with("https://"))
            || self.to.starts_with("//")
        {
            env.problems.error(&place, "a redirect goes to a path or to an http(s) address");
            return None;
        }
        let to = Text::build(&self.to, &place, owner, env)?;
        Some(Redirect { to, status: StatusCode::from_u16(self.status).ok()? })
    }
}

#[derive(Debug)]
pub(crate) struct Redirect {
    to: Text,
    status: StatusCode,
}

impl Hooks for Redirect {
    async fn on_request(&self, cx: &mut Cx, head: &mut Parts) -> Result<Flow, Fault> {
        let mut to = self.to.render(cx, head);
        if let Some(query) = head.uri.query() {
            to.push(if to.contains('?') { '&' } else { '?' });
            to.push_str(query);
        }
        let location = HeaderValue::try_from(to).map_err(|_| Fault::PathInvalid)?;
        let mut response = Response::new(Body::empty());
        *response.status_mut() = self.status;
        response.headers_mut().insert(LOCATION, location);
        Ok(Flow::Answer(Box::new(response)))
    }
}
