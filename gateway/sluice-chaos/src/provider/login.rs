//! What `code2Session` answers: a session, once for each code, or an error as WeChat numbers them.
//!
//! The one rule: an error is told in the order in which the real one checks, so that a request that is
//! wrong in two ways gets the same answer here and there.

use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::json;

use super::{APPID, SECRET};

/// What becomes of a code.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Login {
    /// A session, the first time; afterwards the code has been used.
    Session {
        /// Who it is, for this program.
        openid: String,
        /// Who it is, for all programs of one owner, where the user belongs to one.
        unionid: Option<String>,
    },
    /// This error, every time: -1 is busy, 40029 an invalid code, 45011 too many calls, 40226 a user of
    /// high risk.
    Error(i64),
    /// These words, every time.
    Says(String),
}

/// A question as it was asked.
#[derive(Debug, Default)]
pub(super) struct Asked {
    pub(super) appid: String,
    pub(super) secret: String,
    pub(super) code: String,
}

impl Login {
    /// A session of this user.
    pub fn session(openid: &str, unionid: Option<&str>) -> Self {
        Self::Session { openid: openid.to_owned(), unionid: unionid.map(str::to_owned) }
    }
}

impl Asked {
    pub(super) fn parse(query: &str) -> Self {
        let mut asked = Self::default();
        for (name, value) in query.split('&').filter_map(|pair| pair.split_once('=')) {
            match name {
                "appid" => asked.appid = decoded(value),
                "secret" => asked.secret = decoded(value),
                "js_code" => asked.code = decoded(value),
                _ => {}
            }
        }
        asked
    }

    /// What is wrong with the question itself.
    pub(super) fn mistake(&self) -> Option<i64> {
        match () {
            () if self.appid.is_empty() => Some(41002),
            () if self.secret.is_empty() => Some(41004),
            () if self.code.is_empty() => Some(41008),
            () if !self.appid.starts_with(APPID) => Some(40013),
            () if self.secret != SECRET => Some(40125),
            () => None,
        }
    }
}

/// A new key of somebody's session.
pub(super) fn session_key() -> String {
    let key: [u8; 16] = std::array::from_fn(|_| fastrand::u8(..));
    STANDARD.encode(key)
}

/// The answer to a question about a code for which this was decided, and which was `used` before or not.
/// A session has this key.
pub(super) fn answer(asked: &Asked, login: Option<&Login>, used: bool, key: &str) -> String {
    let error = |code: i64| json!({ "errcode": code, "errmsg": message(code) }).to_string();
    if let Some(mistake) = asked.mistake() {
        return error(mistake);
    }
    match login {
        None => error(40029),
        Some(Login::Error(code)) => error(*code),
        Some(Login::Says(words)) => words.clone(),
        Some(Login::Session { .. }) if used => error(40163),
        Some(Login::Session { openid, unionid }) => {
            let mut session = json!({ "openid": openid, "session_key": key });
            if let Some(unionid) = unionid {
                session["unionid"] = unionid.as_str().into();
            }
            session.to_string()
        }
    }
}

fn message(code: i64) -> &'static str {
    match code {
        -1 => "system error",
        40013 => "invalid appid",
        40029 => "invalid code",
        40125 => "invalid appsecret",
        40163 => "code been used",
        40226 => "code blocked",
        41002 => "appid missing",
        41004 => "appsecret missing",
        41008 => "missing code",
        45011 => "api minute-quota reach limit, must slower, retry next minute",
        _ => "unknown error",
    }
}

/// Percent-encoding and `+` undone; what is not encoded rightly stays.
pub(super) fn decoded(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let [first, after @ ..] = rest {
        let hex = after.get(..2).and_then(|hex| std::str::from_utf8(hex).ok());
        let byte = hex.and_then(|hex| u8::from_str_radix(hex, 16).ok());
        let (byte, length) = match (first, byte) {
            (b'%', Some(byte)) => (byte, 3),
            (b'+', _) => (b' ', 1),
            (other, _) => (*other, 1),
        };
        bytes.push(byte);
        rest = &rest[length..];
    }
    String::from_utf8_lossy(&bytes).into_owned()
}
