//! Clients of HTTP/2 that break its rules, or keep them to the letter and mean harm.

use std::time::Duration;

use sluice_chaos::client;
use sluice_chaos::recorder::{Answer, Recorder};

use crate::configs::passing;
use crate::frames::{
    CONTINUATION, DATA, END_HEADERS, END_STREAM, GOAWAY, HEADERS, RST_STREAM, SETTINGS, Talk,
    WHOLE, WINDOW_UPDATE, block, frame, get,
};
use crate::support::Gateway;

const ENHANCE_YOUR_CALM: u32 = 11;
const REFUSED_STREAM: u32 = 7;

async fn start() -> (Recorder, Gateway) {
    let recorder = Recorder::start();
    let gateway = Gateway::start(&passing(recorder.addr())).await;
    (recorder, gateway)
}

/// Odd numbers, as clients number their streams.
fn streams(count: u32) -> impl Iterator<Item = u32> {
    (0..count).map(|n| 2 * n + 1)
}

async fn others_are_served(gateway: &Gateway) {
    assert_eq!(client::h2c(gateway.http).await.send(client::get("/")).await.0.status, 200);
}

#[tokio::test]
async fn h2_01_streams_that_are_reset_at_once_end_the_connection() {
    let (_recorder, gateway) = start().await;
    let mut talk = Talk::begin(&gateway).await;
    let head = block(&get(&[]));
    let mut flood = Vec::new();
    for stream in streams(3_000) {
        flood.extend(frame(HEADERS, WHOLE, stream, &head));
        flood.extend(frame(RST_STREAM, 0, stream, &8_u32.to_be_bytes()));
    }
    talk.say(&flood).await;
    let goaway = talk.until(GOAWAY).await.expect("GOAWAY");
    assert_eq!(goaway.error(), Some(ENHANCE_YOUR_CALM));
    others_are_served(&gateway).await;
}

/// The gateway is made to reset the streams itself, in each way there is: windows that do not move or
/// move too far, frames after the end, priorities that are none, heads and lengths that are wrong.
#[tokio::test]
async fn h2_02_streams_that_the_gateway_is_made_to_reset_end_the_connection() {
    const PRIORITY: u8 = 2;
    type Form = (&'static str, &'static [(&'static str, &'static str)], u8, fn(u32) -> Vec<u8>);
    let forms: [Form; 8] = [
        ("a window that does not move", &[], WHOLE, |id| frame(WINDOW_UPDATE, 0, id, &[0; 4])),
        ("a window beyond all bounds", &[], WHOLE, |id| {
            frame(WINDOW_UPDATE, 0, id, &0x7fff_ffff_u32.to_be_bytes())
        }),
        ("DATA after the end", &[], WHOLE, |id| frame(DATA, 0, id, b"late")),
        ("HEADERS after the end", &[], WHOLE, |id| {
            frame(HEADERS, WHOLE, id, &block(&[("late", "1")]))
        }),
        ("a priority of four bytes", &[], WHOLE, |id| frame(PRIORITY, 0, id, &[0; 4])),
        ("a stream that depends on itself", &[], WHOLE, |id| {
            frame(PRIORITY, 0, id, &[id.to_be_bytes().as_slice(), &[1]].concat())
        }),
        ("a body shorter than it says", &[("content-length", "9")], END_HEADERS, |id| {
            frame(DATA, END_STREAM, id, b"short")
        }),
        ("a field of a connection", &[("connection", "close")], WHOLE, |_| Vec::new()),
    ];
    for (name, fields, flags, then) in forms {
        let (recorder, gateway) = start().await;
        let mut talk = Talk::begin(&gateway).await;
        let head = block(&get(fields));
        let mut flood = Vec::new();
        for stream in streams(3_000) {
            flood.extend(frame(HEADERS, flags, stream, &head));
            flood.extend(then(stream));
        }
        talk.say(&flood).await;
        assert!(talk.until(GOAWAY).await.is_some(), "{name}");
        assert!(recorder.begun() < 1_000, "{name}: {} for the service", recorder.begun());
        others_are_served(&gateway).await;
    }
}

#[tokio::test]
async fn h2_03_a_head_without_end_ends_the_connection() {
    let (recorder, gateway) = start().await;
    for part in [&b""[..], &block(&[("x", "y")])] {
        let mut talk = Talk::begin(&gateway).await;
        talk.say(&frame(HEADERS, END_STREAM, 1, &block(&get(&[])))).await;
        talk.say(&frame(CONTINUATION, 0, 1, part).repeat(10_000)).await;
        assert!(talk.until(GOAWAY).await.is_some(), "{} bytes each", part.len());
    }
    assert_eq!(recorder.begun(), 0);
    others_are_served(&gateway).await;
}

#[tokio::test]
async fn h2_04_empty_data_without_end_ends_the_connection() {
    let (_recorder, gateway) = start().await;
    let mut talk = Talk::begin(&gateway).await;
    talk.say(&frame(HEADERS, END_HEADERS, 1, &block(&get(&[])))).await;
    talk.say(&frame(DATA, 0, 1, &[]).repeat(20_000)).await;
    assert!(talk.until(GOAWAY).await.is_some());
    others_are_served(&gateway).await;
}

#[tokio::test]
async fn h2_07_a_head_that_is_too_large_is_refused() {
    let (recorder, gateway) = start().await;
    let large = "x".repeat(80 * 1024);
    let mut request = client::get("/");
    request.headers_mut().insert("x-large", large.parse().unwrap());
    let refused = client::h2c(gateway.http).await.try_send(request).await;
    assert!(refused.is_err() || refused.is_ok_and(|(head, ..)| head.status == 431));
    assert_eq!(recorder.begun(), 0);
    others_are_served(&gateway).await;
}

#[tokio::test]
async fn h2_08_many_small_fields_are_refused() {
    let (recorder, gateway) = start().await;
    let mut request = client::get("/");
    for n in 0..300 {
        let name = http::HeaderName::try_from(format!("x-{n}")).unwrap();
        request.headers_mut().insert(name, "y".parse().unwrap());
    }
    let (head, ..) = client::h2c(gateway.http).await.send(request).await;
    assert_eq!(head.status, 431);
    assert_eq!(gateway.metric(r#"sluice_rejected_total{reason="head_too_large"}"#).await, 1.0);
    assert_eq!(recorder.begun(), 0);
}

#[tokio::test]
async fn h2_12_streams_beyond_the_limit_are_refused() {
    let recorder = Recorder::answering(Answer::ok("late").delay(Duration::from_secs(2)));
    let gateway = Gateway::start(&passing(recorder.addr())).await;
    let mut talk = Talk::begin(&gateway).await;
    let head = block(&get(&[]));
    let all: Vec<u8> =
        streams(103).flat_map(|stream| frame(HEADERS, WHOLE, stream, &head)).collect();
    talk.say(&all).await;
    for expected in [201, 203, 205] {
        let reset = talk.until(RST_STREAM).await.expect("RST_STREAM");
        assert_eq!((reset.stream, reset.error()), (expected, Some(REFUSED_STREAM)));
    }
}

/// None of these may reach the service, or become a line of its own over HTTP/1.
async fn never_forwarded(heads: &[Vec<(&str, &str)>]) {
    let (recorder, gateway) = start().await;
    for fields in heads {
        let mut talk = Talk::begin(&gateway).await;
        talk.say(&frame(HEADERS, WHOLE, 1, &block(fields))).await;
        let mut ended = false;
        while let Some(frame) = talk.next().await {
            // A refusal is an answer, a reset or a farewell.
            ended = matches!(frame.kind, HEADERS | RST_STREAM | GOAWAY);
            if ended {
                break;
            }
        }
        assert!(ended, "{fields:?}: nothing was said");
        assert_eq!(recorder.begun(), 0, "{fields:?} reached the service");
    }
    others_are_served(&gateway).await;
}

#[tokio::test]
async fn h2_13_pseudo_header_fields_are_what_they_should_be() {
    let without = |name: &str| get(&[]).into_iter().filter(|(n, _)| *n != name).collect();
    never_forwarded(&[
        without(":method"),
        without(":scheme"),
        without(":path"),
        get(&[(":path", "/twice")]),
        get(&[(":method", "POST")]),
        get(&[(":unknown", "x")]),
        get(&[(":status", "200")]),
        get(&[("x", "y"), (":late", "x")]),
        vec![(":method", "GET"), (":scheme", "http"), (":authority", "a"), (":path", "")],
        vec![(":method", "GET"), (":scheme", "http"), (":authority", "a"), (":path", "relative")],
    ])
    .await;
}

#[tokio::test]
async fn h2_14_nothing_makes_a_new_line_over_http1() {
    never_forwarded(&[
        get(&[("x", "a\r\nx-injected: 1")]),
        get(&[("x", "a\nb")]),
        get(&[("x", "a\0b")]),
        get(&[("X-Upper", "y")]),
        get(&[("x y", "z")]),
        get(&[("x\r\ny", "z")]),
        get(&[("", "z")]),
        vec![
            (":method", "GET /a HTTP/1.1\r\nx: y"),
            (":scheme", "http"),
            (":authority", "a"),
            (":path", "/"),
        ],
        vec![
            (":method", "GET"),
            (":scheme", "http"),
            (":authority", "a"),
            (":path", "/ HTTP/1.1\r\nx: y"),
        ],
        vec![(":method", "GET"), (":scheme", "http"), (":authority", "a\r\nx: y"), (":path", "/")],
    ])
    .await;
}

#[tokio::test]
async fn h2_15_fields_of_a_connection_have_no_place() {
    never_forwarded(&[
        get(&[("connection", "close")]),
        get(&[("keep-alive", "timeout=5")]),
        get(&[("proxy-connection", "keep-alive")]),
        get(&[("transfer-encoding", "chunked")]),
        get(&[("upgrade", "websocket")]),
        get(&[("te", "gzip")]),
    ])
    .await;
}

#[tokio::test]
async fn h2_16_a_length_is_the_length_of_the_body() {
    let (recorder, gateway) = start().await;
    for (length, body) in [("10", &b"short"[..]), ("3", b"longer")] {
        let mut talk = Talk::begin(&gateway).await;
        let fields = vec![
            (":method", "POST"),
            (":scheme", "http"),
            (":authority", "a"),
            (":path", "/"),
            ("content-length", length),
        ];
        talk.say(&frame(HEADERS, END_HEADERS, 1, &block(&fields))).await;
        talk.say(&frame(DATA, END_STREAM, 1, body)).await;
        assert!(talk.until(RST_STREAM).await.is_some(), "{length} for {}", body.len());
    }
    never_forwarded(&[get(&[("content-length", "10")])]).await;
    assert!(recorder.requests().iter().all(|request| !request.complete));
}

#[tokio::test]
async fn h2_18_paths_and_schemes_are_what_the_listener_serves() {
    let with = |path, scheme| {
        vec![(":method", "GET"), (":scheme", scheme), (":authority", "a"), (":path", path)]
    };
    never_forwarded(&[with("*", "http"), with("/", "ftp"), with("/", "https")]).await;
}

#[tokio::test]
async fn h2_23_nobody_connects_through_the_gateway() {
    let (recorder, gateway) = start().await;
    let mut talk = Talk::begin(&gateway).await;
    let connect = block(&[(":method", "CONNECT"), (":authority", "a:443")]);
    talk.say(&frame(HEADERS, END_HEADERS, 1, &connect)).await;
    assert!(talk.until(HEADERS).await.is_some());
    assert_eq!(gateway.metric(r#"sluice_rejected_total{reason="method_refused"}"#).await, 1.0);
    assert_eq!(recorder.begun(), 0);
}

#[tokio::test]
async fn h2_19_blanks_around_a_value_do_not_travel() {
    let (recorder, gateway) = start().await;
    let mut talk = Talk::begin(&gateway).await;
    let head = block(&get(&[("x-padded", " \tvalue\t ")]));
    talk.say(&frame(HEADERS, WHOLE, 1, &head)).await;
    assert!(talk.until(HEADERS).await.is_some());
    assert_eq!(recorder.wait_for(1).await[0].header("x-padded"), Some("value"));
}

#[tokio::test]
async fn h2_27_trailers_do_not_pose_as_fields() {
    let (recorder, gateway) = start().await;
    let mut talk = Talk::begin(&gateway).await;
    let head = [(":method", "POST"), (":scheme", "http"), (":authority", "a"), (":path", "/")];
    let trailers =
        [("host", "evil"), ("content-length", "9"), ("authorization", "x"), ("x-y", "z")];
    talk.say(&frame(HEADERS, END_HEADERS, 1, &block(&head))).await;
    talk.say(&frame(DATA, 0, 1, b"body")).await;
    talk.say(&frame(HEADERS, WHOLE, 1, &block(&trailers))).await;
    assert!(talk.until(HEADERS).await.is_some());
    let seen = &recorder.wait_for(1).await[0];
    assert_eq!((seen.text().as_str(), seen.trailers.len()), ("body", 0));
    assert_eq!((seen.all("host"), seen.header("authorization")), (vec!["a"], None));
}

#[tokio::test]
async fn h2_30_settings_may_change_their_mind() {
    let (_recorder, gateway) = start().await;
    let mut talk = Talk::begin(&gateway).await;
    let setting = |id: u8, value: u32| [&[0, id][..], &value.to_be_bytes()].concat();
    let turns = [
        [setting(4, 0), setting(1, 0)].concat(),
        [setting(4, 0x7fff_ffff), setting(1, 4096)].concat(),
    ];
    for turn in turns.iter().cycle().take(900) {
        talk.say(&frame(SETTINGS, 0, 0, turn)).await;
    }
    talk.say(&frame(HEADERS, WHOLE, 1, &block(&get(&[])))).await;
    assert!(talk.until(HEADERS).await.is_some(), "the last windows were wide open");
}

/// Shows W-11.
#[tokio::test]
async fn websocket_over_http2_is_not_offered() {
    let (_recorder, gateway) = start().await;
    let mut talk = Talk::begin(&gateway).await;
    let settings = talk.until(SETTINGS).await.expect("SETTINGS");
    // RFC 8441 section 3: SETTINGS_ENABLE_CONNECT_PROTOCOL.
    assert!(settings.payload.chunks(6).all(|setting| setting[..2] != [0, 8]), "{settings:?}");
}

/// Nothing can be said before the answer over HTTP/2, so a client that waits for leave goes on when its own
/// patience ends; the body is taken as it comes, and a refusal does not wait for it.
#[tokio::test]
async fn h2_22_a_body_that_waits_for_leave_is_read_as_it_comes() {
    let recorder = Recorder::start();
    let config = passing(recorder.addr()).replace("path: \"/**\"", "path: /known");
    let gateway = Gateway::start(&config).await;
    let head = |path| {
        block(&[
            (":method", "POST"),
            (":scheme", "http"),
            (":authority", "a"),
            (":path", path),
            ("content-length", "5"),
            ("expect", "100-continue"),
        ])
    };
    let mut talk = Talk::begin(&gateway).await;
    talk.say(&frame(HEADERS, END_HEADERS, 1, &head("/known"))).await;
    // The service has the head before the body is there.
    recorder.wait_for_begun(1).await;
    talk.say(&frame(DATA, END_STREAM, 1, b"hello")).await;
    assert!(talk.until(HEADERS).await.is_some_and(|frame| frame.stream == 1));
    let seen = &recorder.wait_for(1).await[0];
    assert_eq!((seen.text().as_str(), seen.header("expect")), ("hello", None));
    talk.say(&frame(HEADERS, END_HEADERS, 3, &head("/unknown"))).await;
    assert!(talk.until(HEADERS).await.is_some_and(|frame| frame.stream == 3));
    assert_eq!(gateway.log_lines(2).await[1]["reason"], "no_route");
}
