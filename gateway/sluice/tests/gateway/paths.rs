//! What a path, a query and a table mean, told apart as documented.

use std::time::{Duration, Instant};

use sluice_chaos::recorder::{Answer, Recorder};

use crate::configs::passing;
use crate::support::{Gateway, refusal};

/// Which of its routes the gateway took, told by the routes themselves.
fn naming(routes: &[(&str, &str)]) -> String {
    let mut text = String::from("routes:\n");
    for (id, matching) in routes {
        text.push_str(&format!(
            "  - {{ id: {id}, match: {{ {matching} }}, filters: [ {{ respond: {{ body: \"{id}\" }} }} ] }}\n"
        ));
    }
    text
}

#[tokio::test]
async fn p_07_capitals_slashes_and_parameters_are_told_apart() {
    let table = [
        ("one", "path: /admin"),
        ("below", "path: /admin/**, priority: -1"),
        ("rest", "path: /**"),
    ];
    let gateway = Gateway::start(&naming(&table)).await;
    for (target, route) in [
        ("/admin", "one"),
        ("/admin?x", "one"),
        ("/%61dmin", "one"),
        ("/admin/", "below"),
        ("/admin//x", "below"),
        ("/admin/x", "below"),
        ("/Admin", "rest"),
        ("/admin;x=1", "rest"),
        ("/admin%20", "rest"),
        ("/admin.", "rest"),
        ("/admins", "rest"),
    ] {
        assert_eq!(gateway.get(target).await.text(), route, "{target}");
    }
}

#[tokio::test]
async fn p_11_repeated_and_very_many_parameters_do_not_pass_a_test() {
    let table = [
        ("user", "path: /x, query: { role: user }"),
        ("absent", "path: /x, query: { role: { present: false } }"),
        ("rest", "path: /x"),
    ];
    let gateway = Gateway::start(&naming(&table)).await;
    let many = format!("{}role=user", "a=b&".repeat(300));
    let largest = format!("{}role=user", "a&".repeat(255));
    for (query, route) in [
        ("role=user", "user"),
        ("role=user&role=user", "user"),
        ("role=%75ser", "user"),
        ("role=user&role=admin", "rest"),
        ("role=admin&role=user", "rest"),
        ("role=admin", "rest"),
        ("role=user;role=admin", "rest"),
        ("role=user?role=admin", "rest"),
        ("Role=user", "absent"),
        ("", "absent"),
        ("x?role=user", "absent"),
        (largest.as_str(), "user"),
        (many.as_str(), "rest"),
    ] {
        assert_eq!(gateway.get(&format!("/x?{query}")).await.text(), route, "{query}");
    }
}

/// What is passed on is the query as it came, once.
#[tokio::test]
async fn p_11_a_query_is_passed_on_as_it_is() {
    let recorder = Recorder::start();
    let gateway = Gateway::start(&passing(recorder.addr())).await;
    let many = "a=b&".repeat(1_500);
    for query in ["role=user&role=admin", "a;b", "a?b?c", "%2e%2e/%2F", many.as_str()] {
        let before = recorder.requests().len();
        assert_eq!(gateway.get(&format!("/x?{query}")).await.status, 200);
        assert_eq!(recorder.requests()[before].target, format!("/x?{query}"));
    }
}

#[tokio::test]
async fn p_12_expressions_are_bounded_when_read_and_linear_when_asked() {
    for (expression, what) in [
        (r"(?:\\w{100}){1000}", "compiles to more than"),
        (r"(?:(?:(?:a{50}){50}){50}){50}", "compiles to more than"),
        (r"(a)\\1", "no regular expression"),
        ("(?=a)", "no regular expression"),
    ] {
        let path = refusal(&naming(&[("r", &format!("path_regex: \"{expression}\""))]));
        assert!(path.contains(what) && path.contains("path_regex"), "{path}");
        let test = refusal(&naming(&[(
            "r",
            &format!("headers: {{ X-A: {{ regex: \"{expression}\" }} }}"),
        )]));
        assert!(test.contains(what) && test.contains("X-A"), "{test}");
    }
    // Each takes exponential time in an engine that backtracks.
    let table = [
        ("a", "path_regex: \"/(?:a+)+b\""),
        ("b", "path_regex: \"/(?:a|aa)+c\""),
        ("c", "path_regex: \"/(?:.*)*d\", headers: { X-A: { regex: \"(?:a*)*b\" } }"),
        ("rest", "path: /**"),
    ];
    let gateway = Gateway::start(&naming(&table)).await;
    let longest = "a".repeat(8_000);
    let begun = Instant::now();
    let answer = gateway.get(&format!("/{longest}")).await;
    assert_eq!(answer.text(), "rest");
    let headers = [("X-A", longest.as_str())];
    let path = format!("/{longest}d");
    let answer = gateway.client().await.request("GET", &path, "a", &headers, b"").await;
    assert_eq!(answer.text(), "rest");
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn p_13_routes_that_fit_equally_have_one_order() {
    let table = [
        ("plain", "path: \"/a/{x}\""),
        ("first", "path: \"/a/{x}\", headers: { X-One: { present: true } }"),
        ("second", "path: \"/a/{x}\", headers: { X-Two: { present: true } }"),
        ("urgent", "path: \"/a/{x}\", query: { now: { present: true } }, priority: 1"),
    ];
    let gateway = Gateway::start(&naming(&table)).await;
    for (target, headers, route) in [
        ("/a/b", &[][..], "plain"),
        ("/a/b", &[("X-One", "1")], "first"),
        ("/a/b", &[("X-One", "1"), ("X-Two", "1")], "first"),
        ("/a/b", &[("X-Two", "1")], "second"),
        ("/a/b?now", &[("X-One", "1"), ("X-Two", "1")], "urgent"),
    ] {
        for _ in 0..3 {
            let answer = gateway.client().await.request("GET", target, "a", headers, b"").await;
            assert_eq!(answer.text(), route, "{target} {headers:?}");
        }
    }
    let twice = refusal(&naming(&[("one", "path: \"/a/{x}\""), ("two", "path: \"/a/{y}\"")]));
    assert!(twice.contains("route `two` can never match: `one`"), "{twice}");
}

/// Whatever a request says, it goes to a service of the config.
#[tokio::test]
async fn p_14_no_request_names_the_service_it_goes_to() {
    let (recorder, other) = (Recorder::start(), Recorder::start());
    let gateway = Gateway::start(&passing(recorder.addr())).await;
    let there = other.addr();
    for head in [
        format!("GET / HTTP/1.1\r\nHost: {there}\r\n"),
        format!("GET http://{there}/ HTTP/1.1\r\nHost: {there}\r\n"),
        format!("GET //{there}/ HTTP/1.1\r\nHost: a\r\n"),
        format!("GET /?url=http://{there}/ HTTP/1.1\r\nHost: a\r\nX-Forwarded-Host: {there}\r\n"),
        format!(
            "GET / HTTP/1.1\r\nHost: a\r\nX-Original-URL: http://{there}/\r\nForwarded: host={there}\r\n"
        ),
    ] {
        let answer = sluice_chaos::raw::exchange(gateway.http, format!("{head}\r\n")).await;
        assert_eq!(answer.status, 200, "{head}");
    }
    assert_eq!((recorder.requests().len(), other.connections()), (5, 0));
    for (upstream, what) in
        [("\"{header.x-up}\"", "there is no upstream"), ("\"http://a/\"", "there is no upstream")]
    {
        let said = refusal(&format!(
            "upstreams: {{ up: {{ endpoints: [ {{ address: \"{there}\" }} ] }} }}\nroutes: [ {{ id: r, upstream: {upstream} }} ]\n"
        ));
        assert!(said.contains(what), "{said}");
    }
    for address in ["{host}:80", "{header.x-up}:80"] {
        let said = refusal(&format!(
            "upstreams: {{ up: {{ endpoints: [ {{ address: \"{address}\" }} ] }} }}\nroutes: [ {{ id: r, upstream: up }} ]\n"
        ));
        assert!(said.contains("address"), "{said}");
    }
}

#[tokio::test]
async fn p_15_the_gateways_own_pages_stand_before_no_route() {
    let recorder = Recorder::answering(Answer::ok("the service"));
    let gateway = Gateway::start(&passing(recorder.addr())).await;
    for page in
        ["/livez", "/readyz", "/healthz", "/metrics", "/config", "/routes", "/upstreams", "/jwks"]
    {
        assert_eq!(gateway.get(page).await.text(), "the service", "{page}");
    }
    assert_ne!(gateway.admin("/livez").await.text(), "the service");
}
