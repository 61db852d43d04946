//! A compiled route: its chain, sorted by stage, where it leads, and its counters.

use std::sync::Arc;
use std::time::Duration;

use crate::base::respond::Envelope;
use crate::lasting::telemetry::metrics::RouteSeries;
use crate::parts::batch::Permission;
use crate::parts::breaker::Breaker;
use crate::parts::bulkhead::Bound;
use crate::parts::cache_control::Unkept;
use crate::parts::contract::ServiceContract;
use crate::parts::fallback::Fallback;
use crate::parts::filters::{Filter, Stage};
use crate::parts::prefetch::Prefetch;
use crate::parts::profile::Teller;
use crate::parts::repeats::Repeats;
use crate::parts::upstream::Upstream;
use crate::parts::upstream::sticky::Affinity;
use crate::parts::websocket::WebSocket;

/// A route as the request path uses it.
#[derive(Debug)]
pub(crate) struct Route {
    pub(crate) id: Arc<str>,
    /// Global, group and own filters, sorted by stage.
    pub(crate) chain: Vec<Arc<Filter>>,
    /// How many of them guard: what they let through is asked whether it is an app that is served.
    pub(crate) guards: usize,
    /// Where in the chain stands who opens pushed messages.
    pub(crate) push: Option<usize>,
    /// Which pool of the service fits which build of a client.
    pub(crate) contract: Option<Arc<ServiceContract>>,
    /// Tells the service who is calling.
    pub(crate) teller: Option<Arc<Teller>>,
    /// Where requests go that no filter answered.
    pub(crate) upstream: Option<Arc<Upstream>>,
    /// What its requests are asked for the choice of an endpoint.
    pub(crate) affinity: Option<Affinity>,
    pub(crate) bulkhead: Option<Bound>,
    pub(crate) breaker: Option<Breaker>,
    /// Who answers where the upstream fails.
    pub(crate) fallback: Option<Fallback>,
    /// WebSocket upgrades, where they may pass.
    pub(crate) websocket: Option<WebSocket>,
    /// Long-lived answers: no total time limit and no cap on the body, an idle limit instead.
    pub(crate) streaming: bool,
    /// Whether a redirect by the service to itself is led to the host that clients know.
    pub(crate) relocates: bool,
    /// Whose answers are not to be kept, if they say nothing of it.
    pub(crate) unkept: Unkept,
    /// Shape of refusals on this route, whoever calls.
    pub(crate) envelope: Option<Envelope>,
    /// Answers WeChat's pre-fetch.
    pub(crate) prefetch: Option<Box<Prefetch>>,
    /// For anybody, whatever is asked of mini-programs elsewhere.
    pub(crate) open: bool,
    /// From a request's arrival to the head of its answer; streaming routes have no such limit.
    pub(crate) total: Option<Duration>,
    /// Whether its writes go on when their clients leave; never without a total time.
    pub(crate) finishes: bool,
    /// Which of its requests may be sent twice, and when they are.
    pub(crate) repeats: Repeats,
    /// Nobody is let in whose token cannot be checked in full.
    pub(crate) sensitive: bool,
    /// Which calls of batches may take it.
    pub(crate) batch: Permission,
    /// Whether its requests are batches themselves.
    pub(crate) batches: bool,
    /// Whether a filter reads the request's body before it is sent.
    pub(crate) reads_body: bool,
    pub(crate) series: Arc<RouteSeries>,
    /// How it was declared, for people.
    pub(crate) outline: Outline,
}

/// What `sluice routes` and `/routes` show.
#[derive(Debug, Clone, serde::Serialize)]
pub(crate) struct Outline {
    pub(crate) hosts: Vec<String>,
    pub(crate) path: String,
    pub(crate) methods: Vec<String>,
    pub(crate) group: Option<String>,
    pub(crate) filters: Vec<String>,
    pub(crate) upstream: Option<String>,
}

impl Route {
    /// Whether a batch may make this call; never another batch.
    pub(crate) fn may_be_batched(&self, method: &http::Method) -> bool {
        !self.batches && self.batch.permits(method)
    }

    /// Whether a page of another origin may make this call and read what comes of it.
    pub(crate) fn lets_page(&self, head: &http::request::Parts) -> bool {
        self.chain.iter().find_map(|filter| filter.as_cors()).is_some_and(|cors| cors.lets(head))
    }

    /// A route that leads to no service.
    pub(crate) fn bare(id: &str, chain: Vec<Arc<Filter>>, series: Arc<RouteSeries>) -> Self {
        let chain = Self::sorted(chain);
        Self {
            id: id.into(),
            guards: guards(&chain),
            reads_body: chain.iter().any(|filter| filter.reads_body()),
            push: None,
            outline: Outline {
                hosts: Vec::new(),
                path: String::new(),
                methods: Vec::new(),
                group: None,
                filters: chain.iter().map(|filter| filter.name().to_owned()).collect(),
                upstream: None,
            },
            chain,
            contract: None,
            teller: None,
            upstream: None,
            affinity: None,
            bulkhead: None,
            breaker: None,
            fallback: None,
            websocket: None,
            streaming: false,
            relocates: false,
            unkept: Unkept::Nobodys,
            envelope: None,
            prefetch: None,
            open: false,
            total: None,
            finishes: false,
            repeats: Repeats::default(),
            sensitive: false,
            batch: Permission::None,
            batches: false,
            series,
        }
    }

    /// Sorts a chain by stage; within a stage the order of the config stays. Of several caps on the
    /// body, several rules for other origins, and several who open messages, the last one counts, which is the route's own
    /// before its group's and the global one.
    pub(crate) fn sorted(mut chain: Vec<Arc<Filter>>) -> Vec<Arc<Filter>> {
        keep_last(&mut chain, Filter::caps_body);
        keep_last(&mut chain, |filter| filter.as_cors().is_some());
        keep_last(&mut chain, |filter| filter.as_push().is_some());
        chain.sort_by_key(|filter| filter.stage());
        chain
    }
}

/// How many filters of a sorted chain stand before anybody is identified.
pub(crate) fn guards(chain: &[Arc<Filter>]) -> usize {
    chain.partition_point(|filter| filter.stage() <= Stage::Guard)
}

/// Where in a sorted chain stands who opens pushed messages.
pub(crate) fn push(chain: &[Arc<Filter>]) -> Option<usize> {
    chain.iter().position(|filter| filter.as_push().is_some())
}

/// Keeps only the last of the filters of one kind.
fn keep_last(chain: &mut Vec<Arc<Filter>>, kind: impl Fn(&Filter) -> bool) {
    let last = chain.iter().rposition(|filter| kind(filter));
    let mut at = 0..chain.len();
    chain.retain(|filter| at.next() == last || !kind(filter));
}
