//! Whether the certificates of a file lead from the host's own to one that clients know. Browsers and desktops
//! fetch what is missing; phones, mini-programs and most programs do not, and refuse the connection. A test
//! from a desk therefore finds nothing, so it is said when the config is read.
//!
//! The one rule: it warns and never refuses, since only clients know whom they trust.

use rustls::pki_types::CertificateDer;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::ParsedExtension;
use x509_parser::oid_registry::OID_PKIX_ACCESS_DESCRIPTOR_CA_ISSUERS;
use x509_parser::prelude::FromDer as _;

use crate::base::yaml::Place;
use crate::parts::env::Env;

/// Warns where a link is missing.
pub(super) fn judge(chain: &[CertificateDer<'_>], at: &Place<'_>, env: &mut Env<'_>) {
    let parsed = chain.iter().map(|der| X509Certificate::from_der(der));
    let Ok(chain) = parsed.map(|read| read.map(|(_, one)| one)).collect::<Result<Vec<_>, _>>()
    else {
        return;
    };
    if let [alone] = chain.as_slice()
        && alone.issuer() != alone.subject()
        && tells_where_its_issuer_is(alone)
    {
        env.problems
            .warn(at, "the file holds the host's certificate without the one that has issued it")
            .help("browsers fetch that, phones and mini-programs refuse; use the file with the whole chain, often `fullchain.pem`");
    }
    let links = chain.iter().zip(chain.iter().skip(1)).zip(2..);
    for ((one, next), place) in links {
        if one.issuer() != next.subject() {
            let message =
                format!("certificate {place} of the file has not issued the one before it");
            env.problems.warn(at, message).help(
                "put the host's certificate first, and behind each the one that has issued it",
            );
        }
    }
}

/// As certificates of public authorities do (RFC 5280 section 4.2.2.1), none of which are issued by what
/// clients know itself.
fn tells_where_its_issuer_is(certificate: &X509Certificate<'_>) -> bool {
    certificate.extensions().iter().any(|extension| match extension.parsed_extension() {
        ParsedExtension::AuthorityInfoAccess(access) => access
            .accessdescs
            .iter()
            .any(|place| place.access_method == OID_PKIX_ACCESS_DESCRIPTOR_CA_ISSUERS),
        _ => false,
    })
}
