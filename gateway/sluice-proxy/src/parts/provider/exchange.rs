//! The exchange of a code, without sending: what is asked, and what an answer means. Everything made here
//! holds the app's secret and the user's code, and is wiped after use.

use bytes::Bytes;
use http::header::{ACCEPT, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue};
use serde_json::Value;
use zeroize::Zeroizing;

use super::{Hole, Placement, Provider, sensitive};
use crate::base::fault::Fault;
use crate::base::units::Secret;
use crate::lasting::fetch::Url;

/// Who logs in where.
pub(crate) struct Asked<'a> {
    pub(crate) appid: &'a str,
    pub(crate) secret: &'a str,
    pub(crate) code: &'a str,
    pub(crate) device: &'a str,
    /// The app's own parameters.
    pub(crate) params: &'a [(String, Secret)],
}

/// A request without its host.
pub(crate) struct Question {
    pub(crate) method: http::Method,
    /// Path and query.
    pub(crate) target: Zeroizing<String>,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

/// Who somebody is, as a platform says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Identity {
    pub(crate) open_id: String,
    pub(crate) union_id: Option<String>,
    pub(crate) session_key: Option<Secret>,
}

/// Signs a text.
pub(crate) type Sign<'a> = &'a dyn Fn(&str) -> Option<String>;

/// Longest identity that is believed, bytes.
const MAX_ID: usize = 256;

impl Provider {
    /// What to send. `signature` signs the sorted parameters, where the platform wants that.
    pub(crate) fn question(
        &self,
        asked: &Asked<'_>,
        extra: &[(&'static str, String)],
        signature: Option<Sign<'_>>,
    ) -> Option<Question> {
        let mut params: Vec<(&str, Zeroizing<String>)> = self
            .params
            .iter()
            .map(|(name, text)| (name.as_str(), asked.fill(text)))
            .chain(extra.iter().map(|(name, text)| (*name, Zeroizing::new(text.clone()))))
            .collect();
        if let Some(sign) = signature {
            params.sort_by_key(|(name, _)| *name);
            let text: Vec<String> =
                params.iter().map(|(name, value)| format!("{name}={}", **value)).collect();
            params.push(("sign", Zeroizing::new(sign(&text.join("&"))?)));
        }
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
        for (name, text) in &self.headers {
            headers.insert(name.clone(), sensitive(&asked.fill(text))?);
        }
        let mut target = Zeroizing::new(self.path.clone());
        let body = match self.placement {
            Placement::Query => {
                target.push('?');
                target.push_str(&form(&params));
                Bytes::new()
            }
            Placement::Form => {
                let kind = "application/x-www-form-urlencoded;charset=utf-8";
                headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
                Bytes::copy_from_slice(form(&params).as_bytes())
            }
            Placement::Json => {
                headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
                let members: serde_json::Map<String, Value> = params
                    .iter()
                    .map(|(name, value)| ((*name).to_owned(), value.as_str().into()))
                    .collect();
                Bytes::from(Value::Object(members).to_string())
            }
        };
        Some(Question { method: self.method.clone(), target, headers, body })
    }

    /// What an answer means. A status says little: most platforms answer 200 to everything.
    pub(crate) fn judge(&self, status: u16, body: &[u8]) -> Result<Identity, Fault> {
        if status >= 500 {
            return Err(Fault::ProviderBusy);
        }
        // What the answer calls itself does not matter: text/plain is usual.
        let body = body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(body);
        let answer: Value = serde_json::from_slice(body).map_err(|_| Fault::ProviderBusy)?;
        let well = match &self.success {
            None => self.open_id(&answer).is_some(),
            Some(test) => match answer.pointer(&test.pointer).and_then(scalar) {
                Some(told) => told == test.equals,
                None => test.or_absent,
            },
        };
        match self.open_id(&answer).filter(|_| well) {
            Some(open_id) => Ok(Identity {
                open_id,
                union_id: text(&answer, &self.map.union_id),
                session_key: text(&answer, &self.map.session_key).map(Secret::from),
            }),
            None => Err(self.meaning(&answer)),
        }
    }

    fn open_id(&self, answer: &Value) -> Option<String> {
        text(answer, &self.map.open_id).filter(|id| id.len() <= MAX_ID)
    }

    fn meaning(&self, answer: &Value) -> Fault {
        let told = self.errors.pointer.iter().filter_map(|at| answer.pointer(at));
        let told: Vec<String> = told.filter_map(scalar).collect();
        let known = told.iter().find_map(|code| self.errors.codes.get(code));
        known.copied().unwrap_or(self.errors.default).fault()
    }

    /// The first address to ask, for whoever names it in a log.
    pub(crate) fn host(&self) -> &str {
        self.bases.first().map_or("", Url::host)
    }
}

impl Asked<'_> {
    fn fill(&self, text: &sluice_engine::template::Template<Hole>) -> Zeroizing<String> {
        let mut out = Zeroizing::new(String::new());
        text.render(&mut out, |hole, out| {
            out.push_str(match hole {
                Hole::Code => self.code,
                Hole::Appid => self.appid,
                Hole::Secret => self.secret,
                Hole::Device => self.device,
                Hole::Param(name) => {
                    let param = self.params.iter().find(|(known, _)| known == name);
                    param.map_or("", |(_, value)| value.expose())
                }
            });
        });
        out
    }
}

/// A scalar as text: what is compared with the words of a description.
fn scalar(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(is) => Some(is.to_string()),
        _ => None,
    }
}

fn text(answer: &Value, pointers: &[String]) -> Option<String> {
    let mut found = pointers.iter().filter_map(|at| answer.pointer(at)?.as_str());
    found.find(|text| !text.is_empty()).map(str::to_owned)
}

/// `application/x-www-form-urlencoded`, in which a query may be written, too.
fn form(params: &[(&str, Zeroizing<String>)]) -> Zeroizing<String> {
    let mut out = Zeroizing::new(String::new());
    for (at, (name, value)) in params.iter().enumerate() {
        if at > 0 {
            out.push('&');
        }
        push_encoded(&mut out, name);
        out.push('=');
        push_encoded(&mut out, value);
    }
    out
}

/// Percent-encodes everything but the unreserved characters (RFC 3986 section 2.3).
pub(crate) fn push_encoded(out: &mut String, text: &str) {
    use std::fmt::Write as _;
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') {
            out.push(char::from(byte));
        } else {
            let _ = write!(out, "%{byte:02X}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Kind, shipped};
    use super::*;
    use crate::base::problem::Problems;
    use crate::base::yaml::Place;
    use crate::parts::env::tests::with_env;

    fn provider(kind: Kind) -> Provider {
        let mut problems = Problems::new("test");
        let config = shipped(kind, &mut problems).unwrap();
        with_env(|env| {
            let root = crate::parts::env::tests::nothing();
            let names = ["component_appid", "component_access_token"];
            config.build(&[], &names, &Place::root(&root), env).unwrap()
        })
    }

    fn asked<'a>(params: &'a [(String, Secret)]) -> Asked<'a> {
        Asked { appid: "app 1", secret: "s&cret", code: "c@de", device: "", params }
    }

    #[test]
    fn each_platform_is_asked_as_it_documents() {
        let params = [
            ("component_appid".to_owned(), Secret::new("c-1")),
            ("component_access_token".to_owned(), Secret::new("t/1")),
        ];
        for (kind, method, target, body) in [
            (
                Kind::Wechat,
                "GET",
                "/sns/jscode2session?appid=app%201&grant_type=authorization_code&js_code=c%40de&\
                 secret=s%26cret",
                "",
            ),
            (
                Kind::WechatComponent,
                "GET",
                "/sns/component/jscode2session?appid=app%201&component_access_token=t%2F1&\
                 component_appid=c-1&grant_type=authorization_code&js_code=c%40de",
                "",
            ),
            (
                Kind::Douyin,
                "POST",
                "/api/apps/v2/jscode2session",
                r#"{"appid":"app 1","code":"c@de","secret":"s&cret"}"#,
            ),
            (
                Kind::Baidu,
                "POST",
                "/oauth/jscode2sessionkey",
                "client_id=app%201&code=c%40de&sk=s%26cret",
            ),
            (
                Kind::Kuaishou,
                "POST",
                "/oauth2/mp/code2session",
                "app_id=app%201&app_secret=s%26cret&js_code=c%40de",
            ),
        ] {
            let question = provider(kind).question(&asked(&params), &[], None).unwrap();
            assert_eq!(question.method, method, "{kind:?}");
            assert_eq!(*question.target, target, "{kind:?}");
            assert_eq!(question.body, body, "{kind:?}");
        }
    }

    #[test]
    fn parameters_are_signed_in_the_order_of_their_names() {
        let sign = |text: &str| Some(text.len().to_string());
        let extra = [("timestamp", "2026-01-01 00:00:00".to_owned())];
        let provider = provider(Kind::Alipay);
        let question = provider.question(&asked(&[]), &extra, Some(&sign)).unwrap();
        let signed = "app_id=app 1&charset=utf-8&code=c@de&format=JSON&grant_type=authorization_code&\
            method=alipay.system.oauth.token&sign_type=RSA2&timestamp=2026-01-01 00:00:00&version=1.0";
        let body = String::from_utf8(question.body.to_vec()).unwrap();
        assert!(body.ends_with(&format!("&sign={}", signed.len())), "{body}");
    }

    #[test]
    fn answers_mean_what_each_platform_documents() {
        for (kind, answer, meant) in [
            (Kind::Wechat, r#"{"openid":"o","session_key":"k"}"#, Ok("o")),
            (Kind::Wechat, r#"{"errcode":0,"openid":"o"}"#, Ok("o")),
            (Kind::Wechat, r#"{"errcode":40029,"errmsg":"x"}"#, Err(Fault::InvalidCode)),
            (Kind::Wechat, r#"{"errcode":40163}"#, Err(Fault::CodeUsed)),
            (Kind::Wechat, r#"{"errcode":45011}"#, Err(Fault::RateLimited)),
            (Kind::Wechat, r#"{"errcode":40226}"#, Err(Fault::UserBlocked)),
            (Kind::Wechat, r#"{"errcode":40125}"#, Err(Fault::Misconfigured)),
            (Kind::Wechat, r#"{"errcode":-1}"#, Err(Fault::ProviderBusy)),
            (Kind::Wechat, r#"{"errcode":99999}"#, Err(Fault::ProviderBusy)),
            (Kind::Wechat, r#"{}"#, Err(Fault::ProviderBusy)),
            (Kind::Wechat, r#"{"openid":""}"#, Err(Fault::ProviderBusy)),
            (Kind::Wechat, "<h1>Sorry</h1>", Err(Fault::ProviderBusy)),
            (Kind::WechatComponent, r#"{"errcode":61003}"#, Err(Fault::Misconfigured)),
            (Kind::Qq, r#"{"errcode":0,"openid":"o"}"#, Ok("o")),
            (Kind::Douyin, r#"{"err_no":0,"data":{"openid":"o"}}"#, Ok("o")),
            (Kind::Douyin, r#"{"data":{"openid":"o"}}"#, Err(Fault::ProviderBusy)),
            (Kind::Douyin, r#"{"err_no":40018,"err_tips":"x"}"#, Err(Fault::InvalidCode)),
            (Kind::Douyin, r#"{"err_no":40017}"#, Err(Fault::Misconfigured)),
            (Kind::Baidu, r#"{"openid":"o","session_key":"k"}"#, Ok("o")),
            (Kind::Baidu, r#"{"errno":10010100,"error":"x"}"#, Err(Fault::InvalidCode)),
            (Kind::Baidu, r#"{"error":"invalid_client"}"#, Err(Fault::Misconfigured)),
            (Kind::Kuaishou, r#"{"result":1,"open_id":"o"}"#, Ok("o")),
            (Kind::Kuaishou, r#"{"result":100200101}"#, Err(Fault::Misconfigured)),
            (
                Kind::Alipay,
                r#"{"alipay_system_oauth_token_response":{"user_id":"o"},"sign":"x"}"#,
                Ok("o"),
            ),
            (
                Kind::Alipay,
                r#"{"error_response":{"code":"40002","sub_code":"isv.code-invalid"}}"#,
                Err(Fault::InvalidCode),
            ),
            (Kind::Alipay, r#"{"error_response":{"code":"20000"}}"#, Err(Fault::ProviderBusy)),
        ] {
            let judged = provider(kind).judge(200, answer.as_bytes());
            let judged = judged.as_ref().map(|who| who.open_id.as_str()).map_err(|fault| *fault);
            assert_eq!(judged, meant, "{kind:?} {answer}");
        }
        let wechat = provider(Kind::Wechat);
        assert_eq!(wechat.judge(502, br#"{"openid":"o"}"#), Err(Fault::ProviderBusy));
        let who = wechat.judge(200, "\u{feff}{\"openid\":\"o\"}".as_bytes()).unwrap();
        assert_eq!(who.open_id, "o", "a mark of the byte order is no mistake");
    }
}
