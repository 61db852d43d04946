//! Keys and signed tokens, made by the openssl program alone: nothing the gateway verifies with has
//! also signed. An issuer publishes such keys over HTTPS. The one rule: header and claims are signed as
//! the test wrote them, however wrong.

use std::path::PathBuf;
use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

use sluice_chaos::pki;
use sluice_chaos::recorder::{Answer, Recorder};

/// A key of one algorithm of RFC 7518 or RFC 8037.
pub(crate) struct Key {
    alg: &'static str,
    folder: tempfile::TempDir,
    /// What the gateway is given: an HMAC secret, or a public key in PEM form.
    pub(crate) shared: String,
}

impl Key {
    /// A fresh key for HS256, RS256, PS256, ES256 or EdDSA; `RS1024` is a weak one for RS256.
    pub(crate) fn new(alg: &'static str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let private = folder.path().join("private.pem");
        let private = private.to_str().unwrap();
        let kind: &[&str] = match alg {
            "HS256" => {
                let secret = openssl(&["rand", "-hex", "32"]);
                let shared = String::from_utf8(secret).unwrap().trim().to_owned();
                return Self { alg, folder, shared };
            }
            "RS256" | "PS256" => &["-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048"],
            "RS1024" => &["-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:1024"],
            "ES256" => &["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"],
            "EdDSA" => &["-algorithm", "ed25519"],
            other => panic!("no key for {other}"),
        };
        openssl(&[&["genpkey", "-out", private], kind].concat());
        let alg = if alg == "RS1024" { "RS256" } else { alg };
        let public = openssl(&["pkey", "-in", private, "-pubout"]);
        Self { alg, folder, shared: String::from_utf8(public).unwrap() }
    }

    /// A token of this key, with its own `alg`.
    pub(crate) fn token(&self, claims: &str) -> String {
        self.sign(&format!(r#"{{"alg":"{}","typ":"JWT"}}"#, self.alg), claims)
    }

    /// A token with any header.
    pub(crate) fn sign(&self, header: &str, claims: &str) -> String {
        let signed = format!("{}.{}", base64url(header.as_bytes()), base64url(claims.as_bytes()));
        let signature = self.signature(&signed);
        format!("{signed}.{}", base64url(&signature))
    }

    fn signature(&self, text: &str) -> Vec<u8> {
        let input = self.folder.path().join("input");
        std::fs::write(&input, text).unwrap();
        let (input, private) = (input.to_str().unwrap(), self.private());
        let private = private.to_str().unwrap();
        match self.alg {
            "HS256" => hmac(self.shared.as_bytes(), input),
            "RS256" => openssl(&["dgst", "-sha256", "-sign", private, input]),
            "PS256" => openssl(&[
                "dgst",
                "-sha256",
                "-sigopt",
                "rsa_padding_mode:pss",
                "-sigopt",
                "rsa_pss_saltlen:digest",
                "-sign",
                private,
                input,
            ]),
            "ES256" => raw_ecdsa(&openssl(&["dgst", "-sha256", "-sign", private, input])),
            _ => openssl(&["pkeyutl", "-sign", "-rawin", "-inkey", private, "-in", input]),
        }
    }

    /// A token that was signed with this key's public half as if it were an HMAC secret.
    pub(crate) fn confused(&self, claims: &str) -> String {
        let header = base64url(br#"{"alg":"HS256","typ":"JWT"}"#);
        let signed = format!("{header}.{}", base64url(claims.as_bytes()));
        let input = self.folder.path().join("confused");
        std::fs::write(&input, &signed).unwrap();
        let signature = hmac(self.shared.as_bytes(), input.to_str().unwrap());
        format!("{signed}.{}", base64url(&signature))
    }

    /// The public half as a member of a set, with this name and more members.
    pub(crate) fn jwk(&self, kid: &str, more: &str) -> String {
        let material = match self.alg {
            "HS256" => {
                format!(r#""kty":"oct","alg":"HS256","k":"{}""#, base64url(self.shared.as_bytes()))
            }
            "RS256" | "PS256" => {
                let public = self.folder.path().join("public.pem");
                std::fs::write(&public, &self.shared).unwrap();
                let public = public.to_str().unwrap();
                let told = openssl(&["rsa", "-pubin", "-in", public, "-noout", "-modulus"]);
                let told = String::from_utf8(told).unwrap();
                let digits = told.trim().trim_start_matches("Modulus=").as_bytes();
                let byte = |pair: &[u8]| {
                    u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap()
                };
                let modulus: Vec<u8> = digits.chunks(2).map(byte).collect();
                let n = base64url(&modulus);
                format!(r#""kty":"RSA","alg":"{}","e":"AQAB","n":"{n}""#, self.alg)
            }
            "ES256" => {
                let der = self.der();
                let (x, y) = der[der.len() - 64..].split_at(32);
                let (x, y) = (base64url(x), base64url(y));
                format!(r#""kty":"EC","crv":"P-256","x":"{x}","y":"{y}""#)
            }
            _ => {
                let der = self.der();
                let x = base64url(&der[der.len() - 32..]);
                format!(r#""kty":"OKP","crv":"Ed25519","x":"{x}""#)
            }
        };
        format!(r#"{{{material},"kid":"{kid}"{more}}}"#)
    }

    /// The public half in DER form.
    pub(crate) fn der(&self) -> Vec<u8> {
        let private = self.private();
        openssl(&["pkey", "-in", private.to_str().unwrap(), "-pubout", "-outform", "DER"])
    }

    /// The private key in PEM form.
    pub(crate) fn private_pem(&self) -> String {
        std::fs::read_to_string(self.private()).unwrap()
    }

    /// A token that names its key.
    pub(crate) fn named(&self, kid: &str, claims: &str) -> String {
        self.sign(&format!(r#"{{"alg":"{}","kid":"{kid}"}}"#, self.alg), claims)
    }

    /// A token under another algorithm's name, signed with this text as an HMAC secret.
    pub(crate) fn forged(&self, kid: &str, claims: &str, secret: &[u8]) -> String {
        let header = base64url(format!(r#"{{"alg":"HS256","kid":"{kid}"}}"#).as_bytes());
        let signed = format!("{header}.{}", base64url(claims.as_bytes()));
        let input = self.folder.path().join("forged");
        std::fs::write(&input, &signed).unwrap();
        format!("{signed}.{}", base64url(&hmac(secret, input.to_str().unwrap())))
    }

    /// Where the private key is.
    pub(crate) fn private(&self) -> PathBuf {
        self.folder.path().join("private.pem")
    }
}

/// Publishes keys over HTTPS under the name `keys.test`.
pub(crate) struct Issuer {
    pub(crate) recorder: Recorder,
    authority: pki::Authority,
}

impl Issuer {
    /// With this set of keys.
    pub(crate) fn start(keys: &[String]) -> Self {
        let authority = pki::Authority::new();
        let tls = pki::server_config(&authority.issue(&["keys.test"]), &["http/1.1"]);
        let recorder = Recorder::setup().answer(published(keys)).tls(tls).start();
        Self { recorder, authority }
    }

    /// Publishes other keys.
    pub(crate) fn publish(&self, keys: &[String]) {
        self.recorder.set(published(keys));
    }

    /// A file that the config below names.
    pub(crate) fn files(&self) -> Vec<(&'static str, String)> {
        vec![("issuer.pem", self.authority.pem())]
    }

    /// The section `jwks` of a filter, with more members.
    pub(crate) fn jwks(&self, more: &str) -> String {
        let address = self.recorder.addr();
        format!(
            "{{ url: \"https://{address}/keys?canary=c4n4ry\", \
             tls: {{ ca_file: issuer.pem, server_name: keys.test }}{more} }}"
        )
    }

    /// How often it was asked.
    pub(crate) fn fetches(&self) -> usize {
        self.recorder.requests().len()
    }
}

/// A set of keys as an answer.
pub(crate) fn published(keys: &[String]) -> Answer {
    let set = format!("{{\"keys\":[{}]}}", keys.join(","));
    Answer::new(200).header("Content-Type", "application/json").body(set)
}

/// Seconds since 1970.
pub(crate) fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

/// RFC 4648 section 5, without padding.
pub(crate) fn base64url(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut out = String::new();
    for chunk in bytes.chunks(3) {
        let word = chunk.iter().fold(0_u32, |word, byte| (word << 8) | u32::from(*byte));
        let word = word << (8 * (3 - chunk.len()));
        for digit in 0..=chunk.len() {
            out.push(char::from(DIGITS[(word >> (18 - 6 * digit)) as usize & 63]));
        }
    }
    out
}

pub(crate) fn hmac(secret: &[u8], input: &str) -> Vec<u8> {
    let key = format!("hexkey:{}", hex(secret));
    openssl(&["dgst", "-sha256", "-mac", "HMAC", "-macopt", &key, "-binary", input])
}

/// The HMAC of a text, with `-sha256`, `-sha1` and the like.
pub(crate) fn mac(digest: &str, secret: &[u8], text: &[u8]) -> Vec<u8> {
    let key = format!("hexkey:{}", hex(secret));
    let input = held(text);
    let path = input.path().to_str().unwrap();
    openssl(&["dgst", digest, "-mac", "HMAC", "-macopt", &key, "-binary", path])
}

/// The digest of a text, with `-sha256`, `-md5` and the like.
pub(crate) fn digest(kind: &str, text: &[u8]) -> Vec<u8> {
    let input = held(text);
    openssl(&["dgst", kind, "-binary", input.path().to_str().unwrap()])
}

/// HKDF-SHA256 (RFC 5869), 32 bytes.
pub(crate) fn hkdf(key: &[u8], salt: &[u8], info: &str) -> Vec<u8> {
    let (key, salt) = (format!("hexkey:{}", hex(key)), format!("hexsalt:{}", hex(salt)));
    let info = format!("info:{info}");
    let words = ["-kdfopt", &key, "-kdfopt", &salt, "-kdfopt", &info, "-binary", "HKDF"];
    openssl(&[&["kdf", "-keylen", "32", "-kdfopt", "digest:SHA2-256"][..], &words].concat())
}

/// An Ed25519 signature with the private key in a file.
pub(crate) fn ed25519(key: &std::path::Path, text: &[u8]) -> Vec<u8> {
    let input = held(text);
    let (key, input) = (key.to_str().unwrap(), input.path().to_str().unwrap());
    openssl(&["pkeyutl", "-sign", "-rawin", "-inkey", key, "-in", input])
}

fn held(text: &[u8]) -> tempfile::NamedTempFile {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), text).unwrap();
    file
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// RFC 4648 section 4.
pub(crate) fn base64(bytes: &[u8]) -> String {
    let mut text = base64url(bytes).replace('-', "+").replace('_', "/");
    text.extend(std::iter::repeat_n('=', (4 - text.len() % 4) % 4));
    text
}

/// The two numbers of a DER signature, 32 bytes each (RFC 7518 section 3.4).
fn raw_ecdsa(der: &[u8]) -> Vec<u8> {
    let mut rest = &der[2..];
    let mut raw = Vec::new();
    for _ in 0..2 {
        let (number, after) = rest[2..].split_at(usize::from(rest[1]));
        let short = number.strip_prefix(&[0]).unwrap_or(number);
        raw.extend(std::iter::repeat_n(0, 32 - short.len()));
        raw.extend_from_slice(short);
        rest = after;
    }
    raw
}

pub(crate) fn openssl(args: &[&str]) -> Vec<u8> {
    let output = Command::new(sluice_chaos::process::tool("openssl")).args(args).output().unwrap();
    assert!(
        output.status.success(),
        "openssl {args:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    output.stdout
}
