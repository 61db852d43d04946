//! Replaces the path or the host that the service sees. A path that a rewrite would make non-canonical
//! is refused: what was authorised is what is forwarded.

use http::request::Parts;
use http::uri::PathAndQuery;
use http::{HeaderValue, Uri};
use schemars::JsonSchema;
use serde::Deserialize;

use super::{Flow, Hooks};
use crate::base::cx::Cx;
use crate::base::fault::Fault;
use crate::base::yaml::Place;
use crate::parts::env::{Env, Owner};
use crate::parts::text::Text;

/// Replaces the path, the host, or both. The query string stays.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Config {
    /// The new path, with captures: `/v2/users/{id}`.
    #[serde(default)]
    path: Option<String>,
    /// The host the service is asked for.
    #[serde(default)]
    host: Option<String>,
}

impl Config {
    pub(crate) fn build(
        &self,
        at: &Place<'_>,
        owner: &Owner,
        env: &mut Env<'_>,
    ) -> Option<Rewrite> {
        if self.path.is_none() && self.host.is_none() {
            env.problems
                .error(at, "rewrite changes nothing")
                .help("write `rewrite: { path: /v2/users/{id} }` or `host:`");
            return None;
        }
        let path = match &self.path {
            None => None,
            Some(path) => {
                let at = at.field("path");
                if !path.starts_with('/') {
                    env.problems.error(&at, "the new path must start with `/`");
                    return None;
                }
                Some(Text::build(path, &at, owner, env)?)
            }
        };
        let host = match &self.host {
            None => None,
            Some(host) => match host.parse::<http::uri::Authority>() {
                Ok(_) => HeaderValue::try_from(host.as_str()).ok(),
                Err(_) => {
                    env.problems.error(&at.field("host"), format!("`{host}` is not a host name"));
                    return None;
                }
            },
        };
        Some(Rewrite { path, host })
    }
}

#[derive(Debug)]
pub(crate) struct Rewrite {
    path: Option<Text>,
    host: Option<HeaderValue>,
}

impl Hooks for Rewrite {
    async fn on_request(&self, cx: &mut Cx, head: &mut Parts) -> Result<Flow, Fault> {
        if let Some(path) = &self.path {
            let path = path.render(cx, head);
            set_path(&mut cx.came, head, &path)?;
        }
        if let Some(host) = &self.host {
            cx.upstream_host = Some(host.clone());
        }
        Ok(Flow::Next)
    }
}

/// Replaces the path and keeps the query; `came` keeps the first one. The new path must be canonical as it
/// stands.
pub(crate) fn set_path(
    came: &mut Option<PathAndQuery>,
    head: &mut Parts,
    path: &str,
) -> Result<(), Fault> {
    match sluice_engine::canon::path(path) {
        Ok(std::borrow::Cow::Borrowed(_)) => {}
        _ => return Err(Fault::PathInvalid),
    }
    let joined = match head.uri.query() {
        Some(query) => PathAndQuery::try_from(format!("{path}?{query}")),
        None => PathAndQuery::try_from(path),
    };
    let mut parts = std::mem::take(&mut head.uri).into_parts();
    if came.is_none() {
        *came = parts.path_and_query.take();
    }
    parts.path_and_query = Some(joined.map_err(|_| Fault::PathInvalid)?);
    head.uri = Uri::from_parts(parts).map_err(|_| Fault::PathInvalid)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rewrite_keeps_the_query_and_refuses_what_is_not_canonical() {
        let (mut head, ()) = http::Request::get("/a?x=1").body(()).unwrap().into_parts();
        let mut came = None;
        set_path(&mut came, &mut head, "/b/c").unwrap();
        assert_eq!(head.uri, "/b/c?x=1");
        set_path(&mut came, &mut head, "/d").unwrap();
        assert_eq!(came.as_ref().map(PathAndQuery::as_str), Some("/a?x=1"));
        assert_eq!(set_path(&mut came, &mut head, "/b/../c"), Err(Fault::PathInvalid));
    }
}
