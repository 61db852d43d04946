//! What a platform lets a mini-program know of its user, and gives proof of: data with a signature, and data
//! that is encrypted, both by the key of the user's session at the platform. Below it the `cipher`.
//!
//! The one rule: a key that was replaced meanwhile and data that somebody made up look alike, and get the same
//! answer. What is told apart was encrypted by the platform.

pub(crate) mod cipher;

use std::time::Duration;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::{digest, hmac};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Map, Value};
use zeroize::Zeroizing;

use super::apps::Provider;
use super::env::Env;
use crate::base::fault::Fault;
use crate::base::units::{Secret, Span};
use crate::base::yaml::Place;

/// What is believed of open data.
#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Config {
    /// How old encrypted data may be, by its watermark: between 10s and 1d.
    max_age: Span,
}

impl Default for Config {
    fn default() -> Self {
        // A user who reads what he is asked for, and a slow network.
        Self { max_age: Span(Duration::from_secs(600)) }
    }
}

/// The same as compiled.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rules {
    max_age: Duration,
}

impl Config {
    pub(crate) fn build(self, at: &Place<'_>, env: &mut Env<'_>) -> Option<Rules> {
        let fine = Duration::from_secs(10)..=Duration::from_secs(86_400);
        if !fine.contains(&self.max_age.0) {
            env.problems.error(&at.field("max_age"), "`max_age` must lie between 10s and 1d");
            return None;
        }
        Some(Rules { max_age: self.max_age.0 })
    }
}

/// How far the platform's clock may be ahead of ours.
const DRIFT: u64 = 60;
/// Longest padding of open data.
const PADDING: u8 = 16;

/// What somebody wants to have verified, decrypted, or both.
#[derive(Deserialize)]
pub(crate) struct Asked {
    #[serde(default)]
    pub(crate) raw_data: Option<String>,
    #[serde(default)]
    pub(crate) signature: Option<String>,
    #[serde(default)]
    pub(crate) encrypted_data: Option<String>,
    #[serde(default)]
    pub(crate) iv: Option<String>,
}

/// Whose data it has to be.
pub(crate) struct Owner<'a> {
    pub(crate) provider: Provider,
    pub(crate) appid: &'a str,
    pub(crate) open_id: &'a str,
    pub(crate) session_key: &'a Secret,
}

/// What holds.
#[derive(Debug, Default)]
pub(crate) struct Proven {
    /// What was signed.
    pub(crate) raw_data: Option<Map<String, Value>>,
    /// What was encrypted, without the watermark.
    pub(crate) data: Option<Map<String, Value>>,
}

/// Letters of an identity that are not in an answer by chance.
const TELLING: usize = 8;

impl Proven {
    /// Takes out who the user is: `ids` are what the platform calls him. Whoever has encrypted data can change
    /// its first block (CBC, whose vector is his to choose), and call `openId` something else; so it is looked
    /// for in all that is said, and a part of it is too much. No part of it is shorter than a block that he
    /// cannot change without spoiling the one before.
    pub(crate) fn conceal(&mut self, ids: &[&str]) -> Result<(), Fault> {
        let Some(data) = &mut self.data else { return Ok(()) };
        let own = ["openId", "unionId"].map(|name| data.remove(name));
        let own = own.iter().flatten().filter_map(Value::as_str);
        let said = serde_json::to_string(data).map_err(|_| Fault::Internal)?;
        let tells = |id: &str| {
            let mut parts = id.as_bytes().windows(TELLING);
            parts.any(|part| memchr::memmem::find(said.as_bytes(), part).is_some())
        };
        match ids.iter().copied().chain(own).any(tells) {
            true => Err(Fault::SessionKeyStale),
            false => Ok(()),
        }
    }
}

impl Rules {
    /// Verifies and decrypts at `now`, in seconds since 1970.
    pub(crate) fn prove(self, asked: &Asked, owner: &Owner<'_>, now: u64) -> Result<Proven, Fault> {
        if !gives(owner.provider) {
            return Err(Fault::OpenDataInvalid);
        }
        let mut proven = Proven::default();
        match (&asked.raw_data, &asked.signature) {
            (None, None) => {}
            (Some(raw), Some(shown)) => {
                if !is_signed(raw, shown, owner.session_key) {
                    return Err(Fault::SessionKeyStale);
                }
                let object = serde_json::from_str(raw).map_err(|_| Fault::OpenDataInvalid)?;
                proven.raw_data = Some(object);
            }
            _ => return Err(Fault::OpenDataInvalid),
        }
        match (&asked.encrypted_data, &asked.iv) {
            (None, None) if proven.raw_data.is_none() => return Err(Fault::OpenDataInvalid),
            (None, None) => {}
            (Some(sealed), Some(iv)) => proven.data = Some(self.open(sealed, iv, owner, now)?),
            _ => return Err(Fault::OpenDataInvalid),
        }
        Ok(proven)
    }

    fn open(
        self,
        sealed: &str,
        iv: &str,
        owner: &Owner<'_>,
        now: u64,
    ) -> Result<Map<String, Value>, Fault> {
        let read = decrypt(owner.session_key, sealed, iv);
        let (mut data, mark) = read.ok_or(Fault::SessionKeyStale)?;
        let own = data.get("openId").is_none_or(|id| id.as_str() == Some(owner.open_id));
        if mark.appid != owner.appid || !own {
            return Err(Fault::OpenDataForeign);
        }
        let oldest = now.saturating_sub(self.max_age.as_secs());
        if !(oldest..=now.saturating_add(DRIFT)).contains(&mark.timestamp) {
            return Err(Fault::OpenDataOld);
        }
        data.remove("watermark");
        Ok(data)
    }
}

/// By which a platform marks what it has encrypted.
#[derive(Debug, Deserialize, PartialEq, Eq)]
pub(crate) struct Watermark {
    pub(crate) appid: String,
    pub(crate) timestamp: u64,
}

/// Platforms that sign and encrypt in this way.
fn gives(provider: Provider) -> bool {
    matches!(
        provider,
        Provider::Wechat | Provider::WechatComponent | Provider::Qq | Provider::Douyin
    )
}

/// Whether `shown` is the SHA-1, in hex, of the data and the key behind it.
fn is_signed(raw: &str, shown: &str, session_key: &Secret) -> bool {
    let mut context = digest::Context::new(&digest::SHA1_FOR_LEGACY_USE_ONLY);
    context.update(raw.as_bytes());
    context.update(session_key.expose().as_bytes());
    let mut hex = [0; 40];
    sluice_engine::trace::write_hex(context.finish().as_ref(), &mut hex);
    let shown = shown.to_ascii_lowercase();
    verify_slices_are_equal(&hex, shown.as_bytes()).is_ok()
}

/// The data and its watermark, where the key has encrypted an object with one.
fn decrypt(
    session_key: &Secret,
    sealed: &str,
    iv: &str,
) -> Option<(Map<String, Value>, Watermark)> {
    let key = Zeroizing::new(STANDARD.decode(session_key.expose()).ok()?);
    let iv = STANDARD.decode(iv).ok()?;
    let plain = cipher::open_text(&key, &iv, sealed, PADDING)?;
    let data: Map<String, Value> = serde_json::from_slice(&plain).ok()?;
    let mark = Watermark::deserialize(data.get("watermark")?).ok()?;
    Some((data, mark))
}

/// The signature of a user's state: HMAC-SHA256 in hex. Its key is the session key as it is written; decoding
/// it first gives another, wrong value.
pub(crate) fn state_signature(session_key: &Secret, body: &[u8]) -> String {
    let key = hmac::Key::new(hmac::HMAC_SHA256, session_key.expose().as_bytes());
    let mut hex = [0; 64];
    sluice_engine::trace::write_hex(hmac::sign(&key, body).as_ref(), &mut hex);
    hex.iter().map(|byte| char::from(*byte)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// WeChat's own example.
    const RAW: &str = r#"{"nickName":"Band","gender":1,"language":"zh_CN","city":"Guangzhou","province":"Guangdong","country":"CN","avatarUrl":"http://wx.qlogo.cn/mmopen/vi_32/1vZvI39NWFQ9XM4LtQpFrQJ1xlgZxx3w7bQxKARol6503Iuswjjn6nIGBiaycAjAtpujxyzYsrztuuICqIM5ibXQ/0"}"#;
    const RAW_KEY: &str = "HyVFkGl5F5OQWJZZaNzBBg==";
    const RAW_SIGNATURE: &str = "75e81ceda165f4ffa64f4068af58c64b8f54b88c";
    const KEY: &str = "tiihtNczf5v6AKRyjwEUhQ==";
    const IV: &str = "r7BXXKkLb8qrSNn05n0qiA==";
    const SEALED: &str = "CiyLU1Aw2KjvrjMdj8YKliAjtP4gsMZMQmRzooG2xrDcvSnxIMXFufNstNGTyaGS9uT5geRa0W4oTOb1WT7fJlAC+oNPdbB+3hVbJSRgv+4lGOETKUQz6OYStslQ142dNCuabNPGBzlooOmB231qMM85d2/fV6ChevvXvQP8Hkue1poOFtnEtpyxVLW1zAo6/1Xx1COxFvrc2d7UL/lmHInNlxuacJXwu0fjpXfz/YqYzBIBzD6WUfTIF9GRHpOn/Hz7saL8xz+W//FRAUid1OksQaQx4CMs8LOddcQhULW4ucetDf96JcR3g0gfRK4PC7E/r7Z6xNrXd2UIeorGj5Ef7b1pJAYB6Y5anaHqZ9J6nKEBvB4DnNLIVWSgARns/8wR2SiRS7MNACwTyrGvt9ts8p12PKFdlqYTopNHR1Vf7XjfhQlVsAJdNiKdYmYVoKlaRv85IfVunYzO0IKXsyl7JCUjCpoG20f0a04COwfneQAGGwd5oa+T8yO5hzuyDb/XcxxmK01EpqOyuxINew==";
    const APPID: &str = "wx4f4bc4dec97d474b";
    const OPEN_ID: &str = "oGZUI0egBJY1zhBYw2KhdUfwVJJE";
    const AT: u64 = 1_477_314_187;

    fn rules() -> Rules {
        Rules { max_age: Duration::from_secs(600) }
    }

    fn encrypted(sealed: &str, iv: &str) -> Asked {
        let (encrypted_data, iv) = (Some(sealed.to_owned()), Some(iv.to_owned()));
        Asked { raw_data: None, signature: None, encrypted_data, iv }
    }

    fn signed(raw: &str, signature: &str) -> Asked {
        let (raw_data, signature) = (Some(raw.to_owned()), Some(signature.to_owned()));
        Asked { raw_data, signature, encrypted_data: None, iv: None }
    }

    fn prove(
        asked: &Asked,
        key: &str,
        appid: &str,
        open_id: &str,
        now: u64,
    ) -> Result<Proven, Fault> {
        let session_key = &Secret::new(key);
        let owner = Owner { provider: Provider::Wechat, appid, open_id, session_key };
        rules().prove(asked, &owner, now)
    }

    #[test]
    fn the_platform_s_own_examples_hold() {
        let proven = prove(&signed(RAW, RAW_SIGNATURE), RAW_KEY, APPID, OPEN_ID, AT).unwrap();
        assert_eq!(proven.raw_data.unwrap()["nickName"], "Band");
        let upper = RAW_SIGNATURE.to_uppercase();
        assert!(prove(&signed(RAW, &upper), RAW_KEY, APPID, OPEN_ID, AT).is_ok());
        let proven = prove(&encrypted(SEALED, IV), KEY, APPID, OPEN_ID, AT).unwrap();
        let data = proven.data.unwrap();
        assert_eq!((&data["openId"], data.get("watermark")), (&OPEN_ID.into(), None));
        assert_eq!(
            state_signature(&Secret::new("o0q0otL8aEzpcZL/FT9WsQ=="), br#"{"foo":"bar"}"#),
            "654571f79995b2ce1e149e53c0a33dc39c0a74090db514261454e8dbe432aa0b"
        );
        // Virtual payment signs its body in the same way.
        let body = br#"{"openid": "xxx", "user_ip": "127.0.0.1", "env": 0}"#;
        assert_eq!(
            state_signature(&Secret::new("9hAb/NEYUlkaMBEsmFgzig=="), body),
            "089d9e8dc5d308977360c4b79ec600a93d736802802a807d634192328032f6c7"
        );
    }

    #[test]
    fn what_the_platform_did_not_make_is_one_refusal() {
        let changed = RAW_SIGNATURE.replace("75", "76");
        for shown in ["", &RAW_SIGNATURE[1..], &changed, "é"] {
            let said = prove(&signed(RAW, shown), RAW_KEY, APPID, OPEN_ID, AT).unwrap_err();
            assert_eq!(said, Fault::SessionKeyStale, "{shown}");
        }
        let bytes = STANDARD.decode(SEALED).unwrap();
        let first = STANDARD.encode(&bytes[..bytes.len() - 16]);
        for (sealed, iv, key) in [
            (SEALED, IV, RAW_KEY),
            (SEALED, "", KEY),
            (SEALED, KEY, KEY),
            (&SEALED[4..], IV, KEY),
            (&first, IV, KEY),
            ("", IV, KEY),
            ("?", IV, KEY),
            (SEALED, IV, "?"),
        ] {
            let said = prove(&encrypted(sealed, iv), key, APPID, OPEN_ID, AT).unwrap_err();
            assert_eq!(said, Fault::SessionKeyStale);
        }
        // Every last byte, right padding or not: nobody learns which.
        for byte in 0..=255 {
            let mut changed = bytes.clone();
            let at = changed.len() - 17;
            changed[at] ^= byte;
            let asked = encrypted(&STANDARD.encode(changed), IV);
            let said = prove(&asked, KEY, APPID, OPEN_ID, AT).map(|_| ());
            assert_eq!(said, if byte == 0 { Ok(()) } else { Err(Fault::SessionKeyStale) });
        }
    }

    #[test]
    fn data_of_others_and_old_data_is_refused() {
        let asked = encrypted(SEALED, IV);
        for (appid, open_id, now, meant) in [
            ("wx4f4bc4dec97d474c", OPEN_ID, AT, Some(Fault::OpenDataForeign)),
            (APPID, "somebody", AT, Some(Fault::OpenDataForeign)),
            (APPID, OPEN_ID, AT + 601, Some(Fault::OpenDataOld)),
            (APPID, OPEN_ID, AT - 61, Some(Fault::OpenDataOld)),
            (APPID, OPEN_ID, AT + 600, None),
            (APPID, OPEN_ID, AT - 60, None),
        ] {
            assert_eq!(prove(&asked, KEY, appid, open_id, now).err(), meant, "{appid} {now}");
        }
    }

    /// The vector of CBC is the client's to choose, so the first block can say anything: `openId` under another
    /// name was not taken out of the answer.
    #[test]
    fn an_openid_under_another_name_is_not_told() {
        let flipped = |change: &[(usize, u8, u8)]| {
            let mut iv = STANDARD.decode(IV).unwrap();
            for (at, from, to) in change {
                iv[*at] ^= from ^ to;
            }
            let asked = encrypted(SEALED, &STANDARD.encode(iv));
            prove(&asked, KEY, APPID, OPEN_ID, AT).unwrap()
        };
        let mut whole = flipped(&[]);
        assert_eq!(whole.conceal(&[OPEN_ID]), Ok(()));
        let data = whole.data.unwrap();
        assert!(data.get("openId").is_none() && data["nickName"] == "Band");
        // `{"openId":"oGZUI`: another name, and the same with a changed letter of the id.
        for change in [&[(7, b'd', b'x')][..], &[(7, b'd', b'x'), (12, b'G', b'H')]] {
            let mut renamed = flipped(change);
            assert!(renamed.data.as_ref().unwrap().contains_key("openIx"));
            assert_eq!(renamed.conceal(&[OPEN_ID]), Err(Fault::SessionKeyStale));
        }
        assert_eq!(flipped(&[(7, b'd', b'x')]).conceal(&["o-1"]), Ok(()), "nobody of here");
    }

    #[test]
    fn half_a_question_is_none() {
        let mut asked = signed(RAW, RAW_SIGNATURE);
        asked.signature = None;
        let mut half = encrypted(SEALED, IV);
        half.iv = None;
        let none = Asked { raw_data: None, signature: None, encrypted_data: None, iv: None };
        for asked in [asked, half, none] {
            let said = prove(&asked, RAW_KEY, APPID, OPEN_ID, AT).unwrap_err();
            assert_eq!(said, Fault::OpenDataInvalid);
        }
        let session_key = &Secret::new(RAW_KEY);
        let owner =
            Owner { provider: Provider::Alipay, appid: APPID, open_id: OPEN_ID, session_key };
        let said = rules().prove(&signed(RAW, RAW_SIGNATURE), &owner, AT).unwrap_err();
        assert_eq!(said, Fault::OpenDataInvalid);
    }
}
