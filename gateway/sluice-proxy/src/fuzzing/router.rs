//! The router against asking every route in turn, by the questions that its documentation lists.

use std::cmp::Reverse;
use std::net::{IpAddr, Ipv4Addr};

use sluice_engine::matcher::{
    BuildFault, Facts, Found, HostPattern, MethodSet, PathPattern, Predicate, Request, RouteSpec,
    Router, Source, Test,
};

use super::draw::Draw;

const HOSTS: [&str; 8] = ["a", "b.a", "*.a", "*.b.a", "c.b.a", "*.c", "d.c", "e"];
const SEGMENTS: [&str; 6] = ["x", "y", "xy", "{}", "{}", "%2F"];
const METHODS: [&str; 6] = ["GET", "HEAD", "POST", "PUT", "LOCK", "OPTIONS"];
const HEADERS: [&str; 3] = ["one", "two", "three"];
const MAX_ROUTES: usize = 24;
const MAX_SEGMENTS: usize = 5;

struct Plain {
    hosts: Vec<&'static str>,
    segments: Vec<&'static str>,
    below: bool,
    methods: Vec<&'static str>,
    /// A header, and whether it has to be there.
    wanted: Vec<(&'static str, bool)>,
    priority: i32,
}

struct Asked {
    host: &'static str,
    method: &'static str,
    segments: Vec<&'static str>,
    headers: Vec<&'static str>,
}

impl Facts for Asked {
    fn each_header(&self, name: &str, f: &mut dyn FnMut(&[u8])) {
        if self.headers.contains(&name) {
            f(b"");
        }
    }

    fn query(&self) -> &str {
        ""
    }

    fn client(&self) -> IpAddr {
        IpAddr::V4(Ipv4Addr::LOCALHOST)
    }
}

pub(super) fn check(data: &[u8]) {
    let mut draw = Draw::new(data);
    let asked = asked(&mut draw);
    let mut routes = Vec::new();
    while !draw.is_empty() && routes.len() < MAX_ROUTES {
        routes.push(plain(&mut draw));
    }
    let router = loop {
        match Router::build(routes.iter().map(Plain::spec).collect()) {
            Ok(router) => break router,
            Err(faults) => {
                let mut dead = Vec::new();
                for fault in faults {
                    let BuildFault::Unreachable { route, because_of } = fault else {
                        panic!("{fault}")
                    };
                    assert!(route != because_of);
                    assert_ne!(naive(&routes, &asked), Some(route), "it was called unreachable");
                    dead.push(route);
                }
                assert!(!dead.is_empty());
                let mut at = 0..;
                routes.retain(|_| !dead.contains(&at.next().unwrap_or(0)));
            }
        }
    };
    let path = format!("/{}", asked.segments.join("/"));
    let request = Request { host: asked.host, method: asked.method, path: &path, facts: &asked };
    let wanted = naive(&routes, &asked);
    let others = |method| {
        naive(
            &routes,
            &Asked {
                method,
                headers: asked.headers.clone(),
                segments: asked.segments.clone(),
                ..asked
            },
        )
    };
    match router.find(&request) {
        Found::Route(found) => {
            assert_eq!(Some(found.route), wanted, "{request:?}");
            let pairs = routes[found.route].segments.iter().zip(&asked.segments);
            let captured: Vec<_> =
                pairs.filter(|(it, _)| **it == "{}").map(|(_, it)| *it).collect();
            let got: Vec<_> =
                (0..found.captures.len()).filter_map(|at| found.captures.get(at, &path)).collect();
            assert_eq!(got, captured);
        }
        Found::MethodNotAllowed(methods) => {
            assert_eq!(wanted, None);
            for method in METHODS {
                assert_eq!(methods.contains(method), others(method).is_some(), "{method}");
            }
        }
        Found::NoRoute => assert!(METHODS.iter().all(|method| others(method).is_none())),
    }
    let mut order = router.order();
    order.sort_unstable();
    assert_eq!(order, (0..routes.len()).collect::<Vec<_>>());
}

fn asked(draw: &mut Draw<'_>) -> Asked {
    let literal: Vec<&str> = HOSTS.into_iter().filter(|host| !host.starts_with('*')).collect();
    let host = draw.one(&literal);
    let method = draw.one(&METHODS);
    let headers = draw.some(&HEADERS);
    let mut segments = Vec::new();
    for _ in 0..draw.below(MAX_SEGMENTS) {
        segments.push(draw.one(&["x", "y", "xy", "z", "%2F"]));
    }
    if draw.flag() || segments.is_empty() {
        segments.push("");
    }
    Asked { host, method, segments, headers }
}

fn plain(draw: &mut Draw<'_>) -> Plain {
    let hosts = draw.some(&HOSTS);
    let methods = draw.some(&METHODS);
    let wanted = draw.some(&HEADERS).into_iter().map(|name| (name, draw.flag())).collect();
    let (below, slash) = (draw.flag(), draw.flag());
    let priority = draw.below(3) as i32 - 1;
    let mut segments = Vec::new();
    for _ in 0..draw.below(MAX_SEGMENTS) {
        segments.push(draw.one(&SEGMENTS));
    }
    if !below && (slash || segments.is_empty()) {
        segments.push("");
    }
    Plain { hosts, segments, below, methods, wanted, priority }
}

impl Plain {
    fn spec(&self) -> RouteSpec {
        let named = self.segments.iter().enumerate().map(|(at, segment)| match *segment {
            "{}" => format!("/{{c{at}}}"),
            literal => format!("/{literal}"),
        });
        let path = named.collect::<String>() + if self.below { "/**" } else { "" };
        let predicate = |(name, present): &(&str, bool)| Predicate::Value {
            source: Source::Header((*name).to_owned()),
            test: if *present { Test::Present } else { Test::Absent },
        };
        RouteSpec {
            hosts: self.hosts.iter().map(|host| HostPattern::parse(host).unwrap()).collect(),
            path: PathPattern::parse(&path).unwrap(),
            methods: MethodSet::parse(self.methods.iter().copied()).unwrap(),
            predicates: self.wanted.iter().map(predicate).collect(),
            priority: self.priority,
        }
    }

    /// Smaller is better; `None` does not match.
    fn host(&self, host: &str) -> Option<(u8, Reverse<usize>)> {
        if self.hosts.is_empty() {
            return Some((2, Reverse(0)));
        }
        let one = |pattern: &&str| match pattern.strip_prefix('*') {
            None => (host == *pattern).then_some((0, Reverse(0))),
            Some(end) => {
                (host.len() > end.len() && host.ends_with(end)).then_some((1, Reverse(end.len())))
            }
        };
        self.hosts.iter().filter_map(one).min()
    }

    fn path(&self, segments: &[&str]) -> Option<(u8, Reverse<usize>, Vec<bool>)> {
        let fits = |(wanted, given): (&&str, &&str)| match *wanted {
            "{}" => !given.is_empty(),
            literal => literal == *given,
        };
        let long = match self.below {
            true => segments.len() >= self.segments.len(),
            false => segments.len() == self.segments.len(),
        };
        let open: Vec<bool> = self.segments.iter().map(|segment| *segment == "{}").collect();
        let kind = if self.below { 2 } else { u8::from(open.contains(&true)) };
        let depth = Reverse(if self.below { self.segments.len() } else { 0 });
        (long && self.segments.iter().zip(segments).all(fits)).then_some((kind, depth, open))
    }

    fn method(&self, method: &str) -> bool {
        let head = method == "HEAD" && self.methods.contains(&"GET");
        self.methods.is_empty() || self.methods.contains(&method) || head
    }
}

fn naive(routes: &[Plain], asked: &Asked) -> Option<usize> {
    let keys = routes.iter().enumerate().filter_map(|(index, route)| {
        let host = route.host(asked.host)?;
        let path = route.path(&asked.segments)?;
        let holds = |(name, present): &(&str, bool)| asked.headers.contains(name) == *present;
        (route.method(asked.method) && route.wanted.iter().all(holds)).then_some(())?;
        let rest = (Reverse(route.priority), Reverse(route.wanted.len()), route.methods.is_empty());
        Some((host, path, rest, index))
    });
    keys.min().map(|(.., index)| index)
}
