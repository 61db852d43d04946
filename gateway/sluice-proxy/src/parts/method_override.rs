//! Requests that stand for another method: clients that have no PATCH send POST and name the method in a
//! field (`wx.request` has none, older `my.request` has only GET and POST). The method is exchanged before
//! anything looks at it, so that routes, policies, signatures and logs see the one that counts.
//!
//! The one rule: a service must never read another method than the gateway has judged. So the field ends
//! here, and a request whose field cannot be followed is refused rather than passed on as the POST that its
//! sender did not mean.

use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use schemars::JsonSchema;
use serde::Deserialize;

use super::env::Env;
use crate::base::fault::Fault;
use crate::base::yaml::Place;

/// Fields that frameworks read another method from.
const FIELDS: [&str; 3] = ["x-http-method-override", "x-http-method", "x-method-override"];

/// Methods that mean little else than they say, and so cannot be hidden behind a POST: a POST that counts
/// as safe could be repeated, cached, and sent by any page.
const NEVER: [&str; 6] = ["GET", "HEAD", "OPTIONS", "TRACE", "CONNECT", "POST"];
/// Methods that may be listed.
const MOST: usize = 16;

/// Lets POST stand for another method, which `X-HTTP-Method-Override` names.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(rename = "MethodOverride")]
pub(crate) struct Config {
    /// Methods that it may stand for, like `PATCH`; none if not given.
    methods: Vec<String>,
    /// What becomes of other requests with such a field.
    others: Others,
}

/// What becomes of requests that name a method which they may not stand for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Others {
    /// They are refused with 400.
    #[default]
    Refuse,
    /// They are served as what they are, without the field.
    Remove,
    /// They are served as what they are, and services see the field. Then `match.methods` and whatever else
    /// asks for the method sees POST where the service may act on something else.
    Pass,
}

/// As compiled.
#[derive(Debug, Default)]
pub(crate) struct Overrides {
    methods: Vec<Method>,
    others: Others,
}

impl Config {
    /// Compiles it, or records every problem.
    pub(crate) fn build(&self, at: &Place<'_>, env: &mut Env<'_>) -> Option<Overrides> {
        let at_methods = at.field("methods");
        let mut methods = Vec::new();
        for (index, text) in self.methods.iter().enumerate() {
            let at = at_methods.index(index);
            let upper = text.bytes().all(|b| b.is_ascii_uppercase() || b == b'-');
            match Method::from_bytes(text.as_bytes()) {
                Ok(_) if NEVER.contains(&text.as_str()) => {
                    env.problems
                        .error(&at, format!("no POST may stand for {text}"))
                        .help("list methods that change something, like PATCH, PUT and DELETE");
                }
                Ok(method) if upper => methods.push(method),
                _ => {
                    env.problems
                        .error(&at, format!("`{text}` is no method"))
                        .help("methods are written in capitals, like PATCH");
                }
            }
        }
        if self.methods.len() > MOST {
            let message = format!("{} methods; at most {MOST}", self.methods.len());
            env.problems.error(&at_methods, message);
            return None;
        }
        (methods.len() == self.methods.len()).then_some(Overrides { methods, others: self.others })
    }
}

impl Overrides {
    /// Exchanges the method of a request with such a field; tells whether it did.
    pub(crate) fn apply(&self, head: &mut Parts) -> Result<bool, Fault> {
        let Some(named) = named(&head.headers) else { return Ok(false) };
        let method = named.ok().filter(|_| head.method == Method::POST);
        let method = method.and_then(|named| {
            self.methods.iter().find(|method| method.as_str().as_bytes() == named.as_bytes())
        });
        match (method, self.others) {
            (Some(method), _) => {
                let method = method.clone();
                remove(&mut head.headers);
                head.method = method;
                Ok(true)
            }
            (None, Others::Refuse) => Err(Fault::MethodOverrideRefused),
            (None, Others::Remove) => {
                remove(&mut head.headers);
                Ok(false)
            }
            (None, Others::Pass) => Ok(false),
        }
    }
}

/// Whether a field by this name tells of another method, in any spelling: services fold what is neither
/// letter nor digit into one sign.
pub(crate) fn tells(name: &str) -> bool {
    let same =
        |(known, byte): (u8, u8)| known == byte || known == b'-' && !byte.is_ascii_alphanumeric();
    FIELDS
        .iter()
        .any(|known| known.len() == name.len() && known.bytes().zip(name.bytes()).all(same))
}

/// The one value of all these fields; an error if there are several, of which nobody knows which one counts.
fn named(headers: &HeaderMap) -> Option<Result<HeaderValue, ()>> {
    let mut values = headers.iter().filter(|(name, _)| tells(name.as_str()));
    let (_, value) = values.next()?;
    Some(if values.next().is_none() { Ok(value.clone()) } else { Err(()) })
}

fn remove(headers: &mut HeaderMap) {
    let names: Vec<HeaderName> =
        headers.keys().filter(|name| tells(name.as_str())).cloned().collect();
    names.iter().for_each(|name| drop(headers.remove(name)));
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    fn applied(
        overrides: &Overrides,
        method: &str,
        fields: &[(&str, &str)],
    ) -> Result<(String, usize), Fault> {
        let mut request = Request::builder().method(method).uri("/");
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        let (mut head, ()) = request.body(()).unwrap().into_parts();
        overrides.apply(&mut head)?;
        Ok((head.method.to_string(), head.headers.len()))
    }

    #[test]
    fn only_a_post_stands_for_a_listed_method_and_only_clearly() {
        let refused = Err(Fault::MethodOverrideRefused);
        let listed = Overrides { methods: vec![Method::PATCH], others: Others::Refuse };
        for (method, fields, outcome) in [
            ("POST", &[("x-http-method-override", "PATCH")][..], Ok(("PATCH", 0))),
            ("POST", &[("x-http-method", "PATCH")], Ok(("PATCH", 0))),
            ("POST", &[("x.http.method.override", "DELETE")], refused),
            ("POST", &[("x-http-methods", "DELETE")], Ok(("POST", 1))),
            ("POST", &[], Ok(("POST", 0))),
            ("POST", &[("x-http-method-override", "DELETE")], refused),
            ("POST", &[("x-http-method-override", "patch")], refused),
            ("POST", &[("x-http-method-override", "")], refused),
            ("GET", &[("x-http-method-override", "PATCH")], refused),
            ("DELETE", &[("x-method-override", "PATCH")], refused),
            (
                "POST",
                &[("x-http-method-override", "PATCH"), ("x-http-method-override", "PATCH")],
                refused,
            ),
            ("POST", &[("x-http-method-override", "PATCH"), ("x-http-method", "DELETE")], refused),
        ] {
            let outcome = outcome.map(|(method, left): (&str, usize)| (method.to_owned(), left));
            assert_eq!(applied(&listed, method, fields), outcome, "{method} {fields:?}");
        }
        let delete = [("x-http-method-override", "DELETE")];
        for (others, left) in [(Others::Remove, 0), (Others::Pass, 1)] {
            let overrides = Overrides { methods: Vec::new(), others };
            assert_eq!(applied(&overrides, "POST", &delete), Ok(("POST".to_owned(), left)));
        }
    }
}
