//! The router on small tables. `tests/props.rs` holds it against a linear matcher.

use super::super::predicate::tests::Told;
use super::super::{HostPattern, Lost, PathPattern, Predicate, Source, Test};
use super::*;

/// `[priority] [METHODS] [hosts]/path [?header]...`, which is enough for every story here.
fn route(text: &str) -> RouteSpec {
    let mut spec = RouteSpec {
        hosts: Vec::new(),
        path: PathPattern::parse("/").unwrap(),
        methods: MethodSet::default(),
        predicates: Vec::new(),
        priority: 0,
    };
    for word in text.split(' ') {
        if let Ok(priority) = word.parse() {
            spec.priority = priority;
        } else if let Some(header) = word.strip_prefix('?') {
            let source = Source::Header(header.to_owned());
            spec.predicates.push(Predicate::Value { source, test: Test::Present });
        } else if let Some(at) = word.find(['/', '~']) {
            let (hosts, path) = word.split_at(at);
            let hosts = hosts.split(',').filter(|host| !host.is_empty());
            spec.hosts = hosts.map(|host| HostPattern::parse(host).unwrap()).collect();
            spec.path = match path.strip_prefix('~') {
                Some(expression) => PathPattern::regex(expression).unwrap(),
                None => PathPattern::parse(path).unwrap(),
            };
        } else {
            spec.methods = MethodSet::parse(word.split(',')).unwrap();
        }
    }
    spec
}

fn router(routes: &[&str]) -> Router {
    Router::build(routes.iter().map(|text| route(text)).collect()).unwrap()
}

fn faults(routes: &[&str]) -> Vec<BuildFault> {
    Router::build(routes.iter().map(|text| route(text)).collect()).unwrap_err()
}

/// `METHOD host/path [?header]...`
fn told(text: &str) -> Told {
    let headers = text.split(' ').filter_map(|word| word.strip_prefix('?'));
    let known = headers.map(|header| match header {
        "a" => ("a", b"1".as_slice()),
        _ => ("b", b"1".as_slice()),
    });
    Told { headers: known.collect(), ..Told::default() }
}

fn request<'a>(text: &'a str, facts: &'a Told) -> Request<'a> {
    let mut words = text.split(' ');
    let method = words.next().unwrap();
    let target = words.next().unwrap();
    let (host, path) = target.split_at(target.find('/').unwrap());
    Request { host, method, path, facts }
}

fn find(router: &Router, text: &str) -> Found {
    router.find(&request(text, &told(text)))
}

fn winner(router: &Router, text: &str) -> Option<usize> {
    match find(router, text) {
        Found::Route(found) => Some(found.route),
        _ => None,
    }
}

#[test]
fn a_route_is_found_with_its_captures() {
    let router = router(&["/u/{id}/posts/{pid}", "~/v(?<n>[0-9]+)"]);
    let Found::Route(found) = find(&router, "GET /u/55/posts/x") else { panic!("no route") };
    let get = |index| found.captures.get(index, "/u/55/posts/x");
    assert_eq!((found.route, get(0), get(1), get(2)), (0, Some("55"), Some("x"), None));
    let Found::Route(found) = find(&router, "GET /v12") else { panic!("no route") };
    assert_eq!(found.captures.get(0, "/v12"), Some("12"));
    assert_eq!(find(&router, "GET /nowhere"), Found::NoRoute);
}

#[test]
fn hosts_fall_through_when_nothing_matches_wholly() {
    let router = router(&["/**", "*.com/x/**", "*.b.com/x", "a.b.com/x ?a"]);
    for (text, want) in [
        ("GET a.b.com/x ?a", 3),
        ("GET a.b.com/x", 2),
        ("GET a.b.com/x/y", 1),
        ("GET a.b.com/y", 0),
        ("GET b.com/x", 1),
        ("GET org/x", 0),
        ("GET /x", 0),
    ] {
        assert_eq!(winner(&router, text), Some(want), "{text}");
    }
}

#[test]
fn kinds_of_path_come_in_order() {
    let router =
        router(&["/**", "/a/**", "/{x}/**", "~/a/.*", "/a/{x}", "/{x}/b", "/a/b", "/a/c ?a"]);
    for (text, want) in [
        ("GET /a/b", 6),
        ("GET /a/c ?a", 7),
        ("GET /a/c", 4),
        ("GET /z/b", 5),
        ("GET /a/b/c", 3),
        ("GET /a/", 3),
        ("GET /a", 1),
        ("GET /z/y", 2),
        ("GET /", 0),
    ] {
        assert_eq!(winner(&router, text), Some(want), "{text}");
    }
}

#[test]
fn expressions_stand_where_their_first_route_stands() {
    let router = router(&["b.com~/a.*", "a.com~/.*b", "a.com~/a.*", "a.com~/[ab]*"]);
    assert_eq!(winner(&router, "GET a.com/ab"), Some(2));
    assert_eq!(winner(&router, "GET a.com/bb"), Some(1));
    assert_eq!(winner(&router, "GET a.com/ba"), Some(3));
}

#[test]
fn the_trie_backs_out_of_a_literal_branch() {
    let router = router(&["/users/**", "/users/{name}/posts", "/users/me/{x}/y", "/{a}/me/posts"]);
    assert_eq!(winner(&router, "GET /users/me/posts"), Some(1));
    assert_eq!(winner(&router, "GET /users/me/posts/y"), Some(2));
    assert_eq!(winner(&router, "GET /users/me/posts/z"), Some(0));
    assert_eq!(winner(&router, "GET /x/me/posts"), Some(3));
}

#[test]
fn ties_are_decided_by_priority_predicates_methods_and_file_order() {
    let router = router(&["/p", "GET /p", "/p ?a", "POST /p ?a ?b", "5 PUT /p"]);
    for (text, want) in [
        ("GET /p", 1),
        ("DELETE /p", 0),
        ("GET /p ?a", 2),
        ("POST /p ?a ?b", 3),
        ("PUT /p ?a ?b", 4),
    ] {
        assert_eq!(winner(&router, text), Some(want), "{text}");
    }
}

#[test]
fn a_method_is_blamed_only_when_it_alone_is_wrong() {
    let router = router(&["GET /p", "PUT,LOCK /p", "DELETE /p ?a", "a.com/p ?a"]);
    let allowed = |text| match find(&router, text) {
        Found::MethodNotAllowed(methods) => methods.to_string(),
        other => panic!("{other:?}"),
    };
    assert_eq!(allowed("POST /p"), "GET, HEAD, PUT, LOCK");
    assert_eq!(allowed("POST /p ?a"), "GET, HEAD, PUT, DELETE, LOCK");
    assert_eq!(allowed("POST a.com/p"), "GET, HEAD, PUT, LOCK");
    assert_eq!(winner(&router, "POST a.com/p ?a"), Some(3));
    assert_eq!(winner(&router, "HEAD /p"), Some(0));
    assert_eq!(winner(&router, "LOCK /p"), Some(1));
}

#[test]
fn shadowed_routes_are_faults() {
    let unreachable = |route, because_of| BuildFault::Unreachable { route, because_of };
    assert_eq!(faults(&["/a", "/a"]), [unreachable(1, 0)]);
    assert_eq!(faults(&["/u/{id}", "/u/{name}"]), [unreachable(1, 0)]);
    assert_eq!(faults(&["GET,POST /a/**", "POST /a/**"]), [unreachable(1, 0)]);
    assert_eq!(faults(&["GET /a ?a", "1 /a"]), [unreachable(0, 1)]);
    assert_eq!(faults(&["~/a", "~/a", "~/a"]), [unreachable(1, 0), unreachable(2, 0)]);
    assert_eq!(faults(&["a.com,b.com/a", "b.com,a.com,b.com/a"]), [unreachable(1, 0)]);
    for fine in [
        ["/a", "GET /a"],
        ["/a", "/a ?a"],
        ["a.com/a", "/a"],
        ["a.com/a", "a.com,b.com/a"],
        ["/a/{x}", "/a/{x}/**"],
        ["~/a", "~/b"],
        ["a.com,A.com/a", "b.com/a"],
    ] {
        assert_eq!(router(&fine).order().len(), 2);
    }
}

#[test]
fn too_many_captures_are_a_fault() {
    let path = |count: usize| (0..count).map(|n| format!("/{{c{n}}}")).collect::<String>();
    assert_eq!(faults(&["/a", &path(17)]), [BuildFault::TooManyCaptures { route: 1, count: 17 }]);
    let router = router(&[&path(16)]);
    let Found::Route(found) = find(&router, &format!("GET {}", "/x".repeat(16))) else {
        panic!("no route")
    };
    assert_eq!(found.captures.len(), 16);
}

#[test]
fn explain_says_what_stood_in_the_way() {
    let router = router(&["/**", "a.com/p", "GET /p", "/p ?b", "/p", "/q"]);
    let facts = told("");
    let near = router.explain(&request("POST /p", &facts));
    let lost: Vec<_> = near.iter().map(|near| (near.route, near.lost)).collect();
    assert_eq!(
        lost,
        [(0, Lost::Outranked), (1, Lost::Host), (2, Lost::Method), (3, Lost::Predicate(0))]
    );
}

#[test]
fn a_path_too_long_for_spans_has_no_route() {
    let router = router(&["/**"]);
    assert_eq!(winner(&router, &format!("GET /{}", "a".repeat(65_534))), Some(0));
    assert_eq!(winner(&router, &format!("GET /{}", "a".repeat(65_535))), None);
}

/// Finding in a large table looks at as little as in a small one. Clocks lie on shared machines, so
/// this looks at the structure: how many lists a walk offers, and that hosts and paths are hashed.
#[test]
fn ten_thousand_routes_cost_what_ten_cost() {
    let many: Vec<String> =
        (0..10_000).map(|n| format!("/svc{}/r{n}/{{id}}/**", n % 100)).collect();
    let router = router(&many.iter().map(String::as_str).collect::<Vec<_>>());
    let text = "GET /svc77/r4277/5/x/y";
    let facts = told(text);
    let request = request(text, &facts);
    let mut search = Search {
        specs: &router.specs,
        request: &request,
        method: Method::of(request.method),
        missed: SmallVec::new(),
        prefixes: SmallVec::new(),
    };
    assert_eq!(router.any_host.trie.walk(request.path, &mut search), None);
    assert_eq!(search.prefixes.as_slice(), [(3, [4277].as_slice())]);
    assert_eq!(winner(&router, text), Some(4277));
}
