//! What the Referer of a mini-program says. The platforms set it and code inside cannot change it; any
//! other client can send the same, so it is a hint and no more.
//!
//! The one rule: a Referer is taken as a whole or not at all, so that no page can look like an app.

use super::{Env, Platform};

/// Longest Referer that is looked at; the real ones have less than 100 bytes.
const MAX: usize = 256;

/// What a Referer says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Referer<'a> {
    /// Whose pattern it has. Douyin's and Feishu's are the same; which it is, the app tells.
    pub platform: Platform,
    /// The platform's id of the app.
    pub appid: &'a str,
    /// What kind of build, where the number tells it. `0` does not: it stands for development, for
    /// trial and for review.
    pub env: Option<Env>,
}

/// Reads a Referer, if it has the form of a known platform.
#[must_use]
pub fn parse(referer: &str) -> Option<Referer<'_>> {
    let rest = referer.strip_prefix("https://").filter(|_| referer.len() <= MAX)?;
    let (host, path) = rest.split_once('/')?;
    let platform = match host {
        "servicewechat.com" => Platform::Wechat,
        "appservice.wx.com" => Platform::Custom,
        "appservice.qq.com" => Platform::Qq,
        "smartapps.cn" | "smartapp.baidu.com" => Platform::Baidu,
        "tmaservice.developer.toutiao.com" => return in_query(path),
        _ => return in_host(host),
    };
    let (appid, rest) = path.split_once('/')?;
    let version = rest.strip_suffix("/page-frame.html")?;
    let known = is_id(appid) && (platform != Platform::Wechat || is_wechat(appid));
    known.then_some(Referer { platform, appid, env: env(version)? })
}

/// `?appid=tt…&version=…`
fn in_query(rest: &str) -> Option<Referer<'_>> {
    let (mut appid, mut version) = (None, None);
    for pair in rest.strip_prefix('?')?.split('&') {
        let slot = match pair.split_once('=')? {
            ("appid", value) => (&mut appid, value),
            ("version", value) => (&mut version, value),
            _ => continue,
        };
        if slot.0.replace(slot.1).is_some() {
            return None;
        }
    }
    let appid = appid.filter(|appid| is_id(appid))?;
    Some(Referer { platform: Platform::Douyin, appid, env: version.map_or(Some(None), env)? })
}

/// `https://2021….hybrid.alipay-eco.com/…`
fn in_host(host: &str) -> Option<Referer<'_>> {
    let appid = host.strip_suffix(".hybrid.alipay-eco.com").filter(|appid| is_id(appid))?;
    Some(Referer { platform: Platform::Alipay, appid, env: None })
}

/// `wx` and 16 lower-case letters or digits.
fn is_wechat(appid: &str) -> bool {
    appid.len() == 18
        && appid.starts_with("wx")
        && appid.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit())
}

fn is_id(appid: &str) -> bool {
    (1..=64).contains(&appid.len())
        && appid.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
}

/// A counter of releases, `0`, or `devtools`; Baidu and Douyin have versions with dots.
#[expect(clippy::option_option, reason = "malformed and untold are different answers")]
fn env(version: &str) -> Option<Option<Env>> {
    let plain = |byte: u8| byte.is_ascii_digit() || byte == b'.';
    match version {
        "0" => Some(None),
        "devtools" => Some(Some(Env::Develop)),
        _ if (1..=32).contains(&version.len()) && version.bytes().all(plain) => {
            Some(Some(Env::Release))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_platform_is_known_by_its_pattern() {
        for (referer, platform, appid, env) in [
            (
                "https://servicewechat.com/wx0123456789abcdef/57/page-frame.html",
                Platform::Wechat,
                "wx0123456789abcdef",
                Some(Env::Release),
            ),
            (
                "https://servicewechat.com/wx0123456789abcdef/0/page-frame.html",
                Platform::Wechat,
                "wx0123456789abcdef",
                None,
            ),
            (
                "https://servicewechat.com/wx0123456789abcdef/devtools/page-frame.html",
                Platform::Wechat,
                "wx0123456789abcdef",
                Some(Env::Develop),
            ),
            (
                "https://smartapps.cn/AbCd1234/1.0.7/page-frame.html",
                Platform::Baidu,
                "AbCd1234",
                Some(Env::Release),
            ),
            (
                "https://tmaservice.developer.toutiao.com/?appid=tt123&version=1.2.3",
                Platform::Douyin,
                "tt123",
                Some(Env::Release),
            ),
            (
                "https://2021000123.hybrid.alipay-eco.com/index.html",
                Platform::Alipay,
                "2021000123",
                None,
            ),
            (
                "https://appservice.wx.com/mpabc/12/page-frame.html",
                Platform::Custom,
                "mpabc",
                Some(Env::Release),
            ),
            ("https://appservice.qq.com/1109/0/page-frame.html", Platform::Qq, "1109", None),
        ] {
            assert_eq!(parse(referer), Some(Referer { platform, appid, env }), "{referer}");
        }
    }

    #[test]
    fn what_only_looks_like_one_is_none() {
        let long = format!("https://smartapps.cn/{}/1/page-frame.html", "a".repeat(300));
        for referer in [
            "",
            "https://servicewechat.com",
            "http://servicewechat.com/wx0123456789abcdef/1/page-frame.html",
            "https://servicewechat.com/wx0123456789abcdef/1/page-frame.html?x",
            "https://servicewechat.com/wx0123456789abcdef/1/page-frame.html/",
            "https://servicewechat.com/wx0123456789abcdef/-1/page-frame.html",
            "https://servicewechat.com/wx0123456789abcdef//page-frame.html",
            "https://servicewechat.com/wx0123456789ABCDEF/1/page-frame.html",
            "https://servicewechat.com/wx012345678/1/page-frame.html",
            "https://servicewechat.com.evil.example/wx0123456789abcdef/1/page-frame.html",
            "https://evil.example/https://servicewechat.com/wx0123456789abcdef/1/page-frame.html",
            "https://u@servicewechat.com/wx0123456789abcdef/1/page-frame.html",
            "https://tmaservice.developer.toutiao.com/?appid=tt1&appid=tt2",
            "https://tmaservice.developer.toutiao.com/?version=1",
            "https://a.b.hybrid.alipay-eco.com/",
            "https://.hybrid.alipay-eco.com/",
            &long,
        ] {
            assert_eq!(parse(referer), None, "{referer}");
        }
    }
}
