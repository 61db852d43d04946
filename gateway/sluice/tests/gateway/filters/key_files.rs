//! Sets of keys from files beside the config: checked with it, and exchanged with it.

use std::process::Command;

use sluice_chaos::raw::Response;

use crate::support::{Gateway, Setup, eventually};
use crate::tokens::{Key, now};

const CONFIG: &str = r#"
upstreams: { echo: { builtin: echo } }
routes: [ { id: r, upstream: echo, filters: [ { jwt: { jwks: { file: set.json } } } ] } ]
"#;

async fn ask(gateway: &Gateway, token: &str) -> Response {
    let headers = [("Authorization", &*format!("Bearer {token}"))];
    gateway.client().await.request("GET", "/", "localhost", &headers, b"").await
}

fn set(keys: &[String]) -> String {
    format!("{{\n  \"keys\": [\n    {}\n  ]\n}}\n", keys.join(",\n    "))
}

fn good() -> String {
    format!(r#"{{"sub":"u-1","exp":{}}}"#, now() + 600)
}

#[tokio::test]
async fn a_changed_file_is_taken_and_a_bad_one_is_not() {
    let (ec, hmac) = (Key::new("ES256"), Key::new("HS256"));
    let files = vec![("set.json", set(&[ec.jwk("ec", ""), hmac.jwk("hs", "")]))];
    let gateway = Gateway::start_with(CONFIG, Setup { files, ..Setup::default() }).await;
    let (one, other) = (ec.named("ec", &good()), hmac.named("hs", &good()));
    for token in [&one, &other, &one] {
        assert_eq!(ask(&gateway, token).await.status, 200);
    }
    let write = |text: &str| {
        let new = gateway.folder().join("set.json.new");
        std::fs::write(&new, text).unwrap();
        std::fs::rename(new, gateway.folder().join("set.json")).unwrap();
    };
    write(&set(&[hmac.jwk("hs", "")]));
    eventually("the reload", async || ask(&gateway, &one).await.status == 401).await;
    assert_eq!(ask(&gateway, &other).await.status, 200);
    for bad in [set(&[]), set(&[Key::new("RS1024").jwk("weak", "")]), "{".to_owned()] {
        let before = gateway.metric("sluice_config_reloads_total{result=\"rejected\"}").await;
        write(&bad);
        eventually("the refusal", async || {
            gateway.metric("sluice_config_reloads_total{result=\"rejected\"}").await > before
        })
        .await;
        assert_eq!(ask(&gateway, &other).await.status, 200, "{bad}");
    }
}

#[test]
fn what_is_wrong_in_a_file_is_told_with_its_place() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("routes.yaml");
    let head = "version: 1\nlisteners: [ { name: plain, address: \"127.0.0.1:8080\" } ]";
    std::fs::write(&path, format!("{head}{CONFIG}")).unwrap();
    let (ec, hmac) = (Key::new("ES256"), Key::new("HS256"));
    let fine = ec.jwk("ec", "");
    let short = r#"{"kty":"oct","alg":"HS256","kid":"s","k":"c2hvcnQ"}"#.to_owned();
    let cases = [
        (
            set(&[fine.clone(), Key::new("RS1024").jwk("weak", "")]),
            "set.json:4:5: key `weak`: the RSA key has 1024 bits; 2048 to 8192 are accepted",
        ),
        (
            set(&[short, fine.clone()]),
            "set.json:3:5: key `s`: the secret has 5 bytes; 32 are needed",
        ),
        (
            set(&[fine.clone(), Key::new("EdDSA").jwk("ec", "")]),
            "set.json:4:5: two keys are named `ec`",
        ),
        (
            set(&[ec.jwk("x", r#","alg":"RS256""#)]),
            "`RS256` is not an algorithm of a key of type EC",
        ),
        (set(&[ec.jwk("x", r#","use":"enc","key_ops":["verify"]"#)]), "contradict each other"),
        (set(&[ec.jwk("x", r#","d":"AQ""#)]), "it is a private key"),
        (set(&[]), "set.json: it holds no key that can check tokens"),
        ("{\n \"keys\": [ }".to_owned(), "set.json:2:12: expected value"),
        (
            format!("{{\"keys\":[{}]}}", " ".repeat(256 * 1024)),
            "set.json:1:1: it is larger than 256 KiB",
        ),
    ];
    for (text, told) in cases {
        std::fs::write(folder.path().join("set.json"), &text).unwrap();
        let checked = Command::new(env!("CARGO_BIN_EXE_sluice"))
            .args(["check", "--config"])
            .arg(&path)
            .output()
            .unwrap();
        let said =
            String::from_utf8_lossy(&checked.stderr) + String::from_utf8_lossy(&checked.stdout);
        assert_eq!(checked.status.code(), Some(1), "{said}");
        assert!(said.contains(told), "{told}: {said}");
        assert!(said.contains("routes.yaml:4:70: error:"), "{said}");
    }
    std::fs::write(folder.path().join("set.json"), set(&[fine, hmac.jwk("hs", "")])).unwrap();
    let checked =
        Command::new(env!("CARGO_BIN_EXE_sluice")).args(["check", "--config"]).arg(&path).output();
    assert_eq!(checked.unwrap().status.code(), Some(0));
}
