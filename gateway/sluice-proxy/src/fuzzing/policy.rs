//! Several routes to one service, one of them guarded: no request comes to the guarded path of the
//! service by another route, however leniently the service reads paths (rows P-01 to P-06).

use super::world::{Outcome, World, read};

const CONFIG: &str = r#"
upstreams: { up: { endpoints: [ { address: "127.0.0.1:9" } ] } }
routes:
  - id: guarded
    match: { path: /admin/** }
    filters: [ { ip_rules: { deny: [ "0.0.0.0/0" ] } } ]
    upstream: up
  - { id: stripped, match: { path: /api/** }, filters: [ { strip_prefix: 1 }, { add_prefix: /open } ], upstream: up }
  - { id: captured, match: { path: "/files/{name}" }, filters: [ { rewrite: { path: "/open/{name}" } } ], upstream: up }
  - { id: matched, match: { path_regex: "/all/(?<rest>.*)" }, filters: [ { rewrite: { path: "/open/{rest}" } } ], upstream: up }
  - { id: told, match: { path: /by/** }, filters: [ { rewrite: { path: "/open/{header.x-name}" } } ], upstream: up }
  - { id: hosted, match: { path: /host/** }, filters: [ { rewrite: { path: "/open/{host}{path}" } } ], upstream: up }
  - { id: rest, upstream: up }
"#;

pub(super) fn check(data: &[u8]) {
    thread_local! {
        static WORLD: World = World::new(CONFIG);
    }
    // A head as it is, or a target alone, which is quicker to find.
    let target = data.split(|byte| matches!(byte, b'\r' | b'\n')).next().unwrap_or_default();
    let head =
        [b"GET /", target, b" HTTP/1.1\r\nHost: a\r\nX-Name: ", target, b"\r\n\r\n"].concat();
    for bytes in [data, &head] {
        let Some(parts) = read(bytes) else { continue };
        let asked = parts.uri.clone();
        if let Outcome::Forwarded { route, target } = WORLD.with(|world| world.ask(parts)) {
            judge(&route, &target, &asked);
        }
    }
}

fn judge(route: &str, target: &http::Uri, asked: &http::Uri) {
    let path = target.path();
    let reached = lenient(path);
    let guarded = reached.first().is_some_and(|first| first == b"admin");
    assert!(!guarded, "{asked} reached {target} by {route}");
    if route != "rest" {
        let inside = reached.first().is_some_and(|first| first == b"open");
        assert!(inside, "{asked} left its prefix for {target} by {route}");
    }
    assert!(path.starts_with('/') && !path.starts_with("//"), "{asked} became {target}");
    assert!(target.authority().is_none(), "{asked} became {target}");
    assert_eq!(target.query(), asked.query(), "the query changed");
}

/// The segments that the most lenient service sees: it decodes once, takes backslashes for slashes,
/// leaves out empty segments, and overlooks parameters where there are dots.
fn lenient(path: &str) -> Vec<Vec<u8>> {
    let mut bytes = Vec::new();
    let mut rest = path.as_bytes();
    while let [byte, tail @ ..] = rest {
        let escaped = tail.get(..2).filter(|_| *byte == b'%');
        let digits = escaped.and_then(|digits| std::str::from_utf8(digits).ok());
        let decoded = digits.and_then(|digits| u8::from_str_radix(digits, 16).ok());
        bytes.push(decoded.unwrap_or(*byte));
        rest = if decoded.is_some() { &tail[2..] } else { tail };
    }
    let mut segments: Vec<Vec<u8>> = Vec::new();
    for segment in bytes.split(|byte| matches!(byte, b'/' | b'\\')) {
        match segment.split(|byte| *byte == b';').next().unwrap_or_default() {
            b"" | b"." => {}
            b".." => drop(segments.pop()),
            _ => segments.push(segment.to_vec()),
        }
    }
    segments
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_guard_and_the_other_ways_are_real() {
        let world = World::new(CONFIG);
        let way = |target: &str| {
            let head = format!("GET {target} HTTP/1.1\r\nHost: a\r\nX-Name: n\r\n\r\n");
            match world.ask(read(head.as_bytes()).unwrap()) {
                Outcome::Forwarded { route, target } => format!("{route} {target}"),
                other => format!("{other:?}"),
            }
        };
        for target in ["/admin", "/admin/x", "/files/../admin", "/%61dmin", "//admin"] {
            assert_eq!(way(target), "Refused(AddressRefused)", "{target}");
        }
        assert_eq!(way("/api/admin"), "stripped /open/admin");
        assert_eq!(way("/files/admin?x"), "captured /open/admin?x");
        assert_eq!(way("/all/a/b"), "matched /open/a/b");
        assert_eq!(way("/by/x"), "told /open/n");
        assert_eq!(way("/host/x"), "hosted /open/a/host/x");
        assert_eq!(way("/x"), "rest /x");
    }

    #[test]
    fn the_lenient_reading_is_lenient() {
        for path in
            ["/open/../admin", "/x/%2e%2e/admin", "//%61dmin", "/x/..;a=b/admin/", "/.\\admin"]
        {
            assert_eq!(lenient(path), [b"admin".to_vec()], "{path}");
        }
    }
}
