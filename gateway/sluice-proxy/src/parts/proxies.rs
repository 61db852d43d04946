//! The proxies in front of the gateway: what they say about where a request came from is believed, and
//! of what they say about the caller only what is listed. What they pass on without being listed is a
//! stranger's word.

use std::net::IpAddr;

use http::{HeaderMap, HeaderName};
use schemars::JsonSchema;
use serde::Deserialize;
use sluice_engine::{cidr, forwarded};

use super::env::Env;
use super::filters::nets;
use crate::base::identity::{Family, family};
use crate::base::yaml::Place;

/// A network whose `X-Forwarded-For` is believed, or a mapping that says more about it.
#[derive(Debug, Clone, JsonSchema)]
#[schemars(untagged, title = "Trusted proxies")]
pub(crate) enum Config {
    /// An address or a network.
    Net(String),
    /// Proxies that tell more.
    Named(Named),
}

/// Proxies that tell more than `X-Forwarded-For`: WeChat Gateway, a CDN, another gateway.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Named {
    /// What they are called, for people.
    name: String,
    /// Their addresses and networks.
    cidrs: Vec<String>,
    /// The field in which they tell the client's address, like `x-wx-client-ip`. Where it is missing or
    /// holds no address, `X-Forwarded-For` counts.
    #[serde(default)]
    client_ip_header: Option<String>,
    /// Fields about the caller (`X-WX-*`, `X-MP-*`, `X-Sluice-*`) that are kept when they come from here;
    /// from anybody else they are removed.
    #[serde(default)]
    keep_headers: Vec<String>,
}

impl<'de> Deserialize<'de> for Config {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;
        impl<'de> serde::de::Visitor<'de> for Either {
            type Value = Config;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a network like 10.0.0.0/8, or `{ name: …, cidrs: […] }`")
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Config, E> {
                Ok(Config::Net(text.to_owned()))
            }

            fn visit_map<A: serde::de::MapAccess<'de>>(self, map: A) -> Result<Config, A::Error> {
                Named::deserialize(serde::de::value::MapAccessDeserializer::new(map))
                    .map(Config::Named)
            }
        }
        deserializer.deserialize_any(Either)
    }
}

/// All of them, as compiled.
#[derive(Debug, Default)]
pub(crate) struct Proxies {
    all: cidr::Set,
    telling: Vec<Telling>,
}

/// Those that tell more.
#[derive(Debug)]
pub(crate) struct Telling {
    from: cidr::Set,
    client_ip: Option<HeaderName>,
    keep: Vec<HeaderName>,
}

/// Compiles the list, or records every problem.
pub(crate) fn build(configs: &[Config], at: &Place<'_>, env: &mut Env<'_>) -> Option<Proxies> {
    let mut telling = Some(Vec::new());
    let mut all = Vec::new();
    for (index, config) in configs.iter().enumerate() {
        let at = at.index(index);
        match config {
            Config::Net(net) => match cidr::parse_net(net) {
                Ok(net) => all.push(net),
                Err(message) => {
                    env.problems.error(&at, message);
                    telling = None;
                }
            },
            Config::Named(named) => {
                all.extend(named.cidrs.iter().filter_map(|net| cidr::parse_net(net).ok()));
                match (named.build(&at, env), &mut telling) {
                    (Some(built), Some(telling)) => telling.push(built),
                    _ => telling = None,
                }
            }
        }
    }
    Some(Proxies { all: cidr::Set::new(all), telling: telling? })
}

impl Named {
    fn build(&self, at: &Place<'_>, env: &mut Env<'_>) -> Option<Telling> {
        let from = nets(&self.cidrs, &at.field("cidrs"), env);
        if self.cidrs.is_empty() {
            let message = format!("`{}` has no addresses", self.name);
            env.problems.error(&at.field("cidrs"), message);
            return None;
        }
        let mut whole = true;
        let client_ip = self.client_ip_header.as_ref().map(|text| {
            let parsed = HeaderName::try_from(text.as_str()).ok();
            if parsed.is_none() {
                let at = at.field("client_ip_header");
                env.problems.error(&at, format!("`{text}` is not a header name"));
            }
            parsed
        });
        let mut keep = Vec::new();
        for (index, text) in self.keep_headers.iter().enumerate() {
            match HeaderName::try_from(text.as_str()) {
                Ok(name) if family(name.as_str()) == Family::Identity => keep.push(name),
                _ => {
                    whole = false;
                    env.problems
                        .error(
                            &at.field("keep_headers").index(index),
                            format!("`{text}` would not be removed anyway"),
                        )
                        .help("name fields that begin with `x-wx-`, `x-mp-` or `x-sluice-`");
                }
            }
        }
        let client_ip = match client_ip {
            Some(parsed) => Some(parsed?),
            None => None,
        };
        whole.then_some(Telling { from: from?, client_ip, keep })
    }
}

impl Proxies {
    /// The networks of all.
    pub(crate) fn nets(&self) -> &cidr::Set {
        &self.all
    }

    /// What proxies at this address tell beyond `X-Forwarded-For`, if they do.
    pub(crate) fn telling(&self, peer: IpAddr) -> Option<&Telling> {
        self.telling.iter().find(|proxy| proxy.from.contains(peer))
    }
}

impl Telling {
    /// The client's address in their own field, if it holds exactly one.
    pub(crate) fn client(&self, headers: &HeaderMap) -> Option<IpAddr> {
        let mut values = headers.get_all(self.client_ip.as_ref()?).iter();
        let (value, more) = (values.next()?, values.next());
        if more.is_some() {
            return None;
        }
        forwarded::address(value.to_str().ok()?.trim()).map(|address| address.to_canonical())
    }

    /// Whether a field about the caller is kept.
    pub(crate) fn keeps(&self, name: &str) -> bool {
        self.keep.iter().any(|kept| kept == name)
    }
}
