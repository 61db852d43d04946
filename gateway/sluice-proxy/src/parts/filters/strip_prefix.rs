//! Removes leading segments from the path before it is forwarded.

use http::request::Parts;
use schemars::JsonSchema;
use serde::Deserialize;

use super::rewrite::set_path;
use super::{Flow, Hooks};
use crate::base::cx::Cx;
use crate::base::fault::Fault;
use crate::base::yaml::Place;
use crate::parts::env::{Env, Owner};

/// How many leading path segments to remove: with 1, `/api/users` becomes `/users`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(transparent)]
pub(crate) struct Config(#[schemars(range(min = 1, max = 32))] u32);

impl Config {
    pub(crate) fn build(
        &self,
        at: &Place<'_>,
        _: &Owner,
        env: &mut Env<'_>,
    ) -> Option<StripPrefix> {
        if !(1..=32).contains(&self.0) {
            env.problems
                .error(at, format!("strip_prefix counts segments, 1 to 32; got {}", self.0));
            return None;
        }
        Some(StripPrefix { segments: self.0 })
    }
}

#[derive(Debug)]
pub(crate) struct StripPrefix {
    segments: u32,
}

impl Hooks for StripPrefix {
    async fn on_request(&self, cx: &mut Cx, head: &mut Parts) -> Result<Flow, Fault> {
        let rest = stripped(head.uri.path(), self.segments).to_owned();
        set_path(&mut cx.came, head, &rest)?;
        Ok(Flow::Next)
    }
}

fn stripped(path: &str, segments: u32) -> &str {
    let mut rest = path;
    for _ in 0..segments {
        match rest.get(1..).and_then(|tail| tail.find('/')) {
            Some(slash) => rest = rest.get(slash + 1..).unwrap_or("/"),
            None => return "/",
        }
    }
    rest
}

#[cfg(test)]
mod tests {
    use super::stripped;

    #[test]
    fn segments_are_removed_from_the_left() {
        assert_eq!(stripped("/api/users/7", 1), "/users/7");
        assert_eq!(stripped("/api/users/7", 2), "/7");
        assert_eq!(stripped("/api/", 1), "/");
        assert_eq!(stripped("/api", 1), "/");
        assert_eq!(stripped("/api/users", 9), "/");
    }
}
