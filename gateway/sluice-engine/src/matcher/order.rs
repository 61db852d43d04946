//! The order of precedence as sortable keys.
//!
//! The router's structure brings host and path precedence about by itself; these keys sort the routes
//! of one list, and all routes for a listing. The one rule: keys say what the doc of `matcher` says.

use std::cmp::Reverse;
use std::collections::HashMap;

use super::path::{Segment, Shape};
use super::{PathPattern, RouteSpec};

/// Decides between routes of the same host and path: priority, predicates, methods, file order.
pub(super) type Tie = (Reverse<i32>, Reverse<usize>, bool, usize);

pub(super) fn tie(spec: &RouteSpec, index: usize) -> Tie {
    let any_method = spec.methods.is_empty();
    (Reverse(spec.priority), Reverse(spec.predicates.len()), any_method, index)
}

/// Where expressions stand: the index of the first route with the same text.
pub(super) fn regex_ranks(specs: &[RouteSpec]) -> HashMap<&str, usize> {
    let mut ranks = HashMap::new();
    for (index, spec) in specs.iter().enumerate() {
        if matches!(spec.path.shape(), Shape::Regex(_)) {
            ranks.entry(spec.path.as_str()).or_insert(index);
        }
    }
    ranks
}

/// All indices of `specs` in order of precedence. A route with several hosts stands where its most
/// specific one puts it; routes that can never compete are grouped by host.
pub(super) fn all(specs: &[RouteSpec]) -> Vec<usize> {
    let ranks = regex_ranks(specs);
    let mut keyed: Vec<_> = specs
        .iter()
        .enumerate()
        .map(|(index, spec)| (host_rank(spec), path_rank(&spec.path, &ranks), tie(spec, index)))
        .collect();
    keyed.sort_unstable();
    keyed.into_iter().map(|(_, _, (.., index))| index).collect()
}

/// Literal, then wildcards from long to short, then any; by name among equals.
type HostRank<'a> = (bool, bool, Reverse<usize>, &'a str);

fn host_rank(spec: &RouteSpec) -> HostRank<'_> {
    let rank = |host: &'_ super::HostPattern| {
        let labels = if host.is_wildcard() { host.name().split('.').count() } else { 0 };
        (false, host.is_wildcard(), Reverse(labels))
    };
    let best = spec.hosts.iter().min_by_key(|host| (rank(host), host.name()));
    best.map_or((true, true, Reverse(0), ""), |host| {
        let (any, wildcard, labels) = rank(host);
        (any, wildcard, labels, host.name())
    })
}

#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum PathRank<'a> {
    Literal(&'a str),
    /// A capture is greater than a literal.
    Captured(Vec<bool>),
    Regex(usize),
    Prefix(Reverse<usize>, Vec<bool>),
}

fn path_rank<'a>(path: &'a PathPattern, ranks: &HashMap<&str, usize>) -> PathRank<'a> {
    match path.shape() {
        Shape::Literal(literal) => PathRank::Literal(literal),
        Shape::Regex(_) => PathRank::Regex(ranks.get(path.as_str()).copied().unwrap_or_default()),
        Shape::Segments { segments, below } => {
            let captures = segments.iter().map(|segment| *segment == Segment::Capture).collect();
            if *below {
                PathRank::Prefix(Reverse(segments.len()), captures)
            } else {
                PathRank::Captured(captures)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{HostPattern, MethodSet, Predicate};
    use super::*;
    use crate::cidr;

    fn spec(hosts: &[&str], path: &str) -> RouteSpec {
        let path = path.strip_prefix('~').map_or_else(
            || PathPattern::parse(path).unwrap(),
            |expression| PathPattern::regex(expression).unwrap(),
        );
        RouteSpec {
            hosts: hosts.iter().map(|host| HostPattern::parse(host).unwrap()).collect(),
            path,
            methods: MethodSet::default(),
            predicates: Vec::new(),
            priority: 0,
        }
    }

    #[test]
    fn hosts_then_paths_decide() {
        let specs = [
            spec(&[], "/a"),
            spec(&["*.com"], "/a"),
            spec(&["*.b.com"], "/a"),
            spec(&["*.com", "a.com"], "/**"),
            spec(&["a.com"], "/{x}/**"),
            spec(&["a.com"], "/x/**"),
            spec(&["a.com"], "~/z"),
            spec(&["a.com"], "~/y"),
            spec(&["a.com"], "/{x}/b"),
            spec(&["a.com"], "/a/{x}"),
            spec(&["a.com"], "/a"),
        ];
        assert_eq!(all(&specs), [10, 9, 8, 6, 7, 5, 4, 3, 2, 1, 0]);
    }

    #[test]
    fn ties_are_decided_in_order() {
        let plain = || spec(&[], "~/a");
        let predicate = || Predicate::ClientIn(cidr::Set::default());
        let specs = [
            plain(),
            plain(),
            RouteSpec { methods: MethodSet::parse(["GET"]).unwrap(), ..plain() },
            RouteSpec { predicates: vec![predicate()], ..plain() },
            RouteSpec { priority: 1, ..plain() },
            RouteSpec { priority: -1, predicates: vec![predicate(); 3], ..plain() },
        ];
        assert_eq!(all(&specs), [4, 3, 2, 0, 1, 5]);
    }
}
