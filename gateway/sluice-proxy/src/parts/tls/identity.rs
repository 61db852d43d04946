//! A client's certificate as services and the log are told of it. The one rule: nothing in a certificate
//! can pose as something else; bytes that separate, or that are no visible ASCII, are written `%XX`.

use std::fmt::Write as _;

use aws_lc_rs::digest;
use http::HeaderValue;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::X509Certificate;

use crate::base::secured::ClientCert;

/// Longest common name and longest list of names, bytes as they are written.
const MAX_NAME: usize = 256;
const MAX_NAMES: usize = 1024;

/// What a verified certificate says, or nothing if its time has passed, which a resumed session does
/// not find out by itself. `now` is in seconds since 1970.
pub(crate) fn of(certificate: &[u8], now: i64) -> Option<ClientCert> {
    let (_, parsed) = x509_parser::parse_x509_certificate(certificate).ok()?;
    if parsed.validity().not_after.timestamp() < now {
        return None;
    }
    let digest = digest::digest(&digest::SHA256, certificate);
    let hex: String = digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    Some(ClientCert {
        sha256: HeaderValue::try_from(hex).ok()?,
        common_name: common_name(&parsed),
        names: names(&parsed),
    })
}

/// The common name, if there is exactly one.
fn common_name(certificate: &X509Certificate<'_>) -> Option<HeaderValue> {
    let mut all = certificate.subject().iter_common_name();
    let name = all.next()?.as_str().ok()?;
    if all.next().is_some() || name.is_empty() {
        return None;
    }
    bounded(encoded(name.as_bytes()), MAX_NAME)
}

/// The alternative names of the usual kinds, such as `DNS:a.example,URI:spiffe://b/c`.
fn names(certificate: &X509Certificate<'_>) -> Option<HeaderValue> {
    let extension = certificate.subject_alternative_name().ok()??;
    let mut list = String::new();
    for name in &extension.value.general_names {
        let (kind, text) = match name {
            GeneralName::DNSName(name) => ("DNS", encoded(name.as_bytes())),
            GeneralName::URI(uri) => ("URI", encoded(uri.as_bytes())),
            GeneralName::RFC822Name(mail) => ("EMAIL", encoded(mail.as_bytes())),
            GeneralName::IPAddress(bytes) => ("IP", address(bytes)?),
            _ => continue,
        };
        let comma = if list.is_empty() { "" } else { "," };
        let _ = write!(list, "{comma}{kind}:{text}");
        if list.len() > MAX_NAMES {
            return None;
        }
    }
    if list.is_empty() { None } else { bounded(list, MAX_NAMES) }
}

fn address(bytes: &[u8]) -> Option<String> {
    if let Ok(four) = <[u8; 4]>::try_from(bytes) {
        return Some(std::net::Ipv4Addr::from(four).to_string());
    }
    <[u8; 16]>::try_from(bytes).ok().map(|six| std::net::Ipv6Addr::from(six).to_string())
}

fn encoded(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len());
    for (at, byte) in bytes.iter().enumerate() {
        let plain = match byte {
            b'%' | b',' | b'"' => false,
            // At the ends it would be lost on the way.
            b' ' => at > 0 && at + 1 < bytes.len(),
            _ => byte.is_ascii_graphic(),
        };
        if plain {
            out.push(char::from(*byte));
        } else {
            let _ = write!(out, "%{byte:02X}");
        }
    }
    out
}

fn bounded(text: String, most: usize) -> Option<HeaderValue> {
    (text.len() <= most).then(|| HeaderValue::try_from(text).ok()).flatten()
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, DnType, KeyPair, SanType};

    use super::*;

    fn made(common: &str, names: Vec<SanType>) -> Vec<u8> {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name.push(DnType::CommonName, common);
        params.subject_alt_names = names;
        let key = KeyPair::generate().unwrap();
        params.self_signed(&key).unwrap().der().to_vec()
    }

    #[test]
    fn names_cannot_pose_as_others() {
        let names = vec![
            SanType::DnsName("a.test".try_into().unwrap()),
            SanType::URI("spiffe://b/c,DNS:admin.test".try_into().unwrap()),
            SanType::IpAddress([10, 0, 0, 1].into()),
        ];
        let told = of(&made("Zo\u{eb} 100%\r\nx: y ", names), 0).unwrap();
        assert_eq!(told.common_name.unwrap(), "Zo%C3%AB 100%25%0D%0Ax: y%20");
        let list = "DNS:a.test,URI:spiffe://b/c%2CDNS:admin.test,IP:10.0.0.1";
        assert_eq!(told.names.unwrap(), list);
        assert_eq!(told.sha256.len(), 64);
    }

    #[test]
    fn what_does_not_fit_is_missing_and_never_cut() {
        let many = (0..200).map(|n| SanType::DnsName(format!("h{n}.test").try_into().unwrap()));
        let told = of(&made(&"x".repeat(300), many.collect()), 0).unwrap();
        assert!(told.common_name.is_none() && told.names.is_none());
    }

    #[test]
    fn a_certificate_whose_time_has_passed_proves_nothing() {
        assert!(of(&made("a", Vec::new()), i64::MAX).is_none());
        assert!(of(b"no certificate", 0).is_none());
    }
}
