//! Puts a fixed path in front of the request's before it is forwarded.

use http::request::Parts;
use schemars::JsonSchema;
use serde::Deserialize;

use super::rewrite::set_path;
use super::{Flow, Hooks};
use crate::base::cx::Cx;
use crate::base::fault::Fault;
use crate::base::yaml::Place;
use crate::parts::env::{Env, Owner};

/// The path to put in front: with `/v1`, `/users` becomes `/v1/users`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(transparent)]
pub(crate) struct Config(String);

impl Config {
    pub(crate) fn build(&self, at: &Place<'_>, _: &Owner, env: &mut Env<'_>) -> Option<AddPrefix> {
        let canonical = sluice_engine::canon::path(&self.0);
        if self.0.ends_with('/') || canonical.as_deref() != Ok(self.0.as_str()) {
            env.problems
                .error(at, format!("`{}` is not a path prefix", self.0))
                .help("write it with a leading slash and without a trailing one, like `/v1`");
            return None;
        }
        Some(AddPrefix { prefix: self.0.clone() })
    }
}

#[derive(Debug)]
pub(crate) struct AddPrefix {
    prefix: String,
}

impl Hooks for AddPrefix {
    async fn on_request(&self, cx: &mut Cx, head: &mut Parts) -> Result<Flow, Fault> {
        let path = format!("{}{}", self.prefix, head.uri.path());
        set_path(&mut cx.came, head, &path)?;
        Ok(Flow::Next)
    }
}
