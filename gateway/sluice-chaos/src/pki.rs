//! A certificate authority that lives as long as a test, and TLS settings that trust it.
//!
//! The one rule: nothing is installed. Each setting names its provider and its trust, so tests in
//! one process do not see each other.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CertifiedIssuer,
    CustomExtension, DnType, ExtendedKeyUsagePurpose, IsCa, KeyIdMethod, KeyPair, KeyUsagePurpose,
    RevokedCertParams, date_time_ymd,
};
use rustls::{
    ClientConfig, ClientConnection, RootCertStore, ServerConfig,
    crypto::{CryptoProvider, aws_lc_rs},
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject},
    server::WebPkiClientVerifier,
};

/// An authority of its own; two of them do not trust each other.
pub struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
}

/// A certificate and its key.
#[derive(Clone, Debug)]
pub struct Pair {
    /// The certificate, as PEM.
    pub cert_pem: String,
    /// The private key (PKCS #8), as PEM.
    pub key_pem: String,
}

impl Default for Authority {
    fn default() -> Self {
        Self::new()
    }
}

impl Authority {
    /// Makes an authority with a fresh key.
    pub fn new() -> Self {
        Self::named("sluice test authority")
    }

    /// The same under a name of its own: revocation lists are told apart by the names of authorities.
    pub fn named(name: &str) -> Self {
        let mut params = named(name, &[]);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate().expect("a key for the authority");
        let issuer = CertifiedIssuer::self_signed(params, key).expect("a certificate of its own");
        Self { issuer }
    }

    /// The authority's certificate, as PEM.
    pub fn pem(&self) -> String {
        self.issuer.pem()
    }

    /// A certificate for servers under these names and addresses.
    pub fn issue(&self, names: &[&str]) -> Pair {
        self.sign(server_params(names))
    }

    /// The same, and it says where the authority's certificate is, as those of public authorities do
    /// (RFC 5280 section 4.2.2.1).
    pub fn issue_public(&self, names: &[&str]) -> Pair {
        const ACCESS: [u64; 9] = [1, 3, 6, 1, 5, 5, 7, 1, 1];
        let der = |tag: u8, content: &[u8]| {
            let length = u8::try_from(content.len()).expect("a short form");
            [&[tag, length], content].concat()
        };
        // A sequence of one description: the method `caIssuers`, and a URI.
        let method = der(0x06, b"\x2b\x06\x01\x05\x05\x07\x30\x02");
        let place = der(0x86, b"http://ca.test/ca.cer");
        let access = der(0x30, &der(0x30, &[method, place].concat()));
        let mut params = server_params(names);
        params.custom_extensions = vec![CustomExtension::from_oid_content(&ACCESS, access)];
        self.sign(params)
    }

    /// The same, but its time is over.
    pub fn issue_expired(&self, names: &[&str]) -> Pair {
        let mut params = server_params(names);
        params.not_before = date_time_ymd(2000, 1, 1);
        params.not_after = date_time_ymd(2001, 1, 1);
        self.sign(params)
    }

    /// A certificate for a client of this name, which is its common name and its DNS name.
    pub fn issue_client(&self, name: &str) -> Pair {
        self.sign(client_params(name))
    }

    /// The same, but its time is over.
    pub fn issue_client_expired(&self, name: &str) -> Pair {
        let mut params = client_params(name);
        params.not_before = date_time_ymd(2000, 1, 1);
        params.not_after = date_time_ymd(2001, 1, 1);
        self.sign(params)
    }

    /// The same with a serial number, to be named in a revocation list.
    pub fn issue_client_numbered(&self, name: &str, serial: u64) -> Pair {
        let mut params = client_params(name);
        params.serial_number = Some(serial.into());
        self.sign(params)
    }

    /// A certificate for servers whose time runs between these seconds since 1970.
    pub fn issue_between(&self, names: &[&str], from: u64, until: u64) -> Pair {
        let at = |seconds| date_time_ymd(1970, 1, 1) + Duration::from_secs(seconds);
        let mut params = server_params(names);
        params.not_before = at(from);
        params.not_after = at(until);
        self.sign(params)
    }

    /// A list that revokes these serial numbers, as PEM.
    pub fn revoke(&self, serials: &[u64]) -> String {
        let revoked = |serial: &u64| RevokedCertParams {
            serial_number: (*serial).into(),
            revocation_time: date_time_ymd(2020, 1, 1),
            reason_code: None,
            invalidity_date: None,
        };
        let list = CertificateRevocationListParams {
            this_update: date_time_ymd(2020, 1, 1),
            next_update: date_time_ymd(2099, 1, 1),
            crl_number: 1_u64.into(),
            issuing_distribution_point: None,
            revoked_certs: serials.iter().map(revoked).collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        let list = list.signed_by(&self.issuer).expect("a signed list");
        list.pem().expect("a list as text")
    }

    fn sign(&self, mut params: CertificateParams) -> Pair {
        params.use_authority_key_identifier_extension = true;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        let key = KeyPair::generate().expect("a key");
        let certificate = params.signed_by(&key, &self.issuer).expect("a signed certificate");
        Pair { cert_pem: certificate.pem(), key_pem: key.serialize_pem() }
    }

    /// Writes `ca.pem` and tells where.
    pub fn write(&self, folder: &Path) -> PathBuf {
        write(folder.join("ca.pem"), &self.pem())
    }
}

impl Pair {
    /// Writes `cert.pem` and `key.pem` and tells where.
    pub fn write(&self, folder: &Path) -> (PathBuf, PathBuf) {
        (
            write(folder.join("cert.pem"), &self.cert_pem),
            write(folder.join("key.pem"), &self.key_pem),
        )
    }

    fn certificates(&self) -> Vec<CertificateDer<'static>> {
        vec![CertificateDer::from_pem_slice(self.cert_pem.as_bytes()).expect("own PEM")]
    }

    fn key(&self) -> PrivateKeyDer<'static> {
        PrivateKeyDer::from_pem_slice(self.key_pem.as_bytes()).expect("own PEM")
    }
}

/// A client that trusts this authority only and offers these protocols.
pub fn client_config(authority: &Authority, alpn: &[&str]) -> Arc<ClientConfig> {
    let builder = client_builder().with_root_certificates(trusting(authority));
    offering(builder.with_no_client_auth(), alpn)
}

/// The same, with a certificate to show.
pub fn client_config_as(authority: &Authority, alpn: &[&str], pair: &Pair) -> Arc<ClientConfig> {
    let builder = client_builder().with_root_certificates(trusting(authority));
    let config = builder.with_client_auth_cert(pair.certificates(), pair.key());
    offering(config.expect("a key that fits its certificate"), alpn)
}

/// A server that shows this certificate and takes these protocols.
pub fn server_config(pair: &Pair, alpn: &[&str]) -> Arc<ServerConfig> {
    let config = server_builder().with_no_client_auth();
    let config = config.with_single_cert(pair.certificates(), pair.key());
    taking(config.expect("a key that fits its certificate"), alpn)
}

/// The same, for clients that show a certificate of this authority only.
pub fn server_config_asking(pair: &Pair, alpn: &[&str], clients: &Authority) -> Arc<ServerConfig> {
    let roots = Arc::new(trusting(clients));
    let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider()).build();
    let config = server_builder().with_client_cert_verifier(verifier.expect("one authority"));
    let config = config.with_single_cert(pair.certificates(), pair.key());
    taking(config.expect("a key that fits its certificate"), alpn)
}

/// The first bytes of a client that asks for this name.
pub fn client_hello(config: Arc<ClientConfig>, name: &str) -> Vec<u8> {
    let name = ServerName::try_from(name.to_owned()).expect("a name of a host");
    let mut connection = ClientConnection::new(config, name).expect("a client");
    let mut bytes = Vec::new();
    connection.write_tls(&mut bytes).expect("bytes can be put aside");
    bytes
}

fn offering(mut config: ClientConfig, alpn: &[&str]) -> Arc<ClientConfig> {
    config.alpn_protocols = protocols(alpn);
    Arc::new(config)
}

fn taking(mut config: ServerConfig, alpn: &[&str]) -> Arc<ServerConfig> {
    config.alpn_protocols = protocols(alpn);
    Arc::new(config)
}

fn protocols(names: &[&str]) -> Vec<Vec<u8>> {
    names.iter().map(|name| name.as_bytes().to_vec()).collect()
}

fn client_builder() -> rustls::ConfigBuilder<ClientConfig, rustls::WantsVerifier> {
    let builder = ClientConfig::builder_with_provider(provider());
    builder.with_safe_default_protocol_versions().expect("versions of the provider")
}

fn server_builder() -> rustls::ConfigBuilder<ServerConfig, rustls::WantsVerifier> {
    let builder = ServerConfig::builder_with_provider(provider());
    builder.with_safe_default_protocol_versions().expect("versions of the provider")
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(aws_lc_rs::default_provider())
}

fn trusting(authority: &Authority) -> RootCertStore {
    let mut roots = RootCertStore::empty();
    roots.add(authority.issuer.der().clone()).expect("an authority's certificate");
    roots
}

fn server_params(names: &[&str]) -> CertificateParams {
    let mut params = named(names.first().unwrap_or(&"nameless"), names);
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params
}

fn client_params(name: &str) -> CertificateParams {
    let mut params = named(name, &[name]);
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    params
}

fn named(common: &str, names: &[&str]) -> CertificateParams {
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let mut params = CertificateParams::new(names).expect("names of hosts");
    params.distinguished_name.push(DnType::CommonName, common);
    params
}

fn write(path: PathBuf, text: &str) -> PathBuf {
    std::fs::write(&path, text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    path
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        raw::Client,
        recorder::{Answer, Recorder},
    };

    async fn shake(server: Arc<ServerConfig>, client: Arc<ClientConfig>) -> Option<u16> {
        let recorder = Recorder::setup().answer(Answer::new(204)).tls(server).start();
        let connect = Client::try_connect_tls(recorder.addr(), "localhost", client).await;
        let mut client = connect.ok()?;
        client.try_send("GET / HTTP/1.1\r\n\r\n").await.ok()?;
        Some(client.try_response_to("GET").await?.status)
    }

    #[tokio::test]
    async fn only_good_server_certificates_pass() {
        let authority = Authority::new();
        let trust = client_config(&authority, &[]);
        let good = authority.issue(&["localhost", "127.0.0.1"]);
        for (pair, passes) in [
            (good.clone(), true),
            (authority.issue_expired(&["localhost"]), false),
            (authority.issue(&["elsewhere.test"]), false),
            (Authority::new().issue(&["localhost"]), false),
            (authority.issue_client("localhost"), false),
        ] {
            let status = shake(server_config(&pair, &[]), Arc::clone(&trust)).await;
            assert_eq!(status.is_some(), passes, "{status:?}");
        }
    }

    #[tokio::test]
    async fn clients_are_asked_for_certificates() {
        let authority = Authority::new();
        let server = server_config_asking(&authority.issue(&["localhost"]), &[], &authority);
        let known = client_config_as(&authority, &[], &authority.issue_client("alice"));
        let foreign = client_config_as(&authority, &[], &Authority::new().issue_client("alice"));
        let bare = client_config(&authority, &[]);
        assert_eq!(shake(Arc::clone(&server), known).await, Some(204));
        assert_eq!(shake(Arc::clone(&server), foreign).await, None);
        assert_eq!(shake(server, bare).await, None);
    }

    #[test]
    fn files_hold_what_was_issued() {
        let folder = tempfile::tempdir().unwrap();
        let authority = Authority::new();
        let pair = authority.issue(&["a.test"]);
        let (cert, key) = pair.write(folder.path());
        assert_eq!(std::fs::read_to_string(cert).unwrap(), pair.cert_pem);
        assert!(std::fs::read_to_string(key).unwrap().contains("PRIVATE KEY"));
        assert_eq!(
            std::fs::read_to_string(authority.write(folder.path())).unwrap(),
            authority.pem()
        );
    }
}
