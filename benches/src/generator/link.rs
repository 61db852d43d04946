//! A client's connection, with or without TLS, and one request over it.
//!
//! TLS is 1.3 with X25519 alone and without resumption: what every server can do, so that all of
//! them do the same work.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::Job;
use crate::failure::{Failure, Outcome};

/// Where to connect, how, and what to send.
pub(super) struct Target {
    address: SocketAddr,
    tls: Option<(TlsConnector, ServerName<'static>)>,
    /// The request as bytes, and the length its answer must have.
    pub(super) request: Vec<u8>,
    answer: usize,
    pub(super) path: String,
}

trait Wire: AsyncRead + AsyncWrite + Unpin {}
impl<T: AsyncRead + AsyncWrite + Unpin> Wire for T {}

/// One connection.
pub(super) struct Link {
    wire: Box<dyn Wire>,
    buffer: Vec<u8>,
}

/// A head longer than this is none of ours.
const MAX_HEAD: usize = 16 * 1024;

impl Target {
    pub(super) fn new(job: &Job) -> Outcome<Self> {
        let tls = match &job.trust {
            None => None,
            Some(file) => {
                let wrong = |why: &dyn std::fmt::Display| Failure(format!("TLS: {why}"));
                let certificate = CertificateDer::from_pem_file(file).map_err(|e| wrong(&e))?;
                let name = ServerName::try_from("localhost").map_err(|e| wrong(&e))?;
                Some((TlsConnector::from(config(certificate).map_err(|e| wrong(&e))?), name))
            }
        };
        Ok(Self {
            address: (Ipv4Addr::LOCALHOST, job.port).into(),
            tls,
            request: job.request.bytes(""),
            answer: job.request.answer,
            path: job.request.path.clone(),
        })
    }

    pub(super) async fn connect(&self) -> Outcome<Link> {
        let stream = TcpStream::connect(self.address).await?;
        stream.set_nodelay(true)?;
        let wire: Box<dyn Wire> = match &self.tls {
            None => Box::new(stream),
            Some((connector, name)) => Box::new(connector.connect(name.clone(), stream).await?),
        };
        Ok(Link { wire, buffer: Vec::with_capacity(MAX_HEAD) })
    }

    /// Sends the request and reads the whole answer, which must be 200 and as long as expected;
    /// gives back how many bytes came.
    pub(super) async fn ask(&self, link: &mut Link) -> Outcome<usize> {
        link.write(&self.request).await?;
        let (head, got) = link.head().await?;
        if !head.starts_with("HTTP/1.1 200 ") {
            return Err(Failure(head.lines().next().unwrap_or_default().to_owned()));
        }
        let length = length(&head).ok_or_else(|| Failure::new("an answer without a length"))?;
        if length != self.answer {
            return Err(Failure(format!("{length} bytes instead of {}", self.answer)));
        }
        let mut body = got;
        while body < length {
            link.buffer.clear();
            match link.wire.read_buf(&mut link.buffer).await? {
                0 => return Err(Failure::new("the answer broke off")),
                read => body += read,
            }
        }
        Ok(head.len() + body)
    }
}

impl Link {
    pub(super) async fn write(&mut self, bytes: &[u8]) -> Outcome<()> {
        self.wire.write_all(bytes).await?;
        Ok(self.wire.flush().await?)
    }

    pub(super) async fn read(&mut self, bytes: &mut [u8]) -> Outcome<()> {
        self.wire.read_exact(bytes).await?;
        Ok(())
    }

    /// The head of an answer, and how many bytes of its body came with it.
    pub(super) async fn head(&mut self) -> Outcome<(String, usize)> {
        self.buffer.clear();
        loop {
            let end = self.buffer.windows(4).position(|four| four == b"\r\n\r\n");
            if let Some(head) = end.and_then(|end| self.buffer.get(..end + 4)) {
                let rest = self.buffer.len() - head.len();
                return Ok((String::from_utf8_lossy(head).into_owned(), rest));
            }
            if self.buffer.len() >= MAX_HEAD || self.wire.read_buf(&mut self.buffer).await? == 0 {
                return Err(Failure::new("no head came"));
            }
        }
    }
}

fn length(head: &str) -> Option<usize> {
    let field = |line: &str| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse().ok())?
    };
    head.lines().find_map(field)
}

fn config(trusted: CertificateDer<'static>) -> Result<Arc<ClientConfig>, rustls::Error> {
    let mut provider = rustls::crypto::aws_lc_rs::default_provider();
    provider.kx_groups = vec![rustls::crypto::aws_lc_rs::kx_group::X25519];
    let mut roots = RootCertStore::empty();
    roots.add(trusted)?;
    let mut config = ClientConfig::builder_with_provider(Arc::new(provider))
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.resumption = rustls::client::Resumption::disabled();
    Ok(Arc::new(config))
}
