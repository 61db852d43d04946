//! Signatures in `Authorization` over listed header fields, as Kong, APISIX and Tencent's gateway have
//! them. They differ in who names the key, in what `@request-target` stands for, and in line ends.
//!
//! None of them has a nonce of its own; a field may serve as one, if it is among those covered.

use super::credentials::parameters;
use super::{
    Algorithm, Body, Covers, Digest, DigestKind, Encoding, Fields, MAX_COVERED, Proof, Read,
    Request, Time, Unclear, form, id, is_form, nonce, only, only_or_empty, target,
};

/// Whose way of signing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dialect {
    /// `hmac username="…"`; the target is `get /path`.
    Kong,
    /// `Signature keyId="…"`; the target is `GET /path`, and the key stands in the text.
    Apisix,
    /// `hmac id="…"`, Tencent's pairs of keys: header fields only.
    Tencent,
    /// `hmac id="…"`, Tencent's applications: fields, then method, types and parameters.
    TencentApp,
}

/// What one of these signatures has to cover.
#[derive(Debug, Clone, Copy)]
pub struct Rules<'a> {
    /// Whose way.
    pub dialect: Dialect,
    /// Names, in lower case, that must be covered beside the date.
    pub required: &'a [String],
    /// The covered field that is the nonce.
    pub nonce: Option<&'a str>,
}

impl Dialect {
    /// Whether the dialect itself always covers method and path.
    #[must_use]
    pub fn names_target(self) -> bool {
        self == Self::TencentApp
    }
}

/// Reads the field.
///
/// # Errors
///
/// If a signature of this dialect is there and says nothing clear, or covers too little.
pub fn read<'a>(fields: &'a dyn Fields, rules: &Rules<'_>) -> Read<'a> {
    let Some(field) = only(fields, "authorization")? else { return Ok(None) };
    let (scheme, key) = match rules.dialect {
        Dialect::Kong => ("hmac", "username"),
        Dialect::Apisix => ("signature", "keyId"),
        Dialect::Tencent | Dialect::TencentApp => ("hmac", "id"),
    };
    let Some(given) = parameters(field, scheme)? else { return Ok(None) };
    let key = id(given.get(key)?)?;
    let algorithm = Algorithm::named(given.get("algorithm")?).ok_or(Unclear)?;
    let covered: Vec<&str> = given.get("headers")?.split(' ').collect();
    let covers = |name: &str| covered.iter().any(|listed| listed.eq_ignore_ascii_case(name));
    let twice = covered.iter().enumerate().any(|(at, name)| {
        covered.iter().skip(at + 1).any(|other| other.eq_ignore_ascii_case(name))
    });
    if covered.len() > MAX_COVERED || twice || !rules.required.iter().all(|name| covers(name)) {
        return Err(Unclear);
    }
    // Whichever date is covered; the other one anybody may have written.
    let dated = if covers("x-date") { "x-date" } else { "date" };
    let tencent = matches!(rules.dialect, Dialect::Tencent | Dialect::TencentApp);
    if !covers(dated) || tencent && dated != "x-date" {
        return Err(Unclear);
    }
    let form =
        rules.dialect == Dialect::TencentApp && is_form(only_or_empty(fields, "content-type")?);
    Ok(Some(Proof {
        id: key.into(),
        algorithm: Some(algorithm),
        signature: given.get("signature")?,
        encoding: Encoding::Base64,
        time: Time::Date(only(fields, dated)?.ok_or(Unclear)?),
        expires: None,
        nonce: match rules.nonce {
            Some(name) if covers(name) => Some(nonce(only(fields, name)?.ok_or(Unclear)?)?),
            Some(_) => return Err(Unclear),
            None => None,
        },
        digest: digest(fields, rules.dialect, &covers)?,
        body: if form { Covers::Form } else { Covers::Nothing },
        covered,
        parameters: "",
    }))
}

/// The covered digest of the body. A digest that is there and not covered protects nobody.
fn digest<'a>(
    fields: &'a dyn Fields,
    dialect: Dialect,
    covers: &dyn Fn(&str) -> bool,
) -> Result<Option<Digest<'a>>, Unclear> {
    if (dialect == Dialect::TencentApp || covers("content-md5"))
        && let Some(text) = only(fields, "content-md5")?.filter(|text| !text.is_empty())
    {
        return Ok(Some(Digest { kind: DigestKind::Md5, text }));
    }
    if !covers("digest") {
        return Ok(None);
    }
    let (kind, text) = only(fields, "digest")?.ok_or(Unclear)?.split_once('=').ok_or(Unclear)?;
    let kind = match kind.to_ascii_uppercase().as_str() {
        "SHA-256" => DigestKind::Sha256,
        "SHA-512" => DigestKind::Sha512,
        _ => return Err(Unclear),
    };
    Ok(Some(Digest { kind, text }))
}

/// The text that such a request is signed over.
///
/// # Errors
///
/// If it could stand for another request too.
pub fn text(
    request: &Request<'_>,
    proof: &Proof<'_>,
    dialect: Dialect,
    body: Body<'_>,
) -> Result<Vec<u8>, Unclear> {
    let mut out = Vec::with_capacity(256);
    if dialect == Dialect::Apisix {
        out.extend_from_slice(proof.id.as_bytes());
        out.push(b'\n');
    }
    for (at, name) in proof.covered.iter().enumerate() {
        if at > 0 {
            out.push(b'\n');
        }
        covered(request, name, dialect, &mut out)?;
    }
    match dialect {
        Dialect::Kong | Dialect::Tencent => {}
        Dialect::Apisix => out.push(b'\n'),
        Dialect::TencentApp => {
            let field = |name| only_or_empty(request.fields, name);
            for line in [
                request.method,
                field("accept")?,
                field("content-type")?,
                field("content-md5")?,
                "",
            ] {
                out.push(b'\n');
                out.extend_from_slice(line.as_bytes());
            }
            let form: &[u8] = if let Body::Form(form) = body { form } else { b"" };
            form::write(request.path, request.query, form, &mut out)?;
        }
    }
    Ok(out)
}

/// One covered item.
fn covered(
    request: &Request<'_>,
    name: &str,
    dialect: Dialect,
    out: &mut Vec<u8>,
) -> Result<(), Unclear> {
    let name = name.to_ascii_lowercase();
    match (dialect, name.as_str()) {
        (Dialect::Kong, "@request-target") => {
            out.extend_from_slice(b"@request-target: ");
            out.extend_from_slice(request.method.to_ascii_lowercase().as_bytes());
            out.push(b' ');
            target(request, out);
        }
        (Dialect::Kong, "request-line") => {
            out.extend_from_slice(request.method.as_bytes());
            out.push(b' ');
            target(request, out);
            out.push(b' ');
            out.extend_from_slice(request.version.as_bytes());
        }
        (Dialect::Apisix, "@request-target") => {
            out.extend_from_slice(request.method.as_bytes());
            out.push(b' ');
            target(request, out);
        }
        (_, name) => {
            let value = match name {
                // HTTP/2 has no such field, and HTTP/1 may have named another in its target.
                "host" => request.authority,
                name => only(request.fields, name)?.ok_or(Unclear)?,
            };
            out.extend_from_slice(name.as_bytes());
            out.extend_from_slice(b": ");
            out.extend_from_slice(value.as_bytes());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::hmac::{HMAC_SHA1_FOR_LEGACY_USE_ONLY, HMAC_SHA256};

    use super::super::tests::{List, request, sign};
    use super::*;

    fn rules(dialect: Dialect) -> Rules<'static> {
        Rules { dialect, required: &[], nonce: None }
    }

    fn read_and_text(dialect: Dialect, target: &str, fields: &List<'_>) -> String {
        let proof = read(fields, &rules(dialect)).unwrap().unwrap();
        let text = text(&request("GET", target, fields), &proof, dialect, Body::Apart).unwrap();
        String::from_utf8(text).unwrap()
    }

    #[test]
    fn kong_signs_as_published() {
        let fields = List(&[
            ("x-date", "Thu, 22 Jun 2017 17:15:21 GMT"),
            (
                "authorization",
                r#"hmac username="alice", algorithm="hmac-sha256", headers="x-date @request-target", signature="x""#,
            ),
        ]);
        let text = read_and_text(Dialect::Kong, "/requests?a=1", &fields);
        assert_eq!(
            text,
            "x-date: Thu, 22 Jun 2017 17:15:21 GMT\n@request-target: get /requests?a=1"
        );
        assert_eq!(
            sign(HMAC_SHA256, b"secret", text.as_bytes()),
            "jq/yEITRMPl8cEEy/lj/Q4560dmsyimfcM7l7CJG4/8="
        );
    }

    #[test]
    fn kong_knows_the_older_request_line() {
        let fields = List(&[
            ("date", "d"),
            (
                "authorization",
                r#"hmac username="a", algorithm="hmac-sha256", headers="date request-line host", signature="x""#,
            ),
        ]);
        let text = read_and_text(Dialect::Kong, "/a?b", &fields);
        assert_eq!(text, "date: d\nGET /a?b HTTP/1.1\nhost: example.com");
    }

    #[test]
    fn apisix_signs_as_published() {
        let fields = List(&[
            ("date", "Tue, 19 Jan 2021 11:33:20 GMT"),
            (
                "authorization",
                r#"Signature keyId="demo",algorithm="hmac-sha256",headers="@request-target date",signature="x""#,
            ),
        ]);
        let text = read_and_text(Dialect::Apisix, "/get?x=1", &fields);
        assert_eq!(text, "demo\nGET /get?x=1\ndate: Tue, 19 Jan 2021 11:33:20 GMT\n");
        assert_eq!(
            sign(HMAC_SHA256, b"secret", text.as_bytes()),
            "D7aqOQ0Qn3eew2bYXVvHXPb32LZwKAGP3Fj9i/XMyZM="
        );
    }

    #[test]
    fn tencent_signs_as_published() {
        let fields = List(&[
            ("x-date", "Mon, 19 Mar 2018 12:08:40 GMT"),
            ("source", "AndriodApp"),
            (
                "authorization",
                r#"hmac id="AKID", algorithm="hmac-sha1", headers="x-date source", signature="x""#,
            ),
        ]);
        let text = read_and_text(Dialect::Tencent, "/", &fields);
        assert_eq!(text, "x-date: Mon, 19 Mar 2018 12:08:40 GMT\nsource: AndriodApp");
        assert_eq!(
            sign(HMAC_SHA1_FOR_LEGACY_USE_ONLY, b"secret", text.as_bytes()),
            "z4RPVas/UrLIIL5NLZg1oJJjEyU="
        );
    }

    #[test]
    fn tencents_applications_sign_parameters_of_query_and_form() {
        let fields = List(&[
            ("x-date", "d"),
            ("accept", "application/json"),
            ("content-type", "application/x-www-form-urlencoded"),
            (
                "authorization",
                r#"hmac id="APID", algorithm="hmac-sha1", headers="x-date", signature="x""#,
            ),
        ]);
        let proof = read(&fields, &rules(Dialect::TencentApp)).unwrap().unwrap();
        assert_eq!(proof.body, Covers::Form);
        let request = request("POST", "/app?b=2", &fields);
        let text = text(&request, &proof, Dialect::TencentApp, Body::Form(b"c=3&a=1")).unwrap();
        assert_eq!(
            String::from_utf8_lossy(&text),
            "x-date: d\nPOST\napplication/json\napplication/x-www-form-urlencoded\n\n/app?a=1&b=2&c=3"
        );
    }

    #[test]
    fn k_07_what_must_be_covered_is() {
        let field = |headers: &str| {
            format!(
                r#"hmac username="a", algorithm="hmac-sha256", headers="{headers}", signature="x""#
            )
        };
        let judged = |headers: &str| {
            let field = field(headers);
            let fields =
                [("authorization", field.as_str()), ("date", "d"), ("x-nonce", "0123456789abcdef")];
            let required = ["@request-target".to_owned()];
            let rules =
                Rules { dialect: Dialect::Kong, required: &required, nonce: Some("x-nonce") };
            read(&List(&fields), &rules).map(|proof| proof.is_some())
        };
        assert_eq!(judged("date @request-target x-nonce"), Ok(true));
        for headers in [
            "",
            "date x-nonce",
            "date @request-target",
            "@request-target x-nonce",
            "x-date @request-target x-nonce",
            "date date @request-target x-nonce",
        ] {
            assert_eq!(judged(headers), Err(Unclear), "{headers}");
        }
    }
}
