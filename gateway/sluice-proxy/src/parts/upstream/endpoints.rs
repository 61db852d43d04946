//! Endpoints: what the operator wrote ([`Plan`]) and the addresses that stand for it now
//! ([`EndpointSet`]). A host name may stand for several addresses; each becomes an endpoint of its
//! own. A set is never emptied by an answer that names nobody.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http::HeaderValue;
use schemars::JsonSchema;
use serde::Deserialize;
use sluice_engine::balance::{self, Chooser, Draw, Policy, SlowStart, WARM};
use sluice_engine::breaker;

mod trips;
mod view;

use super::sticky::{Cookie, Token, Want};
use crate::base::clock::{self, Moment};
use crate::base::yaml::Place;
use crate::lasting::link::{Counts, Link, Shape, Target, Tls};
use crate::lasting::retained::Retained;
use crate::parts::env::Env;
use view::View;

/// One place where a service runs.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct EndpointConfig {
    /// `10.0.0.11:8080`, `[2001:db8::1]:80` or `users.internal:8080`; names are resolved again when
    /// their time to live has passed.
    address: String,
    /// Its share of the requests, compared with the others'.
    #[serde(default = "default_weight")]
    weight: u32,
    /// Used only while no other endpoint is up.
    #[serde(default)]
    backup: bool,
}

fn default_weight() -> u32 {
    1
}

/// What the operator wrote, checked.
pub(crate) struct Plan {
    upstream: Arc<str>,
    entries: Vec<Entry>,
    talk: Talk,
    /// Last good addresses by name; kept over reloads.
    names: Arc<Names>,
    counts: Arc<Counts>,
    history: Arc<History>,
}

/// How all endpoints of an upstream are chosen and talked to.
pub(crate) struct Talk {
    pub(crate) policy: Policy,
    pub(crate) max_load: Option<u32>,
    pub(crate) slow_start: Option<SlowStart>,
    pub(crate) cookie: Option<Arc<Cookie>>,
    /// With fewer primaries up than so many of 100, all are used.
    pub(crate) panic_percent: u8,
    /// Whether endpoints are ejected; what an earlier config has ejected does not count otherwise.
    pub(crate) ejects: bool,
    /// The rules of each endpoint's breaker, if they have one.
    pub(crate) breaker: Option<breaker::Rules>,
    /// Without TLS, which depends on the endpoint's name.
    pub(crate) shape: Shape,
    pub(crate) tls: Option<super::tls::Compiled>,
}

#[derive(Debug, Clone)]
struct Entry {
    host: Host,
    port: u16,
    weight: u32,
    backup: bool,
    /// As written, for `Host` and for people.
    text: Arc<str>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Host {
    Address(IpAddr),
    Name(String),
}

/// What is known of host names. Held for a few lines.
#[derive(Debug, Default)]
struct Names(Mutex<HashMap<String, Known>>);

#[derive(Debug, Default)]
struct Known {
    /// The last good ones.
    addresses: Vec<IpAddr>,
    /// Since when look-ups fail or name nobody, and how.
    missed: Option<Missed>,
}

/// Look-ups of a name that came to nothing.
#[derive(Debug, Clone)]
pub(crate) struct Missed {
    pub(crate) since: Moment,
    pub(crate) why: String,
}

/// When the upstream had its first endpoint, in nanoseconds; 0 if it never had one.
#[derive(Debug, Default)]
struct History(AtomicU64);

/// Endpoints that come within this time of the first are not new: the gateway is.
const BEGINNING: Duration = Duration::from_secs(3);

/// The addresses in use.
pub(crate) struct EndpointSet {
    pub(crate) endpoints: Vec<Endpoint>,
    chooser: Chooser,
    ejects: bool,
    slow_start: Option<SlowStart>,
    /// Whether it matters how long answers take.
    learns: bool,
    /// Endpoints by what names them in cookies, sorted.
    tokens: Vec<(Token, usize)>,
    breaker: Option<breaker::Rules>,
}

/// One address in use.
pub(crate) struct Endpoint {
    pub(crate) label: Arc<str>,
    pub(crate) host: HeaderValue,
    pub(crate) target: Arc<Target>,
    pub(crate) link: Arc<Link>,
    pub(crate) weight: u32,
    pub(crate) backup: bool,
    /// The host name that stands for it; `None` if the config has its address.
    pub(crate) source: Option<Arc<str>>,
    /// A hash of its address, the same on every instance.
    name: u64,
    /// What names it in cookies, and `Set-Cookie` for that without and with `Secure`.
    cookie: Option<(Token, [HeaderValue; 2])>,
}

// === impl Plan ===

impl Plan {
    pub(crate) fn build(
        upstream: &str,
        configs: &[EndpointConfig],
        talk: Talk,
        at: &Place<'_>,
        env: &mut Env<'_>,
    ) -> Option<Self> {
        if configs.is_empty() {
            env.problems
                .error(at, format!("upstream `{upstream}` has no endpoints"))
                .help("write `endpoints: [ { address: \"10.0.0.11:8080\" } ]`, or `builtin: echo`");
            return None;
        }
        let entries: Vec<Entry> = configs
            .iter()
            .enumerate()
            .filter_map(|(index, config)| config.parse(&at.index(index), env))
            .collect();
        if entries.len() < configs.len() {
            return None;
        }
        if entries.iter().all(|entry| entry.weight == 0) {
            env.problems.error(at, "every endpoint has weight 0; nobody would be asked");
            return None;
        }
        let names = env.retained.cell(&format!("names of upstream {upstream}"), Names::default);
        let counts = env
            .retained
            .cell(&format!("pools of upstream {upstream}"), || Counts::new(upstream.into()));
        let history =
            env.retained.cell(&format!("history of upstream {upstream}"), History::default);
        Some(Self { upstream: upstream.into(), entries, talk, names, counts, history })
    }

    /// Host names to resolve.
    pub(crate) fn names(&self) -> Vec<String> {
        let mut names: Vec<String> = self
            .entries
            .iter()
            .filter_map(|entry| match &entry.host {
                Host::Name(name) => Some(name.clone()),
                Host::Address(_) => None,
            })
            .collect();
        names.sort();
        names.dedup();
        names
    }

    /// Remembers a name's addresses. Tells whether this is news. An answer that names nobody is taken as
    /// none: it must not empty an upstream.
    pub(crate) fn learn(&self, name: &str, mut addresses: Vec<IpAddr>, now: Moment) -> bool {
        if addresses.is_empty() {
            self.miss(name, "the answer names nobody".to_owned(), now);
            return false;
        }
        addresses.sort();
        addresses.dedup();
        let mut names = self.names.0.lock().unwrap_or_else(PoisonError::into_inner);
        let known = names.entry(name.to_owned()).or_default();
        known.missed = None;
        let news = known.addresses != addresses;
        known.addresses = addresses;
        news
    }

    /// Remembers that a name could not be looked up; its addresses stay.
    pub(crate) fn miss(&self, name: &str, why: String, now: Moment) {
        let mut names = self.names.0.lock().unwrap_or_else(PoisonError::into_inner);
        let known = names.entry(name.to_owned()).or_default();
        let since = known.missed.as_ref().map_or(now, |missed| missed.since);
        known.missed = Some(Missed { since, why });
    }

    /// Since when, and why, a name cannot be looked up.
    pub(crate) fn missed(&self, name: &str) -> Option<Missed> {
        let names = self.names.0.lock().unwrap_or_else(PoisonError::into_inner);
        names.get(name)?.missed.clone()
    }

    /// The set for what is known now; cells of addresses that stay are kept.
    pub(crate) fn resolve(&self, retained: &Retained) -> EndpointSet {
        let names = self.names.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut endpoints = Vec::new();
        let now = clock::now();
        let settled = self.history.is_settled(now);
        for entry in &self.entries {
            let addresses = match &entry.host {
                Host::Address(address) => vec![*address],
                Host::Name(name) => {
                    names.get(name).map(|known| known.addresses.clone()).unwrap_or_default()
                }
            };
            for address in addresses {
                let address = SocketAddr::new(address, entry.port);
                endpoints.push(self.endpoint(entry, address, retained, (now, settled)));
            }
        }
        if !endpoints.is_empty() {
            self.history.begin(now);
        }
        let Talk { policy, panic_percent, max_load, slow_start, ejects, breaker, .. } = self.talk;
        let view =
            View { endpoints: &endpoints, now, ejects: false, slow_start: None, breaker: None };
        let chooser = Chooser::new(policy, &view, panic_percent, max_load);
        let named = endpoints.iter().enumerate();
        let token = |(index, endpoint): (usize, &Endpoint)| {
            endpoint.cookie.as_ref().map(|(token, _)| (*token, index))
        };
        let mut tokens: Vec<(Token, usize)> = named.filter_map(token).collect();
        tokens.sort_unstable();
        let learns = policy == Policy::Fastest;
        EndpointSet { endpoints, chooser, ejects, slow_start, learns, tokens, breaker }
    }

    /// `fresh` if an address that nobody knows yet is new to the service.
    fn endpoint(
        &self,
        entry: &Entry,
        address: SocketAddr,
        retained: &Retained,
        (now, fresh): (Moment, bool),
    ) -> Endpoint {
        let upstream = &self.upstream;
        let shape = Shape {
            tls: self.talk.tls.as_ref().and_then(|tls| {
                let name = match &entry.host {
                    Host::Name(name) => name.clone(),
                    Host::Address(address) => address.to_string(),
                };
                tls.for_host(&name)
                    .map(|server_name| Tls { config: Arc::clone(&tls.config), server_name })
            }),
            ..self.talk.shape.clone()
        };
        let link_name = format!(
            "link {upstream} {address} {:?} {} {:?} {} {:?} {} {:?} {} {:?}",
            shape.protocol,
            self.talk.tls.as_ref().map_or("", |tls| tls.key.as_str()),
            shape.tls.as_ref().map(|tls| &tls.server_name),
            shape.idle_per_endpoint,
            shape.idle_timeout,
            shape.max_requests,
            shape.max_age,
            shape.max_connections,
            (shape.max_wait, shape.connect),
        );
        let label: Arc<str> = match &entry.host {
            Host::Address(_) => address.to_string().into(),
            Host::Name(_) => format!("{}({})", entry.text, address.ip()).into(),
        };
        let link =
            retained.cell(&link_name, || Link::new(Arc::clone(&self.counts), address, shape));
        let cookie = self.talk.cookie.as_ref().and_then(|cookie| {
            let token = cookie.token(upstream, address);
            Some((token, cookie.fields(&token)?))
        });
        Endpoint {
            label,
            host: HeaderValue::try_from(entry.text.as_ref())
                .unwrap_or_else(|_| HeaderValue::from_static("")),
            target: retained
                .cell(&format!("target {upstream} {address}"), || Target::new(now, fresh)),
            source: match &entry.host {
                Host::Name(name) => Some(name.as_str().into()),
                Host::Address(_) => None,
            },
            link,
            weight: entry.weight,
            backup: entry.backup,
            name: xxhash_rust::xxh3::xxh3_64(address.to_string().as_bytes()),
            cookie,
        }
    }
}

impl History {
    fn begin(&self, now: Moment) {
        let _ =
            self.0.compare_exchange(0, now.nanos().max(1), Ordering::Relaxed, Ordering::Relaxed);
    }

    fn is_settled(&self, now: Moment) -> bool {
        let first = self.0.load(Ordering::Relaxed);
        first > 0 && now.saturating_since(Moment::from_nanos(first)) > BEGINNING
    }
}

impl std::fmt::Debug for Plan {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Plan").field("entries", &self.entries).finish_non_exhaustive()
    }
}

impl EndpointConfig {
    /// Whether this is that address of this machine, as far as the text tells.
    pub(crate) fn leads_to(&self, address: SocketAddr) -> bool {
        let local = format!("localhost:{}", address.port());
        self.address.parse() == Ok(address) || self.address.eq_ignore_ascii_case(&local)
    }

    fn parse(&self, at: &Place<'_>, env: &mut Env<'_>) -> Option<Entry> {
        let at = at.field("address");
        let split = self.address.rsplit_once(':');
        let port = split.and_then(|(_, port)| port.parse::<u16>().ok()).filter(|port| *port > 0);
        let (Some((host, _)), Some(port)) = (split, port) else {
            env.problems
                .error(&at, format!("`{}` is not host:port", self.address))
                .help("write an address or a name with its port, like users.internal:8080");
            return None;
        };
        let bare = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(host);
        let parsed = match bare.parse::<IpAddr>() {
            Ok(address) => Host::Address(address),
            Err(_) if is_name(host) => Host::Name(host.trim_end_matches('.').to_ascii_lowercase()),
            Err(_) => {
                env.problems
                    .error(&at, format!("`{host}` is neither an IP address nor a host name"));
                return None;
            }
        };
        Some(Entry {
            host: parsed,
            port,
            weight: self.weight,
            backup: self.backup,
            text: self.address.as_str().into(),
        })
    }
}

fn is_name(text: &str) -> bool {
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
    };
    text.len() <= 253 && text.trim_end_matches('.').split('.').all(label)
}

// === impl Endpoint ===

impl Endpoint {
    /// What its breaker is called: `endpoint:users/10.0.0.11:8080`.
    pub(crate) fn breaker_name(&self) -> String {
        format!("endpoint:{}/{}", self.link.upstream, self.link.address)
    }
}

// === impl EndpointSet ===

impl EndpointSet {
    /// The endpoint to ask; `avoid` just failed and is only a last resort.
    pub(crate) fn choose(
        &self,
        position: &balance::Cell,
        want: &Want,
        avoid: Option<usize>,
        now: Moment,
    ) -> Option<usize> {
        let own = want.token.as_ref().and_then(|token| self.named(token));
        let draw = Draw { random: fastrand::u64(..), key: want.key, own, avoid };
        let chosen = self.chooser.pick(position, &self.view(now), &draw)?;
        if self.learns {
            self.endpoints.get(chosen)?.target.latency.asked(now);
        }
        Some(chosen)
    }

    /// The endpoint that a cookie names.
    fn named(&self, token: &Token) -> Option<usize> {
        let at = self.tokens.binary_search_by(|(known, _)| known.cmp(token)).ok()?;
        self.tokens.get(at).map(|(_, index)| *index)
    }

    /// The `Set-Cookie` for a caller that was served by this endpoint, unless it says so already.
    pub(crate) fn set_cookie(&self, index: usize, want: &Want) -> Option<HeaderValue> {
        let (token, [open, secure]) = self.endpoints.get(index)?.cookie.as_ref()?;
        if want.token.as_ref() == Some(token) {
            return None;
        }
        Some(if want.secure { secure } else { open }.clone())
    }

    /// Whether it matters how long answers take.
    pub(crate) fn learns(&self) -> bool {
        self.learns
    }

    /// An endpoint that may be asked and is not one of `tried`; backups come last. For the rare third
    /// attempt, which the chooser knows nothing of.
    pub(crate) fn untried(&self, tried: &[usize], now: Moment) -> Option<usize> {
        let view = self.view(now);
        let usable = |index: &usize| {
            !tried.contains(index)
                && balance::Endpoints::weight(&view, *index) > 0
                && balance::Endpoints::available(&view, *index)
        };
        let backup = |index: &usize| balance::Endpoints::backup(&view, *index);
        (0..self.endpoints.len()).filter(usable).min_by_key(backup)
    }

    /// Whether so few are up that all are used.
    pub(crate) fn panics(&self, now: Moment) -> bool {
        self.chooser.panics(&self.view(now))
    }

    /// Whether an endpoint of this set is out of use because its requests fail.
    pub(crate) fn is_ejected(&self, endpoint: &Endpoint, now: Moment) -> bool {
        self.ejects && endpoint.target.ejection.is_ejected(now)
    }

    /// How much of its weight an endpoint bears now, as it may have just come.
    pub(crate) fn bears_percent(&self, endpoint: &Endpoint, now: Moment) -> u32 {
        self.view(now).warmth_of(endpoint) * 100 / WARM
    }

    fn view(&self, now: Moment) -> View<'_> {
        let Self { endpoints, ejects, slow_start, breaker, .. } = self;
        let (slow_start, breaker) = (slow_start.as_ref(), breaker.as_ref());
        View { endpoints, now, ejects: *ejects, slow_start, breaker }
    }
}
