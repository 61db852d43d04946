//! Refuses callers by address. Decides nothing about who they are: it runs before any token is read.
//! Denied addresses always lose; with an allow list, only its members pass.

use http::request::Parts;
use ipnet::IpNet;
use schemars::JsonSchema;
use serde::Deserialize;
use sluice_engine::cidr::{Rules, Set, Verdict, parse_net};

use super::{Flow, Hooks};
use crate::base::cx::Cx;
use crate::base::fault::Fault;
use crate::base::yaml::Place;
use crate::parts::env::{Env, Owner};

/// Admits or refuses by the client's address (behind trusted proxies: the address they report).
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Config {
    /// Addresses or networks that may call; empty means everybody.
    #[serde(default)]
    allow: Vec<String>,
    /// Addresses or networks that may not; stronger than `allow`.
    #[serde(default)]
    deny: Vec<String>,
}

impl Config {
    pub(crate) fn build(&self, at: &Place<'_>, _: &Owner, env: &mut Env<'_>) -> Option<IpRules> {
        if self.allow.is_empty() && self.deny.is_empty() {
            env.problems
                .error(at, "ip_rules without addresses does nothing")
                .help("write `ip_rules: { allow: [10.0.0.0/8] }` or `deny:`, or leave it out");
            return None;
        }
        let allow = nets(&self.allow, &at.field("allow"), env);
        let deny = nets(&self.deny, &at.field("deny"), env);
        Some(IpRules { rules: Rules { allow: allow?, deny: deny? } })
    }
}

#[derive(Debug)]
pub(crate) struct IpRules {
    rules: Rules,
}

impl Hooks for IpRules {
    async fn on_request(&self, cx: &mut Cx, _: &mut Parts) -> Result<Flow, Fault> {
        match self.rules.judge(cx.client) {
            Verdict::Pass => Ok(Flow::Next),
            Verdict::Refuse => Err(Fault::AddressRefused),
        }
    }
}

/// Parses a list of networks, recording each bad one.
pub(crate) fn nets(texts: &[String], at: &Place<'_>, env: &mut Env<'_>) -> Option<Set> {
    let mut nets: Vec<IpNet> = Vec::with_capacity(texts.len());
    for (index, text) in texts.iter().enumerate() {
        match parse_net(text) {
            Ok(net) => nets.push(net),
            Err(message) => {
                env.problems.error(&at.index(index), message);
            }
        }
    }
    (nets.len() == texts.len()).then(|| Set::new(nets))
}
