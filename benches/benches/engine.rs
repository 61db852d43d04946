//! What the engine's mechanisms cost: `cargo bench -p sluice-benches`. Read ratios, not times: the
//! claim is that a look-up costs nearly the same in a table of 10 routes and of 10,000.
#![allow(clippy::expect_used, reason = "a benchmark whose table does not build measures nothing")]

use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use sluice_engine::matcher::{Facts, MethodSet, PathPattern, Request, RouteSpec, Router};
use sluice_engine::moment::Moment;
use sluice_engine::{breaker, canon, window};

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

fn matching(c: &mut Criterion) {
    let mut group = c.benchmark_group("find the last route of");
    for routes in [10, 1_000, 10_000] {
        let router = router(routes);
        let last = (routes - 1) / 3 * 3;
        let path = format!("/api/service{last}/a/b");
        group.bench_with_input(BenchmarkId::from_parameter(routes), &path, |b, path| {
            let request = Request { host: "api.example.com", method: "GET", path, facts: &NoFacts };
            b.iter(|| black_box(router.find(black_box(&request))));
        });
    }
    group.finish();
}

fn mechanisms(c: &mut Criterion) {
    c.bench_function("canonical path, nothing to change", |b| {
        b.iter(|| black_box(canon::path(black_box("/api/users/12345/orders"))));
    });
    c.bench_function("sliding window hit", |b| {
        let rules = window::Rules { limit: u64::MAX / 4, per: Duration::from_secs(60) };
        let mut counter = window::Counter::default();
        let mut now = 0;
        b.iter(|| {
            now += 1_000;
            black_box(counter.hit(&rules, Moment::from_nanos(now), 1))
        });
    });
    c.bench_function("breaker, closed, with a rate rule", |b| {
        let rules = breaker::Rules {
            consecutive_failures: Some(5),
            failure_rate: Some(breaker::RateRule {
                percent: 50,
                min_requests: 20,
                window: Duration::from_secs(10),
            }),
            open_for: Duration::from_secs(5),
            half_open_requests: 3,
        };
        let cell = breaker::Cell::default();
        let mut now = 0;
        b.iter(|| {
            now += 1_000;
            let now = Moment::from_nanos(now);
            if let Ok(admission) = cell.admit(&rules, now) {
                black_box(cell.record(&rules, now, admission.ticket, breaker::Outcome::Success));
            }
        });
    });
}

criterion_group!(benches, matching, mechanisms);
criterion_main!(benches);
