//! [`Cx`]: the facts of one request, passed by `&mut` along its way. Each field's doc names its single
//! writer. There is no bag of extensions: a fact that is missing is a compile error.

use std::any::Any;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderValue};
use sluice_engine::matcher::MethodSet;
use sluice_engine::mini;
use sluice_engine::trace::write_hex;
use tokio::sync::OwnedSemaphorePermit;

use super::body::Meter;
use super::clock::Moment;
use super::clocks::Clocks;
use super::fault::Fault;
use super::inlet::Ahead;
use super::respond::Envelope;
use super::secured::Secured;
use super::tie::Tie;

/// Facts of a client connection; written by `doors::accept` and `doors::connection`, shared by its requests.
#[derive(Debug)]
pub(crate) struct Peer {
    /// The other end of the socket, or whom a trusted proxy in front names instead.
    pub(crate) address: SocketAddr,
    /// `address` as a field value, made once for `X-Forwarded-For`.
    pub(crate) address_value: HeaderValue,
    /// Name of the listener.
    pub(crate) listener: Arc<str>,
    /// Port of the listener, for `X-Forwarded-Port`.
    pub(crate) port_value: HeaderValue,
    /// Largest pause within a request body.
    pub(crate) body_idle: Duration,
    /// When it has lived for long enough: the next answer is the last.
    pub(crate) ends: Moment,
    /// Whether the connection is TLS.
    pub(crate) secure: bool,
    /// What TLS has established, where a request has to know. Writer: `doors::connection`.
    pub(crate) tls: Option<Box<Secured>>,
    /// What happens on it.
    pub(crate) clocks: Arc<Clocks>,
    /// Its places, given back when the last user of it is gone.
    pub(crate) _place: Seats,
}

/// A connection's places among others.
#[derive(Debug)]
pub(crate) struct Seats {
    /// Among the connections of its listener.
    #[expect(dead_code, reason = "held, and given back when dropped")]
    pub(crate) own: OwnedSemaphorePermit,
    /// Among those of all listeners.
    #[expect(dead_code, reason = "held, and given back when dropped")]
    pub(crate) common: OwnedSemaphorePermit,
}

/// The host a request names: lower case, without port and without a trailing dot.
#[derive(Debug, Clone)]
pub(crate) struct Host {
    value: HeaderValue,
    name_len: usize,
}

/// Trace context and request id.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Trace {
    pub(crate) trace_id: [u8; 16],
    /// The span of the gateway itself; the parent of what the service does.
    pub(crate) span_id: [u8; 8],
    pub(crate) flags: u8,
}

/// Who the caller was proven to be.
#[derive(Debug)]
pub(crate) struct Principal {
    /// The verified claims, a JSON object.
    pub(crate) claims: serde_json::Map<String, serde_json::Value>,
}

/// The numbers behind `RateLimit-*`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LimitState {
    pub(crate) limit: u64,
    pub(crate) remaining: u64,
    pub(crate) reset: Duration,
    /// Where it was counted; said only where a shared store is configured.
    pub(crate) mode: Option<&'static str>,
}

/// The client's side of a trusted proxy in front, where it tells of that.
#[derive(Debug)]
pub(crate) struct Outside {
    /// The host that the client has asked for.
    pub(crate) host: Option<HeaderValue>,
    /// Whether it has come over HTTPS.
    pub(crate) secure: Option<bool>,
}

/// Phases of one request as durations; zero where a phase did not happen.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Timing {
    /// From acceptance to the first attempt: admission, matching, filters.
    pub(crate) gateway: Duration,
    /// Waiting for a connection, including making it.
    pub(crate) connect: Duration,
    /// From the request being sent to the answer's head, last attempt.
    pub(crate) head: Duration,
}

/// What the access log wants to know of the request itself; only filled when a line will be written.
#[derive(Debug)]
pub(crate) struct Logged {
    pub(crate) method: http::Method,
    pub(crate) version: http::Version,
    pub(crate) path: String,
    /// The parameters that may be logged.
    pub(crate) query: Option<String>,
    pub(crate) user_agent: Option<HeaderValue>,
}

/// A failure that somebody else's answer stands in for.
#[derive(Debug)]
pub(crate) struct Instead {
    pub(crate) fault: Fault,
    /// The upstream that was asked instead; a fixed answer has none.
    pub(crate) upstream: Option<Arc<str>>,
}

/// One request's record.
#[derive(Debug)]
pub(crate) struct Cx {
    /// When the head was complete. Writer: [`Cx::begin`].
    pub(crate) started: Moment,
    /// The connection. Writer: [`Cx::begin`].
    pub(crate) peer: Rc<Peer>,
    /// Where the request really comes from. Writer: `path::admission`.
    pub(crate) client: IpAddr,
    /// Whether the connection comes from a trusted proxy. Writer: `path::admission`.
    pub(crate) peer_trusted: bool,
    /// The host it names. Writer: `path::admission`.
    pub(crate) host: Option<Host>,
    /// Whether the caller speaks gRPC. Writer: `path::admission`.
    pub(crate) grpc: bool,
    /// Whether this is HEAD, whose answer has no body. Writer: `path::admission`.
    pub(crate) head_request: bool,
    /// Whether it was sent as a POST that stands for its method. Writer: `path::admission`.
    pub(crate) overridden: bool,
    /// HTTP/1 (where `Connection: close` means something). Writer: `path::admission`.
    pub(crate) http1: bool,
    /// Shape of error bodies. Writer: [`Cx::begin`].
    pub(crate) envelope: Envelope,
    /// Whether services are told in `Forwarded` too. Writer: `path::pipeline`.
    pub(crate) forwarded_header: bool,
    /// What the route's path captured, taken before any rewrite. Writer: `path::pipeline`.
    pub(crate) captures: Vec<Box<str>>,
    /// Methods to name in `Allow`. Writer: `path::pipeline`.
    pub(crate) allow: Option<MethodSet>,
    /// Trace ids. Writer: filter `request_id`, else made on demand by [`Cx::trace`].
    pub(crate) trace: Option<Trace>,
    /// The trace id as a field value, for the answer. Writer: filter `request_id`.
    pub(crate) trace_text: Option<HeaderValue>,
    /// The request id to hand on, if one was taken or made. Writer: filter `request_id`.
    pub(crate) request_id: Option<HeaderValue>,
    /// Whether the route takes no chances with tokens. Writer: `path::pipeline`.
    pub(crate) sensitive: bool,
    /// Whether it is a call of a batch. Writer: `path::pipeline`.
    pub(crate) batched: bool,
    /// Whether a page of another origin reads its answer, in a batch. Writer: `path::pipeline`.
    pub(crate) foreign: bool,
    /// The fields as the client sent them, where the request is a batch. Writer: `path::pipeline`.
    pub(crate) said: Option<Box<HeaderMap>>,
    /// The proven caller. Writers: filters that identify.
    pub(crate) principal: Option<Arc<Principal>>,
    /// What of that the caller's keys prove. Writer: [`Cx::join`].
    keyed: Option<Arc<Principal>>,
    /// The mini-program that calls, if it says so. Writers: `path::admission`, and `path::pipeline` once
    /// there is a principal.
    pub(crate) mini: Option<Box<mini::Client>>,
    /// The name of the caller's key, for the log. Writers: filters `signature`, `api_key`.
    pub(crate) key_name: Option<Arc<str>>,
    /// The tightest limit met. Writer: filter `rate_limit`.
    pub(crate) limit: Option<LimitState>,
    /// What is given back when the request is over. Writer: filter `rate_limit`.
    pub(crate) holds: Vec<Box<dyn Any>>,
    /// The `Origin` to answer to. Writer: filter `cors`.
    pub(crate) origin: Option<HeaderValue>,
    /// When to come back. Writer: whoever returns the fault.
    pub(crate) retry_after: Option<Duration>,
    /// The breaker that refused. Writer: `path::permit`.
    pub(crate) breaker: Option<Arc<str>>,
    /// What a refusal tells beyond its words: JSON for `data`. Writer: whoever returns the fault.
    pub(crate) detail: Option<Arc<str>>,
    /// What the client should know of newer versions, for `X-MP-Upgrade`. Writer: `path::pipeline`.
    pub(crate) upgrade: Option<&'static str>,
    /// What the answer stands in for. Writer: `path::target`.
    pub(crate) instead: Option<Box<Instead>>,
    /// Why the request failed. Writer: `path::pipeline`.
    pub(crate) fault: Option<Fault>,
    /// Cap on the request body in bytes. Writer: filter `size_limit`.
    pub(crate) body_limit: Option<u64>,
    /// When the client gives up, if it says so. Writer: `path::admission`.
    pub(crate) deadline: Option<Moment>,
    /// Target of the request as it came, where it goes on as another. Writers: the filters that change
    /// paths.
    pub(crate) came: Option<PathAndQuery>,
    /// What a trusted proxy tells of its own client's side. Writer: `path::forward`.
    pub(crate) outside: Option<Box<Outside>>,
    /// The host to send instead of the client's. Writer: filter `rewrite`.
    pub(crate) upstream_host: Option<HeaderValue>,
    /// The request body, where a filter may read it before it is sent. Writers: `path::pipeline`, `base::inlet`.
    pub(crate) ahead: Option<Ahead>,
    /// The request body's meter, when there is a body. Writers: `path::forward`, `base::inlet`.
    pub(crate) upload: Option<Rc<Meter>>,
    /// Attempts made. Writer: `path::forward`.
    pub(crate) attempts: u32,
    /// Why there was more than one, the last time. Writer: `path::forward`.
    pub(crate) retried: Option<&'static str>,
    /// Whether the last attempt used a kept connection. Writer: `path::forward`.
    pub(crate) reused: bool,
    /// The endpoint of the last attempt. Writer: `path::forward`.
    pub(crate) endpoint: Option<Arc<str>>,
    /// Phases. Writers: `path::pipeline`, `path::forward`.
    pub(crate) timing: Timing,
    /// What it shares with its holder, where it may go on without its client. Writers: `path::pipeline`,
    /// `path::forward`.
    pub(crate) tie: Option<Rc<Tie>>,
    /// For the access log. Writer: `path::pipeline`.
    pub(crate) logged: Option<Box<Logged>>,
}

impl Cx {
    pub(crate) fn begin(peer: Rc<Peer>, started: Moment, envelope: Envelope) -> Self {
        Self {
            started,
            client: peer.address.ip().to_canonical(),
            peer,
            peer_trusted: false,
            host: None,
            grpc: false,
            head_request: false,
            overridden: false,
            http1: true,
            envelope,
            forwarded_header: false,
            captures: Vec::new(),
            allow: None,
            trace: None,
            trace_text: None,
            request_id: None,
            sensitive: false,
            batched: false,
            foreign: false,
            said: None,
            principal: None,
            keyed: None,
            mini: None,
            key_name: None,
            limit: None,
            holds: Vec::new(),
            origin: None,
            retry_after: None,
            breaker: None,
            detail: None,
            upgrade: None,
            instead: None,
            fault: None,
            body_limit: None,
            deadline: None,
            came: None,
            outside: None,
            upstream_host: None,
            ahead: None,
            upload: None,
            attempts: 0,
            retried: None,
            reused: false,
            endpoint: None,
            timing: Timing::default(),
            tie: None,
            logged: None,
        }
    }

    /// The trace ids; made now if no filter took or made them.
    pub(crate) fn trace(&mut self) -> Trace {
        *self.trace.get_or_insert_with(Trace::random)
    }

    /// When the client left, where the request goes on without it.
    pub(crate) fn left(&self) -> Option<Moment> {
        self.tie.as_ref()?.left()
    }

    /// The named host, or nothing.
    pub(crate) fn host_name(&self) -> &str {
        self.host.as_ref().map_or("", Host::name)
    }

    /// Whether the client has come over HTTPS, here or at a trusted proxy.
    pub(crate) fn is_secure(&self) -> bool {
        self.outside.as_ref().and_then(|outside| outside.secure).unwrap_or(self.peer.secure)
    }

    /// The host that the client has asked for, with the port that it has named.
    pub(crate) fn public_host(&self) -> Option<&HeaderValue> {
        let told = self.outside.as_ref().and_then(|outside| outside.host.as_ref());
        told.or_else(|| self.host.as_ref().map(Host::value))
    }

    /// A capture by its position in the route's path.
    pub(crate) fn capture(&self, at: usize) -> &str {
        self.captures.get(at).map_or("", AsRef::as_ref)
    }

    /// Joins what a key proves with what is known of the caller already; of one name, the key's claim counts.
    pub(crate) fn join(&mut self, proven: &Arc<Principal>) {
        let joined = |known: Option<Arc<Principal>>| match known {
            None => Arc::clone(proven),
            Some(known) => known.with(proven),
        };
        self.keyed = Some(joined(self.keyed.take()));
        self.principal = Some(joined(self.principal.take()));
    }

    /// The caller as a token says, in place of what another token said; what a key proves stays and counts.
    pub(crate) fn identify(&mut self, token: Arc<Principal>) {
        self.principal = Some(match &self.keyed {
            None => token,
            Some(keyed) => token.with(keyed),
        });
    }

    /// A claim of the proven caller.
    pub(crate) fn claim(&self, name: &str) -> Option<&serde_json::Value> {
        self.principal.as_ref()?.claims.get(name)
    }
}

impl Principal {
    /// Both their claims; of one name, that of `stronger`.
    fn with(&self, stronger: &Self) -> Arc<Self> {
        let mut claims = self.claims.clone();
        claims.extend(stronger.claims.iter().map(|(name, v)| (name.clone(), v.clone())));
        Arc::new(Self { claims })
    }
}

impl Host {
    /// `value` is the whole field, `name_len` the length of the host before port and trailing dot.
    pub(crate) fn new(value: HeaderValue, name_len: usize) -> Self {
        Self { value, name_len }
    }

    pub(crate) fn name(&self) -> &str {
        self.value.to_str().ok().and_then(|text| text.get(..self.name_len)).unwrap_or("")
    }

    /// The field as it is forwarded, with the port the client named.
    pub(crate) fn value(&self) -> &HeaderValue {
        &self.value
    }
}

impl Trace {
    /// A new trace, sampled.
    pub(crate) fn random() -> Self {
        Self {
            trace_id: fastrand::u128(1..).to_be_bytes(),
            span_id: fastrand::u64(1..).to_be_bytes(),
            flags: 1,
        }
    }

    /// The trace id as 32 lower-case hex digits.
    pub(crate) fn trace_hex(&self) -> Hex<32> {
        Hex::new(&self.trace_id)
    }

    /// The span id as 16 lower-case hex digits.
    pub(crate) fn span_hex(&self) -> Hex<16> {
        Hex::new(&self.span_id)
    }
}

/// Lower-case hex digits on the stack.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Hex<const N: usize>([u8; N]);

impl<const N: usize> Hex<N> {
    fn new(bytes: &[u8]) -> Self {
        let mut out = [b'0'; N];
        write_hex(bytes, &mut out);
        Self(out)
    }

    pub(crate) fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or("")
    }
}
