//! Keys of an issuer: how they come, how they change, and what happens while the issuer is away, slow or
//! mad.

use std::path::Path;
use std::time::{Duration, Instant};

use sluice_chaos::dns::FakeDns;
use sluice_chaos::load::Plan;
use sluice_chaos::pki;
use sluice_chaos::provider::{JWKS, Manner, Provider};
use sluice_chaos::raw::Response;
use sluice_chaos::recorder::Answer;

use crate::support::{Gateway, Setup, eventually};
use crate::tokens::{Issuer, Key, base64url, now, published};

fn config(jwks: &str) -> String {
    format!(
        "upstreams: {{ echo: {{ builtin: echo }} }}\n\
         routes: [ {{ id: r, upstream: echo, filters: [ {{ jwt: {{ jwks: {jwks} }} }} ] }} ]\n"
    )
}

/// How a provider without TLS is asked.
fn from(provider: &Provider, more: &str) -> String {
    format!("{{ url: \"http://{}{JWKS}\"{more} }}", provider.addr())
}

async fn start(issuer: &Issuer, more: &str) -> Gateway {
    let setup = Setup { files: issuer.files(), ..Setup::default() };
    Gateway::start_with(&config(&issuer.jwks(more)), setup).await
}

async fn ask(gateway: &Gateway, token: &str) -> Response {
    let headers = [("Authorization", &*format!("Bearer {token}"))];
    gateway.client().await.request("GET", "/", "localhost", &headers, b"").await
}

async fn judge(gateway: &Gateway, token: &str) -> (u16, String) {
    let answer = ask(gateway, token).await;
    let reason = match answer.status {
        200 => String::new(),
        _ => answer.json()["reason"].as_str().unwrap_or_default().to_owned(),
    };
    (answer.status, reason)
}

fn good() -> String {
    format!(r#"{{"sub":"u-1","exp":{}}}"#, now() + 600)
}

fn is(status: u16, reason: &str) -> (u16, String) {
    (status, reason.to_owned())
}

async fn outcomes(gateway: &Gateway, outcome: &str) -> u64 {
    gateway.metric(&format!("sluice_jwks_fetches_total{{outcome=\"{outcome}\"}}")).await as u64
}

#[tokio::test]
async fn tokens_of_a_real_issuer_pass_and_others_do_not() {
    let algorithms = ["RS256", "PS256", "ES256", "EdDSA"];
    let keys = algorithms.map(Key::new);
    let set: Vec<_> = algorithms.iter().zip(&keys).map(|(alg, key)| key.jwk(alg, "")).collect();
    let weak = Key::new("RS1024");
    let hmac = Key::new("HS256");
    let odd = [
        weak.jwk("weak", ""),
        hmac.jwk("secret", ""),
        Key::new("RS256").jwk("enc", r#","use":"enc""#),
        r#"{"kty":"AKP","kid":"pq","alg":"ML-DSA-44","pub":"AA"}"#.to_owned(),
    ];
    let issuer = Issuer::start(&[set, odd.to_vec()].concat());
    let gateway = start(&issuer, "").await;
    for (alg, key) in algorithms.iter().zip(&keys) {
        for _ in 0..2 {
            assert_eq!(ask(&gateway, &key.named(alg, &good())).await.status, 200, "{alg}");
        }
        let stranger = Key::new(alg).named(alg, &good());
        assert_eq!(judge(&gateway, &stranger).await, is(401, "token_invalid"), "{alg}");
    }
    assert_eq!(judge(&gateway, &weak.named("weak", &good())).await, is(401, "token_invalid"));
    assert_eq!(judge(&gateway, &hmac.named("secret", &good())).await, is(401, "token_invalid"));
    let page = gateway.admin("/jwks").await.json();
    let set = &page["key_sets"][0];
    let kids: Vec<_> = set["keys"].as_array().unwrap().iter().map(|key| &key["kid"]).collect();
    assert_eq!(kids, ["ES256", "EdDSA", "PS256", "RS256"]);
    let source = format!("https://{}/keys", issuer.recorder.addr());
    assert_eq!((&set["source"], &set["last_attempt"]), (&source.into(), &"changed".into()));
    assert!(now() - set["fetched_at"].as_u64().unwrap() < 60);
    assert_eq!(gateway.metric("sluice_jwks_keys").await as u64, 4);
    assert!(gateway.metric("sluice_jwks_last_success_timestamp_seconds").await > 1e9);
    assert_eq!((issuer.fetches(), outcomes(&gateway, "changed").await), (1, 1));
    let seen = issuer.recorder.requests().pop().unwrap();
    assert_eq!((seen.method.as_str(), seen.target.as_str()), ("GET", "/keys?canary=c4n4ry"));
}

#[tokio::test]
async fn an_issuer_with_a_foreign_certificate_is_not_believed() {
    let key = Key::new("EdDSA");
    let issuer = Issuer::start(&[key.jwk("ed", "")]);
    let files = vec![("issuer.pem", pki::Authority::new().pem())];
    let setup = Setup { files, ..Setup::default() };
    let gateway = Gateway::start_with(&config(&issuer.jwks("")), setup).await;
    let answer = ask(&gateway, &key.named("ed", &good())).await;
    assert_eq!((answer.status, &answer.json()["reason"]), (503, &"keys_unavailable".into()));
    assert!(answer.header("retry-after").is_some() && answer.header("www-authenticate").is_none());
    assert_eq!(issuer.fetches(), 0);
    assert!(outcomes(&gateway, "unreachable").await >= 1);
}

/// The name in the address is looked up where the config says, and is the one to verify.
#[tokio::test]
async fn an_issuer_is_found_by_its_name() {
    let (dns, key) = (FakeDns::start(), Key::new("EdDSA"));
    dns.set("keys.test", &["127.0.0.1".parse().unwrap()], 60);
    let issuer = Issuer::start(&[key.jwk("ed", "")]);
    let port = issuer.recorder.addr().port();
    let jwks =
        format!("{{ url: \"https://keys.test:{port}/keys\", tls: {{ ca_file: issuer.pem }} }}");
    let resolver = format!("resolver: {{ nameservers: [ \"{}\" ] }}\n", dns.addr());
    let setup = Setup { files: issuer.files(), ..Setup::default() };
    let gateway = Gateway::start_with(&(resolver + &config(&jwks)), setup).await;
    assert_eq!(ask(&gateway, &key.named("ed", &good())).await.status, 200);
    let seen = issuer.recorder.requests().pop().unwrap();
    assert_eq!(seen.header("host"), Some(format!("keys.test:{port}").as_str()));
}

#[tokio::test]
async fn routes_and_reloads_share_what_is_known() {
    let key = Key::new("EdDSA");
    let issuer = Issuer::start(&[key.jwk("ed", "")]);
    let two = |more: &str| {
        let filter = format!("[ {{ jwt: {{ jwks: {}{more} }} }} ]", issuer.jwks(""));
        format!(
            "upstreams: {{ echo: {{ builtin: echo }} }}\nroutes:\n  \
             - {{ id: a, match: {{ path: /a }}, upstream: echo, filters: {filter} }}\n  \
             - {{ id: b, upstream: echo, filters: {filter} }}\n"
        )
    };
    let setup = Setup { files: issuer.files(), ..Setup::default() };
    let gateway = Gateway::start_with(&two(""), setup).await;
    let token = key.named("ed", &good());
    assert_eq!(ask(&gateway, &token).await.status, 200);
    gateway.write_config(&two(", leeway: 10s"));
    gateway.wait_for_generation(2).await;
    assert_eq!(ask(&gateway, &token).await.status, 200);
    assert_eq!(issuer.fetches(), 1, "two routes and a reload");
    assert_eq!(gateway.admin("/jwks").await.json()["key_sets"].as_array().unwrap().len(), 1);
    // Other rules for the same source take hold at once, and what is known stays.
    gateway.write_config(&config(&issuer.jwks(", refresh: 200ms")));
    gateway.wait_for_generation(3).await;
    eventually("the next look", async || issuer.fetches() >= 2).await;
    assert_eq!(ask(&gateway, &token).await.status, 200);
}

#[tokio::test]
async fn j_05_unknown_keys_do_not_become_questions_to_the_issuer() {
    let key = Key::new("EdDSA");
    let issuer = Issuer::start(&[key.jwk("ed", "")]);
    let gateway = start(&issuer, ", cooldown: 500ms").await;
    // The look at the start counts too.
    tokio::time::sleep(Duration::from_millis(600)).await;
    let stranger = Key::new("EdDSA");
    let token = stranger.named("unheard-of", &good());
    let flood = async |token: &str| {
        let load = Plan::new(gateway.http, "/").host("localhost").per_second(300);
        load.header("Authorization", &format!("Bearer {token}")).run().await
    };
    let begun = Instant::now();
    let tally = flood(&token).await;
    assert_eq!(tally.by_status.get(&401), Some(&tally.sent), "{tally:?}");
    assert!(tally.sent >= 250, "{tally:?}");
    let most = 2 + begun.elapsed().as_millis() as usize / 500;
    assert!((2..=most).contains(&issuer.fetches()), "{} looks", issuer.fetches());
    // Tokens that no key could be for are not even a reason to look.
    tokio::time::sleep(Duration::from_millis(600)).await;
    let before = issuer.fetches();
    for header in
        [r#"{"alg":"none","kid":"x"}"#, r#"{"alg":"EdDSA"}"#, r#"{"alg":"ES512","kid":"x"}"#]
    {
        let token = stranger.sign(header, &good());
        // A single key serves tokens that name none; this one did not sign it.
        assert_eq!(judge(&gateway, &token).await, is(401, "token_invalid"), "{header}");
    }
    assert_eq!(issuer.fetches(), before);
    // A new key is found by the first token that it has signed.
    issuer.publish(&[key.jwk("ed", ""), stranger.jwk("unheard-of", "")]);
    assert_eq!(judge(&gateway, &token).await, is(200, ""));
    assert_eq!(issuer.fetches(), before + 1);
}

/// Shows J-05.
#[tokio::test]
async fn each_token_of_a_flood_naming_another_key_is_no_reason_to_ask_the_issuer() {
    let key = Key::new("EdDSA");
    let issuer = Issuer::start(&[key.jwk("ed", "")]);
    let gateway = start(&issuer, ", cooldown: 30s").await;
    eventually("the first look", async || issuer.fetches() == 1).await;
    // Nobody verifies what no key is known for.
    let token = Key::new("EdDSA").named("unheard-of", &good());
    let (_, signed) = token.split_once('.').unwrap();
    let flood = (0..8).map(async |flooder| {
        let mut client = gateway.client().await;
        for turn in 0..250 {
            let header = format!(r#"{{"alg":"EdDSA","kid":"key-{flooder}-{turn}"}}"#);
            let bearer = format!("Bearer {}.{signed}", base64url(header.as_bytes()));
            let headers = [("Authorization", &*bearer)];
            let answer = client.request("GET", "/", "localhost", &headers, b"").await;
            assert_eq!(answer.status, 401, "{answer:?}");
        }
    });
    futures_util::future::join_all(flood).await;
    // The first look may still be under way when the flood begins, and tells nothing of keys to come.
    assert!((1..=2).contains(&issuer.fetches()), "{} looks", issuer.fetches());
    assert_eq!(judge(&gateway, &key.named("ed", &good())).await, is(200, ""));
}

#[tokio::test]
async fn j_06_a_bad_answer_never_replaces_good_keys() {
    let provider = Provider::start();
    let gateway = Gateway::start(&config(&from(
        &provider,
        ", refresh: 200ms, cooldown: 200ms, timeout: 500ms",
    )))
    .await;
    let token = provider.token(&good());
    assert_eq!(ask(&gateway, &token).await.status, 200);
    let unknown = Key::new("EdDSA").named("unheard-of", &good());
    for (manner, outcome) in [
        (Manner::Page(500), "status"),
        (Manner::Slow(Duration::from_secs(5)), "timeout"),
        (Manner::Huge(5 << 20), "too_large"),
        (Manner::Broken, "invalid"),
        (Manner::Empty, "invalid"),
    ] {
        let before = outcomes(&gateway, outcome).await;
        provider.set(manner.clone());
        eventually("a bad answer", async || outcomes(&gateway, outcome).await > before).await;
        assert_eq!(ask(&gateway, &token).await.status, 200, "{manner:?}");
        // Whether the issuer has such a key cannot be said now.
        assert_eq!(judge(&gateway, &unknown).await, is(503, "keys_unavailable"), "{manner:?}");
        assert_eq!(gateway.metric("sluice_jwks_keys").await as u64, 1);
    }
    provider.set(Manner::Well);
    eventually("the issuer's return", async || outcomes(&gateway, "unchanged").await >= 1).await;
    eventually("an answer", async || judge(&gateway, &unknown).await == is(401, "token_invalid"))
        .await;
}

/// Shows J-06.
#[tokio::test]
async fn an_empty_or_contradictory_set_never_replaces_a_good_one() {
    let key = Key::new("EdDSA");
    let issuer = Issuer::start(&[key.jwk("ed", "")]);
    let gateway = start(&issuer, ", refresh: 200ms, cooldown: 200ms").await;
    let token = key.named("ed", &good());
    assert_eq!(ask(&gateway, &token).await.status, 200);
    let weak = Key::new("RS1024").jwk("ed", "");
    let twice = [key.jwk("x", ""), Key::new("EdDSA").jwk("x", "")];
    for (keys, outcome) in [(vec![], "empty"), (vec![weak], "empty"), (twice.to_vec(), "invalid")] {
        let before = outcomes(&gateway, outcome).await;
        issuer.publish(&keys);
        eventually("a bad set", async || outcomes(&gateway, outcome).await > before).await;
        assert_eq!(ask(&gateway, &token).await.status, 200, "{keys:?}");
    }
    // Redirects are not followed.
    let elsewhere = Issuer::start(&[key.jwk("other", "")]);
    let there = format!("https://{}/keys", elsewhere.recorder.addr());
    let before = outcomes(&gateway, "status").await;
    issuer.recorder.set(Answer::new(302).header("Location", &there));
    eventually("a redirect", async || outcomes(&gateway, "status").await > before).await;
    assert_eq!((ask(&gateway, &token).await.status, elsewhere.fetches()), (200, 0));
}

/// Shows J-12.
#[tokio::test]
async fn a_withdrawn_key_stops_counting_for_tokens_that_were_verified_before() {
    let (old, new) = (Key::new("EdDSA"), Key::new("ES256"));
    let issuer = Issuer::start(&[old.jwk("old", ""), new.jwk("new", "")]);
    let gateway = start(&issuer, ", refresh: 200ms").await;
    let (leaving, staying) = (old.named("old", &good()), new.named("new", &good()));
    for _ in 0..3 {
        assert_eq!(ask(&gateway, &leaving).await.status, 200);
        assert_eq!(ask(&gateway, &staying).await.status, 200);
    }
    issuer.publish(&[new.jwk("new", "")]);
    eventually("the end of the old key", async || {
        assert_eq!(ask(&gateway, &staying).await.status, 200);
        judge(&gateway, &leaving).await == is(401, "token_invalid")
    })
    .await;
    assert_eq!(judge(&gateway, &leaving).await, is(401, "token_invalid"));
}

#[tokio::test]
async fn keys_that_nobody_confirms_are_given_up_in_the_end() {
    let provider = Provider::start();
    let gateway = Gateway::start(&config(&from(
        &provider,
        ", refresh: 200ms, max_stale: 1s, cooldown: 200ms",
    )))
    .await;
    let token = provider.token(&good());
    assert_eq!(ask(&gateway, &token).await.status, 200);
    provider.set(Manner::Page(503));
    let begun = Instant::now();
    eventually("the end", async || judge(&gateway, &token).await == is(503, "keys_unavailable"))
        .await;
    assert!(begun.elapsed() >= Duration::from_millis(500), "{:?}", begun.elapsed());
    assert_eq!(gateway.metric("sluice_jwks_keys").await as u64, 0);
    provider.set(Manner::Well);
    eventually("its return", async || ask(&gateway, &token).await.status == 200).await;
}

#[tokio::test]
async fn a_start_without_the_issuer_uses_what_an_earlier_run_has_kept() {
    let provider = Provider::start();
    let folder = tempfile::tempdir().unwrap();
    let kept = folder.path().join("state/keys.json");
    let with = |kept: &Path, more: &str| {
        config(&from(&provider, &format!(", cache_file: \"{}\"{more}", kept.display())))
    };
    let token = provider.token(&good());
    let gateway = Gateway::start(&with(&kept, "")).await;
    assert_eq!(ask(&gateway, &token).await.status, 200);
    eventually("the file", async || kept.exists()).await;
    drop(gateway);

    provider.set(Manner::Page(503));
    let gateway = Gateway::start(&with(&kept, "")).await;
    assert_eq!(judge(&gateway, &token).await, is(200, ""));
    assert!(gateway.metric("sluice_jwks_last_success_timestamp_seconds").await > 1e9);
    drop(gateway);

    // For another source it is no use, and neither is anything that is no set of keys.
    let nonsense = folder.path().join("nonsense.json");
    std::fs::write(&nonsense, "{\"keys\":[]}").unwrap();
    let other = with(&kept, ", headers: { X-Tenant: other }");
    for config in [other, with(&nonsense, ""), with(&folder.path().join("none.json"), "")] {
        let gateway = Gateway::start(&config).await;
        assert_eq!(judge(&gateway, &token).await, is(503, "keys_unavailable"), "{config}");
        if config.contains("none.json") {
            provider.set(Manner::Well);
            eventually("the issuer", async || ask(&gateway, &token).await.status == 200).await;
        }
    }
}

/// While an issuer turns its keys over, published before use and withdrawn after it, no valid token is
/// refused.
#[tokio::test]
async fn j_12_keys_rotate_under_load_without_a_refusal() {
    let keys: Vec<_> = (0..4).map(|_| Key::new("EdDSA")).collect();
    let kid = |n: usize| format!("key-{n}");
    let set = |range: std::ops::RangeInclusive<usize>| {
        range.map(|n| keys[n].jwk(&kid(n), "")).collect::<Vec<_>>()
    };
    let issuer = Issuer::start(&set(0..=0));
    let gateway = start(&issuer, ", refresh: 200ms, cooldown: 200ms").await;
    let tokens: Vec<_> = (0..4).map(|n| keys[n].named(&kid(n), &good())).collect();
    let load = |n: usize| {
        Plan::new(gateway.http, "/")
            .host("localhost")
            .header("Authorization", &format!("Bearer {}", tokens[n]))
            .per_second(100)
            .duration(Duration::from_millis(800))
            .start()
    };
    let mut running = vec![load(0)];
    for n in 1..4 {
        let changes = outcomes(&gateway, "changed").await;
        issuer.recorder.set(published(&set(n - 1..=n)));
        eventually("the new key", async || outcomes(&gateway, "changed").await > changes).await;
        // The old key is in use until the load that began with it is over.
        running.push(load(n));
        let tally = running.remove(0).finish().await;
        assert_eq!((tally.ok, tally.failed), (tally.sent, 0), "{tally:?}");
        assert!(tally.sent >= 50, "{tally:?}");
    }
    let tally = running.remove(0).finish().await;
    assert_eq!(tally.ok, tally.sent, "{tally:?}");
    // A key that is withdrawn is not forgotten to be.
    issuer.recorder.set(published(&set(3..=3)));
    eventually("the old key's end", async || ask(&gateway, &tokens[2]).await.status == 401).await;
    assert_eq!(ask(&gateway, &tokens[3]).await.status, 200);
}
