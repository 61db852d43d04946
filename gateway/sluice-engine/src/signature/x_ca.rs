//! `X-Ca-*`, as Alibaba's API gateway and Higress sign; strictly: the moment and a nonce must be there and
//! covered, and what could be read in two ways is refused.

use super::{
    Algorithm, Body, Covers, Digest, DigestKind, Encoding, Fields, MAX_COVERED, Proof, Read,
    Request, Time, Unclear, form, id, is_form, nonce, only, only_or_empty, unix,
};

/// Fields that must be covered, or anybody could change them.
const MUST: [&str; 3] = ["x-ca-key", "x-ca-timestamp", "x-ca-nonce"];
/// Fields that have lines of their own, or make the signature.
const NEVER: [&str; 7] = [
    "x-ca-signature",
    "x-ca-signature-headers",
    "accept",
    "content-md5",
    "content-type",
    "date",
    "",
];

/// Reads the fields.
///
/// # Errors
///
/// If a signature is there and says nothing clear.
pub fn read(fields: &dyn Fields) -> Read<'_> {
    let Some(signature) = only(fields, "x-ca-signature")? else { return Ok(None) };
    let key = only(fields, "x-ca-key")?.ok_or(Unclear)?;
    let time = only(fields, "x-ca-timestamp")?.ok_or(Unclear)?;
    let nonced = only(fields, "x-ca-nonce")?.ok_or(Unclear)?;
    let algorithm = match only(fields, "x-ca-signature-method")? {
        None | Some("HmacSHA256") => Algorithm::HmacSha256,
        Some("HmacSHA1") => Algorithm::HmacSha1,
        Some(_) => return Err(Unclear),
    };
    let listed = only(fields, "x-ca-signature-headers")?.ok_or(Unclear)?;
    let covered: Vec<&str> = listed.split(',').map(str::trim).collect();
    let covers = |name: &str| covered.iter().any(|listed| listed.eq_ignore_ascii_case(name));
    if covered.len() > MAX_COVERED || !MUST.iter().all(|name| covers(name)) {
        return Err(Unclear);
    }
    let digest = only(fields, "content-md5")?.filter(|text| !text.is_empty());
    let form = is_form(only_or_empty(fields, "content-type")?);
    Ok(Some(Proof {
        id: id(key)?.into(),
        algorithm: Some(algorithm),
        signature,
        encoding: Encoding::Base64,
        time: Time::Unix(unix(time)?),
        expires: None,
        nonce: Some(nonce(nonced)?),
        digest: digest.map(|text| Digest { kind: DigestKind::Md5, text }),
        body: if form { Covers::Form } else { Covers::Nothing },
        covered,
        parameters: "",
    }))
}

/// The text that such a request is signed over.
///
/// # Errors
///
/// If it could stand for another request too.
pub fn text(request: &Request<'_>, proof: &Proof<'_>, body: Body<'_>) -> Result<Vec<u8>, Unclear> {
    let mut out = Vec::with_capacity(512);
    let line = |text: &str, out: &mut Vec<u8>| {
        out.extend_from_slice(text.as_bytes());
        out.push(b'\n');
    };
    line(request.method, &mut out);
    for name in ["accept", "content-md5", "content-type", "date"] {
        line(only_or_empty(request.fields, name)?, &mut out);
    }
    let mut names: Vec<String> =
        proof.covered.iter().map(|name| name.to_ascii_lowercase()).collect();
    names.sort_unstable();
    for (at, name) in names.iter().enumerate() {
        if at > 0 && names.get(at - 1) == Some(name) {
            return Err(Unclear);
        }
        if NEVER.contains(&name.as_str()) {
            continue;
        }
        // One that is not there has a line too, or leaving it out would not be noticed.
        let value = only_or_empty(request.fields, name)?;
        line(&format!("{name}:{value}"), &mut out);
    }
    let form: &[u8] = if let Body::Form(form) = body { form } else { b"" };
    form::write(request.path, request.query, form, &mut out)?;
    Ok(out)
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::hmac::HMAC_SHA256;

    use super::super::tests::{List, request, sign};
    use super::*;

    const LISTED: &str = "x-ca-key,x-ca-nonce,x-ca-timestamp";

    fn proof<'a>(covered: &[&'a str]) -> Proof<'a> {
        Proof {
            id: "demo".into(),
            algorithm: Some(Algorithm::HmacSha256),
            signature: "",
            encoding: Encoding::Base64,
            time: Time::Unix(0),
            expires: None,
            nonce: None,
            digest: None,
            body: Covers::Nothing,
            covered: covered.to_vec(),
            parameters: "",
        }
    }

    /// The nonce of the vector is shorter than we accept, so only the text is made.
    #[test]
    fn a_json_request_is_signed_as_published() {
        let fields = List(&[
            ("accept", "application/json"),
            ("content-type", "application/json"),
            ("content-md5", "u2y1xo30ZSlByvZSo2by2A=="),
            ("x-ca-key", "demo"),
            ("x-ca-nonce", "n-1"),
            ("x-ca-timestamp", "1700000000000"),
        ]);
        let request = request("POST", "/api/v1/orders?b=2&a=", &fields);
        let covered = proof(&["x-ca-timestamp", "X-Ca-Key", "x-ca-nonce"]);
        let text = text(&request, &covered, Body::Apart).unwrap();
        assert_eq!(
            String::from_utf8_lossy(&text),
            "POST\napplication/json\nu2y1xo30ZSlByvZSo2by2A==\napplication/json\n\nx-ca-key:demo\n\
             x-ca-nonce:n-1\nx-ca-timestamp:1700000000000\n/api/v1/orders?a&b=2"
        );
        assert_eq!(
            sign(HMAC_SHA256, b"sluice-test-secret", &text),
            "IdTFls1SeKJe+p4MTZJa4PkW2WR5zNpk2oyMSBTDn/o="
        );
    }

    /// The request that Alibaba and Higress print in their documentation.
    #[test]
    fn a_form_is_signed_as_published() {
        let fields = List(&[
            ("accept", "application/json; charset=utf-8"),
            ("content-type", "application/x-www-form-urlencoded; charset=utf-8"),
            ("date", "Wed, 09 May 2018 13:30:29 GMT+00:00"),
            ("x-ca-key", "203753385"),
            ("x-ca-nonce", "c9f15cbf-f4ac-4a6c-b54d-f51abf4b5b44"),
            ("x-ca-signature-method", "HmacSHA256"),
            ("x-ca-timestamp", "1525872629832"),
            ("x-ca-signature", "VpbgASvBWF0ekWm8zaQtHsEUiCTTdVSH6pGj5SgdlEQ="),
            ("x-ca-signature-headers", "x-ca-key,x-ca-nonce,x-ca-signature-method,x-ca-timestamp"),
        ]);
        let proof = read(&fields).unwrap().unwrap();
        assert_eq!(proof.body, Covers::Form);
        let request = request("POST", "/http2test/test?param1=test", &fields);
        let form = Body::Form(b"username=xiaoming&password=123456789");
        let text = text(&request, &proof, form).unwrap();
        assert_eq!(sign(HMAC_SHA256, b"sluice-test-secret", &text), proof.signature);
    }

    #[test]
    fn k_04_what_can_be_read_in_two_ways_is_refused() {
        let fields = List(&[("x-a", "1"), ("x-b", "1"), ("x-b", "2"), ("accept", "a")]);
        let all = |target: &'static str, covered: &[&str]| {
            text(&request("GET", target, &fields), &proof(covered), Body::Apart)
        };
        assert!(all("/a?a=1", &["x-a"]).is_ok());
        assert!(all("/a?a=1&a=2", &["x-a"]).is_err(), "a parameter twice");
        assert!(all("/a", &["x-b"]).is_err(), "a field twice");
        assert!(all("/a", &["x-a", "X-A"]).is_err(), "a name twice");
        let missing = all("/a", &["x-none"]).unwrap();
        assert!(missing.ends_with(b"\nx-none:\n/a"), "{}", String::from_utf8_lossy(&missing));
    }

    #[test]
    fn moment_key_and_nonce_must_be_covered() {
        let fields = |listed: &'static str| {
            [
                ("x-ca-signature", "c2ln"),
                ("x-ca-key", "demo"),
                ("x-ca-nonce", "0123456789abcdef"),
                ("x-ca-timestamp", "1700000000000"),
                ("x-ca-signature-headers", listed),
            ]
        };
        assert!(read(&List(&fields(LISTED))).unwrap().is_some());
        assert!(read(&List(&[])).unwrap().is_none());
        for listed in ["", "x-ca-key", "x-ca-key,x-ca-nonce", "x-ca-timestamp,x-ca-nonce"] {
            assert!(read(&List(&fields(listed))).is_err(), "{listed}");
        }
        for without in 1..5 {
            let mut some = fields(LISTED).to_vec();
            some.remove(without);
            assert!(read(&List(&some)).is_err(), "without {without}");
        }
        let mut md5 = fields(LISTED).to_vec();
        md5.push(("x-ca-signature-method", "HmacMD5"));
        assert!(read(&List(&md5)).is_err());
    }
}
