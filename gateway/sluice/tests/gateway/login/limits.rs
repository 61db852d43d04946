//! How often a code is sent, and how often people may log in.

use std::time::Duration;

use sluice_chaos::provider::{Login, Manner, Provider};

use super::{counted, log_in, start};

/// Shows J-17.
#[tokio::test]
async fn many_who_come_with_one_code_share_one_exchange() {
    let provider = Provider::start();
    provider.decide("good", Login::session("o", None));
    provider.set(Manner::Slow(Duration::from_millis(300)));
    let gateway = start(&provider, "").await;
    let answers = futures_util::future::join_all((0..30).map(|_| log_in(&gateway, "good"))).await;
    let first = answers[0].text();
    assert!(answers.iter().all(|answer| answer.status == 200 && answer.text() == first));
    assert_eq!(provider.exchanges("good"), 1);
    // A nervous client comes again later.
    assert_eq!(log_in(&gateway, "good").await.text(), first);
    assert_eq!(provider.exchanges("good"), 1);
    counted(&gateway, r#"sluice_mp_login_total{app="shop",result="replayed"}"#, 30.0).await;
}

/// Shows J-18.
#[tokio::test]
async fn a_client_that_goes_away_does_not_take_the_code_with_it() {
    let provider = Provider::start();
    provider.decide("good", Login::session("o", None));
    provider.set(Manner::Slow(Duration::from_millis(300)));
    let gateway = start(&provider, "").await;
    let mut client = gateway.client().await;
    client
        .send(
            "POST /auth/login HTTP/1.1\r\nHost: a\r\nContent-Length: 15\r\n\r\n{\"code\":\"good\"}",
        )
        .await;
    crate::support::eventually("the exchange", async || provider.exchanges("good") == 1).await;
    client.reset();
    assert_eq!(log_in(&gateway, "good").await.status, 200);
    assert_eq!(provider.exchanges("good"), 1);
}

/// Shows J-17.
#[tokio::test]
async fn so_many_exchanges_run_at_a_time_and_the_rest_is_told_to_wait() {
    let provider = Provider::start();
    provider.set(Manner::Slow(Duration::from_secs(2)));
    let gateway = start(&provider, "limits: { at_once: 4 }").await;
    let codes: Vec<String> = (0..40).map(|n| format!("c{n}")).collect();
    codes.iter().for_each(|code| provider.decide(code, Login::session(code, None)));
    let answers =
        futures_util::future::join_all(codes.iter().map(|code| log_in(&gateway, code))).await;
    let busy: Vec<_> = answers.iter().filter(|answer| answer.status == 503).collect();
    assert!(
        !busy.is_empty() && busy.iter().all(|answer| answer.header("retry-after") == Some("1"))
    );
    let asked = provider.requests().len();
    assert!(
        asked < 40 && asked == answers.iter().filter(|answer| answer.status != 503).count(),
        "{asked}"
    );
}

#[tokio::test]
async fn users_and_addresses_have_limits_of_their_own() {
    let provider = Provider::start();
    let gateway = start(&provider, "limits: { per_user_minute: 2 }").await;
    let statuses = |user: &'static str| {
        let (gateway, provider) = (&gateway, &provider);
        async move {
            let mut all = Vec::new();
            for n in 0..3 {
                let code = format!("{user}{n}");
                provider.decide(&code, Login::session(user, None));
                let answer = log_in(gateway, &code).await;
                assert_eq!(answer.status == 429, answer.header("retry-after").is_some());
                all.push(answer.status);
            }
            all
        }
    };
    assert_eq!(statuses("o-1").await, [200, 200, 429]);
    assert_eq!(statuses("o-2").await, [200, 200, 429]);
    let gateway = start(&provider, "limits: { per_address_minute: 3 }").await;
    let mut refused = 0;
    for n in 0..6 {
        refused += u32::from(log_in(&gateway, &format!("x{n}")).await.status == 429);
    }
    assert_eq!(refused, 3);
}
