//! Signed requests: every scheme as its clients make it, what is refused and with which word, and that
//! each passes once. All signatures are made by the openssl program.

mod keys;
mod read_ahead;
mod replays;
mod schemes;

use std::time::{SystemTime, UNIX_EPOCH};

use sluice_chaos::raw::Response;

use crate::support::Gateway;
use crate::tokens::{Key, base64url, digest, hex, hkdf, mac, now};

const SECRET: &str = "demo-secret-0123456789";
const MASTER: &str = "master-0123456789-0123456789-0123456789";

/// Milliseconds since 1970.
fn millis() -> u128 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis()
}

/// A nonce that was never used.
fn nonce() -> String {
    use std::sync::atomic::{AtomicU64, Ordering};
    static NEXT: AtomicU64 = AtomicU64::new(0);
    format!("nonce-{:08x}-{:08}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}

/// A moment as HTTP writes it.
fn date(seconds: u64) -> String {
    let output = std::process::Command::new("date")
        .args(["-u", "-d", &format!("@{seconds}"), "+%a, %d %b %Y %H:%M:%S GMT"])
        .env("LC_ALL", "C")
        .output()
        .unwrap();
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

async fn call(
    gateway: &Gateway,
    method: &str,
    target: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> Response {
    gateway.client().await.request(method, target, "localhost", headers, body).await
}

/// A request in the scheme `x-ca`.
struct XCa<'a> {
    method: &'a str,
    target: &'a str,
    /// As it must be signed.
    canonical: &'a str,
    content_type: &'a str,
    body: &'a [u8],
    key: &'a str,
    secret: &'a str,
    time: String,
    nonce: String,
}

impl XCa<'_> {
    fn get(target: &str) -> XCa<'_> {
        XCa {
            method: "GET",
            target,
            canonical: target,
            content_type: "",
            body: b"",
            key: "demo",
            secret: SECRET,
            time: millis().to_string(),
            nonce: nonce(),
        }
    }

    fn headers(&self) -> Vec<(&'static str, String)> {
        let form = self.content_type.contains("form");
        let md5 = if self.body.is_empty() || form {
            String::new()
        } else {
            crate::tokens::base64(&digest("-md5", self.body))
        };
        let text = format!(
            "{}\n\n{md5}\n{}\n\nx-ca-key:{}\nx-ca-nonce:{}\nx-ca-timestamp:{}\n{}",
            self.method, self.content_type, self.key, self.nonce, self.time, self.canonical
        );
        let signature = mac("-sha256", self.secret.as_bytes(), text.as_bytes());
        let mut headers = vec![
            ("X-Ca-Key", self.key.to_owned()),
            ("X-Ca-Nonce", self.nonce.clone()),
            ("X-Ca-Timestamp", self.time.clone()),
            ("X-Ca-Signature-Headers", "x-ca-key,x-ca-nonce,x-ca-timestamp".to_owned()),
            ("X-Ca-Signature", crate::tokens::base64(&signature)),
        ];
        if !md5.is_empty() {
            headers.push(("Content-MD5", md5));
        }
        if !self.content_type.is_empty() {
            headers.push(("Content-Type", self.content_type.to_owned()));
        }
        headers
    }

    async fn send(&self, gateway: &Gateway) -> Response {
        let headers = self.headers();
        let headers: Vec<(&str, &str)> = headers.iter().map(|(n, v)| (*n, v.as_str())).collect();
        call(gateway, self.method, self.target, &headers, self.body).await
    }
}

/// `X-MP-Sign` over a request of a session.
struct Session<'a> {
    key: &'a Key,
    sid: &'a str,
    master: &'a str,
    method: &'a str,
    target: &'a str,
    canonical: &'a str,
    body: &'a [u8],
    time: String,
    nonce: String,
}

impl<'a> Session<'a> {
    fn post(key: &'a Key, target: &'a str, body: &'a [u8]) -> Self {
        let (time, nonce) = (millis().to_string(), nonce());
        let (sid, master, method) = ("session-1", MASTER, "POST");
        Self { key, sid, master, method, target, canonical: target, body, time, nonce }
    }

    fn sign(&self) -> String {
        let sum = hex(&digest("-sha256", self.body));
        self.sign_with(&sum)
    }

    /// With this as the line of the body.
    fn sign_with(&self, sum: &str) -> String {
        let Self { method, canonical, time, nonce, sid, .. } = self;
        let text = format!("{method}\n{canonical}\n{sum}\n{time}\n{nonce}\n{sid}");
        let key = hkdf(self.master.as_bytes(), sid.as_bytes(), "sluice-sign");
        let signature = base64url(&mac("-sha256", &key, text.as_bytes()));
        format!("v1;t={time};n={nonce};s={signature}")
    }

    fn token(&self) -> String {
        let claims = format!(r#"{{"sub":"u","sid":"session-1","exp":{}}}"#, now() + 600);
        format!("Bearer {}", self.key.token(&claims))
    }

    async fn send(&self, gateway: &Gateway) -> Response {
        self.send_with(gateway, &self.sign()).await
    }

    async fn send_with(&self, gateway: &Gateway, signature: &str) -> Response {
        let token = self.token();
        let headers = [("Authorization", token.as_str()), ("X-MP-Sign", signature)];
        call(gateway, self.method, self.target, &headers, self.body).await
    }
}
