//! Whether the caller may do this: by roles, scopes and claims, and where rules cannot say it, by asking a
//! service. Nobody known gets 401, somebody who may not gets 403.

use http::Method;
use http::request::Parts;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;

use super::{Flow, Hooks};
use crate::base::cx::{Cx, Principal};
use crate::base::fault::Fault;
use crate::base::yaml::Place;
use crate::parts::env::{Env, Owner};

mod external;
mod pointer;

use external::External;
use pointer::Pointer;

/// Lists of words, and rules, are no longer than this.
const MOST: usize = 256;

/// Requires roles, scopes and claims of the caller, or the word of a service.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Authz")]
pub(crate) struct Config {
    /// Every rule that is about the request has to be fulfilled.
    #[serde(default)]
    rules: Vec<RuleConfig>,
    /// Where the caller's roles and scopes stand.
    #[serde(default)]
    claim_map: ClaimMap,
    /// A service that has to agree, asked when the rules are fulfilled.
    #[serde(default)]
    external: Option<external::Config>,
}

/// Where roles and scopes stand in the claims, as JSON pointers (RFC 6901). A text is split at blanks.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(rename = "AuthzClaimMap")]
struct ClaimMap {
    /// The caller's roles.
    roles: String,
    /// The caller's scopes.
    scope: String,
}

impl Default for ClaimMap {
    fn default() -> Self {
        Self { roles: "/roles".to_owned(), scope: "/scope".to_owned() }
    }
}

/// What is required of the caller.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "AuthzRule")]
struct RuleConfig {
    /// Methods that the rule is about, HEAD with GET; all if none is given.
    #[serde(default)]
    methods: Vec<String>,
    /// What is required.
    require: RequireConfig,
    /// Or any of these instead.
    #[serde(default)]
    or: Vec<RequireConfig>,
}

/// All that is given here has to hold.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(rename = "AuthzRequirement")]
struct RequireConfig {
    /// Roles of which the caller has one at least.
    any_role: Vec<String>,
    /// Roles that the caller has all of.
    all_roles: Vec<String>,
    /// Scopes of which the caller has one at least.
    any_scope: Vec<String>,
    /// Scopes that the caller has all of.
    all_scopes: Vec<String>,
    /// Claims by JSON pointer, like `/env: release`, `/org/id: [a, b]` or `/verified: true`: the claim is the
    /// value or one of the values, or is a list that holds one.
    claims: std::collections::BTreeMap<String, OneOrMore>,
}

/// A value, or several of which one has to be met.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(untagged)]
#[schemars(rename = "AuthzValue")]
enum OneOrMore {
    One(Plain),
    More(Vec<Plain>),
}

/// A value that a claim can be compared with.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(untagged)]
#[schemars(rename = "AuthzPlain", title = "Value of a claim")]
enum Plain {
    Flag(bool),
    Number(i64),
    Text(String),
}

impl From<Plain> for Value {
    fn from(plain: Plain) -> Self {
        match plain {
            Plain::Flag(flag) => flag.into(),
            Plain::Number(number) => number.into(),
            Plain::Text(text) => text.into(),
        }
    }
}

impl Config {
    pub(crate) fn build(&self, at: &Place<'_>, _: &Owner, env: &mut Env<'_>) -> Option<Authz> {
        if self.rules.is_empty() && self.external.is_none() {
            env.problems
                .error(at, "authz without rules lets everybody pass who is known")
                .help("write `rules: [ { require: { any_role: [admin] } } ]`, or `external:`");
            return None;
        }
        if self.rules.len() > MOST {
            env.problems.error(&at.field("rules"), format!("at most {MOST} rules"));
            return None;
        }
        let map = at.field("claim_map");
        let roles = Pointer::build(&self.claim_map.roles, &map.field("roles"), env);
        let scope = Pointer::build(&self.claim_map.scope, &map.field("scope"), env);
        let mut rules = Vec::new();
        for (index, rule) in self.rules.iter().enumerate() {
            rules.push(rule.build(&at.field("rules").index(index), env));
        }
        let external = match &self.external {
            None => None,
            Some(config) => Some(config.build(&at.field("external"), env)?),
        };
        let rules = rules.into_iter().collect::<Option<Vec<_>>>()?;
        Some(Authz { rules, roles: roles?, scope: scope?, external })
    }
}

impl RuleConfig {
    fn build(&self, at: &Place<'_>, env: &mut Env<'_>) -> Option<Rule> {
        let mut methods = Vec::new();
        for (index, name) in self.methods.iter().enumerate() {
            let upper = name.bytes().all(|byte| byte.is_ascii_uppercase());
            match Method::from_bytes(name.as_bytes()).ok().filter(|_| upper) {
                Some(method) => methods.push(method),
                None => {
                    let message = format!("`{name}` is not a method: write it in capitals");
                    env.problems.error(&at.field("methods").index(index), message);
                    return None;
                }
            }
        }
        let methods = with_head(methods);
        let mut any = Vec::with_capacity(self.or.len() + 1);
        any.push(self.require.build(&at.field("require"), env)?);
        for (index, require) in self.or.iter().enumerate() {
            any.push(require.build(&at.field("or").index(index), env)?);
        }
        Some(Rule { methods, any })
    }
}

/// HEAD is a GET without its body: routes for GET take it, so rules for GET are about it.
fn with_head(mut methods: Vec<Method>) -> Vec<Method> {
    if methods.contains(&Method::GET) && !methods.contains(&Method::HEAD) {
        methods.push(Method::HEAD);
    }
    methods
}

impl RequireConfig {
    fn build(&self, at: &Place<'_>, env: &mut Env<'_>) -> Option<Require> {
        let words = [&self.any_role, &self.all_roles, &self.any_scope, &self.all_scopes];
        if words.iter().all(|words| words.is_empty()) && self.claims.is_empty() {
            env.problems
                .error(at, "nothing is required")
                .help("write `any_role`, `all_roles`, `any_scope`, `all_scopes` or `claims`");
            return None;
        }
        if words.iter().any(|words| words.len() > MOST) || self.claims.len() > MOST {
            env.problems.error(at, format!("at most {MOST} words or claims in a list"));
            return None;
        }
        let mut claims = Vec::new();
        for (pointer, values) in &self.claims {
            let place = at.field("claims");
            let pointer = Pointer::build(pointer, &place.key(pointer), env)?;
            let values = match values.clone() {
                OneOrMore::One(value) => vec![Value::from(value)],
                OneOrMore::More(values) => values.into_iter().map(Value::from).collect(),
            };
            claims.push((pointer, values));
        }
        Some(Require {
            any_role: self.any_role.clone(),
            all_roles: self.all_roles.clone(),
            any_scope: self.any_scope.clone(),
            all_scopes: self.all_scopes.clone(),
            claims,
        })
    }
}

#[derive(Debug)]
pub(crate) struct Authz {
    rules: Vec<Rule>,
    roles: Pointer,
    scope: Pointer,
    external: Option<External>,
}

#[derive(Debug)]
struct Rule {
    methods: Vec<Method>,
    any: Vec<Require>,
}

#[derive(Debug)]
struct Require {
    any_role: Vec<String>,
    all_roles: Vec<String>,
    any_scope: Vec<String>,
    all_scopes: Vec<String>,
    claims: Vec<(Pointer, Vec<Value>)>,
}

impl Hooks for Authz {
    async fn on_request(&self, cx: &mut Cx, head: &mut Parts) -> Result<Flow, Fault> {
        if !self.rules.is_empty() {
            let principal = cx.principal.as_ref().ok_or(Fault::IdentityMissing)?;
            self.permit(principal, &head.method)?;
        }
        if let Some(external) = &self.external {
            Box::pin(external.ask(cx, head)).await?;
        }
        Ok(Flow::Next)
    }
}

impl Authz {
    /// Whether a filter before it has to say who is calling.
    pub(crate) fn needs_identity(&self) -> bool {
        !self.rules.is_empty()
    }

    /// Headers that the service behind `external` sets; clients may never send them.
    pub(crate) fn identity_headers(&self) -> impl Iterator<Item = &http::HeaderName> {
        self.external.iter().flat_map(External::identity_headers)
    }

    fn permit(&self, principal: &Principal, method: &Method) -> Result<(), Fault> {
        let about = |rule: &&Rule| rule.methods.is_empty() || rule.methods.contains(method);
        let held = self
            .rules
            .iter()
            .filter(about)
            .all(|rule| rule.any.iter().any(|require| self.fulfils(principal, require)));
        held.then_some(()).ok_or(Fault::AccessDenied)
    }

    fn fulfils(&self, principal: &Principal, require: &Require) -> bool {
        let has = |pointer: &Pointer, word: &String| match pointer.find(&principal.claims) {
            Some(Value::String(words)) => words.split(' ').any(|held| held == word),
            Some(Value::Array(list)) => list.iter().any(|item| item == word.as_str()),
            _ => false,
        };
        let any = |words: &[String], pointer: &Pointer| {
            words.is_empty() || words.iter().any(|word| has(pointer, word))
        };
        let all = |words: &[String], pointer: &Pointer| words.iter().all(|word| has(pointer, word));
        any(&require.any_role, &self.roles)
            && all(&require.all_roles, &self.roles)
            && any(&require.any_scope, &self.scope)
            && all(&require.all_scopes, &self.scope)
            && require.claims.iter().all(|(pointer, values)| {
                match pointer.find(&principal.claims) {
                    Some(Value::Array(list)) => list.iter().any(|item| values.contains(item)),
                    Some(value) => values.contains(value),
                    None => false,
                }
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pointer(text: &str) -> Pointer {
        Pointer::parse(text).unwrap()
    }

    fn require(text: &str) -> Require {
        let config: RequireConfig = serde_json::from_str(text).unwrap();
        let values = |values: &OneOrMore| match values.clone() {
            OneOrMore::One(value) => vec![Value::from(value)],
            OneOrMore::More(values) => values.into_iter().map(Value::from).collect(),
        };
        Require {
            claims: config.claims.iter().map(|(p, v)| (pointer(p), values(v))).collect(),
            any_role: config.any_role,
            all_roles: config.all_roles,
            any_scope: config.any_scope,
            all_scopes: config.all_scopes,
        }
    }

    #[test]
    fn a_rule_for_get_binds_head() {
        let rule = |method: Method| Rule {
            methods: with_head(vec![method]),
            any: vec![require(r#"{"any_role":["admin"]}"#)],
        };
        let authz = Authz {
            rules: vec![rule(Method::GET), rule(Method::DELETE)],
            roles: pointer("/roles"),
            scope: pointer("/scope"),
            external: None,
        };
        let nobody = Principal { claims: serde_json::Map::new() };
        for method in [Method::GET, Method::HEAD, Method::DELETE] {
            assert_eq!(authz.permit(&nobody, &method), Err(Fault::AccessDenied), "{method}");
        }
        assert_eq!(authz.permit(&nobody, &Method::POST), Ok(()), "no rule is about it");
    }

    #[test]
    fn every_requirement_that_is_given_has_to_hold() {
        let claims = r#"{"roles":["admin","staff"],"scope":"orders:read orders:write","env":"release",
            "org":{"id":7,"tags":["a","b"]},"verified":true,"a/b":"x","roles2":"admin"}"#;
        let principal = Principal { claims: serde_json::from_str(claims).unwrap() };
        let authz = Authz {
            rules: Vec::new(),
            roles: pointer("/roles"),
            scope: pointer("/scope"),
            external: None,
        };
        for (text, holds) in [
            (r#"{"any_role":["admin","x"]}"#, true),
            (r#"{"any_role":["x","adm"]}"#, false),
            (r#"{"all_roles":["admin","staff"]}"#, true),
            (r#"{"all_roles":["admin","x"]}"#, false),
            (r#"{"any_scope":["orders:write"]}"#, true),
            (r#"{"any_scope":["orders"]}"#, false),
            (r#"{"all_scopes":["orders:read","orders:write"]}"#, true),
            (r#"{"all_scopes":["orders:read","orders:delete"]}"#, false),
            (r#"{"claims":{"/env":"release"}}"#, true),
            (r#"{"claims":{"/env":["trial","release"]}}"#, true),
            (r#"{"claims":{"/env":"trial"}}"#, false),
            (r#"{"claims":{"/org/id":7}}"#, true),
            (r#"{"claims":{"/org/id":"7"}}"#, false),
            (r#"{"claims":{"/org/tags":"b"}}"#, true),
            (r#"{"claims":{"/org/tags/0":"a"}}"#, true),
            (r#"{"claims":{"/verified":true}}"#, true),
            (r#"{"claims":{"/a~1b":"x"}}"#, true),
            (r#"{"claims":{"/missing":"x"}}"#, false),
            (r#"{"any_role":["admin"],"claims":{"/env":"trial"}}"#, false),
        ] {
            assert_eq!(authz.fulfils(&principal, &require(text)), holds, "{text}");
        }
    }
}
