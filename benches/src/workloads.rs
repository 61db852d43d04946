//! The table of workloads: what is asked of every proxy, and how. A further workload is one entry.
//!
//! An entry says what is asked; how each proxy is configured for it is in `peers`, and how the load
//! is made in `load`. The one rule: every proxy gets the same requests over the same number of
//! connections, and only what an entry says differs between two of them.

/// One thing that is measured.
#[derive(Debug, Clone)]
pub(crate) struct Workload {
    /// The word for `--only`, and the key in the report.
    pub(crate) name: &'static str,
    /// What it is, in words.
    pub(crate) title: &'static str,
    pub(crate) ask: Ask,
    pub(crate) load: Load,
    pub(crate) front: Front,
    pub(crate) back: Back,
    /// How many routes the table holds; the last of them is asked for.
    pub(crate) routes: usize,
    /// What is done besides forwarding, by Sluice and by proxies that can; nginx only forwards.
    pub(crate) chain: Option<Chain>,
    /// A limit by address and nothing else, which nobody reaches; nginx only forwards.
    pub(crate) limit: Option<Limit>,
    /// Requests per second at which it is measured too.
    pub(crate) rates: &'static [Rate],
    /// Whether system calls are counted, in a short run of its own.
    pub(crate) counts_calls: bool,
}

/// The request, and what must come back.
#[derive(Debug, Clone)]
pub(crate) struct Ask {
    pub(crate) path: String,
    /// Bytes of the body of a POST; none makes it a GET.
    pub(crate) body: Option<usize>,
    /// Bytes of the body of the answer.
    pub(crate) answer: usize,
}

/// How the load is made at saturation.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Load {
    /// HTTP/1.1, each connection asking again as soon as it was answered.
    KeepAlive { connections: usize },
    /// HTTP/2, so many streams at a time on each connection.
    Streams { connections: usize, streams: usize },
    /// A new connection for each request, without resumption, so many at a time.
    Handshakes { at_once: usize },
    /// Connections that were used once and then do nothing.
    Idle { connections: usize },
    /// WebSocket messages, each connection sending the next one when the last came back.
    Messages { connections: usize },
}

/// What clients speak.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Front {
    Plain,
    Tls,
    /// HTTP/2 over TLS, HTTP/1.1 being offered too.
    Http2,
    /// HTTP/2 without TLS, by prior knowledge.
    Http2Plain,
}

/// What the back end speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Back {
    Http,
    WebSocket,
    /// HTTP/2 without TLS.
    Grpc,
}

/// The full chain of Sluice: request id, token, limit, breaker, health checks; retries are armed and
/// metrics are counted in any case.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Chain {
    pub(crate) token: Token,
    pub(crate) access_log: bool,
    pub(crate) limit: Limit,
}

/// How tokens are signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Token {
    Hs256,
    Es256,
}

/// Where calls are counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Limit {
    Local,
    /// One script for each request.
    Redis,
    /// In blocks that are paid for in advance.
    Leased,
}

/// A rate at which requests leave, whether or not earlier ones were answered.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Rate {
    PerSecond(u32),
    /// This share of what nginx served at saturation in the same run.
    OfNginx(f64),
}

/// What is measured of a workload at a time.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Pass {
    /// As many requests as can be had.
    Saturation,
    /// The same in many short slices, for CPU time per request alone.
    Slices,
    /// Requests at a rate.
    Steady(Rate),
    /// Memory of connections that do nothing.
    Idle,
    /// System calls; in one round, since they are counted and not timed.
    Calls,
}

/// The usual two: one at which wake-ups dominate, and one under real load.
const RATES: &[Rate] = &[Rate::PerSecond(4000), Rate::OfNginx(0.7)];
const MANY: Load = Load::KeepAlive { connections: 64 };
const CHAIN: Chain = Chain { token: Token::Hs256, access_log: false, limit: Limit::Local };

/// All workloads, in the order of the report.
pub(crate) fn all() -> Vec<Workload> {
    let mut all = plain();
    all.extend(encrypted());
    all.extend(routes());
    all.extend(chains());
    all.extend(limits());
    all.extend(others());
    all
}

fn plain() -> Vec<Workload> {
    vec![
        Workload {
            rates: RATES,
            counts_calls: true,
            ..Workload::new("get-128", "GET, answers of 128 B, 64 connections", small())
        },
        Workload {
            counts_calls: true,
            ..Workload::new("get-4k", "GET, answers of 4 KiB, 64 connections", get("/4k", 4096))
        },
        Workload {
            load: Load::KeepAlive { connections: 16 },
            ..Workload::new("get-1m", "GET, answers of 1 MiB, 16 connections", get("/1m", 1 << 20))
        },
        Workload {
            ask: Ask { body: Some(16 * 1024), ..get("/echo", 16 * 1024) },
            ..Workload::new("post-16k", "POST, 16 KiB echoed, 64 connections", small())
        },
    ]
}

fn encrypted() -> Vec<Workload> {
    vec![
        Workload {
            front: Front::Tls,
            rates: RATES,
            ..Workload::new("tls", "TLS 1.3, GET of 128 B, 64 connections kept", small())
        },
        Workload {
            front: Front::Tls,
            load: Load::Handshakes { at_once: 16 },
            ..Workload::new(
                "handshakes",
                "TLS 1.3, a full handshake for each GET of 128 B",
                small(),
            )
        },
        Workload {
            front: Front::Http2,
            load: Load::Streams { connections: 8, streams: 16 },
            rates: &[Rate::PerSecond(4000)],
            ..Workload::new("http2", "HTTP/2 over TLS, GET of 128 B, 8 x 16 streams", small())
        },
    ]
}

fn routes() -> Vec<Workload> {
    let last = |name, title, routes: usize| Workload {
        routes,
        ..Workload::new(name, title, get(&format!("/r{}/128", routes - 1), 128))
    };
    vec![
        last("routes-10", "GET of 128 B by the last of 10 routes", 10),
        last("routes-1k", "GET of 128 B by the last of 1,000 routes", 1000),
        last("routes-10k", "GET of 128 B by the last of 10,000 routes", 10_000),
    ]
}

fn chains() -> Vec<Workload> {
    let chain =
        |name, title, chain| Workload { chain: Some(chain), ..Workload::new(name, title, small()) };
    vec![
        Workload {
            rates: RATES,
            ..chain("chain-hs256", "full chain with HS256, nginx forwarding only", CHAIN)
        },
        Workload {
            ask: get("/4k", 4096),
            ..chain("chain-4k", "the same with answers of 4 KiB", CHAIN)
        },
        chain("chain-es256", "the same with ES256", Chain { token: Token::Es256, ..CHAIN }),
        chain(
            "chain-log",
            "the same with HS256 and the access log written to a file",
            Chain { access_log: true, ..CHAIN },
        ),
        chain(
            "chain-redis",
            "the same with HS256 and the limit counted in Redis",
            Chain { limit: Limit::Redis, ..CHAIN },
        ),
    ]
}

fn limits() -> Vec<Workload> {
    let limit =
        |name, title, limit| Workload { limit: Some(limit), ..Workload::new(name, title, small()) };
    vec![
        limit("limit-local", "GET of 128 B, a limit counted in the process", Limit::Local),
        limit("limit-redis", "the same with one script in Redis for each request", Limit::Redis),
        limit("limit-leased", "the same in Redis, in blocks paid for in advance", Limit::Leased),
    ]
}

fn others() -> Vec<Workload> {
    let idle = Load::Idle { connections: 2000 };
    vec![
        Workload { load: idle, ..Workload::new("idle", "2,000 idle connections", small()) },
        Workload {
            load: idle,
            front: Front::Tls,
            ..Workload::new("idle-tls", "2,000 idle connections with TLS 1.3", small())
        },
        Workload {
            back: Back::WebSocket,
            load: Load::Messages { connections: 64 },
            ..Workload::new(
                "websocket",
                "WebSocket, messages of 62 B echoed, 64 connections",
                get("/ws", 64),
            )
        },
        Workload {
            front: Front::Http2Plain,
            back: Back::Grpc,
            load: Load::Streams { connections: 8, streams: 16 },
            ask: Ask { path: "/bench.Echo/Unary".into(), body: Some(64), answer: 64 },
            ..Workload::new("grpc", "gRPC unary, 59 B echoed, 8 x 16 streams", small())
        },
    ]
}

fn small() -> Ask {
    get("/128", 128)
}

fn get(path: &str, answer: usize) -> Ask {
    Ask { path: path.to_owned(), body: None, answer }
}

impl Workload {
    /// Whether something is counted in Redis.
    pub(crate) fn needs_redis(&self) -> bool {
        let limit = self.limit.or_else(|| self.chain.map(|chain| chain.limit));
        limit.is_some_and(|limit| limit != Limit::Local)
    }

    /// GET without TLS over one route; entries say what differs.
    fn new(name: &'static str, title: &'static str, ask: Ask) -> Self {
        Self {
            name,
            title,
            ask,
            load: MANY,
            front: Front::Plain,
            back: Back::Http,
            routes: 1,
            chain: None,
            limit: None,
            rates: &[],
            counts_calls: false,
        }
    }

    /// The passes over it, each of them a table of the report.
    pub(crate) fn passes(&self) -> Vec<Pass> {
        if matches!(self.load, Load::Idle { .. }) {
            return vec![Pass::Idle];
        }
        let rates = self.rates.iter().map(|rate| Pass::Steady(*rate));
        let calls = self.counts_calls.then_some(Pass::Calls);
        [Pass::Saturation, Pass::Slices].into_iter().chain(rates).chain(calls).collect()
    }

    pub(crate) fn is_encrypted(&self) -> bool {
        matches!(self.front, Front::Tls | Front::Http2)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_words() {
        let mut names: Vec<&str> = all().iter().map(|workload| workload.name).collect();
        let word = |name: &str| name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
        assert!(names.iter().all(|name| word(name)), "{names:?}");
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), all().len());
    }
}
