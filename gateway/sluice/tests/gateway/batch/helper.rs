//! The client's side of batches, `examples/batch/batch.js`, run by Node against a gateway.

use std::path::Path;

use serde_json::Value;

use super::start;
use crate::tokens::Key;

#[tokio::test]
async fn the_helper_merges_what_is_asked_within_50_ms() {
    let gateway = start(&Key::new("HS256"), "").await;
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/batch/try.js");
    let mut node = std::process::Command::new("node");
    node.arg(script).arg(format!("http://{}", gateway.http));
    let output = tokio::task::spawn_blocking(move || node.output()).await.unwrap();
    let output = output.expect("node is needed: cargo xtask tools");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    let lines: Vec<Value> = said.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let of =
        |name: &str| -> Vec<&Value> { lines.iter().filter(|line| line["name"] == name).collect() };
    let together = of("together");
    assert_eq!(together[0]["data"]["path"], "/open/1");
    assert_eq!(together[1]["data"]["query"], "x=y");
    assert_eq!(together[0]["data"]["headers"]["x-page"], "home");
    assert_eq!(together[2]["statusCode"], 404);
    assert_eq!(of("referring")[1]["data"]["path"], "/open/open", "{said}");
    assert_eq!(of("alone")[0]["statusCode"], 200);
    assert_eq!(of("write")[0]["data"]["body"], r#"{"a":1}"#);
    assert_eq!(of("merged write")[0]["data"]["body"], r#"{"a":2}"#);
    assert_eq!(of("many").iter().filter(|line| line["statusCode"] == 200).count(), 25);
    // What went over the network: 3 and 2 calls in a batch each, 2 by themselves, 2 in a batch, 20 and 5.
    let log = gateway.log_lines(5 + 32 + 2).await;
    let sent: Vec<&Value> = log.iter().filter(|line| line["batch"] != true).collect();
    let to = |route: &str| sent.iter().filter(|line| line["route"] == route).count();
    assert_eq!((to("batch"), to("open"), to("writes"), sent.len()), (5, 1, 1, 7), "{sent:?}");
}
