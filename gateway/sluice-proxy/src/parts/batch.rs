//! Several calls in one request: how many, how large and for how long, and which routes they may take.

use std::time::Duration;

use http::{HeaderName, Method};
use schemars::JsonSchema;
use serde::Deserialize;

use super::env::Env;
use crate::base::identity::{Family, family};
use crate::base::secured::tells_certificate;
use crate::base::units::{ByteSize, Span};
use crate::base::yaml::Place;

/// Fields that each call may have of its own. What says who is calling and from where is the batch's: a
/// client must not write there what a trusted proxy in front would be believed.
const OWN: [&str; 9] = [
    "accept",
    "accept-language",
    "content-type",
    "idempotency-key",
    "if-match",
    "if-modified-since",
    "if-none-match",
    "if-unmodified-since",
    "x-mp-sign",
];
/// Fields that never are among them, beside those that tell who is calling.
const NEVER: [&str; 20] = [
    "authorization",
    "connection",
    "content-encoding",
    "content-length",
    "cookie",
    "expect",
    "forwarded",
    "grpc-timeout",
    "host",
    "keep-alive",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "via",
    "x-client-ip",
    "x-real-ip",
    "x-request-timeout",
];
/// Calls in a batch, fields of the config, and bytes, at most.
const MOST_CALLS: usize = 100;
const MOST_FIELDS: usize = 32;
const MOST_BYTES: u64 = 16 * 1024 * 1024;
/// Longest time: clients give up after a minute.
const LONGEST: Duration = Duration::from_secs(55);

/// What `builtin: batch` takes on.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(rename = "Batch")]
pub(crate) struct Config {
    /// Calls in one batch; at most 100.
    max_items: usize,
    /// Largest batch.
    max_body: ByteSize,
    /// Calls of one batch that are made at a time.
    parallel: usize,
    /// From the batch to its last answer; what is not there by then is answered with 504. At most 55s.
    timeout: Span,
    /// Largest answer to a call; a larger one is left out, with 502.
    max_answer: ByteSize,
    /// All answers together.
    max_total: ByteSize,
    /// Header fields that each call may have of its own, beside those it always may.
    headers: Vec<String>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            // What a page needs at once; a client has ten connections.
            max_items: 20,
            max_body: ByteSize(256 * 1024),
            // All at once, or the batch would take longer than its slowest call. Services are protected by
            // their own bounds.
            parallel: 20,
            timeout: Span(Duration::from_secs(5)),
            max_answer: ByteSize(256 * 1024),
            max_total: ByteSize(1024 * 1024),
            headers: Vec::new(),
        }
    }
}

/// The same as compiled.
#[derive(Debug, Clone)]
pub(crate) struct Rules {
    pub(crate) max_items: usize,
    /// Bytes.
    pub(crate) max_body: usize,
    pub(crate) parallel: usize,
    pub(crate) timeout: Duration,
    /// Bytes.
    pub(crate) max_answer: usize,
    /// Bytes.
    pub(crate) max_total: usize,
    own: Vec<HeaderName>,
}

/// Which calls of batches may take a route.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(rename = "InBatch")]
pub(crate) enum Permission {
    /// None.
    None,
    /// Those that change nothing: GET and HEAD.
    #[default]
    Safe,
    /// All.
    All,
}

impl Permission {
    pub(crate) fn permits(self, method: &Method) -> bool {
        match self {
            Self::None => false,
            Self::Safe => matches!(*method, Method::GET | Method::HEAD),
            Self::All => true,
        }
    }
}

impl Config {
    pub(crate) fn build(&self, at: &Place<'_>, env: &mut Env<'_>) -> Option<Rules> {
        let mut whole = true;
        let mut wrong = |field: &str, why: String| {
            env.problems.error(&at.field(field), why);
            whole = false;
        };
        for (field, count) in [("max_items", self.max_items), ("parallel", self.parallel)] {
            if !(1..=MOST_CALLS).contains(&count) {
                wrong(field, format!("`{field}` lies between 1 and {MOST_CALLS}"));
            }
        }
        for (field, size) in [
            ("max_body", &self.max_body),
            ("max_answer", &self.max_answer),
            ("max_total", &self.max_total),
        ] {
            if !(1..=MOST_BYTES).contains(&size.0) {
                wrong(field, format!("`{field}` lies between 1B and 16MiB"));
            }
        }
        if !(Duration::from_millis(1)..=LONGEST).contains(&self.timeout.0) {
            wrong("timeout", "`timeout` must lie between 1ms and 55s".to_owned());
        }
        if self.headers.len() > MOST_FIELDS {
            wrong("headers", format!("at most {MOST_FIELDS} fields"));
        }
        let mut own: Vec<HeaderName> = OWN.into_iter().map(HeaderName::from_static).collect();
        for (index, name) in self.headers.iter().enumerate() {
            match HeaderName::try_from(name.as_str()).ok().filter(may_be_own) {
                Some(name) => own.push(name),
                None => {
                    env.problems
                        .error(
                            &at.field("headers").index(index),
                            format!("`{name}` cannot differ from call to call"),
                        )
                        .help("who is calling and from where, credentials and framing are the batch's");
                    whole = false;
                }
            }
        }
        let bytes = |size: &ByteSize| usize::try_from(size.0).unwrap_or(usize::MAX);
        whole.then(|| Rules {
            max_items: self.max_items,
            max_body: bytes(&self.max_body),
            parallel: self.parallel,
            timeout: self.timeout.0,
            max_answer: bytes(&self.max_answer),
            max_total: bytes(&self.max_total),
            own,
        })
    }
}

fn may_be_own(name: &HeaderName) -> bool {
    let name = name.as_str();
    !NEVER.contains(&name)
        && !name.starts_with("x-forwarded-")
        && !name.contains('_')
        && family(name) != Family::Identity
        && !tells_certificate(name)
}

impl Rules {
    /// Whether a call may have this field of its own.
    pub(crate) fn is_own(&self, name: &HeaderName) -> bool {
        self.own.contains(name)
    }
}
