//! What a client is offered: certificates by name, protocols, versions, resumption.

use std::net::SocketAddr;
use std::process::{Command, Stdio};

use sluice_chaos::client;
use sluice_chaos::pki::{Authority, client_config};
use sluice_chaos::process::tool;
use sluice_chaos::raw::Client;

use crate::support::{Gateway, Setup, WITH_TLS, eventually};

const CONFIG: &str = r#"
upstreams: { echo: { builtin: echo } }
routes: [ { id: all, upstream: echo } ]
"#;
const GOODBYE: &str = "GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";

/// What `openssl s_client` tells of a connection, on which it sends one request. Its exit status is
/// the verdict on the handshake.
pub(super) fn s_client(addr: SocketAddr, args: &[&str]) -> Result<String, String> {
    use std::io::Write as _;
    let mut command = Command::new(tool("openssl"));
    command.args(["s_client", "-ign_eof", "-connect", &addr.to_string()]).args(args);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    // A refused handshake closes the pipe early.
    let _ = child.stdin.take().unwrap().write_all(GOODBYE.as_bytes());
    let output = child.wait_with_output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    if output.status.success() {
        Ok(text(&output.stdout))
    } else {
        Err(text(&output.stderr) + &text(&output.stdout))
    }
}

/// The common name of the certificate that is shown under this name.
fn leaf(addr: SocketAddr, name: Option<&str>) -> Result<String, String> {
    let sni = name.map_or_else(|| vec!["-noservername"], |name| vec!["-servername", name]);
    let said = s_client(addr, &sni)?;
    let subject = said.lines().find_map(|line| line.trim().strip_prefix("subject="));
    let subject = subject.unwrap_or_else(|| panic!("no subject in {said}"));
    Ok(subject.rsplit("CN = ").next().unwrap().trim().to_owned())
}

const THREE: &str = r#"listeners:
  - { name: plain, address: "{http}" }
  - name: tls
    address: "{https}"
    tls:
      certificates:
        - { cert_file: exact.pem, key_file: exact.key }
        - { cert_file: wild.pem, key_file: wild.key }
        - { cert_file: other.pem, key_file: other.key, default: true }
"#;

fn three(authority: &Authority) -> Vec<(&'static str, String)> {
    let exact = authority.issue(&["a.test", "x.b.test"]);
    let wild = authority.issue(&["*.b.test"]);
    let other = authority.issue(&["other.test"]);
    vec![
        ("exact.pem", exact.cert_pem),
        ("exact.key", exact.key_pem),
        ("wild.pem", wild.cert_pem),
        ("wild.key", wild.key_pem),
        ("other.pem", other.cert_pem),
        ("other.key", other.key_pem),
    ]
}

/// Shows T-06.
#[tokio::test]
async fn the_name_decides_which_certificate_is_shown() {
    let authority = Authority::new();
    let setup = Setup { listeners: Some(THREE), files: three(&authority), ..Setup::default() };
    let gateway = Gateway::start_with(CONFIG, setup).await;
    for (name, shown) in [
        (Some("a.test"), "a.test"),
        (Some("A.Test"), "a.test"),
        (Some("x.b.test"), "a.test"),
        (Some("y.b.test"), "*.b.test"),
        (Some("z.y.b.test"), "other.test"),
        (Some("b.test"), "other.test"),
        (Some("other.test"), "other.test"),
        (Some("unknown.test"), "other.test"),
        (None, "other.test"),
    ] {
        assert_eq!(leaf(gateway.https, name).unwrap(), shown, "{name:?}");
    }
    let trust = client_config(&authority, &[]);
    let mut client = Client::connect_tls(gateway.https, "y.b.test", trust).await;
    let answer = client.request("GET", "/", "y.b.test", &[], b"").await;
    assert_eq!((answer.status, answer.json()["host"].as_str()), (200, Some("y.b.test")));
}

/// Shows T-06.
#[tokio::test]
async fn without_a_default_an_unknown_name_is_refused() {
    let authority = Authority::new();
    let none = THREE.replace(", default: true", "");
    let listeners: &'static str = Box::leak(none.into_boxed_str());
    let setup = Setup { listeners: Some(listeners), files: three(&authority), ..Setup::default() };
    let gateway = Gateway::start_with(CONFIG, setup).await;
    assert_eq!(leaf(gateway.https, Some("other.test")).unwrap(), "other.test");
    for name in [Some("unknown.test"), Some("z.y.b.test"), None] {
        assert!(leaf(gateway.https, name).is_err(), "{name:?}");
    }
    assert_eq!(gateway.metric("sluice_tls_handshake_errors_total").await, 3.0);
    assert_eq!(leaf(gateway.https, Some("a.test")).unwrap(), "a.test");
}

fn single(authority: &Authority) -> Vec<(&'static str, String)> {
    let pair = authority.issue(&["localhost", "127.0.0.1"]);
    vec![("cert.pem", pair.cert_pem), ("key.pem", pair.key_pem)]
}

#[tokio::test]
async fn protocols_and_versions_are_agreed_on() {
    let authority = Authority::new();
    let setup = Setup { listeners: Some(WITH_TLS), files: single(&authority), ..Setup::default() };
    let gateway = Gateway::start_with(CONFIG, setup).await;
    let offers: [(&[&str], Option<&[u8]>); 4] = [
        (&["h2", "http/1.1"], Some(b"h2")),
        (&["http/1.1", "h2"], Some(b"h2")),
        (&["http/1.1"], Some(b"http/1.1")),
        (&[], None),
    ];
    for (offered, agreed) in offers {
        let config = client_config(&authority, offered);
        let client = Client::connect_tls(gateway.https, "localhost", config).await;
        assert_eq!(client.alpn().as_deref(), agreed, "{offered:?}");
    }
    for (offered, h2) in [(&["h2"][..], true), (&["http/1.1"], false), (&[], false)] {
        let config = client_config(&authority, offered);
        let mut sender = client::tls(gateway.https, "localhost", config).await;
        let (head, body, _) = sender.send(client::get("/over/tls")).await;
        assert_eq!((head.status.as_u16(), sender.is_h2()), (200, h2));
        let shown: serde_json::Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(shown["path"], "/over/tls");
    }
    for (flag, version) in [("-tls1_2", "TLSv1.2"), ("-tls1_3", "TLSv1.3")] {
        let said = s_client(gateway.https, &[flag]).unwrap();
        assert!(said.contains(&format!("New, {version}, Cipher")), "{said}");
        assert!(said.contains("HTTP/1.1 200"), "{said}");
    }
    assert!(s_client(gateway.https, &["-tls1_1"]).is_err());
    assert!(Client::try_connect(gateway.https).await.is_ok());
    let mut clear = Client::connect(gateway.https).await;
    clear.send("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
    let said = clear.read_to_end().await;
    assert!(!said.starts_with(b"HTTP/"), "a TLS port spoke in the clear");
}

#[tokio::test]
async fn the_oldest_version_can_be_raised() {
    let authority = Authority::new();
    let listeners: &'static str = Box::leak(
        WITH_TLS
            .replace("tls: { certificates", "tls: { min_version: \"1.3\", certificates")
            .into_boxed_str(),
    );
    let setup = Setup { listeners: Some(listeners), files: single(&authority), ..Setup::default() };
    let gateway = Gateway::start_with(CONFIG, setup).await;
    assert!(s_client(gateway.https, &["-tls1_2"]).is_err());
    assert!(s_client(gateway.https, &["-tls1_3"]).unwrap().contains("HTTP/1.1 200"));

    // The listener takes the new rule with a reload, without closing.
    let text = std::fs::read_to_string(gateway.config_path()).unwrap();
    std::fs::write(gateway.config_path(), text.replace("\"1.3\"", "\"1.2\"")).unwrap();
    gateway.wait_for_generation(2).await;
    assert!(s_client(gateway.https, &["-tls1_2"]).unwrap().contains("HTTP/1.1 200"));
}

#[tokio::test]
async fn sessions_are_resumed_over_reloads_too() {
    let authority = Authority::new();
    let setup = Setup { listeners: Some(WITH_TLS), files: single(&authority), ..Setup::default() };
    let gateway = Gateway::start_with(CONFIG, setup).await;
    let session = gateway.folder().join("session");
    let session = session.to_str().unwrap();
    for (nth, (flag, version)) in (2..).zip([("-tls1_2", "TLSv1.2"), ("-tls1_3", "TLSv1.3")]) {
        let first = s_client(gateway.https, &[flag, "-sess_out", session]).unwrap();
        assert!(first.contains(&format!("New, {version}")), "{first}");
        let second = s_client(gateway.https, &[flag, "-sess_in", session]).unwrap();
        assert!(second.contains(&format!("Reused, {version}")), "{second}");
        gateway.daemon.signal("HUP");
        gateway.wait_for_generation(nth).await;
        let third = s_client(gateway.https, &[flag, "-sess_in", session]).unwrap();
        assert!(third.contains(&format!("Reused, {version}")), "after a reload: {third}");
    }
}

/// Shows T-08.
#[tokio::test]
async fn old_versions_and_weak_ciphers_are_refused() {
    let authority = Authority::new();
    let setup = Setup { listeners: Some(WITH_TLS), files: single(&authority), ..Setup::default() };
    let gateway = Gateway::start_with(CONFIG, setup).await;
    let refusals = "sluice_tls_handshake_errors_total{reason=\"protocol\"}";
    // Lowered so far that the client really offers them.
    let offers: [&[&str]; 4] = [
        &["-tls1", "-cipher", "ALL:@SECLEVEL=0"],
        &["-tls1_1", "-cipher", "ALL:@SECLEVEL=0"],
        &["-tls1_2", "-cipher", "AES128-SHA:AES256-SHA256:@SECLEVEL=0"],
        &["-tls1_2", "-cipher", "ECDHE-ECDSA-AES128-SHA:@SECLEVEL=0"],
    ];
    for (nth, offer) in offers.iter().enumerate() {
        assert!(s_client(gateway.https, offer).is_err(), "{offer:?}");
        eventually("the refusal of what was offered", async || {
            gateway.metric(refusals).await >= (nth + 1) as f64
        })
        .await;
    }
}

/// Shows T-09.
#[tokio::test]
async fn early_data_is_not_offered() {
    let authority = Authority::new();
    let setup = Setup { listeners: Some(WITH_TLS), files: single(&authority), ..Setup::default() };
    let gateway = Gateway::start_with(CONFIG, setup).await;
    let path = |name: &str| gateway.folder().join(name).to_str().unwrap().to_owned();
    let (session, early) = (path("session"), path("early"));
    std::fs::write(&early, "GET /early HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
    let first = s_client(gateway.https, &["-tls1_3", "-sess_out", &session]).unwrap();
    assert!(first.contains("Max Early Data: 0"), "{first}");
    let again = ["-tls1_3", "-sess_in", &session, "-early_data", &early];
    let second = s_client(gateway.https, &again).unwrap();
    assert!(second.contains("Reused, TLSv1.3"), "{second}");
    assert!(second.contains("Early data was not sent"), "{second}");
}

/// Shows T-04, Z-02.
#[tokio::test]
async fn certificates_out_of_their_time_are_served_and_told_of() {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    let (now, day) = (now.as_secs(), 86_400);
    let authority = Authority::new();
    let mut files = Vec::new();
    for (cert, key, name, from, until) in [
        ("exact.pem", "exact.key", "soon.test", now - day, now + 5 * day + 3_600),
        ("wild.pem", "wild.key", "early.test", now + day, now + 90 * day),
        ("other.pem", "other.key", "over.test", now - 90 * day, now - day),
    ] {
        let pair = authority.issue_between(&[name], from, until);
        files.extend([(cert, pair.cert_pem), (key, pair.key_pem)]);
    }
    let setup = Setup { listeners: Some(THREE), files, ..Setup::default() };
    let gateway = Gateway::start_with(CONFIG, setup).await;
    for (name, told) in [
        ("soon.test", "a certificate is about to expire"),
        ("early.test", "a certificate is not valid yet"),
        ("over.test", "a certificate has expired"),
    ] {
        gateway.daemon.wait_for_output(told).await;
        assert_eq!(leaf(gateway.https, Some(name)).unwrap(), name);
    }
    let time = async |which: &str, name: &str| {
        let series = format!("sluice_tls_cert_{which}_timestamp_seconds{{sni=\"{name}\"}}");
        gateway.metric(&series).await
    };
    assert_eq!(time("not_after", "soon.test").await, (now + 5 * day + 3_600) as f64);
    assert_eq!(time("not_after", "over.test").await, (now - day) as f64);
    assert_eq!(time("not_before", "early.test").await, (now + day) as f64);
    // Once a day is enough: a reload does not say it again.
    gateway.daemon.signal("HUP");
    gateway.wait_for_generation(2).await;
    let said = gateway.daemon.output();
    assert_eq!(said.matches("a certificate has expired").count(), 1, "{said}");
}

/// Shows T-01.
#[tokio::test]
async fn a_slow_or_broken_handshake_costs_its_own_connection_only() {
    let authority = Authority::new();
    let setup = Setup {
        listeners: Some(Box::leak(
            WITH_TLS.replace("tls: {", "timeouts: { handshake: 300ms }, tls: {").into_boxed_str(),
        )),
        files: single(&authority),
        ..Setup::default()
    };
    let gateway = Gateway::start_with(CONFIG, setup).await;
    let mut silent = Client::connect(gateway.https).await;
    let mut garbage = Client::connect(gateway.https).await;
    garbage.send([0_u8; 64]).await;
    garbage.read_to_end().await;
    assert!(silent.closed_by_peer().await);
    eventually("both to be counted", async || {
        gateway.metric("sluice_tls_handshake_errors_total").await == 2.0
    })
    .await;
    let config = client_config(&authority, &["h2"]);
    let mut sender = client::tls(gateway.https, "localhost", config).await;
    assert_eq!(sender.send(client::get("/")).await.0.status.as_u16(), 200);
}
