//! Files that hold less than a client needs: what is said of them, and that they are served all the same.

use sluice_chaos::pki::{Authority, Pair, client_config};
use sluice_chaos::raw::Client;

use super::replaced::start;

const ALONE: &str = "without the one that has issued it";
const ASTRAY: &str = "certificate 2 of the file has not issued the one before it";

#[tokio::test]
async fn a_chain_that_phones_would_refuse_is_warned_of() {
    let authority = Authority::new();
    let public = authority.issue_public(&["localhost"]);
    let behind = |more: &Authority| Pair {
        cert_pem: format!("{}{}", public.cert_pem, more.pem()),
        key_pem: public.key_pem.clone(),
    };
    for (pair, told) in [
        (public.clone(), Some(ALONE)),
        (behind(&authority), None),
        (behind(&Authority::named("another")), Some(ASTRAY)),
        // An authority of the operator's own, which clients know itself.
        (authority.issue(&["localhost"]), None),
    ] {
        let gateway = start(&pair).await;
        let said = gateway.daemon.output();
        for warning in [ALONE, ASTRAY] {
            assert_eq!(said.contains(warning), told == Some(warning), "{warning}: {said}");
        }
        let trust = client_config(&authority, &[]);
        let mut client = Client::connect_tls(gateway.https, "localhost", trust).await;
        assert_eq!(client.request("GET", "/", "localhost", &[], b"").await.status, 200);
    }
}
