//! Small files with fixed content at fixed paths: what platforms ask to find on a host to believe that it is
//! yours (`/MP_verify_….txt`, `/….txt`), and what belongs under `/.well-known/`. Anybody may read them, so
//! no token is asked for and no version refused.

use std::collections::BTreeMap;

use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, X_CONTENT_TYPE_OPTIONS};
use http::{HeaderValue, StatusCode};
use schemars::JsonSchema;
use serde::Deserialize;
use sluice_engine::matcher::{HostPattern, MethodSet, PathPattern, RouteSpec};

use super::env::Env;
use super::filters::Respond;
use crate::base::yaml::Place;

/// Files at most: each has its own series of counts.
const MAX_FILES: usize = 64;
/// Bytes of a file.
const MAX_BYTES: usize = 64 * 1024;

/// Files by path.
pub(crate) type Config = BTreeMap<String, FileConfig>;

/// The content, or more about it.
#[derive(Debug, Clone, JsonSchema)]
#[schemars(untagged, title = "A file")]
pub(crate) enum FileConfig {
    /// The content as it stands; `${file:…}` takes it from a file.
    Text(String),
    /// Content, type and hosts.
    More(More),
}

/// A file with more to say about it.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(title = "A file with its type and hosts")]
pub(crate) struct More {
    /// The content as it stands.
    text: String,
    /// `Content-Type`; if not given, by the ending of the path, or as what the content is.
    #[serde(default)]
    content_type: Option<String>,
    /// Hosts that have it, as in `match.hosts`; none means all.
    #[serde(default)]
    hosts: Vec<String>,
}

impl<'de> Deserialize<'de> for FileConfig {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;
        impl<'de> serde::de::Visitor<'de> for Either {
            type Value = FileConfig;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("the text of the file, or `{ text: …, content_type: … }`")
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<FileConfig, E> {
                Ok(FileConfig::Text(text.to_owned()))
            }

            fn visit_map<A: serde::de::MapAccess<'de>>(
                self,
                map: A,
            ) -> Result<FileConfig, A::Error> {
                let more = serde::de::value::MapAccessDeserializer::new(map);
                More::deserialize(more).map(FileConfig::More)
            }
        }
        deserializer.deserialize_any(Either)
    }
}

/// A compiled file.
#[derive(Debug)]
pub(crate) struct StaticFile {
    /// Its place among all files of the config.
    pub(crate) index: usize,
    pub(crate) path: String,
    pub(crate) hosts: Vec<String>,
    pub(crate) spec: RouteSpec,
    pub(crate) answer: Respond,
}

/// Compiles all files, or records every problem. Those that are wrong are left out.
pub(crate) fn build(config: &Config, at: &Place<'_>, env: &mut Env<'_>) -> Vec<StaticFile> {
    if config.len() > MAX_FILES {
        let message = format!("{} files; at most {MAX_FILES}", config.len());
        env.problems.error(at, message).help("serve more from a service");
        return Vec::new();
    }
    let files = config.iter().enumerate();
    files.filter_map(|(index, (path, file))| file.build((index, path), at, env)).collect()
}

impl FileConfig {
    fn build(
        &self,
        (index, path): (usize, &str),
        at: &Place<'_>,
        env: &mut Env<'_>,
    ) -> Option<StaticFile> {
        let (text, content_type, hosts) = match self {
            Self::Text(text) => (text, None, &[][..]),
            Self::More(more) => (&more.text, more.content_type.as_deref(), &*more.hosts),
        };
        let place = at.field(path);
        let told = env.problems.errors();
        let literal = !path.contains(['*', '{', '}']);
        let canonical = sluice_engine::canon::path(path).is_ok_and(|made| made == path);
        if !literal || !canonical || !path.starts_with('/') || path.ends_with('/') {
            env.problems
                .error(&at.key(path), format!("`{path}` is not the path of a file"))
                .help("write it as it is asked for, like /MP_verify_abc.txt");
            return None;
        }
        if text.len() > MAX_BYTES {
            let message = format!("the file has {} bytes; at most {MAX_BYTES}", text.len());
            env.problems.error(&place, message);
        }
        let mut patterns = Vec::new();
        for (index, host) in hosts.iter().enumerate() {
            match HostPattern::parse(host) {
                Ok(host) => patterns.push(host),
                Err(error) => {
                    let at = place.field("hosts").index(index);
                    env.problems.error(&at, error.to_string());
                }
            }
        }
        let kind = match content_type {
            None => Some(HeaderValue::from_static(guess(path, text))),
            Some(given) => {
                let value = HeaderValue::try_from(given).ok();
                if value.is_none() {
                    let at = place.field("content_type");
                    env.problems.error(&at, "this is not the value of a header field");
                }
                value
            }
        };
        let pattern = PathPattern::parse(path);
        if let Err(error) = &pattern {
            env.problems.error(&at.key(path), error.to_string());
        }
        if env.problems.errors() > told {
            return None;
        }
        let headers = vec![
            (CONTENT_TYPE, kind?),
            (CACHE_CONTROL, HeaderValue::from_static("public, max-age=300")),
            (X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
        ];
        Some(StaticFile {
            index,
            path: path.to_owned(),
            hosts: hosts.to_vec(),
            spec: RouteSpec {
                hosts: patterns,
                path: pattern.ok()?,
                methods: MethodSet::parse(["GET"]).ok()?,
                predicates: Vec::new(),
                priority: 0,
            },
            answer: Respond::new(StatusCode::OK, Bytes::from(text.clone()), headers),
        })
    }
}

/// What kind of content it is.
fn guess(path: &str, text: &str) -> &'static str {
    let ending = path.rsplit('/').next().and_then(|name| name.rsplit_once('.')).map(|it| it.1);
    match ending {
        Some("html" | "htm") => "text/html; charset=utf-8",
        Some("xml") => "application/xml",
        Some("txt") => "text/plain; charset=utf-8",
        _ if serde_json::from_str::<serde_json::Value>(text).is_ok() => "application/json",
        _ => "text/plain; charset=utf-8",
    }
}

#[cfg(test)]
mod tests {
    use super::guess;

    #[test]
    fn files_are_what_their_ending_or_their_content_says() {
        for (path, text, kind) in [
            ("/MP_verify_x.txt", "123", "text/plain; charset=utf-8"),
            ("/.well-known/assetlinks.json", "[]", "application/json"),
            ("/.well-known/apple-app-site-association", "{}", "application/json"),
            ("/.well-known/acme", "abc", "text/plain; charset=utf-8"),
            ("/verify.html", "x", "text/html; charset=utf-8"),
        ] {
            assert_eq!(guess(path, text), kind, "{path}");
        }
    }
}
