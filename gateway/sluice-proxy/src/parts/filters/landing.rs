//! A small page for the root of the host that clients call. In mainland China a host needs a filing (ICP),
//! and whoever checks it opens `/` and looks for the number; an API has no page to put it on.
//!
//! The one rule: what the config says is text and stays text, whatever is in it.

use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, X_CONTENT_TYPE_OPTIONS};
use http::request::Parts;
use http::{HeaderValue, Response};
use schemars::JsonSchema;
use serde::Deserialize;

use super::{Flow, Hooks};
use crate::base::body::Body;
use crate::base::cx::Cx;
use crate::base::fault::Fault;
use crate::base::yaml::Place;
use crate::parts::env::{Env, Owner};

/// Characters of a name or a number.
const MAX_WORD: usize = 128;
/// Characters of the text.
const MAX_TEXT: usize = 1024;
/// Where the ministry answers for its numbers.
const MINISTRY: &str = "https://beian.miit.gov.cn/";
/// Where the police answer for theirs, by the digits of one.
const POLICE: &str = "https://beian.mps.gov.cn/#/query/webSearch?code=";
/// Digits of a number of the police.
const POLICE_DIGITS: usize = 14;

/// A page with the number of the host's filing.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Config {
    /// Title and heading.
    name: String,
    /// The number of the filing, like `京ICP备12345678号-1`; it links to the ministry's page.
    icp: String,
    /// The number of the filing with the police, like `京公网安备11010502030143号`.
    #[serde(default)]
    police: Option<String>,
    /// A sentence below the heading.
    #[serde(default)]
    text: Option<String>,
    /// The page's language.
    #[serde(default = "default_lang")]
    lang: String,
}

fn default_lang() -> String {
    "zh-CN".to_owned()
}

impl Config {
    pub(crate) fn build(&self, at: &Place<'_>, _: &Owner, env: &mut Env<'_>) -> Option<Landing> {
        let told = env.problems.errors();
        let texts = [
            ("name", Some(&self.name), MAX_WORD),
            ("icp", Some(&self.icp), MAX_WORD),
            ("police", self.police.as_ref(), MAX_WORD),
            ("text", self.text.as_ref(), MAX_TEXT),
        ];
        for (key, text, most) in texts {
            let Some(text) = text else { continue };
            if !(1..=most).contains(&text.chars().count()) || text.chars().any(char::is_control) {
                let message = format!("`{key}` has 1 to {most} characters in one line");
                env.problems.error(&at.field(key), message);
            }
        }
        if !self.icp.is_empty() && !self.icp.contains("ICP") {
            env.problems
                .warn(&at.field("icp"), format!("`{}` does not look like a filing", self.icp))
                .help("write it as it was given, like 京ICP备12345678号-1");
        }
        let digits = self.police.as_deref().map(digits);
        if digits.as_ref().is_some_and(|digits| digits.len() != POLICE_DIGITS) {
            env.problems
                .error(&at.field("police"), format!("this number has {POLICE_DIGITS} digits"))
                .help("write it as it was given, like 京公网安备11010502030143号");
        }
        let plain = |b: u8| b.is_ascii_alphanumeric() || b == b'-';
        if !(1..=35).contains(&self.lang.len()) || !self.lang.bytes().all(plain) {
            env.problems
                .error(&at.field("lang"), format!("`{}` is no language", self.lang))
                .help("write a tag like zh-CN or en");
        }
        (env.problems.errors() == told).then(|| Landing { page: self.page().into() })
    }

    fn page(&self) -> String {
        let (lang, name, icp) = (&self.lang, escaped(&self.name), escaped(&self.icp));
        let text = self.text.as_deref().map(|text| format!("<p>{}</p>\n", escaped(text)));
        let text = text.unwrap_or_default();
        let police = self.police.as_deref().map(|number| {
            let (link, number) = (digits(number), escaped(number));
            format!("<a href=\"{POLICE}{link}\" rel=\"noreferrer\">{number}</a>\n")
        });
        let police = police.unwrap_or_default();
        format!(
            "<!doctype html>\n<html lang=\"{lang}\">\n<head>\n<meta charset=\"utf-8\">\n\
             <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
             <title>{name}</title>\n</head>\n<body>\n<h1>{name}</h1>\n{text}<footer>\n\
             <a href=\"{MINISTRY}\" rel=\"noreferrer\">{icp}</a>\n{police}</footer>\n</body>\n</html>\n"
        )
    }
}

fn digits(number: &str) -> String {
    number.chars().filter(char::is_ascii_digit).collect()
}

/// A text as HTML shows it, in content and in attributes.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            c => out.push(c),
        }
    }
    out
}

#[derive(Debug)]
pub(crate) struct Landing {
    page: Bytes,
}

impl Hooks for Landing {
    async fn on_request(&self, _: &mut Cx, _: &mut Parts) -> Result<Flow, Fault> {
        let mut response = Response::new(Body::full(self.page.clone()));
        let headers = response.headers_mut();
        for (name, value) in [
            (CONTENT_TYPE, "text/html; charset=utf-8"),
            (CACHE_CONTROL, "public, max-age=300"),
            (
                CONTENT_SECURITY_POLICY,
                "default-src 'none'; frame-ancestors 'none'; base-uri 'none'",
            ),
            (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        ] {
            headers.insert(name, HeaderValue::from_static(value));
        }
        Ok(Flow::Answer(Box::new(response)))
    }
}

#[cfg(test)]
mod tests {
    use super::escaped;

    #[test]
    fn nothing_of_a_text_becomes_markup() {
        assert_eq!(
            escaped("<b onclick='x'>\"A&B\" 商城</b>"),
            "&lt;b onclick=&#39;x&#39;&gt;&quot;A&amp;B&quot; 商城&lt;/b&gt;"
        );
    }
}
