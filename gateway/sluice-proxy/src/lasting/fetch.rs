//! One question over HTTP/1.1 from the gateway itself, as the control plane asks it of issuers and
//! providers: a connection of its own, limits for everything, no redirects, no proxies, no cookies.
//! Runs on any runtime of the gateway. The one rule: nothing of it is written down but scheme, host and
//! path, since queries, header fields and bodies may be secrets.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::header::{ACCEPT_ENCODING, CONNECTION, HOST, USER_AGENT};
use http::uri::PathAndQuery;
use http::{HeaderValue, Request, Response, Uri};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use super::link::Tls;
use super::resolver::Names;
use super::tasks::{self, Owned};
use crate::base::clock;

/// Addresses of a name that are tried.
const ADDRESSES: usize = 4;
/// Bytes of an answer's head, and its fields.
const HEAD: (usize, usize) = (32 * 1024, 100);

/// Where to ask. Prints as scheme, host and path.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Url {
    secure: bool,
    host: String,
    port: u16,
    authority: HeaderValue,
    target: PathAndQuery,
}

/// What an answer may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Limits {
    /// For each address: TCP and TLS.
    pub(crate) connect: Duration,
    /// From the look-up of the name to the last byte.
    pub(crate) total: Duration,
    /// Bytes of the body; with 0 it is not waited for, and is empty.
    pub(crate) body: usize,
}

/// Asks one service.
#[derive(Clone)]
pub(crate) struct Client {
    pub(crate) names: Arc<Names>,
    /// Needed for `https`.
    pub(crate) tls: Option<Tls>,
    pub(crate) limits: Limits,
}

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Failure {
    /// The name leads nowhere.
    Name(String),
    Connect(String),
    Tls(String),
    Timeout,
    /// The answer's body is larger than allowed.
    TooLarge,
    /// What came is no answer.
    Broken(String),
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(why) => write!(f, "the name cannot be resolved: {why}"),
            Self::Connect(why) => write!(f, "no connection: {why}"),
            Self::Tls(why) => write!(f, "no TLS: {why}"),
            Self::Timeout => f.write_str("no answer in time"),
            Self::TooLarge => f.write_str("the answer is larger than allowed"),
            Self::Broken(why) => write!(f, "the answer is broken: {why}"),
        }
    }
}

// === impl Url ===

impl Url {
    /// Understands `http` and `https` with a host; no user part, no fragment.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        if text.contains('#') {
            return None;
        }
        let uri: Uri = text.parse().ok()?;
        let secure = match uri.scheme_str()? {
            "https" => true,
            "http" => false,
            _ => return None,
        };
        let authority = uri.authority().filter(|authority| !authority.as_str().contains('@'))?;
        let host = authority.host();
        let port = match authority.port() {
            Some(port) => port.as_str().parse().ok().filter(|port| *port != 0)?,
            None if authority.as_str().len() != host.len() => return None,
            None if secure => 443,
            None => 80,
        };
        let target =
            uri.path_and_query().cloned().unwrap_or_else(|| PathAndQuery::from_static("/"));
        (!host.is_empty()).then_some(())?;
        Some(Self {
            secure,
            host: host.to_ascii_lowercase(),
            port,
            authority: HeaderValue::from_str(authority.as_str()).ok()?,
            target,
        })
    }

    /// Whether it names a host and nothing on it.
    pub(crate) fn is_base(&self) -> bool {
        self.target == "/"
    }

    /// The same service, asked for something else.
    pub(crate) fn with_target(&self, target: &str) -> Option<Self> {
        let target = target.starts_with('/').then(|| target.parse().ok()).flatten()?;
        Some(Self { target, ..self.clone() })
    }

    pub(crate) fn is_secure(&self) -> bool {
        self.secure
    }

    /// Without brackets, in lower case.
    pub(crate) fn host(&self) -> &str {
        self.host.trim_matches(['[', ']'])
    }

    /// Whether it never leaves this machine.
    pub(crate) fn is_local(&self) -> bool {
        let address = self.host().parse::<std::net::IpAddr>();
        address.map_or(self.host == "localhost", |address| address.is_loopback())
    }
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.secure { "https" } else { "http" };
        let authority = self.authority.to_str().unwrap_or_default();
        write!(f, "{scheme}://{authority}{}", self.target.path())
    }
}

impl fmt::Debug for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

// === impl Client ===

impl Client {
    /// A client for `url`, with `tls` where that is https; it verifies the name in it.
    pub(crate) fn of(
        url: &Url,
        names: &Arc<Names>,
        tls: Option<&Arc<rustls::ClientConfig>>,
        limits: Limits,
    ) -> Self {
        let name = rustls::pki_types::ServerName::try_from(url.host().to_owned()).ok();
        let tls = tls.filter(|_| url.secure).zip(name);
        let tls = tls.map(|(config, server_name)| Tls { config: Arc::clone(config), server_name });
        Self { names: Arc::clone(names), tls, limits }
    }

    /// Sends a request to `url`, whatever its own target is, and takes the whole answer, whatever its
    /// status is.
    pub(crate) async fn ask(
        &self,
        url: &Url,
        request: Request<Bytes>,
    ) -> Result<Response<Bytes>, Failure> {
        self.ask_noting(url, request, &AtomicBool::new(false)).await
    }

    /// The same, and notes in `sent` when the first byte of the request may leave.
    pub(crate) async fn ask_noting(
        &self,
        url: &Url,
        request: Request<Bytes>,
        sent: &AtomicBool,
    ) -> Result<Response<Bytes>, Failure> {
        let limit = clock::deadline(clock::now().after(self.limits.total));
        let asked = tokio::time::timeout_at(limit, self.exchange(url, request, sent)).await;
        asked.unwrap_or(Err(Failure::Timeout))
    }

    async fn exchange(
        &self,
        url: &Url,
        request: Request<Bytes>,
        sent: &AtomicBool,
    ) -> Result<Response<Bytes>, Failure> {
        let stream = self.connect(url).await?;
        if !url.secure {
            return self.speak(url, request, TokioIo::new(stream), sent).await;
        }
        let tls = self.tls.as_ref().ok_or_else(|| Failure::Tls("it is not set up".to_owned()))?;
        let connector = tokio_rustls::TlsConnector::from(Arc::clone(&tls.config));
        let secured = self.within(connector.connect(tls.server_name.clone(), stream)).await?;
        let stream = secured.map_err(|error| Failure::Tls(error.to_string()))?;
        self.speak(url, request, TokioIo::new(stream), sent).await
    }

    async fn connect(&self, url: &Url) -> Result<TcpStream, Failure> {
        let addresses = self.names.look_up(url.host()).await.map_err(Failure::Name)?;
        let mut last = Failure::Name("it has no address".to_owned());
        for address in addresses.into_iter().take(ADDRESSES) {
            match self.within(TcpStream::connect(SocketAddr::new(address, url.port))).await {
                Ok(Ok(stream)) => {
                    // A socket that refuses this still carries the request.
                    let _ = stream.set_nodelay(true);
                    return Ok(stream);
                }
                Ok(Err(error)) => last = Failure::Connect(error.to_string()),
                Err(timeout) => last = timeout,
            }
        }
        Err(last)
    }

    async fn within<F: Future>(&self, step: F) -> Result<F::Output, Failure> {
        let limit = clock::deadline(clock::now().after(self.limits.connect));
        tokio::time::timeout_at(limit, step).await.map_err(|_| Failure::Timeout)
    }

    async fn speak<I>(
        &self,
        url: &Url,
        mut request: Request<Bytes>,
        io: I,
        sent: &AtomicBool,
    ) -> Result<Response<Bytes>, Failure>
    where
        I: hyper::rt::Read + hyper::rt::Write + Unpin + Send + 'static,
    {
        let broken = |error: hyper::Error| Failure::Broken(causes(&error));
        *request.uri_mut() = Uri::from(url.target.clone());
        let headers = request.headers_mut();
        headers.insert(HOST, url.authority.clone());
        headers.insert(USER_AGENT, HeaderValue::from_static("sluice"));
        headers.insert(CONNECTION, HeaderValue::from_static("close"));
        headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        let (mut sender, connection) = http1::Builder::new()
            .max_buf_size(HEAD.0)
            .max_headers(HEAD.1)
            .handshake(io)
            .await
            .map_err(broken)?;
        // The connection ends with this question, however it ends.
        let _connection = Owned::new(tasks::control(async move { drop(connection.await) }));
        sent.store(true, Ordering::Relaxed);
        let (head, body) =
            sender.send_request(request.map(Full::new)).await.map_err(broken)?.into_parts();
        let body = if self.limits.body == 0 { Bytes::new() } else { self.collect(body).await? };
        Ok(Response::from_parts(head, body))
    }

    async fn collect(&self, mut body: Incoming) -> Result<Bytes, Failure> {
        let mut whole = BytesMut::new();
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|error| Failure::Broken(causes(&error)))?;
            let Ok(data) = frame.into_data() else { continue };
            if data.len() > self.limits.body.saturating_sub(whole.len()) {
                return Err(Failure::TooLarge);
            }
            whole.extend_from_slice(&data);
        }
        Ok(whole.freeze())
    }
}

/// The library's word for what it did, and why it failed.
fn causes(error: &hyper::Error) -> String {
    let mut text = error.to_string();
    let mut next = std::error::Error::source(error);
    while let Some(cause) = next {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        next = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use sluice_chaos::pki;
    use sluice_chaos::recorder::{Answer, Recorder};
    use sluice_chaos::rogue::{self, Rogue};

    use super::*;

    fn client(tls: Option<Tls>) -> Client {
        let limits =
            Limits { connect: Duration::from_secs(5), total: Duration::from_secs(5), body: 1000 };
        Client { names: Arc::new(Names::default()), tls, limits }
    }

    fn get() -> Request<Bytes> {
        Request::new(Bytes::new())
    }

    #[test]
    fn urls_are_understood_or_refused() {
        let url = Url::parse("https://Login.Example:8443/a/keys?token=s3cr3t").unwrap();
        assert_eq!((url.host(), url.port, url.is_secure()), ("login.example", 8443, true));
        assert_eq!(
            format!("{url} {url:?}"),
            "https://Login.Example:8443/a/keys https://Login.Example:8443/a/keys"
        );
        assert_eq!(
            Url::parse("http://[::1]").map(|url| (url.port, url.is_local())),
            Some((80, true))
        );
        for (text, local) in [
            ("http://127.0.0.9/", true),
            ("http://localhost:81/", true),
            ("http://localhost.example/", false),
            ("http://10.0.0.1/", false),
        ] {
            assert_eq!(Url::parse(text).unwrap().is_local(), local, "{text}");
        }
        for text in [
            "",
            "/keys",
            "keys.example/a",
            "ftp://a/",
            "https://",
            "https://u:p@a/",
            "https://a:0/",
            "https://a:99999/",
            "https://a:/",
            "https://a/ b",
            "https://a/#b",
            "http:a",
        ] {
            assert_eq!(Url::parse(text), None, "{text}");
        }
    }

    #[tokio::test]
    async fn an_answer_is_taken_whole_and_a_redirect_is_one() {
        let recorder = Recorder::answering(
            Answer::new(302).header("Location", "http://127.0.0.1:1/").body("x"),
        );
        let url = Url::parse(&format!("http://{}/keys?a=1", recorder.addr())).unwrap();
        let mut request = Request::post("/").body(Bytes::from_static(b"body")).unwrap();
        request.headers_mut().insert("x-key", HeaderValue::from_static("k"));
        let answer = client(None).ask(&url, request).await.unwrap();
        assert_eq!((answer.status().as_u16(), &answer.body()[..]), (302, &b"x"[..]));
        let seen = recorder.requests().pop().unwrap();
        assert_eq!((seen.method.as_str(), seen.target.as_str()), ("POST", "/keys?a=1"));
        assert_eq!((seen.header("x-key"), &seen.body[..]), (Some("k"), &b"body"[..]));
        assert_eq!(seen.header("host"), Some(recorder.addr().to_string().as_str()));
    }

    #[tokio::test]
    async fn what_may_have_been_sent_is_told_from_what_was_not() {
        let silent = Rogue::start(rogue::black_hole());
        let gone = Rogue::refuse();
        let rude = Rogue::start(rogue::close_after_head());
        for (addr, sends) in [(silent.addr(), true), (gone.addr(), false), (rude.addr(), true)] {
            let url = Url::parse(&format!("http://{addr}/")).unwrap();
            let url = url.with_target("/x?secret=s").unwrap();
            let mut client = client(None);
            client.limits.total = Duration::from_millis(300);
            let sent = AtomicBool::new(false);
            assert!(client.ask_noting(&url, get(), &sent).await.is_err());
            assert_eq!(sent.load(Ordering::Relaxed), sends, "{addr}");
            assert!(!url.to_string().contains("secret"), "{url}");
        }
        // TLS is not spoken there: the handshake fails before anything is said.
        let url = Url::parse(&format!("https://{}/", rude.addr())).unwrap();
        let config = pki::client_config(&pki::Authority::new(), &["http/1.1"]);
        let server_name = "keys.test".to_owned().try_into().unwrap();
        let sent = AtomicBool::new(false);
        let client = client(Some(Tls { config, server_name }));
        assert!(client.ask_noting(&url, get(), &sent).await.is_err());
        assert!(!sent.load(Ordering::Relaxed));
    }

    #[tokio::test]
    async fn what_is_too_large_too_slow_or_no_answer_fails() {
        for (answer, failure) in [
            (Answer::new(200).body(vec![b'x'; 1001]), Failure::TooLarge),
            (Answer::new(200).delay(Duration::from_secs(60)), Failure::Timeout),
        ] {
            let recorder = Recorder::answering(answer);
            let url = Url::parse(&format!("http://{}/", recorder.addr())).unwrap();
            let mut client = client(None);
            if failure == Failure::Timeout {
                client.limits.total = Duration::from_millis(100);
            }
            assert_eq!(client.ask(&url, get()).await.unwrap_err(), failure);
        }
        let url = Url::parse("http://127.0.0.1:1/").unwrap();
        assert!(matches!(client(None).ask(&url, get()).await, Err(Failure::Connect(_))));
        let rogue = Rogue::start(rogue::answer("what is this?\r\n\r\n"));
        let url = Url::parse(&format!("http://{}/", rogue.addr())).unwrap();
        assert!(matches!(client(None).ask(&url, get()).await, Err(Failure::Broken(_))));
    }

    #[tokio::test]
    async fn only_the_expected_certificate_is_believed() {
        let authority = pki::Authority::new();
        let server = pki::server_config(&authority.issue(&["keys.test"]), &["http/1.1"]);
        let recorder = Recorder::setup().answer(Answer::new(200).body("k")).tls(server).start();
        let url = Url::parse(&format!("https://{}/", recorder.addr())).unwrap();
        let asked = async |authority: &pki::Authority, name: &str| {
            let config = pki::client_config(authority, &["http/1.1"]);
            let server_name = name.to_owned().try_into().unwrap();
            client(Some(Tls { config, server_name })).ask(&url, get()).await
        };
        assert_eq!(&asked(&authority, "keys.test").await.unwrap().body()[..], b"k");
        let other = pki::Authority::new();
        assert!(matches!(asked(&other, "keys.test").await, Err(Failure::Tls(_))));
        assert!(matches!(asked(&authority, "other.test").await, Err(Failure::Tls(_))));
        assert!(matches!(client(None).ask(&url, get()).await, Err(Failure::Tls(_))));
    }
}
