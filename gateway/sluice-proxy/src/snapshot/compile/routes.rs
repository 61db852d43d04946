//! Routes with their groups and filters. Everything is judged, also where something next to it is
//! wrong; what could not be judged for that reason is passed over, since it was told already.

use std::collections::{BTreeMap, HashMap};
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use sluice_engine::matcher::{BuildFault, MAX_CAPTURES, RouteSpec, Router};

use super::Compiler;
use crate::base::yaml::{Place, nearest};
use crate::lasting::link::Protocol;
use crate::parts::breaker::{self, Breaker};
use crate::parts::client_abort::OnClientAbort;
use crate::parts::env::Owner;
use crate::parts::filters::{Declared, Filter};
use crate::parts::upstream::{Builtin, Kind, Service, Upstream};
use crate::snapshot::config::{self, Config};
use crate::snapshot::route::{Outline, Route, guards, push};

/// A group's compiled filters.
pub(super) struct Group<'a> {
    declared: &'a config::Group,
    filters: Vec<Arc<Filter>>,
}

/// What routes are joined with.
pub(super) struct Around<'a, 'b> {
    pub(super) upstreams: &'b BTreeMap<String, Arc<Upstream>>,
    pub(super) global: &'b [Arc<Filter>],
    pub(super) groups: &'b HashMap<String, Group<'a>>,
}

/// What a route may have for a time limit: clients give up after a minute.
const TOTALS: RangeInclusive<Duration> = Duration::from_millis(1)..=Duration::from_secs(55);
/// Longest id of a route, bytes.
const MAX_ID: usize = 128;

impl<'a> Compiler<'a> {
    /// The filters of one list; bad ones are recorded and left out.
    pub(super) fn filters(
        &mut self,
        declared: &[Declared],
        at: &Place<'_>,
        owner: &Owner,
    ) -> Vec<Arc<Filter>> {
        let build = |(index, one): (usize, &Declared)| {
            one.build(&at.index(index), owner, &mut self.env).map(Arc::new)
        };
        declared.iter().enumerate().filter_map(build).collect()
    }

    pub(super) fn groups(&mut self, at: &Place<'_>) -> HashMap<String, Group<'a>> {
        let config: &'a Config = self.config;
        let mut groups = HashMap::new();
        for (index, declared) in config.groups.iter().enumerate() {
            let at = at.index(index);
            if groups.contains_key(&declared.name) {
                self.env
                    .problems
                    .error(&at.field("name"), format!("two groups are named `{}`", declared.name));
            }
            let owner = Owner { name: format!("group:{}", declared.name), captures: Vec::new() };
            let filters = self.filters(&declared.filters, &at.field("filters"), &owner);
            groups.insert(declared.name.clone(), Group { declared, filters });
        }
        groups
    }

    /// The routes, and the table to find them by.
    pub(super) fn routes(
        &mut self,
        at: &Place<'_>,
        around: &Around<'a, '_>,
    ) -> Option<(Router, Vec<Route>)> {
        let mut seen: HashMap<&str, u32> = HashMap::new();
        let (mut specs, mut routes, mut places) = (Vec::new(), Vec::new(), Vec::new());
        for (index, declared) in self.config.routes.iter().enumerate() {
            let at = at.index(index);
            if let Some(line) = seen.insert(&declared.id, at.line()) {
                self.env.problems.error(
                    &at.field("id"),
                    format!(
                        "two routes have the id `{}`; the other is on line {line}",
                        declared.id
                    ),
                );
            }
            if let Some((spec, route)) = self.route(declared, &at, around) {
                specs.push(spec);
                routes.push(route);
                places.push(index);
            }
        }
        for (index, spec, route) in self.static_files(around.global) {
            specs.push(spec);
            routes.push(route);
            places.push(self.config.routes.len() + index);
        }
        Some((self.router(specs, &places, at)?, routes))
    }

    fn route(
        &mut self,
        declared: &config::Route,
        at: &Place<'_>,
        around: &Around<'a, '_>,
    ) -> Option<(RouteSpec, Route)> {
        if declared.id.is_empty() || declared.id == "none" || declared.id.len() > MAX_ID {
            self.env
                .problems
                .error(&at.field("id"), "an id has 1 to 128 characters and is not `none`");
        }
        let group = self.group(declared, at, around);
        let upstream = self.target(declared, at, around, group);
        let matching = match group {
            Some(group) => declared.matching.within(&group.declared.matching),
            None => declared.matching.clone(),
        };
        let mut spec = matching.build(&at.field("match"), &mut self.env)?;
        if declared.group.is_some() && group.is_none() {
            // What the group's path captures is not known.
            return None;
        }
        let owner = Owner {
            name: format!("route:{}", declared.id),
            captures: spec.path.capture_names().to_vec(),
        };
        let own = self.filters(&declared.filters, &at.field("filters"), &owner);
        let shared = group.map_or(&[][..], |group| &group.filters);
        let chain =
            Route::sorted(around.global.iter().chain(shared).chain(&own).map(Arc::clone).collect());
        self.identified(&chain, &at.field("filters"));
        let bulkhead = match declared.bulkhead {
            None => None,
            Some(config) => {
                let owner = format!("route:{}", declared.id);
                Some(config.build(&owner, &at.field("bulkhead"), &mut self.env)?)
            }
        };
        let service = upstream.as_deref().and_then(|upstream| match &upstream.kind {
            Kind::Service(service) => Some(&**service),
            Kind::Builtin(_) => None,
        });
        let batches = upstream
            .as_deref()
            .is_some_and(|upstream| matches!(upstream.kind, Kind::Builtin(Builtin::Batch)));
        let total = self.total(declared, service, at);
        let finishes = self.finishes(declared, upstream.as_deref(), at);
        let repeats = declared.retries.build(
            service,
            declared.streaming,
            &at.field("retries"),
            &mut self.env,
        );
        let breaker = match &declared.breaker {
            None => None,
            Some(config) => {
                let at = at.field("breaker");
                Some(self.breaker(config, declared, upstream.as_deref(), &at)?)
            }
        };
        let fallback = match &declared.fallback {
            None => None,
            Some(config) => {
                let at = at.field("fallback");
                Some(self.fallback(config, declared, (around, &owner), service, &at)?)
            }
        };
        let prefetch = match &declared.prefetch {
            None => None,
            Some(config) => Some(self.prefetch(config, declared, (&mut spec, &chain), at)?),
        };
        let (total, repeats) = (total?, repeats?);
        self.patience(&matching, total, at);
        let affinity = service.and_then(|service| {
            service.affinity(&owner.captures, &at.field("upstream"), &mut self.env)
        });
        let websocket = declared.websocket.build(&at.field("websocket"), &mut self.env);
        let outline = Outline {
            hosts: matching.hosts.clone(),
            path: matching.path.or(matching.path_regex).unwrap_or_else(|| "/**".to_owned()),
            methods: matching.methods.clone(),
            group: declared.group.clone(),
            filters: chain.iter().map(|filter| filter.name().to_owned()).collect(),
            upstream: declared.upstream.clone(),
        };
        let identifies = chain.iter().any(|filter| filter.identifies());
        let route = Route {
            id: declared.id.as_str().into(),
            guards: guards(&chain),
            reads_body: chain.iter().any(|filter| filter.reads_body()),
            push: push(&chain),
            chain,
            teller: None,
            contract: None,
            upstream,
            affinity,
            bulkhead,
            breaker,
            fallback,
            websocket,
            streaming: declared.streaming,
            unkept: declared.cache_control.build(identifies),
            relocates: declared.location == config::Location::Rewrite,
            envelope: declared.envelope,
            prefetch,
            open: declared.filters.iter().any(Declared::is_for_anybody),
            total,
            finishes,
            repeats,
            sensitive: declared.sensitive,
            batch: declared.batch,
            batches,
            series: self.series(&declared.id),
            outline,
        };
        Some((spec, route))
    }

    /// The route's time limit; `Some(None)` where it has none.
    fn total(
        &mut self,
        declared: &config::Route,
        service: Option<&Service>,
        at: &Place<'_>,
    ) -> Option<Option<Duration>> {
        let at = at.field("timeout");
        match declared.timeout {
            Some(_) if declared.streaming => {
                self.env
                    .problems
                    .error(&at, "a route with `streaming: true` has no time limit")
                    .help("leave out one of the two");
                None
            }
            Some(span) if !TOTALS.contains(&span.0) => {
                self.env.problems.error(&at, "`timeout` must lie between 1ms and 55s");
                None
            }
            _ if declared.streaming => Some(None),
            own => {
                let total = own.or_else(|| service.map(|service| service.timeouts.total));
                Some(total.map(|span| span.0))
            }
        }
    }

    /// Whether its writes go on without their clients. A route without a time limit would have no end for them,
    /// and who leaves a stream has had what was wanted of it.
    fn finishes(
        &mut self,
        declared: &config::Route,
        upstream: Option<&Upstream>,
        at: &Place<'_>,
    ) -> bool {
        let at = at.field("on_client_abort");
        let own = declared.on_client_abort;
        let service = match upstream.map(|upstream| &upstream.kind) {
            Some(Kind::Service(service)) => Some(service),
            Some(Kind::Builtin(_)) | None => None,
        };
        let is_named = declared.upstream.is_some() && upstream.is_none();
        if own == Some(OnClientAbort::Finish) && declared.streaming {
            self.env
                .problems
                .error(&at, "a route with `streaming: true` has no time in which a write could end")
                .help("leave out one of the two");
        }
        // What a name that leads nowhere stands for is not known.
        if own.is_some() && service.is_none() && !is_named {
            self.env
                .problems
                .error(&at, "no service is asked here that a client could leave")
                .help("it belongs to a route with an `upstream:` that has endpoints");
        }
        let Some(service) = service.filter(|_| !declared.streaming) else { return false };
        own.unwrap_or(service.on_client_abort) == OnClientAbort::Finish
    }

    fn breaker(
        &mut self,
        config: &breaker::Config,
        declared: &config::Route,
        upstream: Option<&Upstream>,
        at: &Place<'_>,
    ) -> Option<Breaker> {
        let service = match upstream.map(|upstream| &upstream.kind) {
            Some(Kind::Service(service)) => Some(service),
            Some(Kind::Builtin(_)) => None,
            // That it is missing has been told, unless none is named.
            None if declared.upstream.is_some() => return None,
            None => None,
        };
        if service.is_none() {
            self.env
                .problems
                .error(at, "there is no service whose failures could be counted")
                .help("a breaker belongs to a route with an `upstream:` that has endpoints");
            return None;
        }
        let limit = declared.timeout.or_else(|| service.map(|service| service.timeouts.total));
        let limit = limit.map(|limit| limit.0).filter(|_| !declared.streaming);
        config.build(&format!("route:{}", declared.id), limit, at, &mut self.env)
    }

    /// A filter that asks who is calling needs one before it that says so.
    fn identified(&mut self, chain: &[Arc<Filter>], at: &Place<'_>) {
        let mut known = false;
        for filter in chain {
            if filter.needs_identity() && !known {
                let message = format!(
                    "`{}` asks who is calling, and no filter before it says so",
                    filter.name()
                );
                self.env.problems.error(at, message).help("put a `jwt` filter before it");
            }
            known |= filter.gives_identity();
        }
    }

    fn group<'b>(
        &mut self,
        declared: &config::Route,
        at: &Place<'_>,
        around: &Around<'a, 'b>,
    ) -> Option<&'b Group<'a>> {
        let name = declared.group.as_ref()?;
        let found = around.groups.get(name);
        if found.is_none() && !self.config.is_broken("groups") {
            let known: Vec<&str> = around.groups.keys().map(String::as_str).collect();
            self.unknown(&at.field("group"), "group", name, &known);
        }
        found
    }

    /// The service a route names; a route without one must have a filter that answers.
    fn target(
        &mut self,
        declared: &config::Route,
        at: &Place<'_>,
        around: &Around<'a, '_>,
        group: Option<&Group<'_>>,
    ) -> Option<Arc<Upstream>> {
        let Some(name) = &declared.upstream else {
            let shared = group.map_or(&[][..], |group| &group.declared.filters);
            let mut all = self.config.filters.iter().chain(shared).chain(&declared.filters);
            let unclear =
                self.config.is_broken("filters") || declared.group.is_some() && group.is_none();
            if !unclear && !all.any(Declared::serves) {
                self.env
                    .problems
                    .error(at, format!("route `{}` leads nowhere", declared.id))
                    .help("name an `upstream:`, or answer with a `redirect` or `respond` filter");
            }
            return None;
        };
        let found = around.upstreams.get(name);
        let known = &self.config.upstreams;
        if !known.contains_key(name) && !self.config.is_broken("upstreams") {
            let known: Vec<&str> = known.keys().map(String::as_str).collect();
            self.unknown(&at.field("upstream"), "upstream", name, &known);
        }
        let over_http2 = |upstream: &&Arc<Upstream>| match &upstream.kind {
            Kind::Service(service) => service.protocol == Protocol::Http2,
            Kind::Builtin(_) => false,
        };
        if declared.websocket.is_on() && found.is_some_and(|upstream| over_http2(&upstream)) {
            self.env
                .problems
                .error(&at.field("websocket"), format!("upstream `{name}` is spoken to in HTTP/2"))
                .help("WebSockets need an upstream with `protocol: http1`");
        }
        found.map(Arc::clone)
    }

    /// `places` are the indices in the file that `specs` have.
    fn router(
        &mut self,
        specs: Vec<RouteSpec>,
        places: &[usize],
        at: &Place<'_>,
    ) -> Option<Router> {
        let faults = match Router::build(specs) {
            Ok(router) => return Some(router),
            Err(faults) => faults,
        };
        let config = self.config;
        let files = Place::root(self.root).field("static_files");
        let index = |spec: usize| places.get(spec).copied().unwrap_or(spec);
        let file = |spec: usize| {
            let at = index(spec).checked_sub(config.routes.len())?;
            config.static_files.keys().nth(at)
        };
        let id = |spec: usize| match (config.routes.get(index(spec)), file(spec)) {
            (Some(route), _) => route.id.clone(),
            (None, file) => format!("file {}", file.map_or("", String::as_str)),
        };
        let place = |spec: usize| match file(spec) {
            Some(path) => files.key(path),
            None => at.index(index(spec)),
        };
        for fault in faults {
            match fault {
                BuildFault::Unreachable { route, because_of } => {
                    let message = format!(
                        "route `{}` can never match: `{}` on line {} asks for the same and comes first",
                        id(route),
                        id(because_of),
                        place(because_of).line(),
                    );
                    self.env
                        .problems
                        .error(&place(route), message)
                        .help("give one of them another path, method, predicate or priority");
                }
                BuildFault::TooManyCaptures { route, count } => {
                    let at = place(route).field("match").field("path");
                    self.env.problems.error(
                        &at,
                        format!("the path captures {count} parts; at most {MAX_CAPTURES} are kept"),
                    );
                }
            }
        }
        None
    }

    pub(super) fn unknown(&mut self, at: &Place<'_>, what: &str, name: &str, known: &[&str]) {
        let problem = self.env.problems.error(at, format!("there is no {what} `{name}`"));
        if let Some(near) = nearest(name, known.iter().copied()) {
            problem.help(format!("did you mean `{near}`?"));
        } else if known.is_empty() {
            problem.help(format!("no {what} is declared"));
        }
    }
}
