//! Refuses callers by address. Decides nothing about who they are: it runs before any token is read.
//! Denied addresses always lose; with an allow list, only its members pass.

use std::sync::Arc;

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

mod list;

pub(crate) use list::List;

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
    /// File with more that may call, one on each line; read again when it changes.
    #[serde(default)]
    allow_file: Option<String>,
    /// File with more that may not. If it loses all its addresses, those before stay in force, unless it holds a
    /// comment.
    #[serde(default)]
    deny_file: Option<String>,
}

impl Config {
    pub(crate) fn build(&self, at: &Place<'_>, _: &Owner, env: &mut Env<'_>) -> Option<IpRules> {
        let no_files = self.allow_file.is_none() && self.deny_file.is_none();
        if self.allow.is_empty() && self.deny.is_empty() && no_files {
            env.problems
                .error(at, "ip_rules without addresses does nothing")
                .help("write `ip_rules: { allow: [10.0.0.0/8] }` or `deny:`, or leave it out");
            return None;
        }
        let allow = nets(&self.allow, &at.field("allow"), env);
        let deny = nets(&self.deny, &at.field("deny"), env);
        let mut list = |name: &str, file: &Option<String>| match file {
            None => Some(None),
            Some(file) => {
                let deny = name == "deny_file";
                List::build(file, deny, &at.field(name), env).map(Some)
            }
        };
        let allow_file = list("allow_file", &self.allow_file);
        let deny_file = list("deny_file", &self.deny_file);
        Some(IpRules {
            rules: Rules { allow: allow?, deny: deny? },
            allow: allow_file?,
            deny: deny_file?,
        })
    }
}

#[derive(Debug)]
pub(crate) struct IpRules {
    rules: Rules,
    allow: Option<Arc<List>>,
    deny: Option<Arc<List>>,
}

impl Hooks for IpRules {
    async fn on_request(&self, cx: &mut Cx, _: &mut Parts) -> Result<Flow, Fault> {
        let client = cx.client;
        if self.deny.as_ref().is_some_and(|list| list.contains(client)) {
            return Err(Fault::AddressRefused);
        }
        let verdict = match &self.allow {
            None => self.rules.judge(client),
            // With a file the list is closed, however short it is.
            Some(_) if self.rules.deny.contains(client) => Verdict::Refuse,
            Some(list) if list.contains(client) || self.rules.allow.contains(client) => {
                Verdict::Pass
            }
            Some(_) => Verdict::Refuse,
        };
        match verdict {
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
