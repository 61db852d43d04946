//! The Redis that gateways share, as an operator names it: a server, a cluster, or sentinels.

use std::sync::Arc;

use schemars::JsonSchema;
use serde::Deserialize;

use super::env::{Env, digest};
use crate::base::units::Secret;
use crate::base::yaml::Place;
use crate::lasting::redis::Target;
use crate::lasting::redis::address::{self, Address, Login, Servers};

const PORT: u16 = 6379;
const SENTINEL_PORT: u16 = 26_379;
/// Nodes or sentinels that may be named; a cluster tells of the others.
const MOST_NAMED: usize = 16;

/// The Redis that gateways share, as one of `url`, `cluster` and `sentinel`.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(rename = "Redis")]
pub(crate) struct Config {
    /// `redis://[user:password@]host[:port][/db]` or `redis+unix:///path`; empty: limits are counted in
    /// this process.
    url: Secret,
    /// Some nodes of a cluster, which tell of the others: `redis://[user:password@]host[:port]`, all with
    /// the same user and password.
    cluster: Vec<Secret>,
    /// Sentinels, which tell what server counts now.
    sentinel: Option<Sentinel>,
}

/// Sentinels, and how to log in to the server that they name.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Sentinel {
    /// What the sentinels call the server.
    name: String,
    /// The sentinels: `redis://[user:password@]host[:port]`, the port being 26379 if not given.
    addresses: Vec<Secret>,
    /// The user to log in as at the server.
    #[serde(default)]
    user: Option<String>,
    /// The password at the server.
    #[serde(default)]
    password: Option<Secret>,
    /// The database of the server.
    #[serde(default)]
    database: u32,
}

impl Config {
    /// Understands the addresses, for the filters that are compiled after this. Whether anybody is there is
    /// not asked: limits work without Redis, and it may come later.
    pub(crate) fn build(&self, at: &Place<'_>, env: &mut Env<'_>) {
        let one = !self.url.expose().is_empty();
        let ways = [one, !self.cluster.is_empty(), self.sentinel.is_some()];
        if ways.iter().filter(|&&way| way).count() > 1 {
            env.problems
                .error(at, "there is more than one way to Redis")
                .help("keep one of `url`, `cluster` and `sentinel`");
            return;
        }
        let servers = match &self.sentinel {
            Some(sentinel) => sentinel.build(&at.field("sentinel"), env),
            None if !self.cluster.is_empty() => self.cluster(&at.field("cluster"), env),
            None if one => read(&self.url, PORT, &at.field("url"), env)
                .map(|(address, login)| Servers::One(address, login)),
            None => return,
        };
        let Some(servers) = servers else { return };
        // The same words mean the same Redis: connections and counts outlive a reload.
        let words = format!("{} {:?}", self.words(), env.names.settings());
        let name = format!("redis {}", digest(words.as_bytes()));
        let names = Arc::clone(&env.names);
        env.redis = Some(env.retained.cell(&name, || Target::new(servers, names)));
    }

    fn cluster(&self, at: &Place<'_>, env: &mut Env<'_>) -> Option<Servers> {
        let nodes = list(&self.cluster, PORT, at, env)?;
        let (_, login) = nodes.first()?;
        let login = login.clone();
        if nodes.iter().any(|(_, other)| *other != login) {
            env.problems
                .error(at, "the nodes of a cluster have one user and password")
                .help("write the same ones in each address");
            return None;
        }
        if login.database != 0 {
            env.problems
                .error(at, "a cluster has no numbered databases")
                .help("leave the path out of the addresses");
            return None;
        }
        Some(Servers::Cluster(nodes.into_iter().map(|(node, _)| node).collect(), login))
    }

    /// All that is said, in one text.
    fn words(&self) -> String {
        let list = |secrets: &[Secret]| {
            secrets.iter().map(|secret| format!("{:?}", secret.expose())).collect::<Vec<_>>()
        };
        let sentinel = self.sentinel.as_ref().map(|sentinel| {
            let Sentinel { name, addresses, user, password, database } = sentinel;
            let password = password.as_ref().map(Secret::expose);
            format!("{name:?} {:?} {user:?} {password:?} {database}", list(addresses))
        });
        format!("{:?} {:?} {sentinel:?}", self.url.expose(), list(&self.cluster))
    }
}

impl Sentinel {
    fn build(&self, at: &Place<'_>, env: &mut Env<'_>) -> Option<Servers> {
        let sentinels = list(&self.addresses, SENTINEL_PORT, &at.field("addresses"), env)?;
        if self.name.is_empty() || self.user.is_some() && self.password.is_none() {
            let (field, what) = if self.name.is_empty() {
                ("name", "sentinels are asked for a server by its name")
            } else {
                ("user", "a user logs in with a `password`")
            };
            env.problems.error(&at.field(field), what);
            return None;
        }
        let login = Login {
            user: self.user.clone(),
            password: self.password.as_ref().map(|password| password.expose().to_owned()),
            database: self.database,
        };
        Some(Servers::Sentinel { sentinels, name: self.name.clone(), login })
    }
}

fn list(
    texts: &[Secret],
    port: u16,
    at: &Place<'_>,
    env: &mut Env<'_>,
) -> Option<Vec<(Address, Login)>> {
    if texts.is_empty() || texts.len() > MOST_NAMED {
        let message = format!("name 1 to {MOST_NAMED} servers");
        env.problems.error(at, message);
        return None;
    }
    texts.iter().enumerate().map(|(n, text)| read(text, port, &at.index(n), env)).collect()
}

fn read(text: &Secret, port: u16, at: &Place<'_>, env: &mut Env<'_>) -> Option<(Address, Login)> {
    // The address may hold a password, so it is not quoted.
    let address = address::read(text.expose(), port);
    if address.is_err() {
        env.problems
            .error(at, "this is not the address of a Redis")
            .help("write redis://host:6379 or redis://user:password@host:6379/0");
    }
    address.ok()
}
