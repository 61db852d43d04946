//! The engine's mechanisms as steps that can be repeated: timed by `engine`, counted by
//! the example `hot` of the engine. A further mechanism is one entry.
#![allow(clippy::expect_used, reason = "a table that does not build measures nothing")]

use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use sluice_engine::http1::chunked::Chunked;
use sluice_engine::http1::request_head::RequestHead;
use sluice_engine::mask::Mask;
use sluice_engine::matcher::{Facts, MethodSet, PathPattern, Request, RouteSpec, Router};
use sluice_engine::moment::Moment;
use sluice_engine::trace::{LENGTH, TraceParent};
use sluice_engine::{balance, breaker, canon, cidr, forwarded, window};

/// A step that can be repeated.
pub(crate) type Step = Box<dyn FnMut()>;

/// What to call a step, and how to get ready for it.
pub(crate) struct Mechanism {
    pub(crate) name: &'static str,
    pub(crate) prepare: fn() -> Step,
}

/// All of them.
pub(crate) fn all() -> Vec<Mechanism> {
    let named = |name, prepare| Mechanism { name, prepare };
    vec![
        named("find_10", || find(10)),
        named("find_1k", || find(1_000)),
        named("find_10k", || find(10_000)),
        named("request_head", request_head),
        named("chunk", chunk),
        named("canonical_path", canonical_path),
        named("client_address", client_address),
        named("window_hit", window_hit),
        named("breaker_closed", breaker_closed),
        named("round_robin", || pick(balance::Policy::RoundRobin)),
        named("least_request", || pick(balance::Policy::LeastRequest)),
        named("fastest", || pick(balance::Policy::Fastest)),
        named("random", || pick(balance::Policy::Random)),
        named("consistent_hash", || pick(balance::Policy::Hash)),
        named("traceparent", traceparent),
        named("mask_nothing", || {
            masked(b"Mozilla/5.0 (iPhone; CPU iPhone OS 18_5 like Mac OS X) MicroMessenger/8.0.61(0x18003d2a)")
        }),
        named("mask_phone", || masked(b"/api/users/13812345678/orders")),
    ]
}

// === Matching ===

struct NoFacts;

impl Facts for NoFacts {
    fn each_header(&self, _: &str, _: &mut dyn FnMut(&[u8])) {}

    fn query(&self) -> &str {
        ""
    }

    fn client(&self) -> IpAddr {
        IpAddr::V4(Ipv4Addr::LOCALHOST)
    }
}

/// Routes of three kinds in turn, as tables in use have them.
fn router(routes: usize) -> Router {
    let specs = (0..routes).map(|n| {
        let path = match n % 3 {
            0 => format!("/api/service{n}/**"),
            1 => format!("/api/service{n}/items/{{id}}"),
            _ => format!("/api/service{n}/status"),
        };
        RouteSpec {
            hosts: Vec::new(),
            path: PathPattern::parse(&path).expect("a path"),
            methods: MethodSet::parse(["GET"]).expect("a method"),
            predicates: Vec::new(),
            priority: 0,
        }
    });
    Router::build(specs.collect()).expect("a table")
}

/// Finds the last of so many routes.
fn find(routes: usize) -> Step {
    let router = router(routes);
    let last = (routes - 1) / 3 * 3;
    let path = format!("/api/service{last}/a/b");
    Box::new(move || {
        let request =
            Request { host: "api.example.com", method: "GET", path: &path, facts: &NoFacts };
        black_box(router.find(black_box(&request)));
    })
}

// === Bytes ===

fn request_head() -> Step {
    let head = b"GET /api/users/12345/orders?page=2 HTTP/1.1\r\nHost: api.example.com\r\n\
        User-Agent: Mozilla/5.0 (iPhone; CPU iPhone OS 18_0 like Mac OS X) MicroMessenger/8.0.50\r\n\
        Accept: */*\r\nAccept-Encoding: gzip, deflate, br\r\nContent-Type: application/json\r\n\
        Referer: https://servicewechat.com/wx1234567890abcdef/42/page-frame.html\r\n\
        Connection: keep-alive\r\n\r\n";
    let mut judge = RequestHead::new(32 * 1024);
    Box::new(move || assert!(black_box(judge.read(black_box(head))).is_ok_and(|h| h.is_some())))
}

fn chunk() -> Step {
    let body = [b"400\r\n".as_slice(), &[b'x'; 1024], b"\r\n0\r\n\r\n"].concat();
    Box::new(move || {
        let (mut reader, mut rest) = (Chunked::default(), body.as_slice());
        while let Ok(Some(piece)) = black_box(reader.read(rest)) {
            rest = rest.get(piece.len..).unwrap_or_default();
        }
        assert!(reader.is_done() && rest.is_empty());
    })
}

fn canonical_path() -> Step {
    Box::new(|| drop(black_box(canon::path(black_box("/api/users/12345/orders")))))
}

fn traceparent() -> Step {
    let parent = TraceParent { trace_id: [0x5a; 16], parent_id: [0xa5; 8], flags: 1 };
    Box::new(move || {
        black_box(black_box(&parent).write(&mut [0; LENGTH]));
    })
}

/// Two proxies in front, one of them in a list of a hundred ranges.
fn client_address() -> Step {
    let nets = (0..100).filter_map(|n| cidr::parse_net(&format!("10.{n}.0.0/17")).ok());
    let trusted = cidr::Set::new(nets);
    let peer = IpAddr::V4(Ipv4Addr::new(10, 50, 0, 1));
    Box::new(move || {
        let lines = ["203.0.113.7, 10.70.1.2"].into_iter();
        black_box(forwarded::client_address(black_box(peer), &trusted, lines));
    })
}

// === Limits and choices ===

fn window_hit() -> Step {
    let rules = window::Rules { limit: u64::MAX / 4, per: Duration::from_secs(60) };
    let (mut counter, mut now) = (window::Counter::default(), 0);
    Box::new(move || {
        now += 1_000;
        black_box(counter.hit(&rules, Moment::from_nanos(now), 1));
    })
}

/// Closed, with a rate rule.
fn breaker_closed() -> Step {
    let rules = breaker::Rules {
        consecutive_failures: Some(5),
        interval: None,
        failure_rate: Some(50),
        slow_calls: None,
        min_requests: 20,
        window: breaker::Window::Time(Duration::from_secs(10)),
        open_for: Duration::from_secs(5),
        max_open_for: Duration::from_secs(60),
        half_open_requests: 3,
        ramp: Duration::from_secs(10),
    };
    let good = breaker::Report { outcome: breaker::Outcome::Success, took: Duration::ZERO, id: 0 };
    let (cell, mut now) = (breaker::Cell::default(), 0);
    Box::new(move || {
        now += 1_000;
        let now = Moment::from_nanos(now);
        if let Ok(admission) = cell.admit(&rules, now, 0) {
            black_box(cell.record(&rules, now, admission.ticket, &good, 0));
        }
    })
}

/// Ten endpoints, all available, with as many requests in flight as their number says.
struct Ten;

impl balance::Endpoints for Ten {
    fn len(&self) -> usize {
        10
    }

    fn weight(&self, index: usize) -> u32 {
        u32::try_from(index % 3 + 1).unwrap_or(1)
    }

    fn backup(&self, _: usize) -> bool {
        false
    }

    fn available(&self, _: usize) -> bool {
        true
    }

    fn in_flight(&self, index: usize) -> u32 {
        u32::try_from(index).unwrap_or(0)
    }

    fn name(&self, index: usize) -> u64 {
        index as u64
    }

    fn latency(&self, index: usize) -> u64 {
        1_000_000 + index as u64
    }
}

fn pick(policy: balance::Policy) -> Step {
    let (chooser, cell) = (balance::Chooser::new(policy, &Ten, 50, None), balance::Cell::default());
    let mut random = 0x9e37_79b9_7f4a_7c15_u64;
    Box::new(move || {
        random = random.rotate_left(7).wrapping_mul(5);
        black_box(chooser.pick(&cell, &Ten, &balance::Draw::new(random)));
    })
}

// === Logs ===

/// A text on its way into a log.
fn masked(text: &'static [u8]) -> Step {
    let mask = Mask::new([], Box::new(|_| 0));
    Box::new(move || {
        black_box(mask.apply(black_box(text), 1024));
    })
}
