//! What services are told about the caller, and by which names. Everything of these families that a
//! client may have said has been removed before; what is told here comes from verified tokens, or is
//! marked as a claim by `X-MP-Trust`.

use std::sync::Arc;

use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sluice_engine::mini::{Platform, Trust};

use super::apps::Apps;
use super::caller::Claims;
use super::text::push_claim;
use crate::base::cx::{Cx, Principal};
use crate::base::fault::Fault;

pub(crate) mod signature;

use signature::Signer;

/// Bytes of values that are told at most; more would take the room of what clients say.
const MAX_TOLD: usize = 4 * 1024;

/// By which names services are told about the caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Profile {
    /// They are not; what a mini-program says of itself passes as it is.
    None,
    /// `X-MP-*`, the same for all platforms.
    Neutral,
    /// `X-MP-*`, and `X-WX-*` as WeChat's cloud hosting has them.
    Wxcloud,
}

macro_rules! names {
    ($( $name:ident = $text:literal ),* $(,)?) => {
        $( static $name: HeaderName = HeaderName::from_static($text); )*
    };
}

names! {
    APP = "x-mp-app", APPID = "x-mp-appid", PLATFORM = "x-mp-platform", ENV = "x-mp-env",
    VERSION = "x-mp-version", BUILD = "x-mp-build", LIB = "x-mp-lib", DEVICE = "x-mp-device",
    TRUST = "x-mp-trust", USER = "x-mp-user", ROLES = "x-mp-roles", TIER = "x-mp-tier",
    SESSION = "x-mp-session", SCOPE = "x-mp-scope",
    WX_OPENID = "x-wx-openid", WX_UNIONID = "x-wx-unionid", WX_APPID = "x-wx-appid",
    WX_SOURCE = "x-wx-source", WX_ENV = "x-wx-env",
}

/// What a route's service is told, as compiled.
#[derive(Debug)]
pub(crate) struct Teller {
    pub(crate) profile: Profile,
    pub(crate) apps: Arc<Apps>,
    pub(crate) claims: Claims,
    /// Value of `X-WX-ENV`.
    pub(crate) wx_env: Option<HeaderValue>,
    pub(crate) signer: Option<Arc<Signer>>,
}

impl Teller {
    /// Tells the service who is calling.
    ///
    /// # Errors
    /// [`Fault::TokenInvalid`] when a token says what no field can hold, or too much.
    pub(crate) fn tell(&self, cx: &mut Cx, head: &mut Parts) -> Result<(), Fault> {
        if self.profile != Profile::None {
            let mut told = Told { headers: &mut head.headers, room: MAX_TOLD };
            self.claimed(cx, &mut told)?;
            if let Some(principal) = &cx.principal {
                self.proven(principal, &mut told)?;
                if self.profile == Profile::Wxcloud {
                    self.wechat(principal, cx, &mut told)?;
                }
            }
        }
        match &self.signer {
            Some(signer) => signer.sign(cx, head),
            None => Ok(()),
        }
    }

    /// What is known of the program, and how far it can be believed.
    fn claimed(&self, cx: &Cx, told: &mut Told<'_>) -> Result<(), Fault> {
        for name in [&APP, &ENV, &VERSION, &BUILD, &LIB, &DEVICE] {
            told.headers.remove(name);
        }
        let Some(client) = &cx.mini else { return Ok(()) };
        if let Some(app) = client.app.and_then(|app| self.apps.get(app)) {
            told.headers.insert(&APP, app.id_value.clone());
            told.headers.insert(&APPID, app.appid.clone());
        }
        if let Some(platform) = client.platform {
            told.fixed(&PLATFORM, platform.as_str());
        }
        if let Some(env) = client.env {
            told.fixed(&ENV, env.as_str());
        }
        if let Some(version) = &client.version {
            told.text(&VERSION, &version.to_string())?;
        }
        for (name, word) in
            [(&BUILD, &client.build), (&LIB, &client.lib), (&DEVICE, &client.device)]
        {
            if let Some(word) = word {
                told.text(name, word)?;
            }
        }
        if client.trust > Trust::None {
            told.fixed(&TRUST, client.trust.as_str());
        }
        Ok(())
    }

    fn proven(&self, principal: &Principal, told: &mut Told<'_>) -> Result<(), Fault> {
        let claims = &self.claims;
        for (name, claim) in [
            (&USER, &claims.user),
            (&ROLES, &claims.roles),
            (&TIER, &claims.tier),
            (&SESSION, &claims.session),
            (&SCOPE, &claims.scope),
        ] {
            told.claim(name, principal, claim)?;
        }
        Ok(())
    }

    /// As cloud hosting has it. Code for it takes the presence of the source for a proof that WeChat has
    /// made the call, so it is there only when a token proves an app of WeChat.
    fn wechat(&self, principal: &Principal, cx: &Cx, told: &mut Told<'_>) -> Result<(), Fault> {
        let proven = cx.mini.as_ref().filter(|client| client.trust == Trust::Proven);
        let from_wechat = match proven {
            Some(client) => client.platform == Some(Platform::Wechat),
            None => !self.apps.is_empty() && self.apps.all_on(Platform::Wechat),
        };
        if !from_wechat {
            return Ok(());
        }
        let known = told.claim(&WX_OPENID, principal, &self.claims.openid)?;
        told.claim(&WX_UNIONID, principal, &self.claims.unionid)?;
        if let Some(app) = proven.and_then(|client| self.apps.get(client.app?)) {
            told.headers.insert(&WX_APPID, app.appid.clone());
        }
        if known {
            told.fixed(&WX_SOURCE, "wx_client");
            if let Some(env) = &self.wx_env {
                told.headers.insert(&WX_ENV, env.clone());
            }
        }
        Ok(())
    }
}

/// The fields of a request, and how much may still be said.
struct Told<'h> {
    headers: &'h mut HeaderMap,
    room: usize,
}

impl Told<'_> {
    fn fixed(&mut self, name: &HeaderName, word: &'static str) {
        self.headers.insert(name, HeaderValue::from_static(word));
    }

    fn text(&mut self, name: &HeaderName, text: &str) -> Result<(), Fault> {
        self.room = self.room.checked_sub(text.len()).ok_or(Fault::TokenInvalid)?;
        // What no field may hold is refused, not repaired: half a name would be another's name.
        let value = HeaderValue::from_bytes(text.as_bytes()).map_err(|_| Fault::TokenInvalid)?;
        self.headers.insert(name, value);
        Ok(())
    }

    /// Tells a claim, if the token has it; lists of texts with commas between them.
    fn claim(
        &mut self,
        name: &HeaderName,
        principal: &Principal,
        claim: &str,
    ) -> Result<bool, Fault> {
        let mut text = String::new();
        match principal.claims.get(claim) {
            None | Some(Value::Null) => return Ok(false),
            Some(Value::Array(list)) => {
                for (at, item) in list.iter().enumerate() {
                    // A comma inside one would make two of it.
                    let word = item.as_str().filter(|word| !word.contains(','));
                    text.push_str(if at > 0 { "," } else { "" });
                    text.push_str(word.ok_or(Fault::TokenInvalid)?);
                }
            }
            Some(value) => push_claim(value, &mut text),
        }
        self.text(name, &text).map(|()| true)
    }
}
