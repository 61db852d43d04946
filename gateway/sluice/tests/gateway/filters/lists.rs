//! Addresses in a file: read again when it changes, and never replaced by what is not understood.

use crate::support::{Gateway, Setup, eventually};

const CONFIG: &str = r#"
trusted_proxies: [ 127.0.0.1 ]
upstreams: { echo: { builtin: echo } }
routes:
  - { id: deny, match: { path: /deny }, upstream: echo, filters: [ { ip_rules: { deny_file: deny.txt } } ] }
  - { id: allow, match: { path: /allow }, upstream: echo, filters: [ { ip_rules: { allow: [ 203.0.113.0/24 ], allow_file: allow.txt } } ] }
"#;

async fn from(gateway: &Gateway, path: &str, address: &str) -> u16 {
    let headers = [("X-Forwarded-For", address)];
    gateway.client().await.request("GET", path, "localhost", &headers, b"").await.status
}

#[tokio::test]
async fn lists_change_without_a_new_config_and_bad_ones_change_nothing() {
    let files = vec![("deny.txt", "# none\n".to_owned()), ("allow.txt", String::new())];
    let mut gateway = Gateway::start_with(CONFIG, Setup { files, ..Setup::default() }).await;
    let write = |name: &str, text: &str| {
        let new = gateway.folder().join("new.txt");
        std::fs::write(&new, text).unwrap();
        std::fs::rename(new, gateway.folder().join(name)).unwrap();
    };
    assert_eq!(from(&gateway, "/deny", "198.51.100.7").await, 200);
    assert_eq!(
        from(&gateway, "/allow", "198.51.100.7").await,
        403,
        "an empty list is a closed one"
    );
    assert_eq!(from(&gateway, "/allow", "203.0.113.9").await, 200);
    write("deny.txt", "198.51.100.0/24 # an attack\n2001:db8::/32\n");
    write("allow.txt", "198.51.100.7\n");
    eventually("the lists to be read", async || {
        from(&gateway, "/deny", "198.51.100.7").await == 403
            && from(&gateway, "/allow", "198.51.100.7").await == 200
    })
    .await;
    assert_eq!(from(&gateway, "/deny", "2001:db8::1").await, 403);
    assert_eq!(from(&gateway, "/deny", "192.0.2.1").await, 200);
    assert!(gateway.metric("sluice_config_generation").await < 1.5, "the config is the same");
    write("deny.txt", "192.0.2.0/24\nnonsense\n");
    gateway.daemon.wait_for_output("deny.txt:2:").await;
    assert_eq!(from(&gateway, "/deny", "198.51.100.7").await, 403, "what was good stays");
    assert_eq!(from(&gateway, "/deny", "192.0.2.1").await, 200, "nothing of what is bad counts");
    std::fs::remove_file(gateway.folder().join("deny.txt")).unwrap();
    gateway.daemon.wait_for_output("cannot be read").await;
    assert_eq!(from(&gateway, "/deny", "198.51.100.7").await, 403);
    assert!(gateway.daemon.is_running());
}
