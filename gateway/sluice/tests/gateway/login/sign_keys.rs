//! Keys to sign requests with, as login hands them out: a client that knows nothing but the answer of its login
//! signs what it sends.

use std::time::{SystemTime, UNIX_EPOCH};

use sluice_chaos::provider::{Login, Provider};
use sluice_chaos::raw;

use super::{config, log_in, send, setup};
use crate::support::{Gateway, reason};
use crate::tokens::{base64url, digest, hex, mac};

const MASTER: &str = "master-0123456789-0123456789-0123456789";
const NEW: &str = "another-0123456789-0123456789-0123456789";

/// A route that wants signatures, and a way to the next token.
fn signed(provider: &Provider, login: &str) -> String {
    let config = config(&[provider.addr()], login);
    let config = config.replace(
        "  echo: { builtin: echo }\n",
        "  echo: { builtin: echo }\n  refresh: { builtin: refresh }\n  logout: { builtin: logout }\n",
    );
    format!(
        "{config}  - {{ id: refresh, match: {{ path: /auth/refresh }}, upstream: refresh }}
  - {{ id: logout, match: {{ path: /auth/logout }}, upstream: logout, filters: [ {{ jwt: {{ issuer: login }} }} ] }}
  - id: signed
    match: {{ path: /orders }}
    filters: [ {{ jwt: {{ issuer: login }} }}, {{ signature: {{ scheme: session }} }} ]
    upstream: echo
"
    )
}

async fn start(provider: &Provider, login: &str) -> Gateway {
    Gateway::start_with(&signed(provider, login), setup()).await
}

fn in_memory(secrets: &str) -> String {
    format!("store: memory\n  sign_key: {{ {secrets} }}")
}

/// What a client keeps of an answer.
struct Client {
    token: String,
    refresh: String,
    key: Vec<u8>,
    id: String,
    /// How far its clock is ahead of the gateway's, milliseconds.
    ahead: i64,
}

impl Client {
    fn of(answer: &raw::Response) -> Self {
        assert_eq!(answer.status, 200, "{}", answer.text());
        let data = &answer.json()["data"];
        let text = |name: &str| data[name].as_str().unwrap_or_default().to_owned();
        let digits = text("sign_key");
        let byte = |at: usize| u8::from_str_radix(&digits[at..at + 2], 16).unwrap();
        let key: Vec<u8> = (0..digits.len()).step_by(2).map(byte).collect();
        assert_eq!(key.len(), 32, "{data}");
        let (token, refresh, id) = (text("token"), text("refresh_token"), text("sign_id"));
        Self { token, refresh, key, id, ahead: 0 }
    }

    /// The lines that sign a call.
    fn sign(&self, target: &str, body: &str, nonce: &str) -> String {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis();
        let time = i64::try_from(now).unwrap() + self.ahead;
        let sum = hex(&digest("-sha256", body.as_bytes()));
        let text = format!("POST\n{target}\n{sum}\n{time}\n{nonce}\n{}", self.id);
        let signature = base64url(&mac("-sha256", &self.key, text.as_bytes()));
        format!(
            "Authorization: Bearer {}\r\nX-MP-Sign: v1;t={time};n={nonce};s={signature}\r\n",
            self.token
        )
    }

    async fn call(&self, gateway: &Gateway, nonce: &str) -> raw::Response {
        let body = r#"{"order":7}"#;
        send(gateway, "/orders?a=1", &self.sign("/orders?a=1", body, nonce), body).await
    }
}

/// Shows K-01, K-02.
#[tokio::test]
async fn who_has_logged_in_signs_and_goes_on_signing_after_a_refresh() {
    let provider = Provider::start();
    provider.decide("good", Login::session("o-1", None));
    let gateway = start(&provider, &in_memory(&format!("master_secret: {MASTER}"))).await;
    let mut client = Client::of(&log_in(&gateway, "good").await);
    let body = r#"{"order":7}"#;
    let lines = client.sign("/orders?a=1", body, "nonce-0123456789-a");
    let first = send(&gateway, "/orders?a=1", &lines, body).await;
    assert_eq!(first.status, 200, "{}", first.text());
    assert_eq!(first.json()["body"], body);
    let again = send(&gateway, "/orders?a=1", &lines, body).await;
    assert_eq!(reason(&again), (401, "replayed".to_owned()));
    let told = again.json()["server_time"].as_i64().unwrap();
    // A phone's clock that is an hour ahead is set right by what the refusal tells.
    client.ahead = 3_600_000;
    let late = client.call(&gateway, "nonce-0123456789-b").await;
    assert_eq!(reason(&late), (401, "signature_expired".to_owned()));
    client.ahead = 0;
    assert!(late.json()["server_time"].as_i64().unwrap() >= told);
    // The token alone is not enough.
    let lines = format!("Authorization: Bearer {}\r\n", client.token);
    let unsigned = send(&gateway, "/orders?a=1", &lines, body).await;
    assert_eq!(reason(&unsigned), (401, "signature_missing".to_owned()));
    // Another login has another key.
    provider.decide("other", Login::session("o-2", None));
    let other = Client::of(&log_in(&gateway, "other").await);
    assert_ne!((&client.key, &client.id), (&other.key, &other.id));
    let mixed = Client { key: other.key.clone(), ..Client::of(&log_in(&gateway, "good").await) };
    assert_eq!(reason(&mixed.call(&gateway, "nonce-0123456789-c").await).1, "signature_invalid");
    let refresh = format!(r#"{{"refresh_token":"{}"}}"#, client.refresh);
    let next = Client::of(&send(&gateway, "/auth/refresh", "", &refresh).await);
    assert_eq!((&next.key, &next.id), (&client.key, &client.id), "the session is the same");
    assert_ne!(next.token, client.token);
    assert_eq!(next.call(&gateway, "nonce-0123456789-d").await.status, 200);
    // With the session the key ends.
    let lines = format!("Authorization: Bearer {}\r\n", next.token);
    assert_eq!(send(&gateway, "/auth/logout", &lines, "").await.status, 200);
    assert_eq!(reason(&next.call(&gateway, "nonce-0123456789-e").await).1, "token_revoked");
    let written = std::fs::read_to_string(gateway.folder().join("access.log")).unwrap();
    for said in [gateway.daemon.output(), written] {
        assert!(!said.contains(&hex(&client.key)) && !said.contains(MASTER), "{said}");
    }
}

#[tokio::test]
async fn the_secret_is_replaced_while_sessions_go_on() {
    let provider = Provider::start();
    provider.decide("good", Login::session("o-1", None));
    let gateway = start(&provider, &in_memory(&format!("master_secret: {MASTER}"))).await;
    let old = Client::of(&log_in(&gateway, "good").await);
    let both = format!("master_secret: {NEW}, previous_master_secret: {MASTER}");
    gateway.write_config(&signed(&provider, &in_memory(&both)));
    gateway.wait_for_generation(2).await;
    assert_eq!(old.call(&gateway, "nonce-0123456789-a").await.status, 200);
    let refresh = format!(r#"{{"refresh_token":"{}"}}"#, old.refresh);
    let new = Client::of(&send(&gateway, "/auth/refresh", "", &refresh).await);
    assert_ne!(new.key, old.key, "derived from the new secret");
    assert_eq!(new.call(&gateway, "nonce-0123456789-b").await.status, 200);
    gateway.write_config(&signed(&provider, &in_memory(&format!("master_secret: {NEW}"))));
    gateway.wait_for_generation(3).await;
    assert_eq!(reason(&old.call(&gateway, "nonce-0123456789-c").await).1, "signature_invalid");
    assert_eq!(new.call(&gateway, "nonce-0123456789-d").await.status, 200);
}

#[tokio::test]
async fn without_a_session_the_key_is_the_tokens_own() {
    let provider = Provider::start();
    provider.decide("good", Login::session("o-1", None));
    let gateway = start(&provider, &format!("sign_key: {{ master_secret: {MASTER} }}")).await;
    let client = Client::of(&log_in(&gateway, "good").await);
    assert!(client.refresh.is_empty(), "no Redis, no session");
    assert_eq!(client.call(&gateway, "nonce-0123456789-a").await.status, 200);
    assert_eq!(reason(&client.call(&gateway, "nonce-0123456789-a").await).1, "replayed");
    // A config that wants signatures and lets nobody have a key is refused.
    gateway.write_config(&signed(&provider, ""));
    gateway.daemon.wait_for_output("nobody hands out keys to sign with").await;
    assert_eq!(client.call(&gateway, "nonce-0123456789-b").await.status, 200);
}

/// The signature of a batch is about the batch; a call to a route that wants one has its own, over itself.
#[tokio::test]
async fn a_call_of_a_batch_is_signed_by_itself() {
    let provider = Provider::start();
    provider.decide("good", Login::session("o-1", None));
    let config = signed(&provider, &in_memory(&format!("master_secret: {MASTER}")))
        .replace("match: { path: /orders }", "match: { path: /orders }\n    batch: all")
        .replace("  echo: {", "  batch: { builtin: batch }\n  echo: {");
    let batch = "  - { id: batch, match: { path: /batch }, upstream: batch, filters: [ { jwt: { issuer: login } }, { signature: { scheme: session } } ] }\n";
    let gateway = Gateway::start_with(&format!("{config}{batch}"), setup()).await;
    let client = Client::of(&log_in(&gateway, "good").await);
    let mark = |target: &str, body: &str, nonce: &str| {
        let lines = client.sign(target, body, nonce);
        lines.split("X-MP-Sign: ").nth(1).unwrap().trim().to_owned()
    };
    // The gaps in this body are signed too.
    let order = r#"{ "order":  7 }"#;
    let (right, stale) =
        (mark("/orders", order, "nonce-0123456789-1"), mark("/orders", "{}", "nonce-0123456789-2"));
    let call = |id: &str, headers: &str| {
        format!(
            r#"{{"id":"{id}","method":"POST","path":"/orders","headers":{headers},"body":{order}}}"#
        )
    };
    let calls = [
        call("right", &format!(r#"{{"X-MP-Sign":"{right}"}}"#)),
        call("none", "{}"),
        call("stale", &format!(r#"{{"X-MP-Sign":"{stale}"}}"#)),
    ];
    let body = format!(r#"{{"requests":[{}]}}"#, calls.join(","));
    let lines = client.sign("/batch", &body, "nonce-0123456789-3");
    let lines = format!("Content-Type: application/json\r\n{lines}");
    let answer = send(&gateway, "/batch", &lines, &body).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let said = answer.json()["responses"].clone();
    assert_eq!((&said[0]["status"], &said[0]["body"]["body"]), (&200.into(), &order.into()));
    assert_eq!(said[1]["body"]["reason"], "signature_missing");
    assert_eq!(said[2]["body"]["reason"], "signature_invalid");
    let again = send(&gateway, "/batch", &lines, &body).await;
    assert_eq!(reason(&again).1, "replayed", "the batch as a whole");
    // In a batch of its own the call that has passed is the same request again.
    let body = format!(r#"{{"requests":[{}]}}"#, calls[0]);
    let lines = client.sign("/batch", &body, "nonce-0123456789-4");
    let lines = format!("Content-Type: application/json\r\n{lines}");
    let again = send(&gateway, "/batch", &lines, &body).await;
    assert_eq!(again.json()["responses"][0]["body"]["reason"], "replayed");
}
