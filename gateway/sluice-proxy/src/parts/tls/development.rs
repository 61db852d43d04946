//! Certificates made here: for trying things out, and for `sluice dev-cert`.

use std::io::Write as _;
use std::path::Path;

/// A self-signed pair, PEM.
#[derive(Debug, Clone)]
pub struct Pair {
    /// The certificate.
    pub cert: String,
    /// Its private key.
    pub key: String,
}

/// The self-signed certificate of this process; the same one however often it is asked for, so that a
/// reload does not change it where it cannot be written down.
pub(super) fn pair() -> Option<Pair> {
    static MADE: std::sync::OnceLock<Option<Pair>> = std::sync::OnceLock::new();
    MADE.get_or_init(|| self_signed(&["localhost", "127.0.0.1", "::1"]).ok()).clone()
}

/// A self-signed certificate for host names and addresses.
///
/// # Errors
///
/// A text saying which name cannot stand in a certificate.
pub fn self_signed(names: &[&str]) -> Result<Pair, String> {
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let make = || {
        let mut params = rcgen::CertificateParams::new(names)?;
        params.distinguished_name.push(rcgen::DnType::CommonName, "sluice development");
        let key = rcgen::KeyPair::generate()?;
        let cert = params.self_signed(&key)?;
        Ok(Pair { cert: cert.pem(), key: key.serialize_pem() })
    };
    make().map_err(|error: rcgen::Error| error.to_string())
}

/// Writes a file only its owner may read, making the folder if needed.
pub(crate) fn write_private(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)?;
    }
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)?.write_all(bytes)
}
