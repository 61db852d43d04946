//! Tokens: who signed them, what they claim, and what a service is told of them.

use sluice_chaos::raw::Response;
use sluice_chaos::recorder::{Answer, Recorder};

use crate::support::{Gateway, Setup, eventually, reason};
use crate::tokens::{Key, base64url, now};

async fn call(gateway: &Gateway, path: &str, headers: &[(&str, &str)]) -> Response {
    gateway.client().await.request("GET", path, "localhost", headers, b"").await
}

async fn bearer(gateway: &Gateway, path: &str, token: &str) -> Response {
    call(gateway, path, &[("Authorization", &format!("Bearer {token}"))]).await
}

fn lasting(more: &str) -> String {
    format!(r#"{{"sub":"u-1","exp":{}{more}}}"#, now() + 600)
}

#[tokio::test]
async fn every_algorithm_verifies_its_own_signatures_only() {
    const CONFIG: &str = r#"
upstreams: { echo: { builtin: echo } }
routes:
  - id: HS256
    match: { path: /HS256 }
    filters: [ { jwt: { keys: [ { kid: k, alg: HS256, secret_file: HS256.key } ] } } ]
    upstream: echo
  - id: RS256
    match: { path: /RS256 }
    filters: [ { jwt: { keys: [ { kid: k, alg: RS256, public_key_file: RS256.key } ] } } ]
    upstream: echo
  - id: PS256
    match: { path: /PS256 }
    filters: [ { jwt: { keys: [ { kid: k, alg: PS256, public_key_file: PS256.key } ] } } ]
    upstream: echo
  - id: ES256
    match: { path: /ES256 }
    filters: [ { jwt: { keys: [ { kid: k, alg: ES256, public_key_file: ES256.key } ] } } ]
    upstream: echo
  - id: EdDSA
    match: { path: /EdDSA }
    filters: [ { jwt: { keys: [ { kid: k, alg: EdDSA, public_key_file: EdDSA.key } ] } } ]
    upstream: echo
"#;
    let algorithms = ["HS256", "RS256", "PS256", "ES256", "EdDSA"];
    let files = ["HS256.key", "RS256.key", "PS256.key", "ES256.key", "EdDSA.key"];
    let keys = algorithms.map(Key::new);
    let shared = files.iter().zip(&keys).map(|(file, key)| (*file, key.shared.clone()));
    let setup = Setup { files: shared.collect(), ..Setup::default() };
    let gateway = Gateway::start_with(CONFIG, setup).await;
    let claims = lasting("");
    for (alg, key) in algorithms.iter().zip(&keys) {
        let path = format!("/{alg}");
        let good = bearer(&gateway, &path, &key.token(&claims)).await;
        assert_eq!(good.status, 200, "{alg}: {}", good.text());
        let foreign = Key::new(alg).token(&claims);
        let invalid = (401, "token_invalid".to_owned());
        assert_eq!(reason(&bearer(&gateway, &path, &foreign).await), invalid, "{alg}, wrong key");
        let refused = bearer(&gateway, &path, &foreign).await;
        let challenge = refused.header("www-authenticate");
        assert_eq!(challenge, Some("Bearer error=\"invalid_token\""));
        for (other, stranger) in algorithms.iter().zip(&keys).filter(|(other, _)| *other != alg) {
            let token = stranger.token(&claims);
            let answer = bearer(&gateway, &path, &token).await;
            assert_eq!(reason(&answer), invalid, "{alg} took a token of {other}");
        }
        // The same key under another name of algorithm.
        let renamed = key.sign(r#"{"alg":"HS384"}"#, &claims);
        assert_eq!(reason(&bearer(&gateway, &path, &renamed).await), invalid, "{alg}, renamed");
        if *alg != "HS256" {
            let confused = key.confused(&claims);
            assert_eq!(reason(&bearer(&gateway, &path, &confused).await), invalid, "{alg} as HMAC");
        }
    }
}

const CHECKS: &str = r#"
upstreams: { up: { endpoints: [ { address: "{up}" } ] } }
routes:
  - id: strict
    match: { path: /strict }
    filters:
      - jwt:
          keys: [ { kid: k, alg: HS256, secret_file: k.key } ]
          issuers: [ me ]
          audiences: [ app, web ]
          required_claims: [ openid ]
          leeway: 0s
    upstream: up
  - id: roles
    match: { path: /roles }
    filters:
      - jwt: { keys: [ { kid: k, alg: HS256, secret_file: k.key } ], any_role: [ admin, boss ] }
    upstream: up
"#;

async fn start(config: &str, key: &Key) -> (Gateway, Recorder) {
    let recorder = Recorder::answering(Answer::echo());
    let setup = Setup { files: vec![("k.key", key.shared.clone())], ..Setup::default() };
    let config = config.replace("{up}", &recorder.addr().to_string());
    (Gateway::start_with(&config, setup).await, recorder)
}

#[tokio::test]
async fn claims_and_forms_that_do_not_fit_are_refused_before_the_service() {
    let key = Key::new("HS256");
    let (gateway, recorder) = start(CHECKS, &key).await;
    let (soon, past, then) = (now() + 600, now() - 10, now() + 300);
    let rest = r#""iss":"me","aud":"app","openid":"o""#;
    let with = |claims: String| key.token(&format!("{{{claims}}}"));
    let header = |header: &str| key.sign(header, &format!(r#"{{"exp":{soon},{rest}}}"#));
    let unsigned = {
        let claims = format!(r#"{{"exp":{soon},{rest}}}"#);
        format!("{}.{}.", base64url(br#"{"alg":"none"}"#), base64url(claims.as_bytes()))
    };
    let good = with(format!(r#""exp":{soon},{rest}"#));
    let invalid = "token_invalid";
    let refused = [
        ("expired", with(format!(r#""exp":{past},{rest}"#)), "token_expired"),
        ("no exp", with(rest.to_owned()), invalid),
        ("exp as text", with(format!(r#""exp":"{soon}",{rest}"#)), invalid),
        ("nbf", with(format!(r#""exp":{soon},"nbf":{then},{rest}"#)), "token_not_yet_valid"),
        ("iss", with(format!(r#""exp":{soon},"iss":"you","aud":"app","openid":"o""#)), invalid),
        ("no iss", with(format!(r#""exp":{soon},"aud":"app","openid":"o""#)), invalid),
        ("aud", with(format!(r#""exp":{soon},"iss":"me","aud":"x","openid":"o""#)), invalid),
        ("auds", with(format!(r#""exp":{soon},"iss":"me","aud":["x"],"openid":"o""#)), invalid),
        ("no openid", with(format!(r#""exp":{soon},"iss":"me","aud":"app""#)), invalid),
        (
            "openid null",
            with(format!(r#""exp":{soon},"iss":"me","aud":"app","openid":null"#)),
            invalid,
        ),
        ("a claim twice", with(format!(r#""exp":{past},"exp":{soon},{rest}"#)), invalid),
        ("not an object", key.token("[1]"), invalid),
        ("alg none", unsigned, invalid),
        ("alg None, signed", header(r#"{"alg":"None"}"#), invalid),
        ("crit", header(r#"{"alg":"HS256","crit":["x"],"x":1}"#), invalid),
        ("unknown kid", header(r#"{"alg":"HS256","kid":"other"}"#), invalid),
        ("two alg", header(r#"{"alg":"HS256","alg":"none"}"#), invalid),
        ("cut", good[..good.len() - 5].to_owned(), invalid),
        ("padded", format!("{good}=="), invalid),
        ("four parts", format!("{good}.x"), invalid),
        ("9 KiB", with(format!(r#""exp":{soon},{rest},"x":"{}""#, "y".repeat(7000))), invalid),
    ];
    for (what, token, expected) in &refused {
        let answer = bearer(&gateway, "/strict", token).await;
        assert_eq!(reason(&answer), (401, (*expected).to_owned()), "{what}");
    }
    assert!(refused.last().unwrap().1.len() > 9 * 1024);

    let authorization = format!("Bearer {good}");
    let two = [("Authorization", &*authorization), ("Authorization", &*authorization)];
    let answer = call(&gateway, "/strict", &two).await;
    assert_eq!(reason(&answer), (401, "token_ambiguous".to_owned()));
    let answer = call(&gateway, "/strict", &[]).await;
    assert_eq!(reason(&answer), (401, "token_missing".to_owned()));
    assert_eq!(answer.header("www-authenticate"), Some("Bearer"));
    for odd in ["Basic dTpw", "Bearer", "Bearer ", &good] {
        let answer = call(&gateway, "/strict", &[("Authorization", odd)]).await;
        assert_eq!(reason(&answer), (401, "token_invalid".to_owned()), "{odd}");
    }
    assert_eq!(recorder.begun(), 0, "a refused request reached the service");

    for fine in
        [good.clone(), with(format!(r#""exp":{soon}.5,"iss":"me","aud":["x","web"],"openid":1"#))]
    {
        assert_eq!(bearer(&gateway, "/strict", &fine).await.status, 200);
    }
    let lower = call(&gateway, "/strict", &[("authorization", &format!("bEaReR {good}"))]).await;
    assert_eq!(lower.status, 200);
    assert!(gateway.metric("sluice_rejected_total{reason=\"token_ambiguous\"}").await == 1.0);
}

#[tokio::test]
async fn who_is_unknown_gets_401_and_who_may_not_gets_403() {
    let key = Key::new("HS256");
    let (gateway, recorder) = start(CHECKS, &key).await;
    let roles = |roles: &str| key.token(&lasting(&format!(r#","roles":{roles}"#)));
    for held in [r#"["admin"]"#, r#"["x","boss"]"#, r#""x admin""#] {
        assert_eq!(bearer(&gateway, "/roles", &roles(held)).await.status, 200, "{held}");
    }
    let served = recorder.begun();
    for held in [r#"["user"]"#, "[]", r#""administrator""#, "7", r#"{"admin":true}"#] {
        let answer = bearer(&gateway, "/roles", &roles(held)).await;
        assert_eq!(reason(&answer), (403, "claim_refused".to_owned()), "{held}");
        assert_eq!(answer.header("www-authenticate"), None);
    }
    assert_eq!(bearer(&gateway, "/roles", &key.token(&lasting(""))).await.status, 403);
    let stranger = Key::new("HS256").token(&lasting(r#","roles":["admin"]"#));
    assert_eq!(bearer(&gateway, "/roles", &stranger).await.status, 401);
    assert_eq!(recorder.begun(), served);
}

#[tokio::test]
async fn a_verified_token_stops_counting_when_it_expires() {
    let key = Key::new("HS256");
    let (gateway, _recorder) = start(CHECKS, &key).await;
    let rest = r#""iss":"me","aud":"app","openid":"o""#;
    let token = key.token(&format!(r#"{{"exp":{},{rest}}}"#, now() + 4));
    for _ in 0..2 {
        assert_eq!(bearer(&gateway, "/strict", &token).await.status, 200);
    }
    eventually("the token to expire", async || {
        let answer = bearer(&gateway, "/strict", &token).await;
        answer.status == 401 && answer.json()["reason"] == "token_expired"
    })
    .await;
}

const TOLD: &str = r#"
upstreams: { up: { endpoints: [ { address: "{up}" } ] } }
routes:
  - id: told
    match: { path: /told }
    filters:
      - jwt:
          keys: [ { kid: k, alg: HS256, secret_file: k.key }, { kid: l, alg: HS256, secret: "${SECRET}" } ]
          from: [ { header: X-Token } ]
          forward_token: false
          claims_to_headers: { X-User-Id: sub, X-User-Meta: meta, X-User-Nick: nick }
    upstream: up
  - { id: open, match: { path: /open }, upstream: up }
"#;

/// Shows J-11.
#[tokio::test]
async fn services_learn_claims_from_the_token_and_never_from_the_caller() {
    let (key, second) = (Key::new("HS256"), Key::new("HS256"));
    let recorder = Recorder::answering(Answer::echo());
    let setup = Setup {
        files: vec![("k.key", format!("{}\n", key.shared))],
        env: vec![("SECRET", second.shared.clone())],
        ..Setup::default()
    };
    let config = TOLD.replace("{up}", &recorder.addr().to_string());
    let gateway = Gateway::start_with(&config, setup).await;
    let claims = lasting(r#","meta":{"a":[1,true]},"nick":"小王""#);
    let spoofed = [("X-User-Id", "root"), ("x-user-nick", "n"), ("X_User_Id", "root")];

    let token = key.sign(r#"{"alg":"HS256","kid":"k"}"#, &claims);
    let mut headers = vec![("X-Token", &*token)];
    headers.extend(spoofed);
    let answer = call(&gateway, "/told", &headers).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let seen = recorder.requests().pop().unwrap();
    assert_eq!(seen.all("x-user-id"), ["u-1"]);
    assert_eq!(seen.all("x-user-meta"), [r#"{"a":[1,true]}"#]);
    let nick: Vec<u8> = seen.header("x-user-nick").unwrap().chars().map(|c| c as u8).collect();
    assert_eq!(nick, "小王".as_bytes());
    assert_eq!((seen.header("x-token"), seen.header("x_user_id")), (None, None));

    let rotated = second.sign(r#"{"alg":"HS256","kid":"l"}"#, &lasting(""));
    assert_eq!(call(&gateway, "/told", &[("X-Token", &rotated)]).await.status, 200);
    let seen = recorder.requests().pop().unwrap();
    assert_eq!((seen.header("x-user-id"), seen.header("x-user-nick")), (Some("u-1"), None));
    // Two keys: a token has to say which one is meant.
    let unnamed = call(&gateway, "/told", &[("X-Token", &key.token(&claims))]).await;
    assert_eq!(reason(&unnamed), (401, "token_invalid".to_owned()));
    let crossed = second.sign(r#"{"alg":"HS256","kid":"k"}"#, &claims);
    assert_eq!(call(&gateway, "/told", &[("X-Token", &crossed)]).await.status, 401);

    // Routes without the filter are no way around it.
    assert_eq!(call(&gateway, "/open", &spoofed).await.status, 200);
    let seen = recorder.requests().pop().unwrap();
    assert_eq!((seen.header("x-user-id"), seen.header("x-user-nick")), (None, None));

    let hostile = lasting(r#","nick":"a\r\nX-User-Id: root""#);
    let token = key.sign(r#"{"alg":"HS256","kid":"k"}"#, &hostile);
    let answer = call(&gateway, "/told", &[("X-Token", &token)]).await;
    assert_eq!(reason(&answer), (401, "token_invalid".to_owned()));
}
