//! The compiled table of routes.
//!
//! Patterns and predicates judge themselves; this file asks them in the order of precedence that the
//! doc of `matcher` gives. The one rule: nothing is allocated while finding (what spills from the
//! inline lists below is bounded by the specifications).

use std::collections::HashMap;

use foldhash::fast::RandomState;
use regex::Regex;
use smallvec::SmallVec;

use super::method::Method;
use super::path::Shape;
use super::trie::{Trie, Visit};
use super::{BuildFault, Found, MAX_CAPTURES, Match, MethodSet, Near, Request, RouteSpec};
use super::{explain, host, order};

/// Routes by host. Immutable; a reload builds another one.
#[derive(Clone, Debug)]
pub struct Router {
    specs: Vec<RouteSpec>,
    literal_hosts: HashMap<String, Table, RandomState>,
    /// By the domain below which the wildcard matches.
    wildcards: HashMap<String, Table, RandomState>,
    /// The longest key of `wildcards`, in bytes.
    longest_wildcard: usize,
    any_host: Table,
}

/// The routes of one host, by the kind of their path.
#[derive(Clone, Debug, Default)]
struct Table {
    literals: HashMap<String, Vec<usize>, RandomState>,
    trie: Trie,
    /// Sorted by `rank`.
    regexes: Vec<Expression>,
}

#[derive(Clone, Debug)]
struct Expression {
    rank: usize,
    regex: Regex,
    routes: Vec<usize>,
}

impl Router {
    /// Compiles specifications; indices in answers are indices into `specs`.
    ///
    /// # Errors
    /// Every fault of every route, in file order.
    pub fn build(specs: Vec<RouteSpec>) -> Result<Self, Vec<BuildFault>> {
        let mut router = Self {
            specs: Vec::new(),
            literal_hosts: HashMap::default(),
            wildcards: HashMap::default(),
            longest_wildcard: 0,
            any_host: Table::default(),
        };
        let ranks = order::regex_ranks(&specs);
        for (route, spec) in specs.iter().enumerate() {
            let rank = ranks.get(spec.path.as_str()).copied().unwrap_or(route);
            router.insert(route, spec, rank);
        }
        let shadowed = router.sort(&specs);
        let faults: Vec<_> = specs
            .iter()
            .enumerate()
            .flat_map(|(route, spec)| {
                let count = spec.path.capture_names().len();
                let many =
                    (count > MAX_CAPTURES).then_some(BuildFault::TooManyCaptures { route, count });
                let because_of = shadowed.get(route).copied().flatten();
                let never =
                    because_of.map(|because_of| BuildFault::Unreachable { route, because_of });
                many.into_iter().chain(never)
            })
            .collect();
        if faults.is_empty() { Ok(Self { specs, ..router }) } else { Err(faults) }
    }

    /// The route for a request, or why there is none.
    #[must_use]
    pub fn find(&self, request: &Request<'_>) -> Found {
        if request.path.len() > usize::from(u16::MAX) {
            return Found::NoRoute;
        }
        let mut search = Search {
            specs: &self.specs,
            request,
            method: Method::of(request.method),
            missed: SmallVec::new(),
            prefixes: SmallVec::new(),
        };
        let found = self.tables(request.host).find_map(|table| search.table(table));
        let Some(route) = found else { return search.refusal() };
        let path = self.specs.get(route).map(|spec| spec.path.captures(request.path));
        Found::Route(Match { route, captures: path.unwrap_or_default() })
    }

    /// The routes whose path matches but which did not win, and what stood in each one's way. Looks
    /// at all routes; meant for people who ask why.
    #[must_use]
    pub fn explain(&self, request: &Request<'_>) -> Vec<Near> {
        explain::near(&self.specs, request, &self.find(request))
    }

    /// The indices of all routes in order of precedence.
    #[must_use]
    pub fn order(&self) -> Vec<usize> {
        order::all(&self.specs)
    }

    /// The tables to ask for a host, the most specific first.
    fn tables(&self, host: &str) -> impl Iterator<Item = &Table> {
        // Most tables have no wildcards, and then nobody has to take the host apart.
        let some = self.longest_wildcard > 0;
        let domains = some.then(|| host::domains(host, self.longest_wildcard));
        let wildcards = domains.into_iter().flatten();
        let wildcards = wildcards.filter_map(|domain| self.wildcards.get(domain));
        let literal = self.literal_hosts.get(host);
        literal.into_iter().chain(wildcards).chain([&self.any_host])
    }

    fn insert(&mut self, route: usize, spec: &RouteSpec, rank: usize) {
        if spec.hosts.is_empty() {
            self.any_host.insert(route, spec, rank);
        }
        for (at, host) in spec.hosts.iter().enumerate() {
            if spec.hosts.iter().take(at).any(|former| former == host) {
                continue;
            }
            let tables =
                if host.is_wildcard() { &mut self.wildcards } else { &mut self.literal_hosts };
            tables.entry(host.name().to_owned()).or_default().insert(route, spec, rank);
            if host.is_wildcard() {
                self.longest_wildcard = self.longest_wildcard.max(host.name().len());
            }
        }
    }

    /// Sorts all lists. For each route that is shadowed in every list it stands in, returns the route
    /// that does so.
    fn sort(&mut self, specs: &[RouteSpec]) -> Vec<Option<usize>> {
        let mut standing = vec![Standing::default(); specs.len()];
        let hosts = self.literal_hosts.values_mut().chain(self.wildcards.values_mut());
        for table in hosts.chain([&mut self.any_host]) {
            table.regexes.sort_unstable_by_key(|expression| expression.rank);
            for list in table.lists() {
                list.sort_unstable_by_key(|at| specs.get(*at).map(|spec| order::tie(spec, *at)));
                note_shadows(list, specs, &mut standing);
            }
        }
        standing.into_iter().map(|it| it.because_of.filter(|_| !it.reachable)).collect()
    }
}

/// What the lists say about one route.
#[derive(Clone, Copy, Default)]
struct Standing {
    reachable: bool,
    /// The least index of those that shadow it somewhere; hosts are hashed and come in any order.
    because_of: Option<usize>,
}

fn note_shadows(list: &[usize], specs: &[RouteSpec], standing: &mut [Standing]) {
    for (at, route) in list.iter().enumerate() {
        let shadows = |earlier: &&usize| match (specs.get(**earlier), specs.get(*route)) {
            (Some(earlier), Some(later)) => {
                earlier.methods.covers(&later.methods)
                    && earlier.predicates.iter().all(|asked| later.predicates.contains(asked))
            }
            _ => false,
        };
        let shadow = list.iter().take(at).find(shadows).copied();
        if let Some(standing) = standing.get_mut(*route) {
            standing.reachable |= shadow.is_none();
            standing.because_of = standing.because_of.into_iter().chain(shadow).min();
        }
    }
}

impl Table {
    fn insert(&mut self, route: usize, spec: &RouteSpec, rank: usize) {
        match spec.path.shape() {
            Shape::Literal(path) => self.literals.entry(path.clone()).or_default().push(route),
            Shape::Segments { segments, below } => self.trie.insert(segments, *below, route),
            Shape::Regex(regex) => {
                match self.regexes.iter_mut().find(|expression| expression.rank == rank) {
                    Some(expression) => expression.routes.push(route),
                    None => {
                        let regex = regex.clone();
                        self.regexes.push(Expression { rank, regex, routes: vec![route] });
                    }
                }
            }
        }
    }

    fn lists(&mut self) -> impl Iterator<Item = &mut Vec<usize>> {
        let regexes = self.regexes.iter_mut().map(|expression| &mut expression.routes);
        self.literals.values_mut().chain(self.trie.lists()).chain(regexes)
    }
}

/// One request's way through the tables.
struct Search<'t, 'q> {
    specs: &'t [RouteSpec],
    request: &'q Request<'q>,
    method: Method<'q>,
    /// Routes that failed by their method. Whether they failed by it alone is asked only when
    /// nothing else is found.
    missed: SmallVec<[usize; 8]>,
    /// Prefixes of the present table with their depth, deepest first.
    prefixes: SmallVec<[(usize, &'t [usize]); 8]>,
}

impl<'t> Search<'t, '_> {
    fn table(&mut self, table: &'t Table) -> Option<usize> {
        let path = self.request.path;
        if let Some(routes) = table.literals.get(path)
            && let Some(found) = self.first(routes)
        {
            return Some(found);
        }
        if !table.trie.is_empty()
            && let Some(found) = table.trie.walk(path, self)
        {
            return Some(found);
        }
        for expression in &table.regexes {
            if expression.regex.is_match(path)
                && let Some(found) = self.first(&expression.routes)
            {
                return Some(found);
            }
        }
        // Taken out, so that the next host's table begins with none.
        std::mem::take(&mut self.prefixes).into_iter().find_map(|(_, routes)| self.first(routes))
    }

    /// The first of `routes` that matches wholly. Their host and path do already.
    fn first(&mut self, routes: &[usize]) -> Option<usize> {
        for route in routes {
            let Some(spec) = self.specs.get(*route) else { continue };
            if !spec.methods.takes(self.method) {
                self.missed.push(*route);
            } else if self.satisfies(spec) {
                return Some(*route);
            }
        }
        None
    }

    fn satisfies(&self, spec: &RouteSpec) -> bool {
        spec.predicates.iter().all(|predicate| predicate.holds(self.request.facts))
    }

    fn refusal(&self) -> Found {
        let missed = self.missed.iter().filter_map(|route| self.specs.get(*route));
        let methods = missed
            .filter(|spec| self.satisfies(spec))
            .fold(MethodSet::default(), |sum, spec| sum.union(&spec.methods));
        if methods.is_empty() { Found::NoRoute } else { Found::MethodNotAllowed(methods) }
    }
}

impl<'t> Visit<'t> for Search<'t, '_> {
    fn whole(&mut self, routes: &'t [usize]) -> Option<usize> {
        self.first(routes)
    }

    fn below(&mut self, depth: usize, routes: &'t [usize]) {
        let at = self.prefixes.partition_point(|(other, _)| *other >= depth);
        self.prefixes.insert(at, (depth, routes));
    }
}

#[cfg(test)]
mod tests;
