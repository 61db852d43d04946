//! Tokens that nobody should accept, against the keys of a real issuer: made by openssl, published over
//! HTTPS.

use sluice_chaos::raw::Response;
use sluice_chaos::recorder::{Answer, Recorder};

use crate::support::{Gateway, Setup};
use crate::tokens::{Issuer, Key, base64url, now};

/// A gateway that trusts an issuer of three keys, and the service behind it.
struct World {
    gateway: Gateway,
    service: Recorder,
    issuer: Issuer,
    rsa: Key,
    ec: Key,
    ed: Key,
}

impl World {
    async fn start(more: &str) -> Self {
        let (rsa, ec, ed) = (Key::new("RS256"), Key::new("ES256"), Key::new("EdDSA"));
        let keys = [rsa.jwk("rsa", ""), ec.jwk("ec", r#","use":"sig""#), ed.jwk("ed", "")];
        let issuer = Issuer::start(&keys);
        let service = Recorder::answering(Answer::ok("served"));
        let config = format!(
            "upstreams: {{ up: {{ endpoints: [ {{ address: \"{}\" }} ] }} }}\n\
             routes: [ {{ id: r, upstream: up, filters: [ {{ jwt: {{ jwks: {}{more} }} }} ] }} ]\n",
            service.addr(),
            issuer.jwks(""),
        );
        let setup = Setup { files: issuer.files(), ..Setup::default() };
        let gateway = Gateway::start_with(&config, setup).await;
        Self { gateway, service, issuer, rsa, ec, ed }
    }

    async fn ask(&self, headers: &[(&str, &str)]) -> Response {
        self.gateway.client().await.request("GET", "/", "localhost", headers, b"").await
    }

    /// Status and reason word for a bearer token.
    async fn judge(&self, token: &str) -> (u16, String) {
        let answer = self.ask(&[("Authorization", &format!("Bearer {token}"))]).await;
        let reason = match answer.status {
            200 => String::new(),
            _ => answer.json()["reason"].as_str().unwrap_or_default().to_owned(),
        };
        (answer.status, reason)
    }

    async fn refuses(&self, what: &str, token: &str) {
        let invalid = (401, "token_invalid".to_owned());
        assert_eq!(self.judge(token).await, invalid, "{what}");
    }

    /// Nothing of what was refused got on, and the issuer was asked once.
    fn nothing_got_through(&self, served: u64) {
        assert_eq!(self.service.begun(), served);
        assert_eq!(self.issuer.fetches(), 1);
    }
}

fn good() -> String {
    format!(r#"{{"sub":"u-1","exp":{}}}"#, now() + 600)
}

#[tokio::test]
async fn j_01_tokens_without_a_signature_are_refused() {
    let world = World::start("").await;
    assert_eq!(world.judge(&world.ec.named("ec", &good())).await.0, 200);
    let claims = base64url(good().as_bytes());
    for alg in ["none", "None", "NONE", "nOnE", ""] {
        for kid in ["", r#","kid":"rsa""#, r#","kid":"unheard-of""#] {
            let header = base64url(format!(r#"{{"alg":"{alg}"{kid}}}"#).as_bytes());
            for signature in ["", ".", ".AAAA"] {
                let token = format!("{header}.{claims}{signature}");
                world.refuses(&format!("{alg} {kid} {signature}"), &token).await;
            }
        }
    }
    for (kid, key) in [("rsa", &world.rsa), ("ec", &world.ec), ("ed", &world.ed)] {
        let token = key.named(kid, &good());
        let (signed, signature) = token.rsplit_once('.').unwrap();
        let zeros = base64url(&vec![0; signature.len() * 3 / 4]);
        for (what, wrong) in [
            ("no signature", String::new()),
            ("too short", signature[..signature.len() - 4].to_owned()),
            ("too long", format!("{signature}AAAA")),
            ("padded", format!("{signature}==")),
            ("zeros", zeros),
            ("a dot more", format!("{signature}.")),
            ("another part", format!("{signature}.{signature}")),
            ("a blank in it", format!("{} {}", &signature[..4], &signature[4..])),
        ] {
            world.refuses(&format!("{kid}: {what}"), &format!("{signed}.{wrong}")).await;
        }
        assert_eq!(world.judge(&token).await.0, 200, "{kid}");
    }
    world.nothing_got_through(4);
}

#[tokio::test]
async fn j_02_public_keys_are_no_secrets() {
    let world = World::start("").await;
    for (kid, key) in [("rsa", &world.rsa), ("ec", &world.ec), ("ed", &world.ed)] {
        let jwk = key.jwk(kid, "");
        let pem = key.shared.as_bytes();
        for secret in [pem, pem.trim_ascii_end(), jwk.as_bytes(), kid.as_bytes()] {
            let forged = key.forged(kid, &good(), secret);
            world.refuses(&format!("{kid} as a secret of {} bytes", secret.len()), &forged).await;
        }
        for alg in ["HS256", "HS512", "RS256", "RS384", "PS256", "ES256", "ES384", "EdDSA", "ES512"]
        {
            let is_own = matches!((kid, alg), ("rsa", "RS256") | ("ec", "ES256") | ("ed", "EdDSA"));
            let token = key.sign(&format!(r#"{{"alg":"{alg}","kid":"{kid}"}}"#), &good());
            let expected = if is_own { 200 } else { 401 };
            assert_eq!(world.judge(&token).await.0, expected, "{kid} called {alg}");
        }
        for other in ["rsa", "ec", "ed"].into_iter().filter(|other| *other != kid) {
            world.refuses("another key's name", &key.named(other, &good())).await;
        }
        let nameless = key.token(&good());
        world.refuses("no name among three keys", &nameless).await;
    }
    world.nothing_got_through(3);
}

#[tokio::test]
async fn j_03_a_token_has_to_say_when_it_ends() {
    let world = World::start("").await;
    let (past, soon) = (now() - 3600, now() + 600);
    for exp in [
        "".to_owned(),
        r#","exp":"99""#.to_owned(),
        format!(r#","exp":"{soon}""#),
        r#","exp":1e308"#.to_owned(),
        r#","exp":1e400"#.to_owned(),
        r#","exp":-1"#.to_owned(),
        r#","exp":-1e3"#.to_owned(),
        r#","exp":null"#.to_owned(),
        r#","exp":true"#.to_owned(),
        format!(r#","exp":[{soon}]"#),
        format!(r#","exp":{{"exp":{soon}}}"#),
        r#","exp":NaN"#.to_owned(),
        format!(r#","Exp":{soon}"#),
    ] {
        let token = world.ed.named("ed", &format!(r#"{{"sub":"u"{exp}}}"#));
        world.refuses(&exp, &token).await;
    }
    for exp in [format!("{past}"), "0".to_owned(), format!("{past}.9"), "1e3".to_owned()] {
        let token = world.ed.named("ed", &format!(r#"{{"exp":{exp}}}"#));
        assert_eq!(world.judge(&token).await, (401, "token_expired".to_owned()), "{exp}");
    }
    let token = world.ed.named("ed", &format!(r#"{{"exp":{soon}.5}}"#));
    assert_eq!(world.judge(&token).await.0, 200);
    world.nothing_got_through(1);
}

#[tokio::test]
async fn j_04_time_audience_and_issuer_have_to_fit() {
    let world = World::start(", issuers: [ me ], audiences: [ app ]").await;
    let (soon, then) = (now() + 600, now() + 300);
    let early = "token_not_yet_valid";
    let invalid = "token_invalid";
    for (claims, reason) in [
        (format!(r#","nbf":{then},"iss":"me","aud":"app""#), early),
        (format!(r#","iat":{then},"iss":"me","aud":"app""#), early),
        (r#","nbf":"0","iss":"me","aud":"app""#.to_owned(), invalid),
        (r#","iat":null,"iss":"me","aud":"app""#.to_owned(), invalid),
        (r#","iss":"me""#.to_owned(), invalid),
        (r#","iss":"me","aud":"other""#.to_owned(), invalid),
        (r#","iss":"me","aud":["other","apps"]"#.to_owned(), invalid),
        (r#","iss":"me","aud":[["app"]]"#.to_owned(), invalid),
        (r#","iss":"me","aud":{"app":"app"}"#.to_owned(), invalid),
        (r#","iss":"me","aud":null"#.to_owned(), invalid),
        (r#","aud":"app""#.to_owned(), invalid),
        (r#","iss":"Me","aud":"app""#.to_owned(), invalid),
        (r#","iss":["me"],"aud":"app""#.to_owned(), invalid),
    ] {
        let token = world.ed.named("ed", &format!(r#"{{"exp":{soon}{claims}}}"#));
        assert_eq!(world.judge(&token).await, (401, reason.to_owned()), "{claims}");
    }
    for aud in [r#""app""#, r#"["other","app"]"#] {
        let claims = format!(r#"{{"exp":{soon},"iat":{},"iss":"me","aud":{aud}}}"#, now());
        assert_eq!(world.judge(&world.ed.named("ed", &claims)).await.0, 200, "{aud}");
    }
    world.nothing_got_through(2);
}

#[tokio::test]
async fn j_07_a_token_does_not_say_where_its_key_is() {
    let world = World::start("").await;
    let evil = Key::new("ES256");
    let jwk = evil.jwk("ec", "");
    let there = Issuer::start(std::slice::from_ref(&jwk));
    let url = format!("https://{}/keys", there.recorder.addr());
    let plain = Recorder::answering(Answer::ok(format!("{{\"keys\":[{jwk}]}}")));
    let plain_url = format!("http://{}/keys", plain.addr());
    for more in [
        format!(r#","jku":"{url}""#),
        format!(r#","jku":"{plain_url}","x5u":"{plain_url}""#),
        format!(r#","jwk":{jwk}"#),
        format!(r#","x5c":["{}"]"#, base64url(evil.shared.as_bytes())),
    ] {
        for kid in ["ec", "evil"] {
            let header = format!(r#"{{"alg":"ES256","kid":"{kid}"{more}}}"#);
            assert_eq!(world.judge(&evil.sign(&header, &good())).await.0, 401, "{more}");
        }
        let header = format!(r#"{{"alg":"ES256","kid":"ec"{more}}}"#);
        assert_eq!(world.judge(&world.ec.sign(&header, &good())).await.0, 200, "{more}");
    }
    assert_eq!((there.recorder.connections(), plain.connections()), (0, 0));
    world.nothing_got_through(4);
}

#[tokio::test]
async fn j_08_tokens_of_any_size_and_depth_cost_little() {
    let world = World::start("").await;
    let deep = |depth: usize| {
        let (open, close) = ("[".repeat(depth), "]".repeat(depth));
        world.ed.named("ed", &format!(r#"{{"exp":{},"a":{open}{close}}}"#, now() + 600))
    };
    let long = world.ed.named("ed", &format!(r#"{{"exp":9999999999,"a":"{}"}}"#, "a".repeat(9000)));
    for (what, token) in [
        ("nested 1,000 deep", deep(1_000)),
        ("nested 2,900 deep", deep(2_900)),
        ("9 KiB", long),
        ("1,000 dots", ".".repeat(1_000)),
        ("1,000 dots and letters", "e30.".repeat(1_000)),
        ("20 KB of letters", "a".repeat(20_000)),
    ] {
        world.refuses(what, &token).await;
    }
    let header = format!("Bearer {}", "a".repeat(64 * 1024));
    let answer = world.ask(&[("Authorization", &header)]).await;
    assert_eq!(answer.status, 431, "the head as a whole is too large");
    world.nothing_got_through(0);
}

#[tokio::test]
async fn j_10_a_claim_that_stands_twice_is_no_claim() {
    let world = World::start("").await;
    let (past, soon) = (now() - 3600, now() + 600);
    for claims in [
        format!(r#"{{"exp":{past},"exp":{soon}}}"#),
        format!(r#"{{"exp":{soon},"exp":{soon}}}"#),
        format!(r#"{{"sub":"a","exp":{soon},"sub":"b"}}"#),
        format!(r#"{{"sub":"a","exp":{soon},"\u0073ub":"b"}}"#),
    ] {
        world.refuses(&claims, &world.ed.named("ed", &claims)).await;
    }
    for header in [
        r#"{"alg":"EdDSA","kid":"ec","kid":"ed"}"#,
        r#"{"alg":"none","alg":"EdDSA","kid":"ed"}"#,
        r#"{"alg":"EdDSA","kid":"ed","crit":["exp"]}"#,
        r#"{"alg":"EdDSA","kid":"ed","crit":[]}"#,
        r#"{"alg":"EdDSA","kid":"ed","b64":false,"crit":["b64"]}"#,
        r#"["EdDSA","ed"]"#,
    ] {
        world.refuses(header, &world.ed.sign(header, &good())).await;
    }
    world.nothing_got_through(0);
}

#[tokio::test]
async fn j_13_answers_and_logs_tell_neither_token_nor_key() {
    let world = World::start("").await;
    let token = world.rsa.named("ec", r#"{"sub":"c4n4ry"}"#);
    let header = format!("Bearer {token}");
    let answer = world.ask(&[("Authorization", &header)]).await;
    let text = format!("{:?}{}", answer.headers, answer.text());
    for part in token.split('.') {
        assert!(!text.contains(part), "{text}");
    }
    let body = answer.json();
    assert_eq!(body["reason"], "token_invalid");
    assert_eq!(body["msg"], "The token is not valid.");
    let lines = world.gateway.log_lines(1).await;
    assert_eq!(lines[0]["reason"], "token_invalid");
    let page = world.gateway.admin("/jwks").await.text();
    assert!(page.contains("\"kid\": \"rsa\"") && !page.contains("AQAB"), "{page}");
    // That neither log nor admin page told the canary is looked for when the gateway ends.
}
