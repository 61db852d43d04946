//! Bodies are not looked into: what is packed stays packed, however often and however tightly.

use sluice_chaos::recorder::{Answer, Recorder};

use crate::configs::passing;
use crate::support::Gateway;

/// A gzip member of 1 GiB of zeros would be 1 MiB; a run of its blocks does as well, since nobody may
/// unpack it.
fn bomb() -> Vec<u8> {
    let mut bytes = vec![0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0xff];
    bytes.extend([0xed, 0xc1, 1, 1, 0, 0, 0, 0x80, 0x90, 0xfe].repeat(20_000));
    bytes
}

#[tokio::test]
async fn hd_15_compressed_bodies_pass_as_they_are() {
    let body = bomb();
    let packed = Answer::ok(body.clone()).header("Content-Encoding", "gzip");
    let recorder = Recorder::answering(packed);
    let gateway = Gateway::start(&passing(recorder.addr())).await;
    let headers = [("Accept-Encoding", "gzip"), ("Content-Encoding", "gzip")];
    let answer = gateway.client().await.request("POST", "/", "a", &headers, &body).await;
    assert_eq!((answer.status, answer.header("content-encoding")), (200, Some("gzip")));
    assert!(answer.body == body, "the answer was changed");
    let seen = &recorder.wait_for(1).await[0];
    assert_eq!(seen.header("content-encoding"), Some("gzip"));
    assert_eq!(seen.header("accept-encoding"), Some("gzip"));
    assert!(seen.body == body, "the request was changed");
}

#[tokio::test]
async fn hd_16_layers_of_compression_are_not_counted_or_removed() {
    let layers = vec!["gzip"; 50].join(", ");
    let packed = Answer::ok(bomb()).header("Content-Encoding", &layers);
    let recorder = Recorder::answering(packed);
    let gateway = Gateway::start(&passing(recorder.addr())).await;
    let answer = gateway.get("/").await;
    assert_eq!(answer.header("content-encoding"), Some(layers.as_str()));
    assert!(answer.body == bomb(), "the answer was changed");
}
