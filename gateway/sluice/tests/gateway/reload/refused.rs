//! Configs that must not come into force: the old table stays, and the operator is told why.

use super::{edited, rename_over, wait_for_rejected};
use crate::support::{Gateway, eventually};

const CONFIG: &str = r#"
upstreams: { echo: { builtin: echo } }
routes:
  - { id: one, match: { path: /one }, upstream: echo }
  - { id: two, match: { path: /two }, upstream: echo }
  - { id: three, match: { path: /three }, upstream: echo }
  - { id: four, match: { path: /four }, upstream: echo }
  - { id: five, match: { path: /five }, upstream: echo }
"#;
const FEW: &str = r#"
upstreams: { echo: { builtin: echo } }
routes:
  - { id: one, match: { path: /one }, upstream: echo }
  - { id: two, match: { path: /two }, upstream: echo }
"#;

/// The line and column of a text in a file, both from 1.
fn place(text: &str, of: &str) -> String {
    let at = text.find(of).unwrap_or_else(|| panic!("{of:?} is not in the file"));
    let before = &text[..at];
    let column = at - before.rfind('\n').map_or(0, |newline| newline + 1) + 1;
    format!("{}:{column}", before.matches('\n').count() + 1)
}

#[tokio::test]
async fn every_problem_is_told_with_its_place_and_the_old_table_stays() {
    let gateway = Gateway::start(CONFIG).await;
    let hash = gateway.admin("/config").await.json()["hash"].clone();
    let good = edited(&gateway, "{ id: five", "{ id: fifth");
    // What cannot be read hides what it would have meant, so these are two files.
    let misread = good.replace("builtin: echo", "builtin: ecko").replacen("path:", "pth:", 1);
    let misled = good.replacen("upstream: echo", "upstream: eco", 1).replace("four,", "one,");
    let twin = place(&misled, &misled[misled.rfind("one,").unwrap()..]);
    let files = [
        (&misread, [place(&misread, "ecko"), place(&misread, "pth")]),
        (&misled, [place(&misled, "eco }"), twin]),
    ];
    for (nth, (text, places)) in (1..).zip(files) {
        rename_over(&gateway, text);
        wait_for_rejected(&gateway, nth).await;
        let page = gateway.admin("/config").await.json();
        let problems = page["last_problems"].as_str().unwrap();
        assert!(problems.contains("2 errors"), "{problems}");
        for place in places {
            let problem = format!("{}:{place}: error: ", gateway.config_path().display());
            assert!(problems.contains(&problem), "no {problem} in {problems}");
            gateway.daemon.wait_for_output(&problem).await;
        }
        assert_eq!(page["last_reload_successful"], false);
        assert_eq!((&page["hash"], page["generation"].as_u64()), (&hash, Some(1)));
        assert_eq!(gateway.metric("sluice_config_last_reload_successful").await, 0.0);
        for path in ["/one", "/two", "/three", "/four", "/five"] {
            let answer = gateway.get(path).await;
            assert_eq!((answer.status, answer.json()["route"].as_str()), (200, Some(&path[1..])));
        }
    }
    rename_over(&gateway, &good);
    gateway.wait_for_generation(2).await;
    assert_eq!(gateway.metric("sluice_config_last_reload_successful").await, 1.0);
    assert_eq!(gateway.get("/five").await.json()["route"], "fifth");
}

#[tokio::test]
async fn a_file_cut_short_is_taken_for_an_accident() {
    let gateway = Gateway::start(CONFIG).await;
    std::fs::write(gateway.config_path(), "").unwrap();
    wait_for_rejected(&gateway, 1).await;
    assert_eq!(gateway.get("/five").await.status, 200);

    gateway.write_config(FEW);
    wait_for_rejected(&gateway, 2).await;
    let page = gateway.admin("/config").await.json();
    let problems = page["last_problems"].as_str().unwrap();
    assert!(problems.contains("only 2 of 5 routes are left"), "{problems}");
    assert_eq!((gateway.get("/five").await.status, page["routes"].as_u64()), (200, Some(5)));

    gateway.write_config(&format!("allow_shrink: true\n{FEW}"));
    gateway.wait_for_generation(2).await;
    assert_eq!(gateway.get("/two").await.status, 200);
    assert_eq!(gateway.get("/five").await.status, 404);
}

#[tokio::test]
async fn a_panic_while_compiling_is_a_refused_reload() {
    let good = "upstreams: { echo: { builtin: echo } }\n\
        routes: [ { id: all, match: { path: /** }, upstream: echo } ]\n";
    let gateway = Gateway::start(good).await;
    for rejected in 1..=2 {
        gateway.write_config(&good.replace("echo }", "panic_when_compiled }"));
        eventually("the reload to be refused", async || {
            let metric = "sluice_config_reloads_total{result=\"rejected\"}";
            gateway.metric(metric).await >= f64::from(rejected)
        })
        .await;
        assert!(gateway.admin("/config").await.text().contains("made the compiler fail"));
        assert_eq!(gateway.get("/x").await.status, 200);
        // What comes after it is taken.
        gateway.write_config(&good.replace("all,", &format!("all{rejected},")));
        gateway.wait_for_generation(1 + u64::try_from(rejected).unwrap()).await;
    }
}
