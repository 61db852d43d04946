//! Which requests a route is for: its `match` section, alone or joined with its group's.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;
use sluice_engine::matcher::{
    HostPattern, MethodSet, PathPattern, Predicate, RouteSpec, Source, Test,
};

use super::env::Env;
use crate::base::yaml::Place;

mod mini;

pub(crate) use mini::Words;

/// What a request must look like. Everything given must hold.
#[derive(Debug, Default, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Config {
    /// Host names: `api.example.com`, or `*.example.com` for everything below. None means any host.
    #[serde(default)]
    pub(crate) hosts: Vec<String>,
    /// `/users` exactly, `/users/**` and all below, `/users/{id}` with a captured segment.
    #[serde(default)]
    pub(crate) path: Option<String>,
    /// A regular expression for the whole path; named groups are captures.
    #[serde(default)]
    pub(crate) path_regex: Option<String>,
    /// Methods in capitals; `GET` admits HEAD too. None means any.
    #[serde(default)]
    pub(crate) methods: Vec<String>,
    /// Header fields by name.
    #[serde(default)]
    pub(crate) headers: BTreeMap<String, TestConfig>,
    /// Query parameters by name.
    #[serde(default)]
    pub(crate) query: BTreeMap<String, TestConfig>,
    /// Cookies by name.
    #[serde(default)]
    pub(crate) cookies: BTreeMap<String, TestConfig>,
    /// Client addresses or networks.
    #[serde(default)]
    pub(crate) clients: Vec<String>,
    /// Mini-programs by their id under `apps`. What is asked of them is what they claim, or their Referer
    /// hints at: it chooses among services, and protects none.
    #[serde(default)]
    pub(crate) app: Words,
    /// Platforms of mini-programs: `wechat`, `alipay` and so on.
    #[serde(default)]
    pub(crate) platform: Words,
    /// Kinds of builds: `develop`, `trial`, `release`. The build under review is a `release`.
    #[serde(default)]
    pub(crate) env: Words,
    /// Versions of the mini-program: `>=3.2.0 <4`, `3.2`, `^3.2`.
    #[serde(default)]
    pub(crate) version: Option<String>,
    /// Among routes of equally precise paths, the higher comes first.
    #[serde(default)]
    pub(crate) priority: i32,
}

/// A test of a value: a text to be equal to, or a mapping with one key.
#[derive(Debug, Clone, PartialEq, Eq, JsonSchema)]
#[schemars(untagged, title = "Tests of values")]
pub(crate) enum TestConfig {
    /// Equal to this text.
    Exact(String),
    /// One of `prefix`, `regex`, `present`.
    Other(OtherTest),
}

/// Tests other than equality.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(title = "Tests other than equality")]
pub(crate) enum OtherTest {
    /// Begins with this text.
    Prefix(String),
    /// Matches this regular expression wholly.
    Regex(String),
    /// Is there (true) or is not there (false).
    Present(bool),
}

impl<'de> Deserialize<'de> for TestConfig {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;
        impl<'de> serde::de::Visitor<'de> for Either {
            type Value = TestConfig;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a text, or one of `prefix: …`, `regex: …`, `present: true`")
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<TestConfig, E> {
                Ok(TestConfig::Exact(text.to_owned()))
            }

            fn visit_map<A: serde::de::MapAccess<'de>>(
                self,
                mut map: A,
            ) -> Result<TestConfig, A::Error> {
                let one = serde::de::value::MapAccessDeserializer::new(&mut map);
                let test = OtherTest::deserialize(one)?;
                if map.next_key::<serde::de::IgnoredAny>()?.is_some() {
                    return Err(serde::de::Error::custom("one test only; a `regex` can say both"));
                }
                Ok(TestConfig::Other(test))
            }
        }
        deserializer.deserialize_any(Either)
    }
}

impl Config {
    /// This match narrowed by its group's: the route's own words win, lists of predicates add up.
    pub(crate) fn within(&self, group: &Self) -> Self {
        let own = |own: &Vec<String>, shared: &Vec<String>| {
            if own.is_empty() { shared.clone() } else { own.clone() }
        };
        let both = |own: &BTreeMap<String, TestConfig>, shared: &BTreeMap<String, TestConfig>| {
            let mut all = shared.clone();
            all.extend(own.iter().map(|(k, v)| (k.clone(), v.clone())));
            all
        };
        let has_path = self.path.is_some() || self.path_regex.is_some();
        Self {
            hosts: own(&self.hosts, &group.hosts),
            path: if has_path { self.path.clone() } else { group.path.clone() },
            path_regex: if has_path { self.path_regex.clone() } else { group.path_regex.clone() },
            methods: own(&self.methods, &group.methods),
            headers: both(&self.headers, &group.headers),
            query: both(&self.query, &group.query),
            cookies: both(&self.cookies, &group.cookies),
            clients: own(&self.clients, &group.clients),
            app: self.app.or(&group.app),
            platform: self.platform.or(&group.platform),
            env: self.env.or(&group.env),
            version: self.version.clone().or_else(|| group.version.clone()),
            priority: if self.priority == 0 { group.priority } else { self.priority },
        }
    }

    /// Compiles it for the router, or records every problem.
    pub(crate) fn build(&self, at: &Place<'_>, env: &mut Env<'_>) -> Option<RouteSpec> {
        let hosts = self.host_patterns(at, env);
        let path = self.path_pattern(at, env);
        let methods = match MethodSet::parse(self.methods.iter().map(String::as_str)) {
            Ok(methods) => Some(methods),
            Err(error) => {
                env.problems.error(&at.field("methods"), error.to_string());
                None
            }
        };
        let predicates = self.predicates(at, env);
        Some(RouteSpec {
            hosts: hosts?,
            path: path?,
            methods: methods?,
            predicates: predicates?,
            priority: self.priority,
        })
    }

    fn host_patterns(&self, at: &Place<'_>, env: &mut Env<'_>) -> Option<Vec<HostPattern>> {
        let mut hosts = Vec::with_capacity(self.hosts.len());
        for (index, text) in self.hosts.iter().enumerate() {
            match HostPattern::parse(text) {
                Ok(host) => hosts.push(host),
                Err(error) => {
                    env.problems.error(&at.field("hosts").index(index), error.to_string());
                }
            }
        }
        (hosts.len() == self.hosts.len()).then_some(hosts)
    }

    fn path_pattern(&self, at: &Place<'_>, env: &mut Env<'_>) -> Option<PathPattern> {
        let (key, parsed) = match (&self.path, &self.path_regex) {
            (Some(path), None) => ("path", PathPattern::parse(path)),
            (None, Some(regex)) => ("path_regex", PathPattern::regex(regex)),
            (None, None) => ("path", PathPattern::parse("/**")),
            (Some(_), Some(_)) => {
                env.problems
                    .error(&at.field("path_regex"), "a route has a path or a path_regex, not both");
                return None;
            }
        };
        match parsed {
            Ok(pattern) => Some(pattern),
            Err(error) => {
                env.problems.error(&at.field(key), error.to_string());
                None
            }
        }
    }

    fn predicates(&self, at: &Place<'_>, env: &mut Env<'_>) -> Option<Vec<Predicate>> {
        let mut all = Some(Vec::new());
        let mut add = |predicate: Option<Predicate>| match predicate {
            Some(predicate) => {
                if let Some(all) = &mut all {
                    all.push(predicate);
                }
            }
            None => all = None,
        };
        for (name, test) in &self.headers {
            let at = at.field("headers");
            if http::HeaderName::try_from(name.as_str()).is_err() {
                env.problems.error(&at.key(name), format!("`{name}` is not a header name"));
                add(None);
                continue;
            }
            let source = Source::Header(name.to_ascii_lowercase());
            add(predicate(source, test, &at.field(name), env));
        }
        for (name, test) in &self.query {
            add(predicate(Source::Query(name.clone()), test, &at.field("query").field(name), env));
        }
        for (name, test) in &self.cookies {
            add(predicate(
                Source::Cookie(name.clone()),
                test,
                &at.field("cookies").field(name),
                env,
            ));
        }
        if !self.clients.is_empty() {
            let nets = super::filters::nets(&self.clients, &at.field("clients"), env);
            add(nets.map(Predicate::ClientIn));
        }
        for test in mini::tests(self, at, env) {
            add(test.map(Predicate::Mini));
        }
        all
    }
}

fn predicate(
    source: Source,
    test: &TestConfig,
    at: &Place<'_>,
    env: &mut Env<'_>,
) -> Option<Predicate> {
    let test = match test {
        TestConfig::Exact(text) => Test::Exact(text.clone()),
        TestConfig::Other(OtherTest::Prefix(text)) => Test::Prefix(text.clone()),
        TestConfig::Other(OtherTest::Present(true)) => Test::Present,
        TestConfig::Other(OtherTest::Present(false)) => Test::Absent,
        TestConfig::Other(OtherTest::Regex(regex)) => match Test::regex(regex) {
            Ok(test) => test,
            Err(error) => {
                env.problems.error(at, error.to_string());
                return None;
            }
        },
    };
    Some(Predicate::Value { source, test })
}
