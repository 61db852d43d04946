//! HTTP Message Signatures (RFC 9421): one signature, over components without parameters, with
//! `created` and `keyid`.

use super::sf::{self, Value};
use super::{
    Algorithm, Covers, Digest, DigestKind, Encoding, Fields, Proof, Read, Request, Time, Unclear,
    id, nonce, only,
};

/// What a signature has to cover.
#[derive(Debug, Clone, Copy)]
pub struct Rules<'a> {
    /// Components that must be covered.
    pub required: &'a [String],
    /// Whether a nonce must be there.
    pub nonce: bool,
}

/// Whether components cover method, host and path: by themselves or in `@target-uri`.
#[must_use]
pub fn cover_target(components: &[String]) -> bool {
    let has = |name: &str| components.iter().any(|component| component == name);
    let path = has("@path") && has("@query") || has("@request-target");
    has("@method") && (has("@target-uri") || has("@authority") && path)
}

/// Whether such a component is understood.
#[must_use]
pub fn is_component(name: &str) -> bool {
    match name.strip_prefix('@') {
        Some(derived) => matches!(
            derived,
            "method" | "target-uri" | "authority" | "scheme" | "request-target" | "path" | "query"
        ),
        None => {
            let fits =
                |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'_');
            !name.is_empty() && name.bytes().all(fits)
        }
    }
}

/// Reads `signature-input` and `signature`.
///
/// # Errors
///
/// If a signature is there and says nothing clear, or covers too little.
pub fn read<'a>(fields: &'a dyn Fields, rules: &Rules<'_>) -> Read<'a> {
    let Some(input) = only(fields, "signature-input")? else { return Ok(None) };
    let list = sf::list(input)?;
    let signature = only(fields, "signature")?.ok_or(Unclear)?;
    let signature = sf::bytes(signature, list.label, true)?.ok_or(Unclear)?;
    let covers = |name: &str| list.items.contains(&name);
    if !list.items.iter().all(|name| is_component(name))
        || !rules.required.iter().all(|name| covers(name))
    {
        return Err(Unclear);
    }
    let (mut created, mut expires, mut key, mut algorithm, mut nonced) =
        (None, None, None, None, None);
    for (name, value) in &list.parameters {
        match (*name, *value) {
            ("created", Value::Integer(seconds)) => created = Some(seconds),
            ("expires", Value::Integer(seconds)) => expires = Some(seconds),
            ("keyid", Value::Text(text)) => key = Some(id(text)?),
            ("alg", Value::Text(text)) => {
                algorithm = Some(Algorithm::named(text).ok_or(Unclear)?);
            }
            ("nonce", Value::Text(text)) => nonced = Some(nonce(text)?),
            ("tag", Value::Text(_)) => {}
            _ => return Err(Unclear),
        }
    }
    if rules.nonce && nonced.is_none() {
        return Err(Unclear);
    }
    let created = created.ok_or(Unclear)?.checked_mul(1000).ok_or(Unclear)?;
    Ok(Some(Proof {
        id: key.ok_or(Unclear)?.into(),
        algorithm,
        signature,
        encoding: Encoding::Base64,
        time: Time::Unix(created),
        expires,
        nonce: nonced,
        digest: if covers("content-digest") { digest(fields)? } else { None },
        body: Covers::Nothing,
        covered: list.items,
        parameters: list.raw,
    }))
}

/// RFC 9530: the strongest digest that is understood.
fn digest(fields: &dyn Fields) -> Result<Option<Digest<'_>>, Unclear> {
    let field = only(fields, "content-digest")?.ok_or(Unclear)?;
    for (label, kind) in [("sha-512", DigestKind::Sha512), ("sha-256", DigestKind::Sha256)] {
        if let Some(text) = sf::bytes(field, label, false)? {
            return Ok(Some(Digest { kind, text }));
        }
    }
    Err(Unclear)
}

/// The signature base (RFC 9421 section 2.5).
///
/// # Errors
///
/// If a component is not there.
pub fn text(request: &Request<'_>, proof: &Proof<'_>) -> Result<Vec<u8>, Unclear> {
    let mut out = Vec::with_capacity(512);
    for name in &proof.covered {
        out.push(b'"');
        out.extend_from_slice(name.as_bytes());
        out.extend_from_slice(b"\": ");
        component(request, name, &mut out)?;
        out.push(b'\n');
    }
    out.extend_from_slice(b"\"@signature-params\": ");
    out.extend_from_slice(proof.parameters.as_bytes());
    Ok(out)
}

fn component(request: &Request<'_>, name: &str, out: &mut Vec<u8>) -> Result<(), Unclear> {
    match name {
        "@method" => out.extend_from_slice(request.method.as_bytes()),
        "@scheme" => out.extend_from_slice(request.scheme.as_bytes()),
        "@authority" => out.extend_from_slice(authority(request).as_bytes()),
        "@path" => out.extend_from_slice(request.path.as_bytes()),
        "@query" => {
            out.push(b'?');
            out.extend_from_slice(request.query.unwrap_or("").as_bytes());
        }
        "@request-target" => super::target(request, out),
        "@target-uri" => {
            out.extend_from_slice(request.scheme.as_bytes());
            out.extend_from_slice(b"://");
            out.extend_from_slice(authority(request).as_bytes());
            super::target(request, out);
        }
        name => field(request.fields, name, out)?,
    }
    Ok(())
}

/// RFC 9421 section 2.1: all values, without blanks around them, joined by a comma and a blank.
fn field(fields: &dyn Fields, name: &str, out: &mut Vec<u8>) -> Result<(), Unclear> {
    let mut any = false;
    fields.each(name, &mut |value| {
        if any {
            out.extend_from_slice(b", ");
        }
        any = true;
        out.extend_from_slice(value.trim_ascii());
    });
    any.then_some(()).ok_or(Unclear)
}

/// RFC 9421 section 2.2.3: without the port that goes without saying.
fn authority<'a>(request: &Request<'a>) -> &'a str {
    let usual = if request.scheme == "https" { ":443" } else { ":80" };
    request.authority.strip_suffix(usual).unwrap_or(request.authority)
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::hmac::HMAC_SHA256;

    use super::super::tests::{List, request, sign};
    use super::*;

    const RULES: Rules<'_> = Rules { required: &[], nonce: false };

    /// RFC 9421 appendix B.2.5, with the secret of B.1.5.
    #[test]
    fn the_example_of_the_rfc_verifies() {
        let fields = List(&[
            ("date", "Tue, 20 Apr 2021 02:07:55 GMT"),
            ("content-type", "application/json"),
            (
                "signature-input",
                r#"sig-b25=("date" "@authority" "content-type");created=1618884473;keyid="test-shared-secret""#,
            ),
            ("signature", "sig-b25=:pxcQw6G3AjtMBQjwo8XzkZf/bws5LelbaMk5rGIGtE8=:"),
        ]);
        let proof = read(&fields, &RULES).unwrap().unwrap();
        let text = text(&request("POST", "/foo?param=Value&Pet=dog", &fields), &proof).unwrap();
        let secret = "uzvJfB4u3N0Jy4T7NZ75MDVcr8zSTInedJtkgcu46YW4XByzNJjxBdtjUkdJPBtbmHhIDi6pcl8jsasjlTMtDQ==";
        let secret = {
            use base64::Engine as _;
            base64::engine::general_purpose::STANDARD.decode(secret).unwrap()
        };
        assert_eq!(sign(HMAC_SHA256, &secret, &text), proof.signature);
    }

    #[test]
    fn components_are_those_of_the_rfc() {
        let fields = List(&[
            ("x", " a "),
            ("x", "b"),
            (
                "signature-input",
                r#"s=("@method" "@target-uri" "@authority" "@scheme" "@request-target" "@path" "@query" "x");created=1;keyid="k""#,
            ),
            ("signature", "s=:YQ==:"),
        ]);
        let proof = read(&fields, &RULES).unwrap().unwrap();
        let mut request = request("GET", "/a?b=c", &fields);
        request.authority = "example.com:443";
        let text = String::from_utf8(text(&request, &proof).unwrap()).unwrap();
        assert_eq!(
            text.lines().take(8).collect::<Vec<_>>(),
            [
                r#""@method": GET"#,
                r#""@target-uri": https://example.com/a?b=c"#,
                r#""@authority": example.com"#,
                r#""@scheme": https"#,
                r#""@request-target": /a?b=c"#,
                r#""@path": /a"#,
                r#""@query": ?b=c"#,
                r#""x": a, b"#,
            ]
        );
    }

    #[test]
    fn k_07_what_must_be_covered_is() {
        let names = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect::<Vec<_>>();
        assert!(cover_target(&names(&["@method", "@target-uri"])));
        assert!(cover_target(&names(&["@method", "@authority", "@path", "@query"])));
        for few in
            [&["@target-uri"][..], &["@method", "@path", "@query"], &["@method", "@authority"]]
        {
            assert!(!cover_target(&names(few)), "{few:?}");
        }
        let input = |input: &str| {
            let fields = [("signature-input", input), ("signature", "s=:YQ==:")];
            let required = names(&["@method"]);
            read(&List(&fields), &Rules { required: &required, nonce: true }).map(|p| p.is_some())
        };
        assert_eq!(
            input(r#"s=("@method");created=1;keyid="k";nonce="0123456789abcdef""#),
            Ok(true)
        );
        for bad in [
            r#"s=("date");created=1;keyid="k";nonce="0123456789abcdef""#,
            r#"s=("@method");created=1;keyid="k""#,
            r#"s=("@method");keyid="k";nonce="0123456789abcdef""#,
            r#"s=("@method");created=1;nonce="0123456789abcdef""#,
            r#"s=("@method");created="1";keyid="k";nonce="0123456789abcdef""#,
            r#"s=("@method" "@status");created=1;keyid="k";nonce="0123456789abcdef""#,
            r#"s=("@method");created=1;keyid="k";nonce="0123456789abcdef";alg="none""#,
            r#"t=("@method");created=1;keyid="k";nonce="0123456789abcdef""#,
        ] {
            assert!(input(bad).is_err(), "{bad}");
        }
    }
}
