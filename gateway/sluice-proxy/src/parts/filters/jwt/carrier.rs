//! Where a request carries its token: a header field, a cookie, or a parameter of the query. The one
//! rule: a request with two tokens is refused, since two readers could believe different ones.

use http::header::{AUTHORIZATION, COOKIE};
use http::request::Parts;
use http::uri::PathAndQuery;
use http::{HeaderName, HeaderValue, Uri};
use schemars::JsonSchema;
use serde::Deserialize;

use super::super::headers::OURS;
use super::form::MAX_TOKEN;
use crate::base::fault::Fault;
use crate::base::identity::{self, Family};
use crate::base::secured::tells_certificate;
use crate::base::yaml::Place;
use crate::parts::env::Env;

/// Places that a filter may look at.
const MOST: usize = 8;
/// Longest name of a cookie or a parameter, as the mask of the logs has it.
const MAX_NAME: usize = 32;

/// A place where a token may stand: exactly one of `header`, `cookie` and `query`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Config {
    /// Name of a header field.
    #[serde(default)]
    header: Option<String>,
    /// The word before the token in that field, or `none`; `Bearer` in `Authorization`, else `none`.
    #[serde(default)]
    scheme: Option<String>,
    /// Name of a cookie.
    #[serde(default)]
    cookie: Option<String>,
    /// Name of a parameter of the query.
    #[serde(default)]
    query: Option<String>,
}

impl Config {
    /// `Authorization` with `Bearer`.
    pub(in crate::parts::filters) fn usual() -> Self {
        Self { header: Some("Authorization".to_owned()), scheme: None, cookie: None, query: None }
    }

    /// A header field without a scheme.
    pub(in crate::parts::filters) fn header(name: &str) -> Self {
        Self { header: Some(name.to_owned()), scheme: None, cookie: None, query: None }
    }

    /// The name under which logs may show the token.
    pub(in crate::parts::filters) fn name(&self) -> Option<&str> {
        self.cookie.as_deref().or(self.query.as_deref())
    }
}

/// A compiled place.
#[derive(Debug)]
struct Carrier {
    place: Where,
    /// Whether services see the token too.
    forward: bool,
}

#[derive(Debug, PartialEq, Eq)]
enum Where {
    /// The field, and the scheme before the token.
    Header(HeaderName, Option<String>),
    Cookie(String),
    Query(String),
}

/// The places of a filter.
#[derive(Debug)]
pub(in crate::parts::filters) struct Carriers(Vec<Carrier>);

/// Where a token was found.
#[derive(Debug, Clone, Copy)]
pub(in crate::parts::filters) struct Found(usize);

// === Building ===

/// `forward` says whether services see tokens; if it is not given, only those of queries are hidden from
/// them.
pub(in crate::parts::filters) fn build(
    configs: &[Config],
    forward: Option<bool>,
    at: &Place<'_>,
    env: &mut Env<'_>,
) -> Option<Carriers> {
    if configs.is_empty() || configs.len() > MOST {
        env.problems
            .error(at, format!("a token is looked for in 1 to {MOST} places"))
            .help("write `from: [ { header: Authorization } ]`");
        return None;
    }
    let mut carriers: Vec<Carrier> = Vec::new();
    for (index, config) in configs.iter().enumerate() {
        let at = at.index(index);
        let Some(place) = config.place(&at, env) else { continue };
        let twice = carriers.iter().any(|known| match (&known.place, &place) {
            (Where::Header(known, _), Where::Header(name, _)) => known == name,
            (known, place) => known == place,
        });
        if twice {
            env.problems.error(&at, "this place is named twice");
            continue;
        }
        let forward = forward.unwrap_or(!matches!(place, Where::Query(_)));
        carriers.push(Carrier { place, forward });
    }
    (carriers.len() == configs.len()).then_some(Carriers(carriers))
}

impl Config {
    fn place(&self, at: &Place<'_>, env: &mut Env<'_>) -> Option<Where> {
        if self.header.is_none() && self.scheme.is_some() {
            env.problems.error(&at.field("scheme"), "`scheme` is for a `header`");
            return None;
        }
        match (&self.header, &self.cookie, &self.query) {
            (Some(name), None, None) => self.field(name, at, env),
            (None, Some(name), None) => plain(name, &at.field("cookie"), env).map(Where::Cookie),
            (None, None, Some(name)) => plain(name, &at.field("query"), env).map(Where::Query),
            _ => {
                env.problems
                    .error(at, "a token stands in exactly one of `header`, `cookie` and `query`")
                    .help("write `{ header: X-Token }`, `{ cookie: token }` or `{ query: token }`");
                None
            }
        }
    }

    fn field(&self, name: &str, at: &Place<'_>, env: &mut Env<'_>) -> Option<Where> {
        let place = at.field("header");
        let parsed = super::header_name(name, &place, env)?;
        // What admission removes never gets here.
        let removed = tells_certificate(parsed.as_str())
            || identity::family(parsed.as_str()) == Family::Identity;
        if OURS.contains(&parsed.as_str()) || parsed == COOKIE || removed {
            env.problems.error(&place, format!("`{name}` cannot carry a token"));
            return None;
        }
        let usual = (parsed == AUTHORIZATION).then_some("Bearer");
        let scheme = match self.scheme.as_deref() {
            Some("none") => None,
            Some(word) if HeaderName::try_from(word).is_ok() => Some(word),
            Some(word) => {
                env.problems
                    .error(&at.field("scheme"), format!("`{word}` is not a word"))
                    .help("write a word like Bearer, or none");
                return None;
            }
            None => usual,
        };
        Some(Where::Header(parsed, scheme.map(str::to_owned)))
    }
}

/// Names that need no escaping anywhere.
fn plain(name: &str, at: &Place<'_>, env: &mut Env<'_>) -> Option<String> {
    let fine = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    if (1..=MAX_NAME).contains(&name.len()) && name.bytes().all(fine) {
        return Some(name.to_owned());
    }
    env.problems
        .error(at, format!("`{name}` is not a plain name"))
        .help(format!("write up to {MAX_NAME} letters, digits, `-` and `_`"));
    None
}

// === For requests ===

impl Carriers {
    /// The one token of a request.
    pub(in crate::parts::filters) fn find<'h>(
        &self,
        head: &'h Parts,
    ) -> Result<(&'h [u8], Found), Fault> {
        let mut found = None;
        let mut foreign = false;
        for (index, carrier) in self.0.iter().enumerate() {
            let mut seen = |token: &'h [u8]| match found.replace((token, Found(index))) {
                None => Ok(()),
                Some(_) => Err(Fault::TokenAmbiguous),
            };
            match &carrier.place {
                Where::Header(name, scheme) => {
                    let mut values = head.headers.get_all(name).iter();
                    let Some(value) = values.next() else { continue };
                    if values.next().is_some() {
                        return Err(Fault::TokenAmbiguous);
                    }
                    match after(scheme.as_deref(), value.as_bytes()) {
                        Some(token) => seen(token)?,
                        None => foreign = true,
                    }
                }
                Where::Cookie(name) => {
                    for line in head.headers.get_all(COOKIE) {
                        values(line.as_bytes(), b';', |key| key == name.as_bytes())
                            .try_for_each(&mut seen)?;
                    }
                }
                Where::Query(name) => {
                    let query = head.uri.query().unwrap_or_default().as_bytes();
                    values(query, b'&', |key| means(key, name)).try_for_each(&mut seen)?;
                }
            }
        }
        match found {
            Some(([], _)) => Err(Fault::TokenInvalid),
            Some((token, _)) if token.len() > MAX_TOKEN => Err(Fault::TokenInvalid),
            Some(found) => Ok(found),
            // Credentials of another scheme are no token, and not nothing either.
            None if foreign => Err(Fault::TokenInvalid),
            None => Err(Fault::TokenMissing),
        }
    }

    /// Takes the token out of the request, unless services may see it.
    pub(in crate::parts::filters) fn conceal(
        &self,
        found: Found,
        head: &mut Parts,
    ) -> Result<(), Fault> {
        let Some(carrier) = self.0.get(found.0).filter(|carrier| !carrier.forward) else {
            return Ok(());
        };
        match &carrier.place {
            Where::Header(name, _) => {
                head.headers.remove(name);
            }
            Where::Cookie(name) => {
                let lines = head.headers.get_all(COOKIE).iter();
                let rest = lines
                    .map(|line| without(line.as_bytes(), b';', |key| key == name.as_bytes()))
                    .filter(|line| !line.trim_ascii().is_empty());
                let rest = rest.collect::<Vec<_>>().join(&b"; "[..]);
                head.headers.remove(COOKIE);
                let rest = HeaderValue::from_bytes(rest.trim_ascii());
                if let Some(rest) = rest.ok().filter(|rest| !rest.is_empty()) {
                    head.headers.insert(COOKIE, rest);
                }
            }
            Where::Query(name) => hide_from_query(name, head)?,
        }
        Ok(())
    }

    /// Whether one of the places is this field.
    pub(in crate::parts::filters) fn reads(&self, name: &HeaderName) -> bool {
        let is = |carrier: &Carrier| matches!(&carrier.place, Where::Header(own, _) if own == name);
        self.0.iter().any(is)
    }
}

/// What follows the scheme (RFC 9110 section 11.4); `None` if it is another one.
fn after<'h>(scheme: Option<&str>, value: &'h [u8]) -> Option<&'h [u8]> {
    let Some(scheme) = scheme else { return Some(value) };
    let (word, rest) = value.split_at_checked(scheme.len())?;
    let blank = rest.first() == Some(&b' ');
    (blank && word.eq_ignore_ascii_case(scheme.as_bytes())).then(|| rest.trim_ascii_start())
}

/// Values of those pairs whose names are wanted.
fn values(
    text: &[u8],
    separator: u8,
    wanted: impl Fn(&[u8]) -> bool,
) -> impl Iterator<Item = &[u8]> {
    text.split(move |byte| *byte == separator).filter_map(move |pair| {
        let at = pair.iter().position(|byte| *byte == b'=')?;
        let (key, value) = pair.split_at_checked(at)?;
        wanted(key.trim_ascii()).then(|| value.get(1..).unwrap_or_default().trim_ascii())
    })
}

/// The pairs but those whose names are wanted.
fn without(text: &[u8], separator: u8, wanted: impl Fn(&[u8]) -> bool) -> Vec<u8> {
    let name = |pair: &[u8]| {
        let end = pair.iter().position(|byte| *byte == b'=').unwrap_or(pair.len());
        wanted(pair.get(..end).unwrap_or_default().trim_ascii())
    };
    let rest: Vec<&[u8]> =
        text.split(|byte| *byte == separator).filter(|pair| !name(pair)).collect();
    rest.join(&[separator][..])
}

/// Whether a name in a query stands for this plain one, escapes decoded.
fn means(raw: &[u8], name: &str) -> bool {
    let mut rest = raw;
    for wanted in name.bytes() {
        let (byte, used) = match rest {
            [b'%', high, low, ..] => match (hex(*high), hex(*low)) {
                (Some(high), Some(low)) => (high << 4 | low, 3),
                _ => return false,
            },
            [byte, ..] => (*byte, 1),
            [] => return false,
        };
        if byte != wanted {
            return false;
        }
        rest = rest.get(used..).unwrap_or_default();
    }
    rest.is_empty()
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).and_then(|digit| u8::try_from(digit).ok())
}

fn hide_from_query(name: &str, head: &mut Parts) -> Result<(), Fault> {
    let query = head.uri.query().unwrap_or_default();
    let rest = without(query.as_bytes(), b'&', |key| means(key, name));
    let mut target = head.uri.path().as_bytes().to_vec();
    if !rest.is_empty() {
        target.push(b'?');
        target.extend_from_slice(&rest);
    }
    let target = PathAndQuery::try_from(target).map_err(|_| Fault::TargetInvalid)?;
    let mut parts = std::mem::take(&mut head.uri).into_parts();
    parts.path_and_query = Some(target);
    head.uri = Uri::from_parts(parts).map_err(|_| Fault::TargetInvalid)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(target: &str, headers: &[(&str, &str)]) -> Parts {
        let mut request = http::Request::get(target);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.body(()).unwrap().into_parts().0
    }

    fn carriers(forward: bool) -> Carriers {
        let places = [
            Where::Header(AUTHORIZATION, Some("Bearer".to_owned())),
            Where::Header(HeaderName::from_static("x-token"), None),
            Where::Cookie("t".to_owned()),
            Where::Query("t".to_owned()),
        ];
        Carriers(places.map(|place| Carrier { place, forward }).into_iter().collect())
    }

    fn token(target: &str, headers: &[(&str, &str)]) -> Result<String, Fault> {
        let head = head(target, headers);
        let found = carriers(true).find(&head)?;
        Ok(String::from_utf8(found.0.to_vec()).unwrap())
    }

    #[test]
    fn a_token_is_found_wherever_it_may_stand_and_nowhere_else() {
        let is = |text: &str| Ok(text.to_owned());
        for (target, headers, expected) in [
            ("/", &[("authorization", "bEaReR  a.b.c")][..], is("a.b.c")),
            ("/", &[("x-token", "a.b.c")], is("a.b.c")),
            ("/", &[("cookie", "a=1; t=a.b.c;b")], is("a.b.c")),
            ("/", &[("cookie", "a=1"), ("cookie", "t=a.b.c")], is("a.b.c")),
            ("/?a=1&t=a.b.c", &[], is("a.b.c")),
            ("/?%74=a.b.c", &[], is("a.b.c")),
            ("/?tt=1&t%=2&T=3&t", &[], Err(Fault::TokenMissing)),
            ("/", &[("cookie", "tt=1; T=2; t")], Err(Fault::TokenMissing)),
            ("/?t=", &[], Err(Fault::TokenInvalid)),
            ("/", &[("authorization", "Basic dTpw")], Err(Fault::TokenInvalid)),
            ("/", &[("authorization", "Bearer")], Err(Fault::TokenInvalid)),
            ("/", &[("authorization", "Bearer ")], Err(Fault::TokenInvalid)),
            ("/", &[("authorization", "Bearera.b.c")], Err(Fault::TokenInvalid)),
            ("/?t=a", &[("authorization", "Basic dTpw")], is("a")),
        ] {
            assert_eq!(token(target, headers), expected, "{target} {headers:?}");
        }
    }

    #[test]
    fn two_tokens_are_one_too_many() {
        let bearer = ("authorization", "Bearer a");
        for (target, headers) in [
            ("/", &[bearer, bearer][..]),
            ("/", &[bearer, ("authorization", "Basic dTpw")]),
            ("/?t=b", &[bearer]),
            ("/", &[bearer, ("cookie", "t=a")]),
            ("/", &[("x-token", "a"), ("cookie", "t=a")]),
            ("/", &[("cookie", "t=a; t=a")]),
            ("/", &[("cookie", "t=a"), ("cookie", "t=")]),
            ("/?t=a&t=a", &[]),
            ("/?t=a&%74=b", &[]),
        ] {
            assert_eq!(token(target, headers), Err(Fault::TokenAmbiguous), "{target} {headers:?}");
        }
    }

    #[test]
    fn a_concealed_token_is_gone_and_the_rest_stays() {
        let left = |target: &str, headers: &[(&str, &str)]| {
            let mut head = head(target, headers);
            let carriers = carriers(false);
            let found = carriers.find(&head).unwrap().1;
            carriers.conceal(found, &mut head).unwrap();
            let field = |(name, value): (&HeaderName, &HeaderValue)| {
                format!("{name}: {}", value.to_str().unwrap())
            };
            let fields: Vec<_> = head.headers.iter().map(field).collect();
            (head.uri.to_string(), fields.join(", "))
        };
        let is = |target: &str, fields: &str| (target.to_owned(), fields.to_owned());
        assert_eq!(left("/?a=1&t=x&b=2", &[]), is("/?a=1&b=2", ""));
        assert_eq!(left("/a/%74?%74=x", &[]), is("/a/%74", ""));
        assert_eq!(left("/", &[("cookie", "a=1; t=x; b=2")]), is("/", "cookie: a=1; b=2"));
        assert_eq!(left("/", &[("cookie", "t=x")]), is("/", ""));
        assert_eq!(left("/?a", &[("x-token", "x"), ("b", "c")]), is("/?a", "b: c"));
        assert_eq!(
            left("/?t=x", &[("authorization", "Basic d")]),
            is("/", "authorization: Basic d")
        );
    }
}
