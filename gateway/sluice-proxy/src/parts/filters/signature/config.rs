//! The words of `signature:`, and how they become a filter.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sluice_engine::signature::hmac::Dialect;
use sluice_engine::signature::{Algorithm, rfc9421};

use super::replay::{Here, Replay};
use super::{Keys, Signature};
use crate::base::units::{ByteSize, Secret, Span};
use crate::base::yaml::Place;
use crate::lasting::nonces::Nonces;
use crate::parts::env::{Env, Owner};
use crate::parts::key_records::{self as keys, Purpose, Record};
use crate::parts::masters::{self, Masters};

/// A longer window keeps more nonces than it forgives clocks.
const LONGEST_WINDOW: Duration = Duration::from_secs(900);
/// How far the clocks of gateways that share a Redis may be apart.
const CLOCKS_APART: Duration = Duration::from_secs(60);
/// A larger body would be held in memory whole.
const LARGEST_BODY: u64 = 16 * 1024 * 1024;

/// Verifies that the request was signed, and lets each pass once.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Signature")]
pub(crate) struct Config {
    /// How requests are signed.
    scheme: SchemeWord,
    /// `hmac`: whose way of signing.
    #[serde(default)]
    dialect: Option<DialectWord>,
    /// `session`: a file with the secret that the keys of sessions are derived from, at least 32 bytes.
    /// Without one, that of `login.sign_key`.
    #[serde(default)]
    master_secret_file: Option<String>,
    /// `session`: the same as text; better a file.
    #[serde(default)]
    master_secret: Option<Secret>,
    /// `session`: a file with the secret before, accepted too while sessions of it live.
    #[serde(default)]
    previous_master_secret_file: Option<String>,
    /// `session`: the secret before as text.
    #[serde(default)]
    previous_master_secret: Option<Secret>,
    /// `session`: the claim that names the session, `sid` if not given; with the secret of `login.sign_key`
    /// also `jti`, for tokens without a session.
    #[serde(default)]
    session_claim: Option<String>,
    /// All but `session`: who may sign.
    #[serde(default)]
    keys: Vec<Record>,
    /// Look for keys that are not here in Redis, under `sluice:app:ID`.
    #[serde(default)]
    redis_keys: bool,
    /// Accepted algorithms; those that the scheme knows without `hmac-sha1`, if not given. Tencent's
    /// dialects know `hmac-sha1` by themselves.
    #[serde(default)]
    algorithms: Vec<AlgorithmWord>,
    /// `hmac` and `rfc9421`: what must be covered, beside the date. `["@request-target"]` for `kong` and
    /// `apisix`, `["@method", "@target-uri"]` for `rfc9421` if not given.
    #[serde(default)]
    required: Option<Vec<String>>,
    /// `hmac`: the covered field that makes each request another one; without it a request can be
    /// repeated within the window.
    #[serde(default)]
    nonce_header: Option<String>,
    /// How far the client's clock may be off, and how old a request may be.
    #[serde(default = "default_window")]
    window: Span,
    /// Largest body that is read before it is sent on.
    #[serde(default = "default_body")]
    body_limit: ByteSize,
    /// Do not look at bodies. In `session` the line of the body then is `UNSIGNED-PAYLOAD`.
    #[serde(default)]
    unsigned_payload: bool,
    /// Where used nonces are kept.
    #[serde(default)]
    store: StoreWord,
    /// What happens to a request while Redis cannot be asked.
    #[serde(default)]
    on_store_error: OnStoreError,
}

/// How requests are signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[schemars(rename = "SignatureScheme")]
enum SchemeWord {
    /// By the caller's session, in `X-MP-Sign`.
    Session,
    /// In `X-Ca-*`, as Alibaba and Higress do.
    XCa,
    /// In `Authorization`, as Kong, APISIX and Tencent do.
    Hmac,
    /// HTTP Message Signatures.
    Rfc9421,
}

/// Whose way of signing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[schemars(rename = "SignatureDialect")]
enum DialectWord {
    /// Kong's plugin hmac-auth.
    Kong,
    /// APISIX's plugin hmac-auth.
    Apisix,
    /// Pairs of keys of Tencent's gateway, which cover header fields only.
    Tencent,
    /// Applications of Tencent's gateway.
    TencentApp,
}

/// Algorithms of signatures.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[schemars(rename = "SignatureAlgorithm")]
enum AlgorithmWord {
    HmacSha1,
    HmacSha256,
    HmacSha384,
    HmacSha512,
    Ed25519,
}

/// Where used nonces are kept.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(rename = "NonceStore")]
enum StoreWord {
    /// In Redis if there is one, else in this process.
    #[default]
    Auto,
    /// In this process: another gateway lets the same request pass once more.
    Local,
    /// In Redis.
    Redis,
}

/// What happens to a signed request while Redis cannot be asked.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(rename = "OnNonceStoreError")]
pub(super) enum OnStoreError {
    /// It is refused with 503.
    #[default]
    Deny,
    /// It passes.
    Allow,
    /// Its nonce is looked for in this process only.
    Local,
}

/// A scheme with its dialect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Scheme {
    Session,
    XCa,
    Hmac(Dialect),
    Rfc9421,
}

fn default_window() -> Span {
    // What Kong and APISIX allow; phones' clocks drift by minutes.
    Span(Duration::from_secs(300))
}

fn default_body() -> ByteSize {
    ByteSize(1024 * 1024)
}

/// The secret of the keys that login hands out.
fn handed_out(at: &Place<'_>, env: &mut Env<'_>) -> Option<std::sync::Arc<Masters>> {
    match &env.login {
        Some(login) if login.sign_key.is_some() => login.sign_key.clone(),
        // Why there is no login was told.
        None if env.has_login => None,
        _ => {
            env.problems
                .error(at, "nobody hands out keys to sign with")
                .help("write `login: { sign_key: { master_secret_file: sign.key } }`, or `master_secret_file` here if another does");
            None
        }
    }
}

impl Config {
    pub(crate) fn build(&self, at: &Place<'_>, _: &Owner, env: &mut Env<'_>) -> Option<Signature> {
        let scheme = self.scheme(at, env);
        let keys = self.keys(at, env);
        let scheme = scheme?;
        if scheme == Scheme::Hmac(Dialect::Tencent) {
            env.problems
                .warn(
                    &at.field("dialect"),
                    "a signature of `tencent` is good for every method and path",
                )
                .help("let clients change over to `tencent-app`, which covers them");
        }
        let algorithms = self.algorithms(scheme, at, env);
        let required = self.required(scheme, at, env);
        let nonce_header = self.nonce(scheme, at, env);
        let window = self.window.0;
        if window.is_zero() || window > LONGEST_WINDOW {
            env.problems.error(&at.field("window"), "`window` must lie between 1ms and 15m");
        }
        if self.body_limit.0 > LARGEST_BODY {
            env.problems
                .error(&at.field("body_limit"), "at most 16MiB can be read before they are sent on")
                .help("larger bodies need `unsigned_payload: true`");
        }
        let shared = match (self.store, &env.redis) {
            (StoreWord::Local, _) | (StoreWord::Auto, None) => None,
            (_, Some(redis)) => Some(std::sync::Arc::clone(redis)),
            (StoreWord::Redis, None) => {
                env.problems
                    .error(&at.field("store"), "there is no Redis to keep nonces in")
                    .help("set `redis: { url: redis://host:6379 }`, or leave `store` out");
                return None;
            }
        };
        let replay = Replay {
            here: Here(env.retained.cell("nonces", Nonces::new)),
            shared,
            on_error: self.on_store_error,
            // From the oldest clock that is believed to the latest, and a little for other gateways' own.
            time: window.saturating_mul(2).saturating_add(CLOCKS_APART),
        };
        Some(Signature {
            scheme,
            keys: keys?,
            algorithms: algorithms?,
            required: required?,
            nonce_header: nonce_header?,
            window: u64::try_from(window.as_millis()).unwrap_or(u64::MAX),
            replay,
            body_limit: self.body_limit.0,
            unsigned_payload: self.unsigned_payload,
        })
    }

    fn scheme(&self, at: &Place<'_>, env: &mut Env<'_>) -> Option<Scheme> {
        match (self.scheme, self.dialect) {
            (SchemeWord::Session, None) => Some(Scheme::Session),
            (SchemeWord::XCa, None) => Some(Scheme::XCa),
            (SchemeWord::Rfc9421, None) => Some(Scheme::Rfc9421),
            (SchemeWord::Hmac, Some(dialect)) => Some(Scheme::Hmac(match dialect {
                DialectWord::Kong => Dialect::Kong,
                DialectWord::Apisix => Dialect::Apisix,
                DialectWord::Tencent => Dialect::Tencent,
                DialectWord::TencentApp => Dialect::TencentApp,
            })),
            (SchemeWord::Hmac, None) => {
                env.problems
                    .error(at, "missing field `dialect`")
                    .help("write `dialect: kong`, `apisix`, `tencent` or `tencent-app`");
                None
            }
            (_, Some(_)) => {
                env.problems.error(&at.field("dialect"), "only `scheme: hmac` has dialects");
                None
            }
        }
    }

    fn keys(&self, at: &Place<'_>, env: &mut Env<'_>) -> Option<Keys> {
        if self.scheme == SchemeWord::Session {
            if !self.keys.is_empty() || self.redis_keys {
                env.problems
                    .error(&at.field("keys"), "`scheme: session` derives its keys")
                    .help("leave them out; the secret is that of `login.sign_key`, or `master_secret_file` here");
            }
            return self.derived(at, env);
        }
        if self.master_secret_file.is_some() || self.master_secret.is_some() {
            env.problems.error(at, "only `scheme: session` has a master secret");
        }
        if self.keys.is_empty() && !self.redis_keys {
            env.problems.error(at, "nobody could sign: there are no keys").help(
                "write `keys: [ { id: demo, secret_file: demo.key } ]`, or `redis_keys: true`",
            );
            return None;
        }
        let ed25519 = self.scheme == SchemeWord::Rfc9421;
        let purpose = if ed25519 { Purpose::Signature } else { Purpose::Hmac };
        let here = keys::build(&self.keys, purpose, &at.field("keys"), env)?;
        let shared = keys::shared(self.redis_keys, "sluice:app:", purpose, at, env)?;
        Some(Keys::Held { here, shared })
    }

    fn derived(&self, at: &Place<'_>, env: &mut Env<'_>) -> Option<Keys> {
        let current = masters::given(self.master_secret_file.as_ref(), self.master_secret.as_ref());
        let previous = masters::previous(
            self.previous_master_secret_file.as_ref(),
            self.previous_master_secret.as_ref(),
        );
        let own = !current.is_none() || !previous.is_none();
        let masters = if own {
            std::sync::Arc::new(masters::build(&current, &previous, at, env)?)
        } else {
            handed_out(at, env)?
        };
        let claims = match &self.session_claim {
            Some(claim) => vec![claim.clone()],
            None if own => vec!["sid".to_owned()],
            // A login that could keep no session gives a key to the token alone.
            None => vec!["sid".to_owned(), "jti".to_owned()],
        };
        Some(Keys::Derived { masters, claims })
    }

    fn algorithms(
        &self,
        scheme: Scheme,
        at: &Place<'_>,
        env: &mut Env<'_>,
    ) -> Option<Vec<Algorithm>> {
        use Algorithm::{Ed25519, HmacSha1, HmacSha256, HmacSha384, HmacSha512};
        let known: &[Algorithm] = match scheme {
            Scheme::Session => &[HmacSha256],
            Scheme::XCa => &[HmacSha256, HmacSha1],
            Scheme::Hmac(_) => &[HmacSha256, HmacSha384, HmacSha512, HmacSha1],
            Scheme::Rfc9421 => &[HmacSha256, Ed25519],
        };
        let old = matches!(scheme, Scheme::Hmac(Dialect::Tencent | Dialect::TencentApp));
        if self.algorithms.is_empty() {
            return Some(known.iter().copied().filter(|a| old || *a != HmacSha1).collect());
        }
        let mut chosen = Vec::new();
        for (index, word) in self.algorithms.iter().enumerate() {
            let algorithm = match word {
                AlgorithmWord::HmacSha1 => HmacSha1,
                AlgorithmWord::HmacSha256 => HmacSha256,
                AlgorithmWord::HmacSha384 => HmacSha384,
                AlgorithmWord::HmacSha512 => HmacSha512,
                AlgorithmWord::Ed25519 => Ed25519,
            };
            if !known.contains(&algorithm) {
                let at = at.field("algorithms").index(index);
                env.problems.error(&at, "this scheme does not know this algorithm");
                return None;
            }
            chosen.push(algorithm);
        }
        Some(chosen)
    }

    fn required(&self, scheme: Scheme, at: &Place<'_>, env: &mut Env<'_>) -> Option<Vec<String>> {
        let words = |words: &[&str]| words.iter().map(|&word| word.to_owned()).collect::<Vec<_>>();
        let place = at.field("required");
        let Some(given) = &self.required else {
            return Some(match scheme {
                Scheme::Hmac(Dialect::Kong | Dialect::Apisix) => words(&["@request-target"]),
                Scheme::Rfc9421 => words(&["@method", "@target-uri"]),
                _ => Vec::new(),
            });
        };
        let given: Vec<String> = given.iter().map(|name| name.to_ascii_lowercase()).collect();
        let has = |name: &str| given.iter().any(|given| given == name);
        let (covers, help) = match scheme {
            Scheme::Session | Scheme::XCa => {
                env.problems.error(&place, "this scheme always covers the same");
                return None;
            }
            Scheme::Hmac(Dialect::Kong) => (
                has("@request-target") || has("request-line"),
                "add \"@request-target\": without it a signature is good for every path",
            ),
            Scheme::Hmac(Dialect::Apisix) => (
                has("@request-target"),
                "add \"@request-target\": without it a signature is good for every path",
            ),
            Scheme::Hmac(Dialect::Tencent | Dialect::TencentApp) => (true, ""),
            Scheme::Rfc9421 => (
                rfc9421::cover_target(&given),
                "add \"@method\", and \"@target-uri\" or \"@authority\", \"@path\" and \"@query\"",
            ),
        };
        if !covers {
            env.problems.error(&place, "method and target would not be covered").help(help);
        }
        if let Some(odd) =
            given.iter().find(|name| scheme == Scheme::Rfc9421 && !rfc9421::is_component(name))
        {
            env.problems.error(&place, format!("`{odd}` is no component that is understood"));
            return None;
        }
        covers.then_some(given)
    }

    #[expect(clippy::option_option, reason = "the outer one tells of a problem")]
    fn nonce(&self, scheme: Scheme, at: &Place<'_>, env: &mut Env<'_>) -> Option<Option<String>> {
        match (&self.nonce_header, scheme) {
            (None, Scheme::Hmac(dialect)) => {
                env.problems
                    .warn(at, format!("requests of {dialect:?} can be repeated within `window`: they have no nonce"))
                    .help("name a field that clients fill and sign, like `nonce_header: x-nonce`");
                Some(None)
            }
            (None, _) => Some(None),
            (Some(name), Scheme::Hmac(_)) => match http::HeaderName::try_from(name.as_str()) {
                Ok(name) => Some(Some(name.as_str().to_owned())),
                Err(_) => {
                    let message = format!("`{name}` is not a header name");
                    env.problems.error(&at.field("nonce_header"), message);
                    None
                }
            },
            (Some(_), _) => {
                env.problems.error(&at.field("nonce_header"), "this scheme has a nonce of its own");
                None
            }
        }
    }
}
