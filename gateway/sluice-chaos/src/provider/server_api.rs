//! WeChat's calls between servers: the token for them, and a few that want it. Whatever is asked with a good
//! token and is not known here is told back.
//!
//! The one rule: a token is good until another one takes its place, and only the newest is.

use std::collections::BTreeMap;

use aws_lc_rs::hmac;
use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::{Value, json};

use super::login::decoded;
use super::{APPID, SECRET};
use crate::record::Recorded;

/// Where tokens are given out.
pub const STABLE_TOKEN: &str = "/cgi-bin/stable_token";
/// Where the code of a button becomes a number.
pub const PHONE: &str = "/wxa/business/getuserphonenumber";
/// Where it is asked whether a session key is still good.
pub const CHECK_SESSION: &str = "/wxa/checksession";

/// What becomes of the code of a button for phone numbers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Phone {
    /// This number, the first time.
    Number(String),
    /// This number, with the watermark of this app.
    OfApp(String, String),
    /// This error, every time.
    Error(i64),
}

/// Tokens, and what they are for.
pub(super) struct Servers {
    /// The newest token of each app.
    tokens: BTreeMap<String, String>,
    made: u64,
    pub(super) asked: u64,
    pub(super) forced: u64,
    /// Seconds that tokens are good for, as they are told.
    pub(super) life: i64,
    /// Calls refuse the newest token, which is given out all the same.
    pub(super) spoilt: bool,
    /// What stable_token says instead, if it is not well.
    pub(super) refuses: Option<i64>,
    pub(super) phones: BTreeMap<String, Phone>,
    pub(super) phone_codes: BTreeMap<String, u64>,
}

impl Default for Servers {
    fn default() -> Self {
        Self {
            tokens: BTreeMap::new(),
            made: 0,
            asked: 0,
            forced: 0,
            life: 7200,
            spoilt: false,
            refuses: None,
            phones: BTreeMap::new(),
            phone_codes: BTreeMap::new(),
        }
    }
}

impl Servers {
    /// The answer to a call between servers, if it is one.
    pub(super) fn answer(
        &mut self,
        request: &Recorded,
        session_keys: &BTreeMap<String, String>,
    ) -> Option<String> {
        let (path, query) = request.target.split_once('?').unwrap_or((&request.target, ""));
        if !["/cgi-bin/", "/wxa/", "/xpay/"].iter().any(|start| path.starts_with(start)) {
            return None;
        }
        let said = match (request.method.as_str(), path) {
            ("POST", STABLE_TOKEN) => self.stable_token(&request.body),
            _ => match self.refuse(query) {
                Some(code) => error(code),
                None => match (request.method.as_str(), path) {
                    ("POST", PHONE) => self.phone(&request.body),
                    ("GET", CHECK_SESSION) => check(query, session_keys),
                    _ => json!({
                        "errcode": 0, "errmsg": "ok", "method": request.method, "path": path,
                        "body": request.text(), "type": request.header("content-type"),
                    }),
                },
            },
        };
        Some(said.to_string())
    }

    /// Gives this app another token, as if somebody else had asked for it.
    pub(super) fn replace(&mut self, appid: &str) {
        self.made += 1;
        // As long as the vendor says that one may be.
        let filler: String = std::iter::repeat_with(fastrand::alphanumeric).take(500).collect();
        self.tokens.insert(appid.to_owned(), format!("{}_{filler}", self.made));
        self.spoilt = false;
    }

    pub(super) fn token(&self, appid: &str) -> Option<String> {
        self.tokens.get(appid).cloned()
    }

    fn stable_token(&mut self, body: &[u8]) -> Value {
        self.asked += 1;
        let asked: Value = serde_json::from_slice(body).unwrap_or_default();
        let text = |name: &str| asked[name].as_str().unwrap_or_default();
        let mistake = match () {
            () if text("grant_type") != "client_credential" => Some(40002),
            () if !text("appid").starts_with(APPID) => Some(40013),
            () if text("secret") != SECRET => Some(40125),
            () => self.refuses,
        };
        if let Some(code) = mistake {
            return error(code);
        }
        let forced = asked["force_refresh"].as_bool() == Some(true);
        self.forced += u64::from(forced);
        if forced || !self.tokens.contains_key(text("appid")) {
            self.replace(text("appid"));
        }
        json!({ "access_token": self.tokens[text("appid")], "expires_in": self.life })
    }

    fn refuse(&self, query: &str) -> Option<i64> {
        match parameter(query, "access_token") {
            None => Some(41001),
            Some(_) if self.spoilt => Some(42001),
            Some(token) if self.tokens.values().any(|good| *good == token) => None,
            Some(_) => Some(40001),
        }
    }

    fn phone(&mut self, body: &[u8]) -> Value {
        let asked: Value = serde_json::from_slice(body).unwrap_or_default();
        let code = asked["code"].as_str().unwrap_or_default().to_owned();
        let count = self.phone_codes.entry(code.clone()).or_default();
        *count += 1;
        let used = *count > 1;
        let (number, appid) = match self.phones.get(&code) {
            Some(Phone::Error(code)) => return error(*code),
            None => return error(40029),
            Some(_) if used => return error(40029),
            Some(Phone::Number(number)) => (number, APPID),
            Some(Phone::OfApp(number, appid)) => (number, appid.as_str()),
        };
        json!({ "errcode": 0, "errmsg": "ok", "phone_info": {
            "phoneNumber": format!("+86{number}"), "purePhoneNumber": number, "countryCode": "86",
            "watermark": { "timestamp": now(), "appid": appid },
        }})
    }
}

/// Whether a session key is good is shown by a signature of nothing.
fn check(query: &str, session_keys: &BTreeMap<String, String>) -> Value {
    let text = |name: &str| parameter(query, name).unwrap_or_default();
    let key = session_keys.get(&text("openid")).cloned().unwrap_or_default();
    let key = hmac::Key::new(hmac::HMAC_SHA256, key.as_bytes());
    let good = hex(hmac::sign(&key, b"").as_ref());
    if text("sig_method") == "hmac_sha256" && text("signature") == good {
        error(0)
    } else {
        error(87009)
    }
}

/// Encrypts as the platform does, with a session key as it is told. The text and its vector, in Base64.
pub fn encrypt(session_key: &str, text: &str) -> (String, String) {
    use aws_lc_rs::cipher::{
        AES_128, EncryptionContext, PaddedBlockEncryptingKey, UnboundCipherKey,
    };
    let iv: [u8; 16] = std::array::from_fn(|_| fastrand::u8(..));
    let key = STANDARD.decode(session_key).unwrap();
    let key = UnboundCipherKey::new(&AES_128, &key).unwrap();
    let key = PaddedBlockEncryptingKey::cbc_pkcs7(key).unwrap();
    let mut sealed = text.as_bytes().to_vec();
    let context = EncryptionContext::Iv128(aws_lc_rs::iv::FixedLength::from(iv));
    key.less_safe_encrypt(&mut sealed, context).unwrap();
    (STANDARD.encode(sealed), STANDARD.encode(iv))
}

/// What somebody tells in place of a vector: the same with a byte changed.
pub fn changed(iv: &str, at: usize, mask: u8) -> String {
    let mut iv = STANDARD.decode(iv).unwrap();
    iv[at] ^= mask;
    STANDARD.encode(iv)
}

/// Signs as the platform does: SHA-1 over the texts, one after the other, in hex.
pub fn sha1(texts: &[&str]) -> String {
    let digest = aws_lc_rs::digest::digest(
        &aws_lc_rs::digest::SHA1_FOR_LEGACY_USE_ONLY,
        texts.concat().as_bytes(),
    );
    hex(digest.as_ref())
}

fn error(code: i64) -> Value {
    let message = match code {
        0 => "ok",
        40001 => "invalid credential, access_token is invalid or not latest",
        42001 => "access_token expired",
        _ => "not so",
    };
    json!({ "errcode": code, "errmsg": message })
}

fn parameter(query: &str, name: &str) -> Option<String> {
    let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
    pairs.filter(|(known, _)| *known == name).map(|(_, value)| decoded(value)).next()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

pub(super) fn now() -> u64 {
    let now = std::time::SystemTime::now();
    now.duration_since(std::time::UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
