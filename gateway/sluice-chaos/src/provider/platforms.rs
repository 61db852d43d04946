//! Platforms other than WeChat: how each is asked, and the shape of what it says. Errors have the numbers
//! and words that each documents.
//!
//! The one rule: whatever a platform wants to be asked in another way is a 404 here, so that a gateway that
//! asks wrongly finds nobody.

use std::collections::BTreeMap;

use aws_lc_rs::signature::{RSA_PKCS1_2048_8192_SHA256, UnparsedPublicKey};
use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::{Value, json};

use super::login::{Asked, Login, decoded};
use crate::record::Recorded;

/// Who was asked.
pub(super) enum Platform {
    Component,
    Douyin,
    Baidu,
    Kuaishou,
    Alipay {
        /// Whether the request was signed by the app.
        signed: bool,
    },
}

/// The token of the service provider that asks for others.
const COMPONENT: (&str, &str) = ("wxcomponent", "component token");

/// What was asked, if this is how a platform is asked.
pub(super) fn asked(
    method: &str,
    path: &str,
    request: &Recorded,
    alipay_key: &[u8],
) -> Option<(Platform, Asked)> {
    let query = request.target.split_once('?').map_or("", |(_, query)| query);
    let form = || pairs(&request.text());
    let (platform, appid, secret, code) = match (method, path) {
        ("GET", "/sns/component/jscode2session") => {
            let query = pairs(query);
            let known = query.get("component_appid").is_some_and(|id| id == COMPONENT.0)
                && query.get("component_access_token").is_some_and(|token| token == COMPONENT.1);
            let secret = if known { super::SECRET.to_owned() } else { "?".to_owned() };
            (
                Platform::Component,
                query.get("appid").cloned(),
                Some(secret),
                query.get("js_code").cloned(),
            )
        }
        ("POST", "/api/apps/v2/jscode2session") => {
            let body: Value = serde_json::from_slice(&request.body).ok()?;
            let member = |name: &str| body[name].as_str().map(str::to_owned);
            (Platform::Douyin, member("appid"), member("secret"), member("code"))
        }
        ("POST", "/oauth/jscode2sessionkey") => {
            let form = form();
            let member = |name: &str| form.get(name).cloned();
            (Platform::Baidu, member("client_id"), member("sk"), member("code"))
        }
        ("POST", "/oauth2/mp/code2session") => {
            let form = form();
            let member = |name: &str| form.get(name).cloned();
            (Platform::Kuaishou, member("app_id"), member("app_secret"), member("js_code"))
        }
        ("POST", "/gateway.do") => {
            let form = form();
            let signed = is_signed(&form, alipay_key);
            let member = |name: &str| form.get(name).cloned();
            let secret = Some(super::SECRET.to_owned());
            (Platform::Alipay { signed }, member("app_id"), secret, member("code"))
        }
        _ => return None,
    };
    let asked = Asked {
        appid: appid.unwrap_or_default(),
        secret: secret.unwrap_or_default(),
        code: code.unwrap_or_default(),
    };
    Some((platform, asked))
}

/// Alipay's RSA2 over the other parameters in the order of their names.
fn is_signed(form: &BTreeMap<String, String>, key: &[u8]) -> bool {
    let signed: Vec<String> = form
        .iter()
        .filter(|(name, _)| *name != "sign")
        .map(|(name, value)| format!("{name}={value}"))
        .collect();
    let signature = form.get("sign").and_then(|sign| STANDARD.decode(sign).ok());
    let key = UnparsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, key);
    signature.is_some_and(|signature| key.verify(signed.join("&").as_bytes(), &signature).is_ok())
        && form.get("method").is_some_and(|method| method == "alipay.system.oauth.token")
        && form.get("timestamp").is_some_and(|time| time.len() == 19)
}

impl Platform {
    /// The answer about a code for which this was decided, and which was `used` before or not.
    pub(super) fn answer(&self, asked: &Asked, login: Option<&Login>, used: bool) -> String {
        if let Some(Login::Says(words)) = login {
            return words.clone();
        }
        let mistaken = asked.mistake().is_some();
        let session = match login {
            Some(Login::Session { openid, .. }) if !used && !mistaken => Some(openid.as_str()),
            _ => None,
        };
        let code = match login {
            Some(Login::Error(code)) => Some(*code),
            _ => None,
        };
        let key = STANDARD.encode([7_u8; 16]);
        match (self, session) {
            (Self::Component, Some(openid)) => json!({ "openid": openid, "session_key": key }),
            (Self::Component, None) => {
                let code = code.unwrap_or(if mistaken { 61003 } else { 40029 });
                json!({ "errcode": code, "errmsg": "x" })
            }
            (Self::Douyin, Some(openid)) => json!({
                "err_no": 0, "err_tips": "success",
                "data": { "openid": openid, "session_key": key, "unionid": "", "anonymous_openid": "" },
            }),
            (Self::Douyin, None) => {
                let code = code.unwrap_or(if mistaken { 40017 } else { 40018 });
                json!({ "err_no": code, "err_tips": "x", "log_id": "1", "data": {} })
            }
            (Self::Baidu, Some(openid)) => json!({ "openid": openid, "session_key": key }),
            (Self::Baidu, None) => {
                let word = if mistaken { "invalid_client" } else { "invalid_grant" };
                json!({ "errno": code.unwrap_or(0), "error": word, "error_description": "x" })
            }
            (Self::Kuaishou, Some(openid)) => {
                json!({ "result": 1, "open_id": openid, "session_key": key })
            }
            (Self::Kuaishou, None) => {
                let code = code.unwrap_or(if mistaken { 100_200_101 } else { 100_200_100 });
                json!({ "result": code, "error": "x", "error_msg": "x" })
            }
            (Self::Alipay { signed: false }, _) => json!({
                "error_response": { "code": "40002", "sub_code": "isv.invalid-signature", "msg": "x" },
            }),
            (Self::Alipay { .. }, Some(openid)) => json!({
                "alipay_system_oauth_token_response": {
                    "open_id": openid, "access_token": "a", "expires_in": 300, "refresh_token": "r",
                },
                "sign": "x",
            }),
            (Self::Alipay { .. }, None) => json!({
                "error_response": { "code": "40002", "sub_code": "isv.code-invalid", "msg": "x" },
            }),
        }
        .to_string()
    }
}

fn pairs(text: &str) -> BTreeMap<String, String> {
    let pairs = text.split('&').filter_map(|pair| pair.split_once('='));
    pairs.map(|(name, value)| (decoded(name), decoded(value))).collect()
}
