//! Every scheme, as its clients make it; what a byte more or less does to it.

use super::{MASTER, SECRET, Session, XCa, call, date, millis, nonce};
use crate::support::{Gateway, Setup, reason, refusal};
use crate::tokens::{Key, base64, digest, ed25519, mac, now};

const CONFIG: &str = r#"
upstreams: { echo: { builtin: echo } }
routes:
  - id: session
    match: { path: /session/** }
    upstream: echo
    filters:
      - jwt: { keys: [ { kid: k, alg: HS256, secret_file: jwt.key } ] }
      - signature: { scheme: session, master_secret_file: master.key }
  - id: loose
    match: { path: /loose }
    upstream: echo
    filters:
      - jwt: { keys: [ { kid: k, alg: HS256, secret_file: jwt.key } ] }
      - signature: { scheme: session, master_secret_file: master.key, unsigned_payload: true }
  - id: xca
    match: { path: /xca/** }
    upstream: echo
    filters: [ { signature: { scheme: x-ca, keys: [ { id: demo, secret_file: demo.key } ] } } ]
  - id: kong
    match: { path: /kong }
    upstream: echo
    filters: [ { signature: { scheme: hmac, dialect: kong, nonce_header: x-nonce, keys: [ { id: demo, secret_file: demo.key } ] } } ]
  - id: apisix
    match: { path: /apisix }
    upstream: echo
    filters: [ { signature: { scheme: hmac, dialect: apisix, keys: [ { id: demo, secret_file: demo.key } ] } } ]
  - id: tencent
    match: { path: /tencent }
    upstream: echo
    filters: [ { signature: { scheme: hmac, dialect: tencent, keys: [ { id: demo, secret_file: demo.key } ] } } ]
  - id: tencent-app
    match: { path: /tencent-app }
    upstream: echo
    filters: [ { signature: { scheme: hmac, dialect: tencent-app, keys: [ { id: demo, secret_file: demo.key } ] } } ]
  - id: rfc9421
    match: { path: /rfc9421 }
    upstream: echo
    filters:
      - signature:
          scheme: rfc9421
          keys: [ { id: demo, secret_file: demo.key }, { id: pair, public_key: "${file:pair.pem}" } ]
"#;

async fn start(token: &Key, pair: &Key) -> Gateway {
    let files = vec![
        ("jwt.key", token.shared.clone()),
        ("master.key", format!("{MASTER}\n")),
        ("demo.key", format!("{SECRET}\n")),
        ("pair.pem", pair.shared.clone()),
    ];
    Gateway::start_with(CONFIG, Setup { files, ..Setup::default() }).await
}

#[tokio::test]
async fn a_session_signs_what_it_sends_byte_by_byte() {
    let key = Key::new("HS256");
    let gateway = start(&key, &Key::new("EdDSA")).await;
    let body = br#"{"order":1}"#;
    let mut post = Session::post(&key, "/session/a?b=%E4%BD%A0&a=1&b=0", body);
    post.canonical = "/session/a?a=1&b=%E4%BD%A0&b=0";
    let answer = post.send(&gateway).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(answer.json()["body"], String::from_utf8_lossy(body).as_ref());
    assert_eq!(answer.json()["query"], "b=%E4%BD%A0&a=1&b=0", "it is passed on as it came");
    let seconds = Session { time: now().to_string(), ..Session::post(&key, "/session/a", body) };
    assert_eq!(seconds.send(&gateway).await.status, 200, "seconds are fine too");
    let signed = Session::post(&key, "/session/a", body);
    let others = [
        Session { method: "PUT", ..Session::post(&key, "/session/a", body) },
        Session::post(&key, "/session/b", body),
        Session::post(&key, "/session/a?x=1", body),
        Session::post(&key, "/session/a", br#"{"order":2}"#),
        Session::post(&key, "/session/a", b""),
    ];
    for other in &others {
        let refused = other.send_with(&gateway, &signed.sign()).await;
        let what = format!("{} {} {:?}", other.method, other.target, other.body);
        assert_eq!(reason(&refused), (401, "signature_invalid".to_owned()), "{what}");
    }
    let another = Session { sid: "session-2", ..Session::post(&key, "/session/a", body) };
    assert_eq!(
        reason(&another.send(&gateway).await).1,
        "signature_invalid",
        "another session's key"
    );
    assert_eq!(
        signed.send(&gateway).await.status,
        200,
        "refused attempts have not used the nonce up"
    );
    let missing =
        call(&gateway, "GET", "/session/a", &[("Authorization", &signed.token())], b"").await;
    assert_eq!(reason(&missing), (401, "signature_missing".to_owned()));
    assert_eq!(missing.header("www-authenticate"), Some("Signature"));
}

#[tokio::test]
async fn where_the_config_says_so_bodies_are_not_signed() {
    let key = Key::new("HS256");
    let gateway = start(&key, &Key::new("EdDSA")).await;
    let post = Session::post(&key, "/loose", b"anything");
    let answer = post.send_with(&gateway, &post.sign_with("UNSIGNED-PAYLOAD")).await;
    assert_eq!(answer.json()["body"], "anything");
    let post = Session::post(&key, "/loose", b"anything");
    assert_eq!(reason(&post.send(&gateway).await).1, "signature_invalid");
}

/// Shows K-04.
#[tokio::test]
async fn x_ca_covers_fields_parameters_and_bodies() {
    let gateway = start(&Key::new("HS256"), &Key::new("EdDSA")).await;
    let mut get = XCa::get("/xca/orders?b=x+y&a=");
    get.canonical = "/xca/orders?a&b=x y";
    assert_eq!(get.send(&gateway).await.status, 200);
    let json = XCa {
        method: "POST",
        content_type: "application/json",
        body: br#"{"a":1}"#,
        ..XCa::get("/xca/orders")
    };
    let answer = json.send(&gateway).await;
    assert_eq!(answer.json()["body"], r#"{"a":1}"#);
    let form = XCa {
        method: "POST",
        content_type: "application/x-www-form-urlencoded",
        body: b"z=1&b=%e4%bd%a0",
        canonical: "/xca/orders?a=2&b=\u{4f60}&z=1",
        ..XCa::get("/xca/orders?a=2")
    };
    assert_eq!(form.send(&gateway).await.json()["body"], "z=1&b=%e4%bd%a0");
    let changed = XCa { body: b"z=1&b=2", nonce: nonce(), ..form };
    assert_eq!(reason(&changed.send(&gateway).await).1, "signature_invalid", "another form");
    let twice = XCa::get("/xca/orders?a=1&a=2");
    assert_eq!(reason(&twice.send(&gateway).await).1, "signature_invalid", "a parameter twice");
    let json = XCa { nonce: nonce(), ..json };
    let headers = json.headers();
    let mut headers: Vec<(&str, &str)> = headers.iter().map(|(n, v)| (*n, v.as_str())).collect();
    let other = call(&gateway, "POST", json.target, &headers, br#"{"a":2}"#).await;
    assert_eq!(reason(&other).1, "signature_invalid", "another body under the same digest");
    headers.retain(|(name, _)| *name != "Content-MD5");
    let bare = call(&gateway, "POST", json.target, &headers, json.body).await;
    assert_eq!(reason(&bare).1, "signature_invalid", "the line of the digest is empty then");
    // Signed as if there were no body.
    let empty = XCa { body: b"", nonce: nonce(), ..json };
    let headers = empty.headers();
    let headers: Vec<(&str, &str)> = headers.iter().map(|(n, v)| (*n, v.as_str())).collect();
    let unsigned = call(&gateway, "POST", empty.target, &headers, b"body").await;
    assert_eq!(reason(&unsigned), (401, "body_unsigned".to_owned()));
}

/// Signed by Kong's rules, over these names.
fn kong(names: &str, fields: &[(&str, &str)], method: &str, target: &str) -> String {
    let line = |name: &str| match name {
        "@request-target" => {
            format!("@request-target: {} {target}", method.to_ascii_lowercase())
        }
        name => {
            let value = fields.iter().find(|(known, _)| *known == name).map_or("", |(_, v)| *v);
            format!("{name}: {value}")
        }
    };
    let text = names.split(' ').map(line).collect::<Vec<_>>().join("\n");
    let signature = base64(&mac("-sha256", SECRET.as_bytes(), text.as_bytes()));
    format!(
        r#"hmac username="demo", algorithm="hmac-sha256", headers="{names}", signature="{signature}""#
    )
}

#[tokio::test]
async fn kongs_clients_need_no_change() {
    let gateway = start(&Key::new("HS256"), &Key::new("EdDSA")).await;
    let (date, once) = (date(now()), nonce());
    let fields = [("x-date", date.as_str()), ("x-nonce", once.as_str())];
    let names = "x-date @request-target x-nonce";
    let signed = kong(names, &fields, "GET", "/kong?a=1");
    let headers = [fields[0], fields[1], ("authorization", signed.as_str())];
    assert_eq!(call(&gateway, "GET", "/kong?a=1", &headers, b"").await.status, 200);
    let again = call(&gateway, "GET", "/kong?a=1", &headers, b"").await;
    assert_eq!(reason(&again), (401, "replayed".to_owned()));
    assert_eq!(
        reason(&call(&gateway, "GET", "/kong?a=2", &headers, b"").await).1,
        "signature_invalid"
    );
    let body = b"{}";
    let (once, sum) = (nonce(), format!("SHA-256={}", base64(&digest("-sha256", body))));
    let fields = [("x-date", date.as_str()), ("x-nonce", once.as_str()), ("digest", sum.as_str())];
    let names = "x-date @request-target x-nonce digest";
    let signed = kong(names, &fields, "POST", "/kong");
    let headers = [fields[0], fields[1], fields[2], ("authorization", signed.as_str())];
    assert_eq!(
        reason(&call(&gateway, "POST", "/kong", &headers, b"[]").await).1,
        "signature_invalid"
    );
    assert_eq!(call(&gateway, "POST", "/kong", &headers, body).await.status, 200);
    for names in ["x-date x-nonce", "@request-target x-nonce", "x-date @request-target"] {
        let signed = kong(names, &fields, "GET", "/kong");
        let headers = [fields[0], fields[1], ("authorization", signed.as_str())];
        let refused = call(&gateway, "GET", "/kong", &headers, b"").await;
        assert_eq!(reason(&refused).1, "signature_invalid", "{names}");
    }
}

#[tokio::test]
async fn clients_of_apisix_and_tencent_need_no_change() {
    let gateway = start(&Key::new("HS256"), &Key::new("EdDSA")).await;
    let date = date(now());
    let text = format!("demo\nGET /apisix?x=1\ndate: {date}\n");
    let signature = base64(&mac("-sha256", SECRET.as_bytes(), text.as_bytes()));
    let signed = format!(
        r#"Signature keyId="demo",algorithm="hmac-sha256",headers="@request-target date",signature="{signature}""#
    );
    let headers = [("date", date.as_str()), ("authorization", signed.as_str())];
    assert_eq!(call(&gateway, "GET", "/apisix?x=1", &headers, b"").await.status, 200);
    assert_eq!(
        reason(&call(&gateway, "GET", "/apisix", &headers, b"").await).1,
        "signature_invalid"
    );

    let text = format!("x-date: {date}\nsource: app");
    let signature = base64(&mac("-sha1", SECRET.as_bytes(), text.as_bytes()));
    let signed = format!(
        r#"hmac id="demo", algorithm="hmac-sha1", headers="x-date source", signature="{signature}""#
    );
    let headers = [("x-date", date.as_str()), ("source", "app"), ("authorization", &signed)];
    assert_eq!(call(&gateway, "GET", "/tencent", &headers, b"").await.status, 200);
    let body = call(&gateway, "POST", "/tencent", &headers, b"x").await;
    assert_eq!(reason(&body), (401, "body_unsigned".to_owned()));

    let kind = "application/x-www-form-urlencoded";
    let text = format!("x-date: {date}\nPOST\n\n{kind}\n\n/tencent-app?a=1&b=2&c=3");
    let signature = base64(&mac("-sha1", SECRET.as_bytes(), text.as_bytes()));
    let signed = format!(
        r#"hmac id="demo", algorithm="hmac-sha1", headers="x-date", signature="{signature}""#
    );
    let headers = [("x-date", date.as_str()), ("content-type", kind), ("authorization", &signed)];
    let answer = call(&gateway, "POST", "/tencent-app?b=2", &headers, b"c=3&a=1").await;
    assert_eq!(answer.json()["body"], "c=3&a=1");
    let other = call(&gateway, "POST", "/tencent-app?b=2", &headers, b"c=3&a=2").await;
    assert_eq!(reason(&other).1, "signature_invalid");
}

#[tokio::test]
async fn message_signatures_are_verified_with_secrets_and_public_keys() {
    let pair = Key::new("EdDSA");
    let gateway = start(&Key::new("HS256"), &pair).await;
    let base = |names: &str, parameters: &str, sum: &str| {
        let mut text =
            "\"@method\": POST\n\"@target-uri\": http://localhost/rfc9421?a=1\n".to_owned();
        if names.contains("content-digest") {
            text += &format!("\"content-digest\": {sum}\n");
        }
        format!("{text}\"@signature-params\": {names}{parameters}")
    };
    let names = r#"("@method" "@target-uri" "content-digest")"#;
    let sum = format!("sha-256=:{}:", base64(&digest("-sha256", b"body")));
    let private = pair.private();
    for (id, sign) in [
        (
            "demo",
            &(|text: &str| mac("-sha256", SECRET.as_bytes(), text.as_bytes()))
                as &dyn Fn(&str) -> _,
        ),
        ("pair", &|text: &str| ed25519(&private, text.as_bytes())),
    ] {
        let parameters = format!(r#";created={};keyid="{id}";nonce="{}""#, now(), nonce());
        let signature = format!("s=:{}:", base64(&sign(&base(names, &parameters, &sum))));
        let input = format!("s={names}{parameters}");
        let headers = [
            ("Signature-Input", input.as_str()),
            ("Signature", signature.as_str()),
            ("Content-Digest", sum.as_str()),
        ];
        let target = "/rfc9421?a=1";
        let other = call(&gateway, "POST", target, &headers, b"another").await;
        assert_eq!(reason(&other).1, "signature_invalid", "{id}");
        let answer = call(&gateway, "POST", target, &headers, b"body").await;
        assert_eq!(answer.status, 200, "{id}: {}", answer.text());
        let again = call(&gateway, "POST", target, &headers, b"body").await;
        assert_eq!(reason(&again).1, "replayed", "{id}");
    }
    let names = r#"("@method" "@target-uri")"#;
    let parameters = format!(r#";created={};keyid="demo";nonce="{}""#, now(), nonce());
    let text = base(names, &parameters, "");
    let signature = format!("s=:{}:", base64(&mac("-sha256", SECRET.as_bytes(), text.as_bytes())));
    let input = format!("s={names}{parameters}");
    let headers = [("Signature-Input", input.as_str()), ("Signature", signature.as_str())];
    let uncovered = call(&gateway, "POST", "/rfc9421?a=1", &headers, b"body").await;
    assert_eq!(reason(&uncovered).1, "body_unsigned");
    let confused =
        format!(r#";created={};keyid="pair";nonce="{}";alg="hmac-sha256""#, now(), nonce());
    let text = base(names, &confused, "");
    let signature = mac("-sha256", pair.shared.as_bytes(), text.as_bytes());
    let (input, signature) =
        (format!("s={names}{confused}"), format!("s=:{}:", base64(&signature)));
    let headers = [("Signature-Input", input.as_str()), ("Signature", signature.as_str())];
    let confused = call(&gateway, "POST", "/rfc9421?a=1", &headers, b"").await;
    assert_eq!(reason(&confused).1, "signature_invalid", "a public key is no secret");
}

#[tokio::test]
async fn k_07_a_config_whose_signatures_would_cover_too_little_is_refused() {
    let said = refusal(
        r#"
upstreams: { echo: { builtin: echo } }
routes:
  - id: kong
    match: { path: /kong }
    upstream: echo
    filters: [ { signature: { scheme: hmac, dialect: kong, required: [ host ], keys: [ { id: a, secret: 0123456789abcdef } ] } } ]
  - id: rfc9421
    match: { path: /rfc }
    upstream: echo
    filters: [ { signature: { scheme: rfc9421, required: [ "@method", "@path", "@query" ], keys: [ { id: a, secret: 0123456789abcdef } ] } } ]
  - id: session
    match: { path: /session }
    upstream: echo
    filters: [ { signature: { scheme: session, master_secret: 0123456789abcdef0123456789abcdef } } ]
"#,
    );
    assert_eq!(said.matches("method and target would not be covered").count(), 2, "{said}");
    assert!(said.contains("`signature` asks who is calling"), "{said}");
    assert!(!said.contains("0123456789abcdef"), "{said}");
}

/// The moment is checked before the key is looked for, and the answer says what time it is.
#[tokio::test]
async fn k_01_a_request_of_another_time_is_refused() {
    let gateway = start(&Key::new("HS256"), &Key::new("EdDSA")).await;
    for (seconds, fits) in [(-301, false), (-290, true), (290, true), (305, false)] {
        let at = i128::try_from(millis()).unwrap() + seconds * 1000;
        let answer = XCa { time: at.to_string(), ..XCa::get("/xca/a") }.send(&gateway).await;
        if fits {
            assert_eq!(answer.status, 200, "{seconds} s");
            continue;
        }
        assert_eq!(reason(&answer), (401, "signature_expired".to_owned()), "{seconds} s");
        let told = u128::from(answer.json()["server_time"].as_u64().unwrap());
        assert!(told.abs_diff(millis()) < 60_000, "{told}");
    }
    for odd in ["-1700000000", "99999999999999999999", "1700000000.5", "", "0x123456789"] {
        let answer = XCa { time: odd.to_owned(), ..XCa::get("/xca/a") }.send(&gateway).await;
        assert_eq!(reason(&answer), (401, "signature_invalid".to_owned()), "{odd}");
    }
    let seconds = XCa { time: now().to_string(), ..XCa::get("/xca/a") };
    assert_eq!(seconds.send(&gateway).await.status, 200);
}

/// Shows K-08, K-09.
#[tokio::test]
async fn unknown_apps_wrong_secrets_and_odd_nonces_look_alike() {
    let gateway = start(&Key::new("HS256"), &Key::new("EdDSA")).await;
    let long = "a".repeat(7_000);
    let cases = [
        XCa { key: "nobody", ..XCa::get("/xca/a") },
        XCa { secret: "another-secret-012345", ..XCa::get("/xca/a") },
        XCa { nonce: "short".to_owned(), ..XCa::get("/xca/a") },
        XCa { nonce: "{}0123456789abcdef".to_owned(), ..XCa::get("/xca/a") },
        XCa { nonce: long, ..XCa::get("/xca/a") },
    ];
    for case in &cases {
        let answer = case.send(&gateway).await;
        assert_eq!(reason(&answer), (401, "signature_invalid".to_owned()), "{}", case.key);
        let mut json = answer.json();
        json.as_object_mut()
            .unwrap()
            .retain(|name, _| !matches!(name.as_str(), "trace_id" | "server_time"));
        assert_eq!(
            json.to_string(),
            r#"{"code":401,"data":null,"msg":"The signature is not valid.","reason":"signature_invalid"}"#
        );
    }
}
