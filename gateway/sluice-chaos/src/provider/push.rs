//! Messages as WeChat pushes them to an app's server, in clear and in secure mode.
//!
//! The one rule: they are made by the platform's own recipe and not by the gateway's code.

use aws_lc_rs::cipher::{AES_256, EncryptingKey, EncryptionContext, UnboundCipherKey};
use aws_lc_rs::iv::FixedLength;
use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::json;

use super::server_api::{now, sha1};

/// The token of the console.
pub const PUSH_TOKEN: &str = "AAAAAtokenOfTheConsole";
/// The `EncodingAESKey` of the console.
pub const PUSH_KEY: &str = "abcdefghijklmnopqrstuvwxyz0123456789ABCDEFA";

/// A request with which a message is pushed.
#[derive(Clone, Debug)]
pub struct Push {
    /// The query.
    pub query: String,
    /// The type of the body.
    pub kind: &'static str,
    /// The body.
    pub body: String,
}

impl Push {
    /// A message in clear.
    pub fn plain(message: &str) -> Self {
        let query = query(0, None);
        Self { query, kind: kind(message), body: message.to_owned() }
    }

    /// An encrypted message for this app.
    pub fn sealed(message: &str, appid: &str) -> Self {
        Self::sealed_at(message, appid, 0)
    }

    /// The same, so many seconds ago.
    pub fn sealed_at(message: &str, appid: &str, age: u64) -> Self {
        let sealed = seal(message, appid);
        let query = query(age, Some(&sealed));
        let kind = kind(message);
        let body = match kind {
            "application/json" => json!({ "ToUserName": "gh_1", "Encrypt": sealed }).to_string(),
            _ => format!(
                "<xml><ToUserName><![CDATA[gh_1]]></ToUserName><Encrypt><![CDATA[{sealed}]]></Encrypt></xml>"
            ),
        };
        Self { query, kind, body }
    }
}

fn kind(message: &str) -> &'static str {
    if message.starts_with('{') { "application/json" } else { "text/xml" }
}

fn query(age: u64, sealed: Option<&str>) -> String {
    let (timestamp, nonce) = ((now() - age).to_string(), fastrand::u32(..).to_string());
    let sign = |texts: &[&str]| {
        let mut all: Vec<&str> = texts.iter().copied().chain([PUSH_TOKEN]).collect();
        all.sort_unstable();
        sha1(&all)
    };
    let signature = sign(&[&timestamp, &nonce]);
    let mut query = format!("signature={signature}&timestamp={timestamp}&nonce={nonce}&openid=o-1");
    if let Some(sealed) = sealed {
        let signature = sign(&[&timestamp, &nonce, sealed]);
        query.push_str(&format!("&encrypt_type=aes&msg_signature={signature}"));
    }
    query
}

fn seal(message: &str, appid: &str) -> String {
    let key = STANDARD.decode(format!("{PUSH_KEY}=")).unwrap();
    let mut text: Vec<u8> = std::iter::repeat_with(|| fastrand::u8(..)).take(16).collect();
    text.extend_from_slice(&u32::try_from(message.len()).unwrap().to_be_bytes());
    text.extend_from_slice(message.as_bytes());
    text.extend_from_slice(appid.as_bytes());
    let padding = 32 - text.len() % 32;
    text.extend(std::iter::repeat_n(u8::try_from(padding).unwrap(), padding));
    let iv: [u8; 16] = key[..16].try_into().unwrap();
    let key = EncryptingKey::cbc(UnboundCipherKey::new(&AES_256, &key).unwrap()).unwrap();
    key.less_safe_encrypt(&mut text, EncryptionContext::Iv128(FixedLength::from(iv))).unwrap();
    STANDARD.encode(text)
}
