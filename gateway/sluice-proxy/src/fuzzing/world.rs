//! A compiled config and requests that go through admission, routing and filters as they do in the
//! gateway, up to where a service would be asked.

use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;

use futures_util::FutureExt as _;
use http::Request;
use http::request::Parts;
use sluice_engine::http1::request_head::{MAX_FIELDS, RequestHead};
use sluice_engine::matcher::Found;
use tokio::sync::Semaphore;

use crate::base::clock;
use crate::base::cx::{Cx, Peer, Seats};
use crate::base::fault::Fault;
use crate::base::problem::Problems;
use crate::base::yaml::{Lookup, Source};
use crate::doors::accept;
use crate::lasting::retained::Retained;
use crate::lasting::telemetry::metrics::Metrics;
use crate::parts::filters::Flow;
use crate::path::admission::{self, Admitted};
use crate::path::lookup;
use crate::snapshot::compile::{Input, Snapshot, Workshop, compile};

pub(super) struct World {
    snapshot: Snapshot,
    peer: Rc<Peer>,
}

/// What became of a request.
#[derive(Debug)]
pub(super) enum Outcome {
    #[expect(dead_code, reason = "told where an outcome is printed")]
    Refused(Fault),
    /// The gateway answered it.
    Answered,
    /// A service would have been asked for this.
    Forwarded { route: String, target: http::Uri },
}

/// No environment, and no files but those of absolute paths.
struct Nothing;

impl Lookup for Nothing {
    fn env(&self, name: &str) -> Option<String> {
        (name == "SET").then(|| "value".to_owned())
    }

    fn file(&self, _: &str) -> std::io::Result<String> {
        Err(std::io::ErrorKind::NotFound.into())
    }
}

/// Compiles a config as `sluice check` does.
pub(super) fn compiled(source: &Source) -> Result<(Snapshot, Problems), Problems> {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let workshop =
        Workshop { retained: Arc::new(Retained::default()), metrics: Arc::new(Metrics::new(1)) };
    let base = Path::new("/nowhere");
    let input = Input { source, base, lookup: &Nothing, may_write: false };
    compile(&input, &workshop)
}

impl World {
    /// Routes, filters and upstreams under a plain head.
    pub(super) fn new(config: &str) -> Self {
        let head = "version: 1\nlisteners: [ { name: l, address: \"127.0.0.1:8080\" } ]\n";
        let source =
            Source { name: "routes.yaml".to_owned(), text: format!("{head}{config}").into() };
        let (snapshot, _) = compiled(&source).unwrap_or_else(|problems| panic!("{problems:?}"));
        Self::of(snapshot)
    }

    pub(super) fn of(snapshot: Snapshot) -> Self {
        let place = || Arc::new(Semaphore::new(1)).try_acquire_owned().unwrap();
        let seats = Seats { own: place(), common: place() };
        let address = ([203, 0, 113, 9], 4711).into();
        let peer = Rc::new(accept::peer(&snapshot.listeners[0], address, 8080, seats));
        Self { snapshot, peer }
    }

    pub(super) fn ask(&self, mut head: Parts) -> Outcome {
        let mut cx =
            Cx::begin(Rc::clone(&self.peer), clock::now(), self.snapshot.settings.envelope);
        match admission::admit(&mut cx, &mut head, &self.snapshot) {
            Ok(Admitted::Request(_)) => {}
            Ok(Admitted::Server) => return Outcome::Answered,
            Err(fault) => return Outcome::Refused(fault),
        }
        let found = lookup::found(&self.snapshot, &cx, &head, head.method.as_str());
        let Found::Route(matched) = found else { return Outcome::Refused(Fault::NoRoute) };
        lookup::take_captures(&mut cx, &matched, head.uri.path());
        let route = &self.snapshot.routes[matched.route];
        for filter in &route.chain {
            // Nothing here waits: there is no store to ask.
            match filter.on_request(&mut cx, &mut head).now_or_never().expect("an answer at once") {
                Ok(Flow::Next) => {}
                Ok(Flow::Answer(_)) => return Outcome::Answered,
                Err(fault) => return Outcome::Refused(fault),
            }
        }
        Outcome::Forwarded { route: route.id.to_string(), target: head.uri }
    }
}

/// A request's head as hyper would make it of what the gate lets through.
pub(super) fn read(data: &[u8]) -> Option<Parts> {
    let whole = RequestHead::new(32 * 1024).read(data).ok()??;
    let mut fields = [httparse::EMPTY_HEADER; MAX_FIELDS];
    let mut parsed = httparse::Request::new(&mut fields);
    parsed.parse(&data[..whole.len]).ok()?;
    let old = parsed.version == Some(0);
    let mut request = Request::builder()
        .method(parsed.method?)
        .uri(http::Uri::try_from(parsed.path?).ok()?)
        .version(if old { http::Version::HTTP_10 } else { http::Version::HTTP_11 });
    for field in parsed.headers {
        request = request.header(field.name, field.value);
    }
    Some(request.body(()).ok()?.into_parts().0)
}
