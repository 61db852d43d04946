//! The router against a matcher that asks every route, written from the doc of `matcher`.

use std::cmp::Reverse;
use std::net::IpAddr;

use proptest::prelude::*;
use sluice_engine::matcher::{
    BuildFault, Facts, Found, HostPattern, Lost, MethodSet, PathPattern, Predicate, Request,
    RouteSpec, Router, Source, Test,
};

/// A route in plain terms, from which both the specification and the verdict of the model come.
#[derive(Clone, Debug)]
struct Plain {
    hosts: Vec<&'static str>,
    path: Path,
    methods: Vec<&'static str>,
    /// Header name and whether it has to be there.
    predicates: Vec<(&'static str, bool)>,
    priority: i32,
}

#[derive(Clone, Debug)]
enum Path {
    /// `*` stands for a capture. Without captures and `below` it is a literal path.
    Segments {
        segments: Vec<&'static str>,
        below: bool,
    },
    Regex(&'static str),
}

#[derive(Clone, Debug)]
struct Asked {
    host: &'static str,
    method: &'static str,
    segments: Vec<&'static str>,
    headers: Vec<&'static str>,
}

const PATTERN_HOSTS: [&str; 6] = ["a.com", "b.a.com", "*.a.com", "*.com", "*.b.a.com", "org"];
const HOSTS: [&str; 7] = ["a.com", "b.a.com", "x.a.com", "c.b.a.com", "org", "com", ""];
const METHODS: [&str; 5] = ["GET", "HEAD", "POST", "DELETE", "LOCK"];
const EXPRESSIONS: [&str; 3] = ["/a.*", "/.*b", "/a|/b"];
const HEADERS: [&str; 2] = ["x-one", "x-two"];

fn any_of(words: &'static [&'static str], most: usize) -> BoxedStrategy<Vec<&'static str>> {
    proptest::sample::subsequence(words, 0..=most.min(words.len())).boxed()
}

fn plain_path() -> impl Strategy<Value = Path> {
    let segment = proptest::sample::select(vec!["a", "b", "c", "*", "*"]);
    let segments = (proptest::collection::vec(segment, 0..4), any::<bool>(), any::<bool>())
        .prop_map(|(mut segments, below, slash)| {
            if !below && (slash || segments.is_empty()) {
                segments.push("");
            }
            Path::Segments { segments, below }
        });
    let regex = proptest::sample::select(&EXPRESSIONS[..]).prop_map(Path::Regex);
    prop_oneof![6 => segments, 1 => regex]
}

fn plain() -> impl Strategy<Value = Plain> {
    let predicate = (proptest::sample::select(&HEADERS[..]), any::<bool>());
    (
        any_of(&PATTERN_HOSTS, 2),
        plain_path(),
        any_of(&METHODS, 2),
        proptest::collection::vec(predicate, 0..3),
        -1_i32..2,
    )
        .prop_map(|(hosts, path, methods, predicates, priority)| Plain {
            hosts,
            path,
            methods,
            predicates,
            priority,
        })
}

fn asked() -> impl Strategy<Value = Asked> {
    let segment = proptest::sample::select(vec!["a", "b", "c", "d"]);
    (
        proptest::sample::select(&HOSTS[..]),
        proptest::sample::select(&METHODS[..]),
        proptest::collection::vec(segment, 0..5),
        any::<bool>(),
        any_of(&HEADERS, 2),
    )
        .prop_map(|(host, method, mut segments, slash, headers)| {
            if slash || segments.is_empty() {
                segments.push("");
            }
            Asked { host, method, segments, headers }
        })
}

impl Facts for Asked {
    fn each_header(&self, name: &str, f: &mut dyn FnMut(&[u8])) {
        if self.headers.contains(&name) {
            f(b"here");
        }
    }
    fn query(&self) -> &str {
        ""
    }
    fn client(&self) -> IpAddr {
        IpAddr::from([192, 0, 2, 1])
    }
}

impl Asked {
    fn path(&self) -> String {
        format!("/{}", self.segments.join("/"))
    }
}

impl Plain {
    fn spec(&self) -> RouteSpec {
        let path = match &self.path {
            Path::Regex(expression) => PathPattern::regex(expression),
            Path::Segments { segments, below } => {
                let named = segments.iter().enumerate().map(|(at, segment)| match *segment {
                    "*" => format!("/{{c{at}}}"),
                    literal => format!("/{literal}"),
                });
                PathPattern::parse(&(named.collect::<String>() + if *below { "/**" } else { "" }))
            }
        };
        let predicate = |(name, present): &(&str, bool)| Predicate::Value {
            source: Source::Header((*name).to_owned()),
            test: if *present { Test::Present } else { Test::Absent },
        };
        RouteSpec {
            hosts: self.hosts.iter().map(|host| HostPattern::parse(host).unwrap()).collect(),
            path: path.unwrap(),
            methods: MethodSet::parse(self.methods.iter().copied()).unwrap(),
            predicates: self.predicates.iter().map(predicate).collect(),
            priority: self.priority,
        }
    }

    /// The rank of the best of its hosts that matches; smaller wins.
    fn host_rank(&self, host: &str) -> Option<(bool, bool, Reverse<usize>)> {
        if self.hosts.is_empty() {
            return Some((true, true, Reverse(0)));
        }
        let rank = |pattern: &&str| match pattern.strip_prefix('*') {
            None => (host == *pattern).then_some((false, false, Reverse(0))),
            Some(tail) => {
                let matches = host.len() > tail.len() && host.ends_with(tail);
                matches.then_some((false, true, Reverse(tail.len())))
            }
        };
        self.hosts.iter().filter_map(rank).min()
    }

    /// Kind, depth, then captures from the left; smaller wins. `first` finds the first route with
    /// the same expression.
    fn path_rank(
        &self,
        asked: &Asked,
        first: impl Fn(&str) -> usize,
    ) -> Option<(u8, Reverse<usize>, Vec<bool>, usize)> {
        match &self.path {
            Path::Regex(expression) => {
                let path = asked.path();
                let matches = match *expression {
                    "/a.*" => path.starts_with("/a"),
                    "/.*b" => path.ends_with('b'),
                    _ => path == "/a" || path == "/b",
                };
                matches.then(|| (2, Reverse(0), Vec::new(), first(expression)))
            }
            Path::Segments { segments, below } => {
                let long_enough = asked.segments.len() >= segments.len();
                let long =
                    if *below { long_enough } else { asked.segments.len() == segments.len() };
                let fits = segments.iter().zip(&asked.segments).all(|(wanted, given)| {
                    if *wanted == "*" { !given.is_empty() } else { wanted == given }
                });
                let captures: Vec<bool> = segments.iter().map(|segment| *segment == "*").collect();
                let kind = match (*below, captures.contains(&true)) {
                    (true, _) => 3,
                    (false, true) => 1,
                    (false, false) => 0,
                };
                let depth = if *below { segments.len() } else { 0 };
                (long && fits).then_some((kind, Reverse(depth), captures, 0))
            }
        }
    }

    fn method_fits(&self, method: &str) -> bool {
        let head = method == "HEAD" && self.methods.contains(&"GET");
        self.methods.is_empty() || self.methods.contains(&method) || head
    }

    fn failing(&self, asked: &Asked) -> Option<usize> {
        self.predicates.iter().position(|(name, present)| asked.headers.contains(name) != *present)
    }

    fn captured<'a>(&self, asked: &'a Asked) -> Vec<&'a str> {
        match &self.path {
            Path::Regex(_) => Vec::new(),
            Path::Segments { segments, .. } => {
                let pairs = segments.iter().zip(&asked.segments);
                pairs.filter(|(wanted, _)| **wanted == "*").map(|(_, given)| *given).collect()
            }
        }
    }
}

/// The index of the first route with the same expression.
fn first_regex(routes: &[Plain], expression: &str) -> usize {
    let same = |route: &Plain| matches!(&route.path, Path::Regex(held) if *held == expression);
    routes.iter().position(same).unwrap()
}

/// The winner by asking everybody and sorting.
fn naive(routes: &[Plain], asked: &Asked) -> Option<usize> {
    let keys = routes.iter().enumerate().filter_map(|(index, route)| {
        let host = route.host_rank(asked.host)?;
        let path = route.path_rank(asked, |expression| first_regex(routes, expression))?;
        if !route.method_fits(asked.method) || route.failing(asked).is_some() {
            return None;
        }
        let predicates = Reverse(route.predicates.len());
        let tie = (Reverse(route.priority), predicates, route.methods.is_empty(), index);
        Some((host, path, tie))
    });
    keys.min().map(|(_, _, (.., index))| index)
}

/// What stands in the way of a route whose path matches.
fn naive_lost(route: &Plain, asked: &Asked) -> Lost {
    if route.host_rank(asked.host).is_none() {
        Lost::Host
    } else if !route.method_fits(asked.method) {
        Lost::Method
    } else {
        route.failing(asked).map_or(Lost::Outranked, Lost::Predicate)
    }
}

fn path_matches(route: &Plain, asked: &Asked) -> bool {
    route.path_rank(asked, |_| 0).is_some()
}

/// Builds a router, leaving out the routes that it calls unreachable. Returns those, too.
fn build(routes: &[Plain]) -> (Router, Vec<usize>, Vec<(usize, usize)>) {
    let mut kept: Vec<usize> = (0..routes.len()).collect();
    let mut dropped = Vec::new();
    loop {
        match Router::build(kept.iter().map(|at| routes[*at].spec()).collect()) {
            Ok(router) => return (router, kept, dropped),
            Err(faults) => {
                let unreachable = faults.into_iter().map(|fault| match fault {
                    BuildFault::Unreachable { route, because_of } => {
                        (kept[route], kept[because_of])
                    }
                    BuildFault::TooManyCaptures { .. } => panic!("there are few captures"),
                });
                let unreachable: Vec<_> = unreachable.collect();
                assert!(!unreachable.is_empty());
                kept.retain(|at| !unreachable.iter().any(|(route, _)| route == at));
                dropped.extend(unreachable);
            }
        }
    }
}

fn check(routes: &[Plain], asked: &Asked) -> Result<(), TestCaseError> {
    let (router, kept, dropped) = build(routes);
    let plain: Vec<Plain> = kept.iter().map(|at| routes[*at].clone()).collect();
    let path = asked.path();
    let request = Request { host: asked.host, method: asked.method, path: &path, facts: asked };
    let found = router.find(&request);
    let wanted = naive(&plain, asked);
    match &found {
        Found::Route(found) => {
            prop_assert_eq!(Some(found.route), wanted);
            let captured = plain[found.route].captured(asked);
            let got: Vec<_> =
                (0..found.captures.len()).filter_map(|at| found.captures.get(at, &path)).collect();
            prop_assert_eq!(got, captured);
        }
        Found::MethodNotAllowed(methods) => {
            prop_assert_eq!(wanted, None);
            for method in METHODS {
                let would = Asked { method, ..asked.clone() };
                prop_assert_eq!(methods.contains(method), naive(&plain, &would).is_some());
            }
        }
        Found::NoRoute => {
            prop_assert_eq!(wanted, None);
            for method in METHODS {
                let would = Asked { method, ..asked.clone() };
                prop_assert_eq!(naive(&plain, &would), None);
            }
        }
    }
    for (route, _) in dropped {
        prop_assert_ne!(naive(routes, asked), Some(route), "called unreachable");
    }
    let near = router.explain(&request);
    let expected = plain
        .iter()
        .enumerate()
        .filter(|(at, route)| Some(*at) != wanted && path_matches(route, asked));
    let expected: Vec<_> = expected.map(|(at, route)| (at, naive_lost(route, asked))).collect();
    prop_assert_eq!(near.iter().map(|it| (it.route, it.lost)).collect::<Vec<_>>(), expected);
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn the_router_agrees_with_asking_everybody(
        routes in proptest::collection::vec(plain(), 1..14),
        asked in asked(),
    ) {
        check(&routes, &asked)?;
    }

    /// Many routes of few shapes collide all the time, so that ties and fall-through are common.
    #[test]
    fn crowded_tables_agree_too(
        routes in proptest::collection::vec(
            (plain(), proptest::sample::select(vec!["a", "*", "below"])).prop_map(|(plain, kind)| {
                let (segments, below) = match kind {
                    "below" => (vec!["a"], true),
                    segment => (vec!["a", segment], false),
                };
                Plain { path: Path::Segments { segments, below }, ..plain }
            }),
            1..30,
        ),
        asked in asked(),
        tail in proptest::sample::select(vec!["a", "b"]),
    ) {
        check(&routes, &Asked { segments: vec!["a", tail], ..asked })?;
    }

    /// Expressions overlap, and stand where their first route stands, whatever its host.
    #[test]
    fn expressions_agree_too(
        routes in proptest::collection::vec(
            (plain(), proptest::sample::select(&EXPRESSIONS[..])).prop_map(|(plain, expression)| {
                Plain { path: Path::Regex(expression), ..plain }
            }),
            1..12,
        ),
        asked in asked(),
        path in proptest::sample::select(vec![vec!["a", "b"], vec!["a"], vec!["b"]]),
    ) {
        check(&routes, &Asked { segments: path, ..asked })?;
    }

    /// Where every route has one host at most, the first of the order that matches wholly wins.
    #[test]
    fn the_order_tells_the_winner(
        routes in proptest::collection::vec(plain(), 1..14),
        asked in asked(),
    ) {
        let single = |route: Plain| Plain { hosts: route.hosts.into_iter().take(1).collect(), ..route };
        let routes: Vec<Plain> = routes.into_iter().map(single).collect();
        let (router, kept, _) = build(&routes);
        let order = router.order();
        let mut sorted = order.clone();
        sorted.sort_unstable();
        prop_assert_eq!(sorted, (0..kept.len()).collect::<Vec<_>>());
        let whole = |at: &usize| {
            let route = &routes[kept[*at]];
            path_matches(route, &asked) && naive_lost(route, &asked) == Lost::Outranked
        };
        let plain: Vec<Plain> = kept.iter().map(|at| routes[*at].clone()).collect();
        prop_assert_eq!(order.into_iter().find(whole), naive(&plain, &asked));
    }
}
