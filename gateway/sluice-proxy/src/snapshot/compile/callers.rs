//! Who may be calling, and what services are told of it.

use std::collections::BTreeMap;
use std::sync::Arc;

use http::HeaderValue;

use super::Compiler;
use crate::base::yaml::Place;
use crate::parts::apps;
use crate::parts::caller::Callers;
use crate::parts::contract::Contracts;
use crate::parts::profile::signature::Signer;
use crate::parts::profile::{Profile, Teller};
use crate::parts::upstream::Upstream;
use crate::parts::version_gate;

/// What routes say to their services, made once for each profile.
pub(super) struct Tellers {
    usual: Profile,
    signer: Option<Arc<Signer>>,
    wx_env: Option<HeaderValue>,
    made: Vec<Arc<Teller>>,
}

impl Compiler<'_> {
    /// Compiles what the other sections ask for by name.
    pub(super) fn apps(&mut self, at: &Place<'_>) -> Option<()> {
        let apps = apps::build(&self.config.apps, &at.field("apps"), &mut self.env)?;
        self.env.apps = Arc::new(apps);
        Some(())
    }

    /// How callers are known; nothing inside where no apps are declared.
    pub(super) fn callers(&mut self, at: &Place<'_>) -> Option<Option<Callers>> {
        let apps = Arc::clone(&self.env.apps);
        let place = at.field("version_gate");
        let at = at.field("client_identity");
        let routes: Vec<&str> = self.config.routes.iter().map(|route| route.id.as_str()).collect();
        let gates =
            version_gate::build(&self.config.version_gate, &apps, &routes, &place, &mut self.env);
        let built = self.config.client_identity.build(&apps, gates, &routes, &at, &mut self.env)?;
        Some((!apps.is_empty()).then_some(built))
    }

    /// Which pools of services fit which builds of apps.
    pub(super) fn contracts(
        &mut self,
        upstreams: &BTreeMap<String, Arc<Upstream>>,
        at: &Place<'_>,
    ) -> Option<Contracts> {
        let Some(config) = &self.config.contract else { return Some(Contracts::new()) };
        if upstreams.len() != self.config.upstreams.len() || self.config.is_broken("upstreams") {
            // Which has been told; what is missing here would be told again.
            return None;
        }
        let apps = Arc::clone(&self.env.apps);
        config.build(&apps, upstreams, at, &mut self.env)
    }

    /// Whether requests come to an upstream by contract.
    pub(super) fn is_pool(&self, name: &str) -> bool {
        let pools = self.config.contract.iter().flat_map(|contract| contract.pools.values());
        pools.flatten().any(|pool| pool.upstream == name)
    }

    pub(super) fn tellers(&mut self, at: &Place<'_>) -> Option<Tellers> {
        let config = self.config;
        let signer = match &config.identity_signature {
            None => None,
            Some(key) => {
                let at = at.field("identity_signature");
                Some(key.build(&at, &mut self.env).map(Arc::new))
            }
        };
        let wx_env = config.wx_env.as_ref().map(|text| {
            let value = HeaderValue::try_from(text).ok();
            if value.is_none() {
                self.env
                    .problems
                    .error(&at.field("wx_env"), "this is not the value of a header field");
            }
            value
        });
        let usual = if config.apps.is_empty() { Profile::None } else { Profile::Neutral };
        Some(Tellers {
            usual: config.headers_profile.unwrap_or(usual),
            signer: match signer {
                None => None,
                Some(signer) => Some(signer?),
            },
            wx_env: match wx_env {
                None => None,
                Some(value) => Some(value?),
            },
            made: Vec::new(),
        })
    }

    /// What a route's service is told, if anything.
    pub(super) fn teller(
        &self,
        tellers: &mut Tellers,
        own: Option<Profile>,
    ) -> Option<Arc<Teller>> {
        let profile = own.unwrap_or(tellers.usual);
        if profile == Profile::None && tellers.signer.is_none() {
            return None;
        }
        if let Some(made) = tellers.made.iter().find(|made| made.profile == profile) {
            return Some(Arc::clone(made));
        }
        let teller = Arc::new(Teller {
            profile,
            apps: Arc::clone(&self.env.apps),
            claims: self.config.client_identity.claims.clone(),
            wx_env: tellers.wx_env.clone(),
            signer: tellers.signer.clone(),
        });
        tellers.made.push(Arc::clone(&teller));
        Some(teller)
    }
}
