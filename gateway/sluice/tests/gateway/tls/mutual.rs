//! Certificates of clients: who is let in, what services are told, and that a connection or a session
//! made where none is asked for opens no door where one is.

use std::net::SocketAddr;
use std::path::Path;

use sluice_chaos::pki::{Authority, Pair, client_config, client_config_as};
use sluice_chaos::raw::{Client, Response};
use sluice_chaos::recorder::{Answer, Recorder};
use sluice_chaos::{client, h2up};

use super::clients::s_client;
use crate::support::{Gateway, Setup, WITH_TLS, eventually};

/// `open.test` asks for nothing, `known.test` for a certificate, `maybe.test` takes one.
const LISTENERS: &str = r#"listeners:
  - { name: plain, address: "{http}" }
  - name: tls
    address: "{https}"
    tls:
      client_auth: { ca_file: ca.pem, crl_file: crl.pem }
      certificates:
        - cert_file: open.pem
          key_file: open.key
          default: true
          client_auth: { mode: none }
        - { cert_file: known.pem, key_file: known.key }
        - cert_file: maybe.pem
          key_file: maybe.key
          client_auth: { mode: optional, ca_file: ca.pem }
"#;
const REVOKED: u64 = 4711;

struct Place {
    gateway: Gateway,
    service: Recorder,
    /// Signs the certificates of the gateway.
    servers: Authority,
    /// Signs those of its clients.
    clients: Authority,
}

impl Place {
    async fn start() -> Self {
        let (servers, clients) = (Authority::new(), Authority::new());
        let service = Recorder::answering(Answer::ok("hello"));
        let config = format!(
            "upstreams: {{ up: {{ endpoints: [ {{ address: \"{}\" }} ] }} }}\n\
             routes: [ {{ id: all, match: {{ path: /** }}, upstream: up }} ]\n",
            service.addr()
        );
        let mut files = vec![("ca.pem", clients.pem()), ("crl.pem", clients.revoke(&[REVOKED]))];
        let open = servers.issue(&["open.test", "*.open.test"]);
        let known = servers.issue(&["known.test", "special.open.test"]);
        let maybe = servers.issue(&["maybe.test"]);
        for (cert, key, pair) in [
            ("open.pem", "open.key", open),
            ("known.pem", "known.key", known),
            ("maybe.pem", "maybe.key", maybe),
        ] {
            files.extend([(cert, pair.cert_pem), (key, pair.key_pem)]);
        }
        let setup = Setup { listeners: Some(LISTENERS), files, ..Setup::default() };
        let gateway = Gateway::start_with(&config, setup).await;
        Self { gateway, service, servers, clients }
    }

    /// One GET under this name, with this certificate.
    async fn get(&self, name: &str, pair: Option<&Pair>) -> Option<Response> {
        let alpn = ["http/1.1"];
        let config = match pair {
            None => client_config(&self.servers, &alpn),
            Some(pair) => client_config_as(&self.servers, &alpn, pair),
        };
        let connect = Client::try_connect_tls(self.gateway.https, name, config).await;
        let mut client = connect.ok()?;
        client.try_send(format!("GET / HTTP/1.1\r\nHost: {name}\r\n\r\n")).await.ok()?;
        client.try_response_to("GET").await
    }

    async fn refused(&self, reason: &str) -> f64 {
        let series = format!("sluice_tls_handshake_errors_total{{reason=\"{reason}\"}}");
        self.gateway.metric(&series).await
    }
}

#[tokio::test]
async fn t_11_only_good_certificates_of_clients_open_a_connection() {
    let place = Place::start().await;
    let known = place.clients.issue_client("alice.test");
    let bad = [
        ("none", None),
        ("of a stranger", Some(Authority::new().issue_client("alice.test"))),
        ("expired", Some(place.clients.issue_client_expired("alice.test"))),
        ("revoked", Some(place.clients.issue_client_numbered("alice.test", REVOKED))),
        ("of a server", Some(place.clients.issue(&["alice.test"]))),
    ];
    for (nth, (what, pair)) in bad.iter().enumerate() {
        assert!(place.get("known.test", pair.as_ref()).await.is_none(), "{what}");
        eventually("the refusal to be counted", async || {
            place.refused("client_certificate").await >= (nth + 1) as f64
        })
        .await;
    }
    assert_eq!(place.service.begun(), 0);
    assert_eq!(place.get("known.test", Some(&known)).await.unwrap().status, 200);
    // Where it is optional, none is fine and a bad one is not; the list of the others does not count.
    assert_eq!(place.get("maybe.test", None).await.unwrap().status, 200);
    for (what, pair) in bad.iter().filter(|(what, _)| !matches!(*what, "none" | "revoked")) {
        assert!(place.get("maybe.test", pair.as_ref()).await.is_none(), "{what}");
    }
    assert_eq!(place.get("open.test", None).await.unwrap().status, 200);
}

/// Shows T-11, HD-06.
#[tokio::test]
async fn services_and_the_log_are_told_whose_certificate_was_shown() {
    let place = Place::start().await;
    let pair = place.clients.issue_client("alice.test");
    let forged = "x-client-cert-cn: root\r\nX-Client-Cert-Sha256: 00\r\nx-client-cert-new: 1\r\n\
        client-cert: :AAAA:\r\nX-Forwarded-Client-Cert: By=x\r\nx_client_cert_cn: root\r\n";
    let said = |name: &str| {
        format!("GET / HTTP/1.1\r\nHost: {name}\r\nConnection: x-client-cert-cn\r\n{forged}\r\n")
    };
    for (name, shown) in [("known.test", true), ("maybe.test", true), ("open.test", false)] {
        let config = client_config_as(&place.servers, &["http/1.1"], &pair);
        let mut client = Client::connect_tls(place.gateway.https, name, config).await;
        client.send(said(name)).await;
        assert_eq!(client.response().await.status, 200);
        let seen = place.service.requests().pop().unwrap();
        let expected: (&[&str], &[&str]) =
            if shown { (&["alice.test"], &["DNS:alice.test"]) } else { (&[], &[]) };
        assert_eq!(seen.all("x-client-cert-cn"), expected.0, "{name}");
        assert_eq!(seen.all("x-client-cert-san"), expected.1, "{name}");
        let print = seen.all("x-client-cert-sha256");
        assert_eq!(print.len(), usize::from(shown), "{name}");
        assert!(print.iter().all(|hex| hex.len() == 64), "{print:?}");
        for absent in
            ["x-client-cert-new", "client-cert", "x-forwarded-client-cert", "x_client_cert_cn"]
        {
            assert_eq!(seen.header(absent), None, "{name}");
        }
    }
    // Without TLS nobody is known.
    let mut plain = place.gateway.client().await;
    plain.send(said("known.test")).await;
    assert_eq!(plain.response().await.status, 200);
    let seen = place.service.requests().pop().unwrap();
    assert!(seen.header("x-client-cert-cn").is_none() && seen.header("client-cert").is_none());

    let lines = place.gateway.log_lines(4).await;
    // Each worker hands its lines over on its own.
    let known: Vec<_> =
        lines.iter().filter(|line| line["client_cert_cn"] == "alice.test").collect();
    assert_eq!(known.len(), 2);
    assert!(known.iter().all(|line| line["client_cert_sha256"].as_str().unwrap().len() == 64));
    let prints = lines.iter().filter(|line| line["client_cert_sha256"].is_string());
    assert_eq!(prints.count(), 2);
}

/// Shows T-07.
#[tokio::test]
async fn a_connection_serves_the_hosts_it_was_made_for() {
    let place = Place::start().await;
    let pair = place.clients.issue_client("alice.test");
    let config = |h2| client_config_as(&place.servers, if h2 { &["h2"] } else { &[] }, &pair);
    for h2 in [true, false] {
        for (made_for, asked, status) in [
            ("open.test", "open.test", 200),
            ("open.test", "OPEN.test.:8443", 200),
            // The certificate is for it as well.
            ("open.test", "x.open.test", 200),
            // Nobody's name: it would be shown the default certificate, which this is.
            ("open.test", "unknown.test", 200),
            // The certificate is for it, but clients have to show theirs there.
            ("open.test", "special.open.test", 421),
            ("open.test", "known.test", 421),
            ("open.test", "maybe.test", 421),
            ("x.open.test", "open.test", 200),
            ("known.test", "special.open.test", 200),
            ("known.test", "open.test", 421),
            ("known.test", "unknown.test", 421),
            ("maybe.test", "known.test", 421),
        ] {
            let mut sender = client::tls(place.gateway.https, made_for, config(h2)).await;
            assert_eq!(sender.is_h2(), h2);
            let mut request = client::get("/");
            request.headers_mut().insert("host", asked.parse().unwrap());
            let (head, body, _) = sender.send(request).await;
            let what = format!("{asked} on a connection for {made_for}, HTTP/2: {h2}");
            assert_eq!(head.status.as_u16(), status, "{what}");
            if status == 421 {
                let told: serde_json::Value = serde_json::from_slice(&body).unwrap();
                assert_eq!(told["reason"], "misdirected", "{what}");
            }
            // The connection itself is as good as before.
            assert_eq!(sender.send(client::get("/")).await.0.status.as_u16(), 200, "{what}");
        }
    }
    let refused = place.gateway.metric("sluice_rejected_total{reason=\"misdirected\"}").await;
    assert_eq!(refused, 12.0);
}

/// Connects under a name with `openssl`, and tells whether a session was resumed, or how it failed.
fn session(addr: SocketAddr, name: &str, args: &[&str]) -> Result<bool, String> {
    let all = [&["-servername", name], args].concat();
    s_client(addr, &all).map(|said| said.contains("Reused, TLSv1"))
}

#[tokio::test]
async fn t_10_a_session_is_resumed_for_its_own_host_and_policy_only() {
    let place = Place::start().await;
    let addr = place.gateway.https;
    let folder = place.gateway.folder();
    let path = |name: &str| folder.join(name).to_str().unwrap().to_owned();
    let (cert, key) = place.clients.issue_client("alice.test").write(folder);
    let shown = ["-cert", cert.to_str().unwrap(), "-key", key.to_str().unwrap()];
    for flag in ["-tls1_2", "-tls1_3"] {
        let (open, known) = (path("open.session"), path("known.session"));
        assert!(!session(addr, "open.test", &[flag, "-sess_out", &open]).unwrap());
        assert!(session(addr, "open.test", &[flag, "-sess_in", &open]).unwrap());
        // Without a certificate there is no way in, whatever session is shown.
        assert!(session(addr, "known.test", &[flag, "-sess_in", &open]).is_err(), "{flag}");
        let (from_open, from_known) = (["-sess_in", open.as_str()], ["-sess_in", known.as_str()]);
        assert!(!session(addr, "known.test", &with(flag, &shown, &from_open)).unwrap(), "{flag}");
        // A session that was made with one resumes, there and nowhere else.
        assert!(!session(addr, "known.test", &with(flag, &shown, &["-sess_out", &known])).unwrap());
        assert!(session(addr, "known.test", &[flag, "-sess_in", &known]).unwrap(), "{flag}");
        for other in ["special.open.test", "open.test", "maybe.test"] {
            let resumed = session(addr, other, &with(flag, &shown, &from_known));
            assert!(!resumed.unwrap(), "{flag} {other}");
        }
        assert!(session(addr, "special.open.test", &[flag, "-sess_in", &known]).is_err());
    }
    // Another list of the revoked is another policy: what was resumed before is looked at anew.
    let known = path("known.session");
    assert!(session(addr, "known.test", &["-tls1_3", "-sess_in", &known]).unwrap());
    rename(folder, "crl.pem", &place.clients.revoke(&[REVOKED, 1]));
    place.gateway.wait_for_generation(2).await;
    assert!(session(addr, "known.test", &["-tls1_3", "-sess_in", &known]).is_err());
    let open = path("open.session");
    assert!(session(addr, "open.test", &["-tls1_3", "-sess_in", &open]).unwrap());
}

fn with<'a>(flag: &'a str, shown: &[&'a str], session: &[&'a str]) -> Vec<&'a str> {
    [&[flag], shown, session].concat()
}

fn rename(folder: &Path, name: &str, text: &str) {
    let new = folder.join(format!("{name}.new"));
    std::fs::write(&new, text).unwrap();
    std::fs::rename(new, folder.join(name)).unwrap();
}

/// Shows T-11.
#[tokio::test]
async fn authorities_and_revocations_are_rotated_like_certificates() {
    let place = Place::start().await;
    let folder = place.gateway.folder();
    let (old, next) =
        (place.clients.issue_client_numbered("alice.test", 7), Authority::named("next"));
    let new = next.issue_client("alice.test");
    assert!(place.get("known.test", Some(&old)).await.is_some());
    assert!(place.get("known.test", Some(&new)).await.is_none());

    rename(folder, "crl.pem", &place.clients.revoke(&[7]));
    place.gateway.wait_for_generation(2).await;
    assert!(place.get("known.test", Some(&old)).await.is_none(), "it is revoked");

    // Both at first, as one does it; a list has to be there for each of them.
    let lists = place.clients.revoke(&[7]) + &next.revoke(&[]);
    rename(folder, "crl.pem", &lists);
    rename(folder, "ca.pem", &(place.clients.pem() + &next.pem()));
    eventually("the new authority", async || place.get("known.test", Some(&new)).await.is_some())
        .await;

    // What cannot be read changes nothing.
    let rejected = "sluice_config_reloads_total{result=\"rejected\"}";
    rename(folder, "ca.pem", "no PEM");
    eventually("the refusal", async || place.gateway.metric(rejected).await > 0.0).await;
    assert!(place.get("known.test", Some(&new)).await.is_some());
}

#[tokio::test]
async fn one_certificate_with_client_auth_asks_for_every_host() {
    let (servers, clients) = (Authority::new(), Authority::new());
    let upstream = h2up::H2Upstream::start(h2up::Mode::Echo);
    let config = format!(
        "upstreams: {{ up: {{ endpoints: [ {{ address: \"{}\" }} ], protocol: http2 }} }}\n\
         routes:\n\
         \x20 - id: alice\n    match: {{ path: /**, headers: {{ x-client-cert-cn: alice.test }} }}\n\
         \x20   upstream: up\n",
        upstream.addr()
    );
    let pair = servers.issue(&["localhost"]);
    let files =
        vec![("cert.pem", pair.cert_pem), ("key.pem", pair.key_pem), ("ca.pem", clients.pem())];
    let listeners = WITH_TLS
        .replace("tls: { certificates", "tls: { client_auth: { ca_file: ca.pem }, certificates");
    let listeners = Some(&*Box::leak(listeners.into_boxed_str()));
    let setup = Setup { listeners, files, ..Setup::default() };
    let gateway = Gateway::start_with(&config, setup).await;
    let mut anonymous = gateway.client().await;
    let forged = [("x-client-cert-cn", "alice.test")];
    let answer = anonymous.request("GET", "/", "a.test", &forged, b"").await;
    assert_eq!(answer.status, 404, "what a client says of itself chooses no route");
    for (name, status) in [("alice.test", 200), ("bob.test", 404)] {
        let config = client_config_as(&servers, &["h2"], &clients.issue_client(name));
        let mut sender = client::tls(gateway.https, "localhost", config).await;
        let mut request = client::get("/x");
        request.headers_mut().insert("host", "other.test".parse().unwrap());
        assert_eq!(sender.send(request).await.0.status.as_u16(), status, "{name}");
    }
    let seen = upstream.requests().pop().unwrap();
    assert_eq!(seen.all("x-client-cert-cn"), ["alice.test"]);
}
