//! Tokens: what passes was signed, by a key of the config, in that key's algorithm; and nothing that
//! was signed in another way passes.

use aws_lc_rs::{hmac, signature};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use http::Request;

use super::draw::Draw;
use super::world::{Outcome, World};

const SECRET: &str = "the secret of the key that is named first";
const OTHER: &str = "another secret, which is as long as the first";

struct Keys {
    world: World,
    /// The public key of `ec`, in the form that the config has it.
    pem: String,
    public: Vec<u8>,
}

impl Keys {
    fn new() -> Self {
        let pair = rcgen::KeyPair::generate().unwrap();
        let pem = pair.public_key_pem();
        // Threads of one process have keys of their own.
        let name = format!("sluice-fuzz-{}-{:016x}.pem", std::process::id(), fastrand::u64(..));
        let file = std::env::temp_dir().join(name);
        std::fs::write(&file, &pem).unwrap();
        let world = World::new(&format!(
            r#"
upstreams: {{ up: {{ endpoints: [ {{ address: "127.0.0.1:9" }} ] }} }}
filters:
  - jwt:
      cache: 0
      keys:
        - {{ kid: one, alg: HS256, secret: "{SECRET}" }}
        - {{ kid: ec, alg: ES256, public_key_file: "{}" }}
routes: [ {{ id: r, upstream: up }} ]
"#,
            file.display()
        ));
        let _ = std::fs::remove_file(file);
        Self { world, pem, public: pair.public_key_raw().to_vec() }
    }

    fn accepts(&self, token: &[u8]) -> bool {
        let bearer = [b"Bearer ", token].concat();
        let request = Request::get("/").header("host", "a").header("authorization", bearer);
        let Ok(request) = request.body(()) else { return false };
        matches!(self.world.ask(request.into_parts().0), Outcome::Forwarded { .. })
    }

    /// Whether a key of the config has signed this, found out without the library.
    fn is_signed(&self, token: &[u8]) -> bool {
        let text = std::str::from_utf8(token).unwrap().trim_start();
        let (message, signature) = text.rsplit_once('.').unwrap();
        let Ok(signature) = BASE64.decode(signature) else { return false };
        let header = BASE64.decode(message.split('.').next().unwrap()).unwrap();
        let header: serde_json::Value = serde_json::from_slice(&header).unwrap();
        match header["alg"].as_str() {
            Some("HS256") => {
                let key = hmac::Key::new(hmac::HMAC_SHA256, SECRET.as_bytes());
                hmac::verify(&key, message.as_bytes(), &signature).is_ok()
            }
            Some("ES256") => {
                let key = signature::UnparsedPublicKey::new(
                    &signature::ECDSA_P256_SHA256_FIXED,
                    &self.public,
                );
                key.verify(message.as_bytes(), &signature).is_ok()
            }
            _ => false,
        }
    }
}

pub(super) fn check(data: &[u8]) {
    thread_local! {
        static KEYS: Keys = Keys::new();
    }
    KEYS.with(|keys| judge(keys, data));
}

fn judge(keys: &Keys, data: &[u8]) {
    let mut draw = Draw::new(data);
    let how = draw.below(4);
    if how == 0 {
        let token = draw.rest();
        assert!(!keys.accepts(token) || keys.is_signed(token), "{}", token.escape_ascii());
        return;
    }
    let (header, claims) = parts(draw.rest());
    let message = format!("{}.{}", BASE64.encode(&header), BASE64.encode(&claims));
    let secret = [SECRET, OTHER, keys.pem.as_str()][how - 1];
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
    let signature = BASE64.encode(hmac::sign(&key, message.as_bytes()));
    let accepted = keys.accepts(format!("{message}.{signature}").as_bytes());
    if !accepted {
        return;
    }
    assert!(secret == SECRET, "signed with what is no secret: {}", header.escape_ascii());
    let header: serde_json::Value = serde_json::from_slice(&header).unwrap();
    assert_eq!((header["alg"].as_str(), header.get("crit")), (Some("HS256"), None));
    assert_eq!(header["kid"], "one");
    let read: serde_json::Value = serde_json::from_slice(&claims).unwrap();
    let now = crate::base::clock::unix_seconds() as f64;
    assert!(read["exp"].as_f64().unwrap() > now - 61.0, "{read}");
    assert!(read.get("nbf").is_none_or(|nbf| nbf.as_f64().unwrap() < now + 62.0), "{read}");
}

/// The parts before and after the first line end, each with what a good one has where nothing is said.
fn parts(data: &[u8]) -> (Vec<u8>, Vec<u8>) {
    let mut halves = data.splitn(2, |byte| *byte == b'\n');
    let mut half = |good: &[u8]| match halves.next() {
        None | Some([]) => good.to_vec(),
        Some(half) => half.to_vec(),
    };
    (half(br#"{"alg":"HS256","kid":"one"}"#), half(br#"{"exp":9999999999}"#))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_good_token_passes_and_is_seen_to_be_signed() {
        let keys = Keys::new();
        let (header, claims) = parts(b"");
        let message = format!("{}.{}", BASE64.encode(header), BASE64.encode(claims));
        let key = hmac::Key::new(hmac::HMAC_SHA256, SECRET.as_bytes());
        let signed = BASE64.encode(hmac::sign(&key, message.as_bytes()));
        let token = format!("{message}.{signed}");
        assert!(keys.accepts(token.as_bytes()) && keys.is_signed(token.as_bytes()));
        let spoilt = token.replacen('e', "f", 1);
        assert!(!keys.accepts(spoilt.as_bytes()));
    }
}
