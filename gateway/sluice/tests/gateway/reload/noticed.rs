//! Every way in which a config file is replaced in practice.

use std::os::unix::fs::symlink;

use super::{edited, rename_over, wait_for_rejected};
use crate::support::Gateway;

const CONFIG: &str = r#"
routes:
  - { id: version, match: { path: /version }, filters: [ { respond: { body: "one" } } ] }
"#;

async fn version(gateway: &Gateway) -> String {
    let answer = gateway.get("/version").await;
    assert_eq!(answer.status, 200);
    answer.text()
}

#[tokio::test]
async fn a_file_renamed_over_written_in_place_or_linked_anew_is_reloaded() {
    let gateway = Gateway::start(CONFIG).await;
    assert_eq!(version(&gateway).await, "one");

    rename_over(&gateway, &edited(&gateway, "one", "two"));
    gateway.wait_for_generation(2).await;
    assert_eq!(version(&gateway).await, "two");

    std::fs::write(gateway.config_path(), edited(&gateway, "two", "three")).unwrap();
    gateway.wait_for_generation(3).await;
    assert_eq!(version(&gateway).await, "three");

    // As Kubernetes mounts a ConfigMap: the file is a link through `..data`, which is swapped.
    let folder = gateway.folder();
    let version_folder = |name: &str, text: String| {
        std::fs::create_dir(folder.join(name)).unwrap();
        std::fs::write(folder.join(name).join("routes.yaml"), text).unwrap();
    };
    version_folder("..v1", edited(&gateway, "three", "three"));
    symlink("..v1", folder.join("..data")).unwrap();
    symlink("..data/routes.yaml", folder.join("link")).unwrap();
    std::fs::rename(folder.join("link"), gateway.config_path()).unwrap();
    version_folder("..v2", edited(&gateway, "three", "four"));
    symlink("..v2", folder.join("..data_tmp")).unwrap();
    std::fs::rename(folder.join("..data_tmp"), folder.join("..data")).unwrap();
    std::fs::remove_dir_all(folder.join("..v1")).unwrap();
    gateway.wait_for_generation(4).await;
    assert_eq!(version(&gateway).await, "four");
    assert_eq!(gateway.metric("sluice_config_reloads_total{result=\"accepted\"}").await, 3.0);
    assert_eq!(gateway.metric("sluice_config_reloads_total{result=\"rejected\"}").await, 0.0);
}

/// Shows G-03.
#[tokio::test]
async fn a_hang_up_reloads_even_what_looks_the_same() {
    let gateway = Gateway::start(CONFIG).await;
    gateway.daemon.signal("HUP");
    gateway.wait_for_generation(2).await;
    assert_eq!(version(&gateway).await, "one");
}

#[tokio::test]
async fn a_file_that_goes_and_comes_back_never_stops_the_gateway() {
    let gateway = Gateway::start(CONFIG).await;
    let text = std::fs::read_to_string(gateway.config_path()).unwrap();
    std::fs::remove_file(gateway.config_path()).unwrap();
    wait_for_rejected(&gateway, 1).await;
    assert_eq!(version(&gateway).await, "one");
    let page = gateway.admin("/config").await.json();
    assert!(page["last_problems"].as_str().unwrap().contains("cannot be read"), "{page}");
    assert_eq!(gateway.metric("sluice_config_last_reload_successful").await, 0.0);

    std::fs::write(gateway.config_path(), text).unwrap();
    gateway.wait_for_generation(2).await;
    assert_eq!(version(&gateway).await, "one");
    assert_eq!(gateway.metric("sluice_config_last_reload_successful").await, 1.0);
    assert_eq!(gateway.admin("/config").await.json()["last_problems"], serde_json::Value::Null);
}
