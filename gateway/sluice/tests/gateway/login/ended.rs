//! What was ended stays ended, whatever the store, the config or the user service did meanwhile.

use sluice_chaos::process::Redis;
use sluice_chaos::provider::Provider;
use sluice_chaos::recorder::{Answer, Recorder};

use super::sessions::{
    call, claims, in_memory, in_redis, in_redis_sealed, log_in, reason, refresh, tokens,
};
use super::{KEY, with_token};

const LOG: &str = "sluice:login:revoked";

fn name(token: &str) -> String {
    format!("sluice:login:session:{{{}}}", claims(token)["sid"].as_str().unwrap())
}

/// Shows J-20, J-21.
#[tokio::test]
async fn a_session_that_redis_did_not_remove_is_not_refreshed() {
    let (provider, redis) = (Provider::start(), Redis::start().await);
    let one = in_redis(&provider, &redis, "sessions: { devices: { max: 1 } }").await;
    let kicked = log_in(&one, &provider, "o-1", "").await;
    let all = log_in(&one, &provider, "o-2", "").await;
    let alive = log_in(&one, &provider, "o-3", "").await;
    for token in [&kicked, &all, &alive] {
        redis
            .command(&["COPY", &name(&token.access), &format!("{}-kept", name(&token.access))])
            .await;
    }
    log_in(&one, &provider, "o-1", r#","device":"new""#).await;
    assert_eq!(call(&one, "/auth/logout", &all.access, r#"{"all":true}"#).await.status, 200);
    // As if it had stalled while they were removed, and what was told had been lost.
    redis.command(&["DEL", LOG]).await;
    for token in [&kicked, &all, &alive] {
        let name = name(&token.access);
        redis.command(&["COPY", &format!("{name}-kept"), &name, "REPLACE"]).await;
        assert_eq!(redis.command(&["EXISTS", &name]).await, "1");
    }
    let two = in_redis(&provider, &redis, "sessions: { devices: { max: 1 } }").await;
    for token in [&kicked, &all] {
        assert_eq!(refresh(&two, &token.refresh).await.json()["reason"], "refresh_invalid");
    }
    assert_eq!(refresh(&two, &alive.refresh).await.status, 200);
}

#[tokio::test]
async fn logging_in_and_out_kicks_no_other_device() {
    let provider = Provider::start();
    let gateway = in_memory(&provider, "sessions: { devices: { max: 2 } }").await;
    let first = log_in(&gateway, &provider, "o-1", r#","device":"a""#).await;
    for device in ["b", "c", "d"] {
        let more = format!(r#","device":"{device}""#);
        let other = log_in(&gateway, &provider, "o-1", &more).await;
        assert_eq!(call(&gateway, "/auth/logout", &other.access, "").await.status, 200);
    }
    assert_eq!(reason(&gateway, &first.access).await, None);
    assert_eq!(refresh(&gateway, &first.refresh).await.status, 200);
}

/// Tokens of a config before may live for longer than those of now.
/// Shows J-21.
#[tokio::test]
async fn a_revocation_outlives_tokens_of_a_longer_lifetime_before() {
    let (provider, redis) = (Provider::start(), Redis::start().await);
    let gateway = in_redis(&provider, &redis, "token: { lifetime: 2h }").await;
    let token = log_in(&gateway, &provider, "o-1", "").await.access;
    assert_eq!(call(&gateway, "/auth/logout", &token, "").await.status, 200);
    let week = 7 * 86_400;
    let said = redis.command(&["XRANGE", LOG, "-", "+"]).await;
    let until = said.split_whitespace().filter_map(|word| word.parse::<u64>().ok()).max();
    assert!(until.is_some_and(|until| until >= crate::tokens::now() + week), "{said}");
    let kept: u64 = redis.command(&["PTTL", LOG]).await.parse().unwrap();
    assert!(kept > week * 1000, "{kept}");
}

/// Whoever ends what a user has, names the user.
#[tokio::test]
async fn who_logged_in_as_nobody_does_not_become_somebody_by_refreshing() {
    let provider = Provider::start();
    let users = Recorder::answering(Answer::new(500));
    let user = format!("user: {{ url: \"http://{}/identity\" }}", users.addr());
    let gateway = in_memory(&provider, &user).await;
    let guest = log_in(&gateway, &provider, "o-1", "").await;
    users.set(Answer::new(200).body(r#"{"uid":7,"roles":["admin"]}"#));
    assert_eq!(refresh(&gateway, &guest.refresh).await.json()["reason"], "refresh_invalid");
    assert_eq!(reason(&gateway, &guest.access).await.as_deref(), Some("token_revoked"));
    let known = log_in(&gateway, &provider, "o-1", "").await;
    assert_eq!(claims(&known.access)["sub"], "7");
    let next = tokens(&refresh(&gateway, &known.refresh).await);
    let revoked = call(&gateway, "/internal/revoke", &next.access, r#"{"sub":"7"}"#).await;
    assert_eq!(revoked.status, 200);
    assert_eq!(with_token(&gateway, "/me", &next.access).await.status, 401);
}

#[tokio::test]
async fn a_user_whose_sessions_cannot_be_opened_logs_in_and_the_old_ones_end() {
    let (provider, redis) = (Provider::start(), Redis::start().await);
    let before = in_redis(&provider, &redis, "").await;
    let old = log_in(&before, &provider, "o-1", "").await;
    let after = in_redis_sealed(&provider, &redis, &format!("other-{KEY}"), "").await;
    assert_eq!(reason(&after, &old.access).await, None);
    let new = log_in(&after, &provider, "o-1", "").await;
    assert!(!new.refresh.is_empty());
    assert_eq!(reason(&after, &new.access).await, None);
    assert_eq!(reason(&after, &old.access).await.as_deref(), Some("token_revoked"));
    after.daemon.wait_for_output("cannot be opened").await;
    assert_eq!(refresh(&after, &new.refresh).await.status, 200);
}
