//! What is said once for the whole gateway. Each setting is judged on its own, so that one bad
//! setting does not hide the next.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use sluice_engine::mask::Mask;

use super::Compiler;
use crate::base::respond::Envelope;
use crate::base::yaml::Place;
use crate::lasting::redis::Target;
use crate::lasting::resolver::Names;
use crate::lasting::telemetry::access::Output;
use crate::lasting::telemetry::privacy;
use crate::parts::admin::Token;
use crate::parts::broker;
use crate::parts::filters::Declared;
use crate::parts::overload::Overload;
use crate::parts::upstream::discovery;
use crate::snapshot::config;

/// Longest `delay` and longest `grace` of a shutdown.
const LONGEST: Duration = Duration::from_secs(600);
/// Names that `access_log` may list.
const MOST_NAMES: usize = 256;
/// Bytes that a key of fingerprints needs.
const MIN_KEY: usize = 32;

/// What is not per route.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    pub(crate) development: bool,
    pub(crate) application: String,
    pub(crate) admin: std::net::SocketAddr,
    /// By which operators are known who change something; without it nobody does.
    pub(crate) admin_token: Option<Token>,
    pub(crate) envelope: Envelope,
    pub(crate) forwarded_header: bool,
    pub(crate) access_log: Option<Output>,
    /// Query parameters that are logged.
    pub(crate) logged_query: Vec<String>,
    /// What is masked in the access log.
    pub(crate) mask: Arc<Mask>,
    pub(crate) resolver: discovery::Settings,
    /// Where limits are shared, if they are.
    pub(crate) redis: Option<Arc<Target>>,
    pub(crate) overload: Overload,
    pub(crate) shutdown: config::Shutdown,
    pub(crate) allow_shrink: bool,
    /// Files the config names, which are watched like the config itself.
    pub(crate) files: Vec<PathBuf>,
    /// What was read of them, as digests; the files may hold something else by now.
    pub(crate) read: BTreeMap<PathBuf, String>,
}

impl Settings {
    /// With all files that were read to compile the config.
    pub(super) fn watching(mut self, read: Vec<(PathBuf, String)>) -> Self {
        self.files.extend(read.iter().map(|(path, _)| path.clone()));
        self.read = read.into_iter().collect();
        self.files.sort();
        self.files.dedup();
        self
    }
}

impl Compiler<'_> {
    pub(super) fn settings(&mut self, at: &Place<'_>) -> Option<Settings> {
        let config = self.config;
        let resolver = config.resolver.build(&at.field("resolver"), &mut self.env);
        if let Some(resolver) = &resolver {
            self.env.names = Arc::new(Names::new(resolver.clone()));
        }
        let overload = config.overload.build(&at.field("overload"), &mut self.env);
        let admin_token = config.admin.build(&at.field("admin"), &mut self.env);
        self.apart(&at.field("upstreams"));
        config.redis.build(&at.field("redis"), &mut self.env);
        self.shutdown(&at.field("shutdown"));
        let access_log = match config.access_log.output.as_str() {
            "off" => None,
            "stdout" => Some(Output::Stdout),
            path => Some(Output::File(self.env.path(path))),
        };
        let files = config
            .listeners
            .iter()
            .filter_map(|listener| listener.tls.as_ref())
            .flat_map(|tls| &tls.certificates)
            .flat_map(|pair| [self.env.path(&pair.cert_file), self.env.path(&pair.key_file)])
            .collect();
        Some(Settings {
            development: config.development,
            application: config.application.clone(),
            admin: config.admin.address,
            admin_token,
            envelope: config.errors.envelope,
            forwarded_header: config.forwarded_header,
            access_log,
            logged_query: config.access_log.query.clone(),
            mask: self.mask(&at.field("access_log")),
            resolver: resolver?,
            overload: overload?,
            redis: self.env.redis.clone(),
            shutdown: config.shutdown,
            allow_shrink: config.allow_shrink,
            files,
            read: BTreeMap::new(),
        })
    }

    fn mask(&mut self, at: &Place<'_>) -> Arc<Mask> {
        let config = &self.config.access_log;
        let at_query = at.field("query");
        let at = at.field("mask");
        for (list, at) in [(&config.query, &at_query), (&config.mask.fields, &at.field("fields"))] {
            if list.len() > MOST_NAMES {
                self.env.problems.error(at, format!("{} names; at most {MOST_NAMES}", list.len()));
            }
        }
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
        for (index, name) in config.mask.fields.iter().enumerate() {
            if !(1..=32).contains(&name.len()) || !name.chars().all(plain) {
                let at = at.field("fields").index(index);
                self.env
                    .problems
                    .error(&at, format!("`{name}` is not the name of a field"))
                    .help("write up to 32 letters, digits, `-` and `_`");
            }
        }
        let key = config.mask.secret.as_ref().map(|key| key.expose().as_bytes());
        if let Some(key) = key.filter(|key| key.len() < MIN_KEY) {
            self.env
                .problems
                .error(
                    &at.field("secret"),
                    format!("the secret has {} bytes; {MIN_KEY} are needed", key.len()),
                )
                .help("make one with `openssl rand -base64 48`");
        }
        let fields = config.mask.fields.iter().map(String::as_str);
        Arc::new(privacy::mask(fields.chain(self.names_of_tokens()), key))
    }

    /// Tokens in cookies and queries have names that operators choose.
    fn names_of_tokens(&self) -> impl Iterator<Item = &str> {
        let of_groups = self.config.groups.iter().flat_map(|group| &group.filters);
        let of_routes = self.config.routes.iter().flat_map(|route| &route.filters);
        let all = self.config.filters.iter().chain(of_groups).chain(of_routes);
        all.flat_map(Declared::secret_names)
    }

    /// Routes must not lead to the operators' pages.
    fn apart(&mut self, at: &Place<'_>) {
        let admin = self.config.admin.address;
        let broker = self.config.token_broker.as_ref().and_then(broker::Config::door);
        for (name, upstream) in &self.config.upstreams {
            let endpoints = at.field(name).field("endpoints");
            for (index, endpoint) in upstream.endpoints().iter().enumerate() {
                if broker.is_some_and(|broker| endpoint.leads_to(broker)) {
                    self.env
                        .problems
                        .error(
                            &endpoints.index(index).field("address"),
                            "this is the address of the token broker, which is for services only",
                        )
                        .help("write the address of a service");
                }
                if endpoint.leads_to(admin) {
                    self.env
                        .problems
                        .error(
                            &endpoints.index(index).field("address"),
                            "this is the admin address; what it shows is for operators only",
                        )
                        .help("write the address of a service");
                }
            }
        }
    }

    fn shutdown(&mut self, at: &Place<'_>) {
        let shutdown = self.config.shutdown;
        for (key, span) in [("delay", shutdown.delay), ("grace", shutdown.grace)] {
            if span.0 > LONGEST {
                self.env.problems.error(&at.field(key), format!("`{key}` may be 10m at most"));
            }
        }
    }
}
