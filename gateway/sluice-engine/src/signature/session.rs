//! The scheme of this gateway, for callers with a session: the field
//! `x-mp-sign: v1;t=<time>;n=<nonce>;s=<signature>`, a signature in Base64url of HMAC-SHA256 over
//!
//! ```text
//! METHOD
//! PATH?query
//! SHA-256 of the body in lower-case hex, or UNSIGNED-PAYLOAD
//! time
//! nonce
//! session
//! ```
//!
//! without a line end behind the last. Path and query are the percent-encoded bytes as they are sent; the
//! parameters of the query are sorted by the bytes of their names, and those of one name keep their order.

use super::{
    Algorithm, Body, Covers, Encoding, Fields, Proof, Read, Request, Time, Unclear, nonce, only,
    unix,
};

/// The field that carries the signature.
pub const FIELD: &str = "x-mp-sign";
/// Longest name of a session.
const MAX_SESSION: usize = 256;

/// Reads the field.
///
/// # Errors
///
/// If it is there and says nothing clear.
pub fn read(fields: &dyn Fields) -> Read<'_> {
    let Some(field) = only(fields, FIELD)? else { return Ok(None) };
    let mut words = field.split(';').map(|word| word.trim_matches(' '));
    if words.next() != Some("v1") {
        return Err(Unclear);
    }
    let mut next = |name: &str| {
        let word = words.next().ok_or(Unclear)?;
        word.strip_prefix(name).and_then(|word| word.strip_prefix('=')).ok_or(Unclear)
    };
    let (time, nonced, signature) = (next("t")?, next("n")?, next("s")?);
    if words.next().is_some() {
        return Err(Unclear);
    }
    Ok(Some(Proof {
        id: "".into(),
        algorithm: Some(Algorithm::HmacSha256),
        signature,
        encoding: Encoding::Base64Url,
        time: Time::Unix(unix(time)?),
        expires: None,
        nonce: Some(nonce(nonced)?),
        digest: None,
        body: Covers::Sum,
        covered: Vec::new(),
        parameters: time,
    }))
}

/// The text that a session's request is signed over.
///
/// # Errors
///
/// If there is no such text.
pub fn text(
    request: &Request<'_>,
    proof: &Proof<'_>,
    body: Body<'_>,
    session: &str,
) -> Result<Vec<u8>, Unclear> {
    let Body::Sum(sum) = body else { return Err(Unclear) };
    let fits = (1..=MAX_SESSION).contains(&session.len());
    if !fits || session.bytes().any(|byte| byte.is_ascii_control()) {
        return Err(Unclear);
    }
    let mut out = Vec::with_capacity(256);
    out.extend_from_slice(request.method.as_bytes());
    out.push(b'\n');
    out.extend_from_slice(request.path.as_bytes());
    let mut pieces: Vec<&str> = request.query.unwrap_or("").split('&').collect();
    pieces.sort_by_key(|piece| piece.split('=').next().unwrap_or(""));
    for (at, piece) in pieces.iter().enumerate() {
        if request.query.is_some_and(|query| !query.is_empty()) {
            out.push(if at == 0 { b'?' } else { b'&' });
            out.extend_from_slice(piece.as_bytes());
        }
    }
    out.push(b'\n');
    match sum {
        Some(sum) => {
            let mut hex = [0; 64];
            crate::trace::write_hex(&sum, &mut hex);
            out.extend_from_slice(&hex);
        }
        None => out.extend_from_slice(b"UNSIGNED-PAYLOAD"),
    }
    for line in [proof.parameters, proof.nonce.unwrap_or(""), session] {
        out.push(b'\n');
        out.extend_from_slice(line.as_bytes());
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::super::tests::{List, request};
    use super::*;

    #[test]
    fn the_text_is_the_documented_one() {
        let fields = List(&[(FIELD, "v1;t=1700000000000;n=0123456789abcdef;s=c2ln")]);
        let proof = read(&fields).unwrap().unwrap();
        assert_eq!((proof.time, proof.signature), (Time::Unix(1_700_000_000_000), "c2ln"));
        let at = |target, sum| {
            let text = text(&request("POST", target, &fields), &proof, Body::Sum(sum), "s-1");
            String::from_utf8(text.unwrap()).unwrap()
        };
        let sum = format!("{}\n1700000000000\n0123456789abcdef\ns-1", "07".repeat(32));
        assert_eq!(at("/a", Some([7; 32])), format!("POST\n/a\n{sum}"));
        assert_eq!(at("/a?", Some([7; 32])), format!("POST\n/a\n{sum}"));
        assert_eq!(
            at("/a?b=2&a=%E4%BD%A0&b=1&B", None),
            "POST\n/a?B&a=%E4%BD%A0&b=2&b=1\nUNSIGNED-PAYLOAD\n1700000000000\n0123456789abcdef\ns-1"
        );
        assert_ne!(at("/a?b=1&b=2", None), at("/a?b=2&b=1", None), "the order of one name counts");
    }

    #[test]
    fn k_01_k_09_what_is_not_exact_is_refused() {
        let good = "v1;t=1700000000;n=0123456789abcdef;s=c2ln";
        assert!(read(&List(&[(FIELD, good)])).unwrap().is_some());
        assert!(read(&List(&[])).unwrap().is_none());
        assert!(read(&List(&[(FIELD, good), (FIELD, good)])).is_err(), "twice");
        for bad in [
            "",
            "v2;t=1700000000;n=0123456789abcdef;s=c2ln",
            "v1;n=0123456789abcdef;t=1700000000;s=c2ln",
            "v1;t=-170000000;n=0123456789abcdef;s=c2ln",
            "v1;t=17000000000000000000;n=0123456789abcdef;s=c2ln",
            "v1;t=1700000000;n=short;s=c2ln",
            "v1;t=1700000000;n=0123456789abcdef;s=c2ln;x=1",
            "v1;t=1700000000;n=0123456789abcdef",
        ] {
            assert!(read(&List(&[(FIELD, bad)])).is_err(), "{bad}");
        }
    }
}
