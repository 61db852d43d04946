//! Sets of keys: what is taken of them, what is passed over, and what is wrong with the rest.

use aws_lc_rs::rsa::{KeyPair as RsaKeyPair, KeySize};
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _,
};

use super::*;

fn encode(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

fn ed() -> String {
    let pair = Ed25519KeyPair::generate().unwrap();
    format!(r#""kty":"OKP","crv":"Ed25519","x":"{}""#, encode(pair.public_key().as_ref()))
}

fn ec() -> (String, String) {
    let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap();
    let point = pair.public_key().as_ref().to_vec();
    (encode(&point[1..33]), encode(&point[33..]))
}

fn rsa() -> String {
    let pair = RsaKeyPair::generate(KeySize::Rsa2048).unwrap();
    let public = pair.public_key();
    let n: Vec<u8> = public.modulus().big_endian_without_leading_zero().to_vec();
    format!(r#""kty":"RSA","e":"AQAB","n":"{}""#, encode(&n))
}

fn set(keys: &[String]) -> String {
    let keys: Vec<String> = keys.iter().map(|key| format!("{{{key}}}")).collect();
    format!("{{\"keys\":[\n  {}\n]}}", keys.join(",\n  "))
}

fn names(set: &Set) -> Vec<String> {
    let mut names: Vec<String> = set
        .keys
        .all()
        .map(|(kid, key)| format!("{} {:?}", kid.unwrap_or("-"), key.algs()))
        .collect();
    names.sort();
    names
}

fn outcome(key: &str) -> Result<Vec<String>, String> {
    match read(set(&[key.to_owned()]).as_bytes(), &[], true) {
        Ok(set) => Ok(names(&set)),
        Err(unusable) => Err(unusable.to_string()),
    }
}

#[test]
fn a_key_is_for_what_it_says_or_for_what_follows_from_its_type() {
    let (x, y) = ec();
    let ec = format!(r#""kty":"EC","crv":"P-256","x":"{x}","y":"{y}""#);
    let keys = [
        format!(r#"{},"kid":"ed""#, ed()),
        format!(r#"{},"kid":"ed2","alg":"Ed25519","use":"sig","key_ops":["verify"]"#, ed()),
        format!(r#"{ec},"kid":"ec","x5c":["MII"],"more":{{}}"#),
        format!(r#"{},"kid":"rsa""#, rsa()),
        format!(r#"{},"kid":"pss","alg":"PS384""#, rsa()),
        format!(r#""kty":"oct","kid":"hs","alg":"HS256","k":"{}""#, encode(&[7; 32])),
    ];
    let text = set(&keys);
    let found = read(text.as_bytes(), &[], true).unwrap();
    assert_eq!(found.flaws, []);
    let all =
        ["ec [ES256]", "ed [EdDSA]", "ed2 [EdDSA]", "hs [HS256]", "pss [PS384]", "rsa [RS256]"];
    assert_eq!(names(&found), all);
    let found = read(text.as_bytes(), &[], false).unwrap();
    assert!(!names(&found).iter().any(|name| name.starts_with("hs")), "secrets from afar");
    let found = read(text.as_bytes(), &[Alg::ES256, Alg::PS384], false).unwrap();
    assert_eq!(names(&found), ["ec [ES256]", "pss [PS384]"]);
}

#[test]
fn keys_for_something_else_are_passed_over() {
    let fine = format!(r#"{},"kid":"a""#, ed());
    let (x, y) = ec();
    for other in [
        format!(r#"{},"kid":"a","use":"enc""#, rsa()),
        format!(r#"{},"kid":"a","key_ops":["encrypt"]"#, rsa()),
        format!(r#"{},"kid":"a","use":"sig","key_ops":["sign"]"#, rsa()),
        format!(r#"{},"kid":"a","alg":"RSA-OAEP""#, rsa()),
        format!(r#""kty":"EC","crv":"secp256k1","kid":"a","x":"{x}","y":"{y}""#),
        r#""kty":"OKP","crv":"X25519","kid":"a","x":"AA""#.to_owned(),
        r#""kty":"AKP","kid":"a","pub":"AA","alg":"ML-DSA-44""#.to_owned(),
    ] {
        let found = read(set(&[other.clone(), fine.clone()]).as_bytes(), &[], true).unwrap();
        assert_eq!((names(&found), found.flaws), (vec!["a [EdDSA]".to_owned()], vec![]), "{other}");
        assert_eq!(outcome(&other).unwrap_err(), "it holds no key that can check tokens");
    }
}

#[test]
fn weak_broken_and_contradictory_keys_are_left_out_and_told() {
    let (x, y) = ec();
    let (other, _) = ec();
    let ec = |x: &str, y: &str, more: &str| {
        format!(r#""kty":"EC","crv":"P-256","kid":"a","x":"{x}","y":"{y}"{more}"#)
    };
    // A number of so many bits, with an odd end; for the length alone it need not be a product of primes.
    let modulus = |bytes: usize| encode(&[&[0x81][..], &vec![3; bytes - 1]].concat());
    let of = |n: &str, e: &str| format!(r#""kty":"RSA","kid":"a","n":"{n}","e":"{e}""#);
    for (key, why) in [
        (of(&modulus(128), "AQAB"), "the RSA key has 1024 bits; 2048 to 8192 are accepted"),
        (of(&modulus(255), "AQAB"), "the RSA key has 2040 bits; 2048 to 8192 are accepted"),
        (of(&modulus(2048), "AQAB"), "the RSA key has 16384 bits"),
        (of(&modulus(256), "AQ"), "its modulus or exponent is not that of an RSA key"),
        (of(&modulus(256), "AQAA"), "its modulus or exponent is not that of an RSA key"),
        (of(&modulus(256), "AQAB=="), "no complete key of type RSA"),
        (
            format!(r#"{},"kid":"a","alg":"ES256""#, rsa()),
            "`ES256` is not an algorithm of a key of type RSA",
        ),
        (
            format!(r#"{},"kid":"a","alg":"HS256""#, rsa()),
            "`HS256` is not an algorithm of a key of type RSA",
        ),
        (format!(r#"{},"kid":"a","use":"enc","key_ops":["verify"]"#, rsa()), "contradict"),
        (format!(r#"{},"kid":"a","use":"sig","key_ops":["encrypt"]"#, rsa()), "contradict"),
        (format!(r#"{},"kid":"a","d":"AQ""#, rsa()), "a private key"),
        (ec(&x, &y, r#","alg":"ES384""#), "`ES384` is not an algorithm of a key of type EC"),
        (ec(&x, &other, ""), "no point of its curve"),
        (ec(&x, &y[..40], ""), "no complete key of type EC"),
        (ec(&x, &y, r#","kid":"b""#), "duplicate field `kid`"),
        (
            r#""kty":"oct","kid":"a","alg":"HS256","k":"c2hvcnQ""#.to_owned(),
            "the secret has 5 bytes",
        ),
        (format!(r#""kty":"oct","kid":"a","k":"{}""#, encode(&[7; 32])), "has to name its `alg`"),
        (
            r#""kty":"OKP","crv":"Ed25519","kid":"a","x":"AAAA""#.to_owned(),
            "no complete key of type OKP",
        ),
        (r#""kid":"a""#.to_owned(), "missing field `kty`"),
    ] {
        let told = outcome(&key).unwrap_err();
        assert!(told.contains(why), "{key}: {told}");
        let fine = format!(r#"{},"kid":"fine""#, ed());
        let found = read(set(&[fine, key]).as_bytes(), &[], true).unwrap();
        assert_eq!(names(&found), ["fine [EdDSA]"]);
        assert_eq!((found.flaws[0].line, found.flaws[0].column), (3, 3));
    }
}

#[test]
fn names_decide_and_stand_once() {
    let twice = set(&[format!(r#"{},"kid":"a""#, ed()), format!(r#"{},"kid":"a""#, ed())]);
    let told = read(twice.as_bytes(), &[], true).unwrap_err();
    assert_eq!(told.to_string(), "3:3: two keys are named `a`");
    assert_eq!(outcome(&ed()).unwrap(), ["- [EdDSA]"]);
    let found = read(set(&[ed(), format!(r#"{},"kid":"a""#, ed())]).as_bytes(), &[], true).unwrap();
    assert_eq!((names(&found), found.flaws.len()), (vec!["a [EdDSA]".to_owned()], 1));
    assert!(read(set(&[ed(), ed()]).as_bytes(), &[], true).is_err());
}

#[test]
fn what_is_no_set_is_told_with_its_place() {
    for (text, told) in [
        ("", "1:1: it is not a JSON object"),
        ("{\n\"keys\":\n  [}", "3:4: expected value"),
        ("[]", "1:1: it is not a JSON object"),
        ("{", "1:1: EOF while parsing"),
        ("{}", "1:2: missing field `keys`"),
        (r#"{"keys":[],"keys":[]}"#, "duplicate field `keys`"),
        (r#"{"keys":[]}"#, "no key that can check tokens"),
        (r#"{"keys":[7]}"#, "1:10: it is not a JSON object"),
        (r#"[[]]"#, "1:1: it is not a JSON object"),
        ("<h1>Sorry</h1>", "1:1: it is not a JSON object"),
    ] {
        let error = read(text.as_bytes(), &[], true).unwrap_err().to_string();
        assert!(error.contains(told), "{text}: {error}");
    }
    assert!(read(&[0xff], &[], true).unwrap_err().to_string().contains("not UTF-8"));
    assert!(read(&vec![b' '; MAX_SET + 1], &[], true).unwrap_err().to_string().contains("256 KiB"));
    let deep = format!("{{\"keys\":[{}{}]}}", "[".repeat(10_000), "]".repeat(10_000));
    assert!(read(deep.as_bytes(), &[], true).is_err());
}

/// The place of each of 87,000 keys was looked for in the whole text, for seconds.
#[test]
fn a_set_of_very_many_keys_is_none() {
    let many = format!("{{\"keys\":[{}]}}", vec!["1"; 100_000].join(","));
    let said = read(many.as_bytes(), &[], true).unwrap_err().to_string();
    assert_eq!(said, "1:1: it holds 100000 keys; at most 1000");
}
