//! Asking a service of ours who somebody is: roles, tier, an id of our own. The one rule: it has little
//! time, and what it says beyond the listed claims is not believed.

use std::sync::Arc;
use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;

use crate::base::units::Span;
use crate::base::yaml::Place;
use crate::lasting::fetch::Url;
use crate::parts::env::Env;
use crate::parts::upstream::tls;

/// A service that knows more of people. It is sent `{"app", "platform", "openid", "unionid"}` by POST and
/// answers with a JSON object: `uid` takes the place of `sub`, and `claims` go into tokens.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Config {
    /// Its address; `https`, or `http` in a network that is trusted.
    url: String,
    /// How long it may take.
    #[serde(default = "default_timeout")]
    timeout: Span,
    /// What becomes of a login that it does not answer: `guest` goes on without it, `deny` is 503.
    #[serde(default)]
    on_error: OnError,
    /// TLS towards it.
    #[serde(default)]
    tls: tls::Config,
    /// Members of its answer that go into tokens.
    #[serde(default = "default_claims")]
    claims: Vec<String>,
}

fn default_timeout() -> Span {
    Span(Duration::from_millis(300))
}

fn default_claims() -> Vec<String> {
    ["roles", "tier", "scope"].map(str::to_owned).to_vec()
}

/// What becomes of a login that the service does not answer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum OnError {
    #[default]
    Guest,
    Deny,
}

/// The service as it is asked.
pub(crate) struct Service {
    pub(crate) url: Url,
    pub(crate) tls: Option<Arc<rustls::ClientConfig>>,
    pub(crate) timeout: Duration,
    pub(crate) on_error: OnError,
    pub(crate) claims: Vec<String>,
}

/// Claims that only the gateway says.
const OURS: [&str; 13] = [
    "iss", "aud", "sub", "iat", "nbf", "exp", "jti", "sid", "sv", "app", "plt", "openid", "unionid",
];

impl Config {
    pub(crate) fn build(&self, at: &Place<'_>, env: &mut Env<'_>) -> Option<Service> {
        let url = Url::parse(&self.url);
        if url.is_none() {
            env.problems
                .error(&at.field("url"), "this is not the address of a service")
                .help("write it like http://users.internal:8080/internal/identity");
        }
        if !(Duration::from_millis(10)..=Duration::from_secs(2)).contains(&self.timeout.0) {
            env.problems.error(&at.field("timeout"), "`timeout` must lie between 10ms and 2s");
            return None;
        }
        for (index, claim) in self.claims.iter().enumerate() {
            if OURS.contains(&claim.as_str()) || claim.is_empty() {
                let at = at.field("claims").index(index);
                env.problems.error(&at, format!("`{claim}` is said by the gateway itself"));
                return None;
            }
        }
        let url = url?;
        let tls = match url.is_secure() {
            false => None,
            true => Some(self.tls.for_urls(&at.field("tls"), env)?),
        };
        Some(Service {
            url,
            tls,
            timeout: self.timeout.0,
            on_error: self.on_error,
            claims: self.claims.clone(),
        })
    }
}
