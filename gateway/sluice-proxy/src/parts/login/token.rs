//! What the gateway's own tokens say. The one rule: never a key of a user's session and never a `unionid`,
//! since whoever holds a token can read it.

use std::time::Duration;

use aws_lc_rs::digest;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::base::units::Span;
use crate::base::yaml::Place;
use crate::parts::env::Env;

/// What tokens say.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Config {
    /// How long a token is good; at most 7d.
    lifetime: Span,
    /// `iss`.
    issuer: String,
    /// `aud`; none if empty.
    audiences: Vec<String>,
    /// Also say the `openid`, for services that need it. `sub` is made from it, and differs for each app.
    openid: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            // A stolen token is good for so long at most, and few are refreshed in one sitting.
            lifetime: Span(Duration::from_secs(2 * 3600)),
            issuer: "sluice".to_owned(),
            audiences: Vec::new(),
            openid: false,
        }
    }
}

/// Longest life of a token: nobody can take a stolen one back everywhere.
pub(crate) const LONGEST: Duration = Duration::from_secs(7 * 86_400);

/// The same as compiled.
#[derive(Debug, Clone)]
pub(crate) struct Rules {
    pub(crate) lifetime: Duration,
    pub(crate) issuer: String,
    audiences: Vec<String>,
    openid: bool,
}

/// Whom a token is about.
pub(crate) struct Subject<'a> {
    pub(crate) app: &'a str,
    pub(crate) platform: &'a str,
    pub(crate) open_id: &'a str,
    /// An id of ours, instead of a digest.
    pub(crate) uid: Option<&'a str>,
    /// The session and the user's version, if there is a session.
    pub(crate) session: Option<(&'a str, u64)>,
    /// Claims from elsewhere: roles, tier.
    pub(crate) more: &'a Map<String, Value>,
}

impl Subject<'_> {
    /// Who it is, in tokens.
    pub(crate) fn sub(&self) -> String {
        self.uid.map_or_else(|| pairwise(self.app, self.open_id), str::to_owned)
    }
}

impl Config {
    /// Who makes the tokens.
    pub(crate) fn issuer(&self) -> &str {
        &self.issuer
    }

    pub(crate) fn build(&self, at: &Place<'_>, env: &mut Env<'_>) -> Option<Rules> {
        let lifetime = self.lifetime.0;
        if !(Duration::from_secs(1)..=LONGEST).contains(&lifetime) {
            env.problems
                .error(&at.field("lifetime"), "a token lives for 1s to 7d")
                .help("write 2h, and let clients log in again or refresh");
            return None;
        }
        if self.issuer.is_empty() {
            env.problems.error(&at.field("issuer"), "an issuer has a name");
            return None;
        }
        Some(Rules {
            lifetime,
            issuer: self.issuer.clone(),
            audiences: self.audiences.clone(),
            openid: self.openid,
        })
    }
}

impl Rules {
    /// The claims of a token that is made `now` (seconds since 1970).
    pub(crate) fn claims(&self, subject: &Subject<'_>, jti: &str, now: u64) -> Map<String, Value> {
        let mut claims = subject.more.clone();
        let mut say = |name: &str, value: Value| claims.insert(name.to_owned(), value);
        say("iss", self.issuer.as_str().into());
        match self.audiences.as_slice() {
            [] => {}
            [only] => drop(say("aud", only.as_str().into())),
            all => drop(say("aud", all.into())),
        }
        say("sub", subject.sub().into());
        say("iat", now.into());
        say("exp", (now + self.lifetime.as_secs()).into());
        say("jti", jti.into());
        say("app", subject.app.into());
        say("plt", subject.platform.into());
        if let Some((sid, version)) = subject.session {
            say("sid", sid.into());
            say("sv", version.into());
        }
        if self.openid {
            say("openid", subject.open_id.into());
        }
        claims
    }
}

/// Who somebody is for one app, without saying who that is on the platform.
pub(crate) fn pairwise(app: &str, open_id: &str) -> String {
    let mut context = digest::Context::new(&digest::SHA256);
    context.update(app.as_bytes());
    context.update(&[0]);
    context.update(open_id.as_bytes());
    let digest = context.finish();
    URL_SAFE_NO_PAD.encode(digest.as_ref().get(..18).unwrap_or_default())
}

/// A name that nobody can guess, of 128 bits.
pub(crate) fn random_id() -> Option<String> {
    let mut bytes = [0_u8; 16];
    aws_lc_rs::rand::fill(&mut bytes).ok()?;
    Some(URL_SAFE_NO_PAD.encode(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_says_who_but_not_who_on_the_platform() {
        let rules = Rules {
            lifetime: Duration::from_secs(7200),
            issuer: "me".to_owned(),
            audiences: vec!["a".to_owned(), "b".to_owned()],
            openid: false,
        };
        let more =
            Map::from_iter([("sub".to_owned(), "forged".into()), ("tier".into(), "vip".into())]);
        let subject = Subject {
            app: "shop",
            platform: "wechat",
            open_id: "o-1",
            uid: None,
            session: Some(("s", 2)),
            more: &more,
        };
        let claims = rules.claims(&subject, "j", 1000);
        assert_eq!(claims["exp"], 8200);
        assert_eq!(claims["sub"], pairwise("shop", "o-1"));
        assert_eq!(claims["aud"], serde_json::json!(["a", "b"]));
        assert_eq!(claims["tier"], "vip");
        assert_eq!((&claims["sid"], &claims["sv"]), (&"s".into(), &2.into()));
        assert!(!Value::Object(claims).to_string().contains("o-1"));
        let known = Subject { uid: Some("u-7"), ..subject };
        assert_eq!(rules.claims(&known, "j", 1000)["sub"], "u-7");
        let open = Rules { openid: true, ..rules };
        assert_eq!(open.claims(&known, "j", 1000)["openid"], "o-1");
        assert_ne!(pairwise("shop", "o-1"), pairwise("shop2", "o-1"));
        assert_ne!(pairwise("a", "bc"), pairwise("ab", "c"));
    }
}
