//! Answers with a fixed text instead of asking a service.

use std::collections::BTreeMap;

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::request::Parts;
use http::{HeaderName, HeaderValue, Response, StatusCode};
use schemars::JsonSchema;
use serde::Deserialize;

use super::{Flow, Hooks};
use crate::base::body::Body;
use crate::base::cx::Cx;
use crate::base::fault::Fault;
use crate::base::yaml::Place;
use crate::parts::env::{Env, Owner};

/// A fixed answer.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Config {
    /// Status, 200 to 599.
    #[serde(default = "default_status")]
    status: u16,
    /// The body.
    #[serde(default)]
    body: String,
    /// Header fields; `Content-Type` is guessed as JSON or plain text if it is not given.
    #[serde(default)]
    headers: BTreeMap<String, String>,
}

fn default_status() -> u16 {
    200
}

impl Config {
    pub(crate) fn build(&self, at: &Place<'_>, _: &Owner, env: &mut Env<'_>) -> Option<Respond> {
        let status =
            StatusCode::from_u16(self.status).ok().filter(|_| (200..=599).contains(&self.status));
        if status.is_none() {
            env.problems
                .error(&at.field("status"), format!("{} is not a final status", self.status));
        }
        let mut headers = Vec::new();
        for (name, text) in &self.headers {
            let place = at.field("headers");
            match (HeaderName::try_from(name.as_str()), HeaderValue::try_from(text.as_str())) {
                (Ok(name), Ok(value)) => headers.push((name, value)),
                _ => {
                    env.problems
                        .error(&place.key(name), format!("`{name}` is not a usable header"));
                    return None;
                }
            }
        }
        if !self.body.is_empty() && !headers.iter().any(|(name, _)| name == CONTENT_TYPE) {
            let json = serde_json::from_str::<serde_json::Value>(&self.body).is_ok();
            let kind = if json { "application/json" } else { "text/plain; charset=utf-8" };
            headers.push((CONTENT_TYPE, HeaderValue::from_static(kind)));
        }
        Some(Respond { status: status?, body: Bytes::from(self.body.clone()), headers })
    }
}

#[derive(Debug)]
pub(crate) struct Respond {
    status: StatusCode,
    body: Bytes,
    headers: Vec<(HeaderName, HeaderValue)>,
}

impl Respond {
    pub(crate) fn new(
        status: StatusCode,
        body: Bytes,
        headers: Vec<(HeaderName, HeaderValue)>,
    ) -> Self {
        Self { status, body, headers }
    }

    /// The answer.
    pub(crate) fn answer(&self) -> Response<Body> {
        let mut response = Response::new(Body::full(self.body.clone()));
        *response.status_mut() = self.status;
        for (name, value) in &self.headers {
            response.headers_mut().append(name.clone(), value.clone());
        }
        response
    }
}

impl Hooks for Respond {
    async fn on_request(&self, _: &mut Cx, _: &mut Parts) -> Result<Flow, Fault> {
        Ok(Flow::Answer(Box::new(self.answer())))
    }
}
