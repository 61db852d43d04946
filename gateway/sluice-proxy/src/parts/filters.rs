//! The table of filters. Operators choose which filters run; the house fixes the order by stage, so
//! that nothing can answer before it has been authorised and a cache can never skip a login.
//!
//! A new filter is one file, one `mod` line and one row below, then its docs page and its golden.

use http::Response;
use http::request::Parts;
use schemars::JsonSchema;
use serde::Deserialize;

use super::env::{Env, Owner};
use crate::base::body::Body;
use crate::base::cx::Cx;
use crate::base::fault::Fault;
use crate::base::yaml::Place;

mod add_prefix;
mod api_key;
mod authz;
mod cors;
mod headers;
mod ip_rules;
mod jwt;
mod landing;
pub(crate) mod message_push;
mod rate_limit;
mod redirect;
mod request_id;
mod respond;
mod rewrite;
mod signature;
mod size_limit;
mod strip_prefix;

pub(crate) use api_key::{hash_text, mint};
pub(crate) use cors::{Origin, preflight};
pub(crate) use ip_rules::{List, nets};
pub(crate) use jwt::keys::KeyConfig;
pub(crate) use jwt::{KeySet, Outcome as KeyOutcome, Source as KeySource, follow as follow_keys};
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) use jwt::{are_same as are_same_keys, reading as reading_of_keys};
pub(crate) use respond::{Config as RespondConfig, Respond};
pub(crate) use size_limit::check_announced;

/// Where in a request's way a filter runs; chains are sorted by this, stably.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Stage {
    /// Names the request, so that everything after can be traced.
    Trace,
    /// Refuses by address, origin or size, before anything is read.
    Guard,
    /// Finds out who is calling.
    Identify,
    /// Counts what the caller may do.
    Limit,
    /// Decides whether the caller may do this.
    Authorise,
    /// Changes the request and the answer.
    Shape,
    /// Answers instead of a service.
    Serve,
}

/// What a request hook wants to happen next.
pub(crate) enum Flow {
    Next,
    /// This is the answer; no service is asked.
    Answer(Box<Response<Body>>),
}

/// What a filter does.
pub(crate) trait Hooks {
    /// Before the service is asked.
    async fn on_request(&self, cx: &mut Cx, head: &mut Parts) -> Result<Flow, Fault> {
        let _ = (cx, head);
        Ok(Flow::Next)
    }

    /// On the way back, over answers and rendered faults alike.
    fn on_response(&self, cx: &mut Cx, response: &mut Response<Body>) {
        let _ = (cx, response);
    }
}

macro_rules! filters {
    ($( $stage:ident $module:ident::$kind:ident $word:literal ),* $(,)?) => {
        /// One entry of a `filters:` list, a mapping with the filter's name as its single key.
        #[derive(Debug, Deserialize, JsonSchema)]
        pub(crate) enum Declared {
            $( #[serde(rename = $word)] $kind($module::Config), )*
        }

        /// A compiled filter.
        #[derive(Debug)]
        pub(crate) enum Filter {
            $( $kind($module::$kind), )*
        }

        impl Declared {
            /// The filter's name in a config.
            pub(crate) fn name(&self) -> &'static str {
                match self { $( Self::$kind(_) => $word, )* }
            }

            /// Compiles it, or records every problem.
            pub(crate) fn build(
                &self,
                at: &Place<'_>,
                owner: &Owner,
                env: &mut Env<'_>,
            ) -> Option<Filter> {
                let at = at.field(self.name());
                match self {
                    $( Self::$kind(config) => config.build(&at, owner, env).map(Filter::$kind), )*
                }
            }
        }

        impl Filter {
            pub(crate) fn name(&self) -> &'static str {
                match self { $( Self::$kind(_) => $word, )* }
            }

            pub(crate) fn stage(&self) -> Stage {
                match self {
                    // A limit that needs no identity guards what comes after it.
                    Self::RateLimit(limit) if limit.is_guard() => Stage::Guard,
                    $( Self::$kind(_) => Stage::$stage, )*
                }
            }

            pub(crate) async fn on_request(
                &self,
                cx: &mut Cx,
                head: &mut Parts,
            ) -> Result<Flow, Fault> {
                match self { $( Self::$kind(filter) => filter.on_request(cx, head).await, )* }
            }

            pub(crate) fn on_response(&self, cx: &mut Cx, response: &mut Response<Body>) {
                match self { $( Self::$kind(filter) => filter.on_response(cx, response), )* }
            }
        }
    };
}

filters! {
    Trace request_id::RequestId "request_id",
    Guard cors::Cors "cors",
    Guard ip_rules::IpRules "ip_rules",
    Guard size_limit::SizeLimit "size_limit",
    Identify jwt::Jwt "jwt",
    Identify api_key::ApiKey "api_key",
    Identify signature::Signature "signature",
    Identify message_push::MessagePush "message_push",
    Limit rate_limit::RateLimit "rate_limit",
    Authorise authz::Authz "authz",
    Shape headers::Headers "headers",
    Shape strip_prefix::StripPrefix "strip_prefix",
    Shape add_prefix::AddPrefix "add_prefix",
    Shape rewrite::Rewrite "rewrite",
    Serve landing::Landing "landing",
    Serve redirect::Redirect "redirect",
    Serve respond::Respond "respond",
}

impl Declared {
    /// Names in cookies and queries whose values no log may show.
    pub(crate) fn secret_names(&self) -> Vec<&str> {
        match self {
            Self::Jwt(jwt) => jwt.names_of_tokens().collect(),
            Self::ApiKey(key) => key.names_of_tokens().collect(),
            _ => Vec::new(),
        }
    }

    /// Whether what it answers with is for anybody, whatever is asked of mini-programs.
    pub(crate) fn is_for_anybody(&self) -> bool {
        matches!(self, Self::Landing(_))
    }

    /// Whether it answers every request, so that no service is needed.
    pub(crate) fn serves(&self) -> bool {
        matches!(self, Self::Landing(_) | Self::Redirect(_) | Self::Respond(_))
    }
}

impl Filter {
    /// Whether it caps the request body; a chain needs one such filter at most.
    pub(crate) fn caps_body(&self) -> bool {
        matches!(self, Self::SizeLimit(_))
    }

    /// The CORS filter of a chain, which alone answers preflights.
    pub(crate) fn as_cors(&self) -> Option<&cors::Cors> {
        match self {
            Self::Cors(cors) => Some(cors),
            _ => None,
        }
    }

    /// The filter as one of tokens.
    pub(crate) fn as_jwt(&self) -> Option<&jwt::Jwt> {
        match self {
            Self::Jwt(jwt) => Some(jwt),
            _ => None,
        }
    }

    /// The filter as one of pushed messages.
    pub(crate) fn as_push(&self) -> Option<&message_push::MessagePush> {
        match self {
            Self::MessagePush(push) => Some(push),
            _ => None,
        }
    }

    /// Headers that only the gateway may set.
    pub(crate) fn identity_headers(&self) -> Vec<http::HeaderName> {
        match self {
            Self::Jwt(jwt) => jwt.identity_headers().cloned().collect(),
            Self::Authz(authz) => authz.identity_headers().cloned().collect(),
            _ => Vec::new(),
        }
    }

    /// Whether it counts requests by their address.
    pub(crate) fn counts_addresses(&self) -> bool {
        matches!(self, Self::RateLimit(limit) if limit.counts_addresses())
    }

    /// Whether it may find out who is calling.
    pub(crate) fn identifies(&self) -> bool {
        self.stage() == Stage::Identify
    }

    /// Whether it reads the request's body before it is sent.
    pub(crate) fn reads_body(&self) -> bool {
        match self {
            Self::Signature(signature) => signature.reads_body(),
            _ => false,
        }
    }

    /// Whether a filter before it has to say who is calling.
    pub(crate) fn needs_identity(&self) -> bool {
        match self {
            Self::Signature(signature) => signature.needs_identity(),
            Self::Authz(authz) => authz.needs_identity(),
            _ => false,
        }
    }

    /// Whether it says who is calling.
    pub(crate) fn gives_identity(&self) -> bool {
        self.identifies() && !self.needs_identity()
    }

    /// Whether the chain ends here for every request.
    pub(crate) fn serves(&self) -> bool {
        matches!(self, Self::Landing(_) | Self::Redirect(_) | Self::Respond(_))
    }
}
