//! Routes apart from the others: files for anybody, and pre-fetches, whose callers are no mini-programs. And
//! what mini-programs ask of all routes: an answer before they give up.

use std::sync::Arc;
use std::time::Duration;

use sluice_engine::matcher::{MethodSet, RouteSpec};

use super::Compiler;
use crate::base::units::Span;
use crate::base::yaml::Place;
use crate::parts::filters::{Filter, Stage};
use crate::parts::prefetch::{self, Prefetch};
use crate::parts::{routing, static_files};
use crate::snapshot::config;
use crate::snapshot::route::Route;

/// What an answer needs to get to the client that waits for it.
const WAY: Duration = Duration::from_secs(1);

impl Compiler<'_> {
    /// Routes of the files, with the places of these among all files. Of the global filters those apply that ask nothing of the caller.
    pub(super) fn static_files(
        &mut self,
        global: &[Arc<Filter>],
    ) -> Vec<(usize, RouteSpec, Route)> {
        let at = Place::root(self.root).field("static_files");
        let files = static_files::build(&self.config.static_files, &at, &mut self.env);
        let around = global.iter().filter(|filter| filter.stage() <= Stage::Guard);
        let around: Vec<Arc<Filter>> = around.map(Arc::clone).collect();
        let mut routes = Vec::new();
        for file in files {
            let id = format!("file:{}", file.path);
            let mut chain = around.clone();
            chain.push(Arc::new(Filter::Respond(file.answer)));
            let mut route = Route::bare(&id, chain, self.series(&id));
            route.open = true;
            route.outline.hosts = file.hosts;
            route.outline.path = file.path;
            route.outline.methods = vec!["GET".to_owned()];
            routes.push((file.index, file.spec, route));
        }
        routes
    }

    /// What a route for pre-fetches is, or why it cannot be one.
    pub(super) fn prefetch(
        &mut self,
        config: &prefetch::Config,
        declared: &config::Route,
        (spec, chain): (&mut RouteSpec, &[Arc<Filter>]),
        at: &Place<'_>,
    ) -> Option<Box<Prefetch>> {
        let place = at.field("prefetch");
        let told = self.env.problems.errors();
        let get = MethodSet::parse(["GET"]).ok()?;
        if spec.methods == MethodSet::default() {
            spec.methods = get;
        } else if spec.methods != get {
            self.env
                .problems
                .error(&at.field("match").field("methods"), "WeChat fetches by GET alone")
                .help("write `methods: [GET]`, or leave it out");
        }
        for (key, is_on) in
            [("streaming", declared.streaming), ("websocket", declared.websocket.is_on())]
        {
            if is_on {
                self.env
                    .problems
                    .error(&at.field(key), "an answer to a pre-fetch is read as a whole")
                    .help("leave out one of the two");
            }
        }
        if chain.iter().any(|filter| filter.counts_addresses()) {
            self.env
                .problems
                .warn(&place, "a limit counts by address, and all of WeChat comes from a few")
                .help("count by `claim:sub` or `app`, and put the other limit on other routes");
        }
        let built = config.build(&place, &mut self.env)?;
        (self.env.problems.errors() == told).then(|| Box::new(built))
    }

    /// Warns where a mini-program gives up before the route does.
    pub(super) fn patience(
        &mut self,
        matching: &routing::Config,
        total: Option<Duration>,
        at: &Place<'_>,
    ) {
        let Some(total) = total else { return };
        let callers = matching.platforms(&self.env.apps);
        let shortest = callers.into_iter().min_by_key(|platform| platform.patience());
        let Some(platform) = shortest.filter(|it| it.patience() < total + WAY) else { return };
        let (word, patience) = (platform.as_str(), Span(platform.patience()));
        let message = format!(
            "`{word}` waits {patience} for an answer, and this route may take {}",
            Span(total)
        );
        self.env.problems.warn(&at.field("timeout"), message).help(
            "its users see an error of the client's instead of the gateway's; shorten `timeout`",
        );
    }
}
