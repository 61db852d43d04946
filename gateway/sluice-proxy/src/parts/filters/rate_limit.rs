//! Limits how often a key may call, by a window, a bucket or a quota kept in Redis or in this process. A call
//! over the limit gets 429 with `Retry-After`, or waits for its turn; refused calls are not counted, so a
//! caller that hammers recovers.
//!
//! A limit keyed by address alone needs to know nothing of the caller and runs before tokens are
//! read; every other limit runs after the caller is known. What a caller only says of itself never raises its
//! limit: its address has one beside it.

use std::collections::HashMap;
use std::time::Duration;

use http::request::Parts;
use http::{HeaderName, HeaderValue, Response};

use super::{Flow, Hooks};
use crate::base::body::Body;
use crate::base::clock;
use crate::base::cx::{Cx, LimitState};
use crate::base::fault::Fault;
use crate::base::respond::whole_seconds;
use crate::parts::key;

mod choice;
mod config;
mod counter;
mod near;
mod rules;
mod told;

use choice::Choice;
pub(crate) use config::Config;
use counter::{Counted, Counter};
use rules::Rules;

static LIMIT: HeaderName = HeaderName::from_static("ratelimit-limit");
static REMAINING: HeaderName = HeaderName::from_static("ratelimit-remaining");
static RESET: HeaderName = HeaderName::from_static("ratelimit-reset");
static MODE: HeaderName = HeaderName::from_static("x-sluice-ratelimit-mode");

pub(crate) struct RateLimit {
    rules: Rules,
    tiers: Option<Tiers>,
    /// For a key that callers choose: what one address may do whatever it says.
    address: Option<Rules>,
    /// The first that a call has whole is counted.
    keys: Vec<Choice>,
    counter: Counter,
    guard: bool,
}

/// Rules by the value of a claim.
#[derive(Debug)]
struct Tiers {
    claim: String,
    of: HashMap<String, Rules>,
}

impl std::fmt::Debug for RateLimit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RateLimit")
            .field("rules", &self.rules)
            .field("keys", &self.keys)
            .finish_non_exhaustive()
    }
}

impl RateLimit {
    /// Whether it may run before the caller is known.
    pub(crate) fn is_guard(&self) -> bool {
        self.guard
    }

    /// Whether requests are counted by their address.
    pub(crate) fn counts_addresses(&self) -> bool {
        self.address.is_some() || self.keys.iter().any(Choice::has_address)
    }

    /// The numbers for this caller.
    fn rules(&self, cx: &Cx) -> &Rules {
        let tier = self.tiers.as_ref().and_then(|tiers| {
            let claim = cx.claim(&tiers.claim)?;
            tiers.of.get(claim.as_str()?)
        });
        tier.unwrap_or(&self.rules)
    }

    /// Follows what a count came to: passes, waits, or refuses.
    async fn obey(&self, counted: Counted, rules: &Rules, cx: &mut Cx) -> Result<(), Fault> {
        let Counted { verdict, mode, held } = counted;
        cx.holds.extend(held);
        let state = LimitState {
            limit: rules.limit(),
            remaining: verdict.remaining,
            reset: verdict.reset_after,
            mode: self.counter.is_shared().then(|| mode.as_str()),
        };
        // Of several limits the client is told the one it will meet first.
        if cx.limit.is_none_or(|known| state.remaining < known.remaining || !verdict.admitted) {
            cx.limit = Some(state);
        }
        if !verdict.admitted {
            told::refusal(self.counter.name(), rules, mode, cx);
            cx.retry_after = Some(verdict.retry_after.max(Duration::from_secs(1)));
            return Err(Fault::RateLimited);
        }
        if !verdict.wait.is_zero() {
            let turn = clock::deadline(clock::now().after(verdict.wait));
            Box::pin(tokio::time::sleep_until(turn)).await;
        }
        Ok(())
    }
}

impl Hooks for RateLimit {
    async fn on_request(&self, cx: &mut Cx, head: &mut Parts) -> Result<Flow, Fault> {
        let (key, unproven) = choice::key(&self.keys, cx, head);
        if let Some(rules) = self.address.as_ref().filter(|_| unproven) {
            let key = key::address(cx);
            if let Some(counted) = self.counter.count(key.as_slice(), rules).await? {
                self.obey(counted, rules, cx).await?;
            }
        }
        let rules = self.rules(cx);
        if let Some(counted) = self.counter.count(key.as_slice(), rules).await? {
            self.obey(counted, rules, cx).await?;
        }
        Ok(Flow::Next)
    }

    fn on_response(&self, cx: &mut Cx, response: &mut Response<Body>) {
        let Some(state) = cx.limit.take() else { return };
        let headers = response.headers_mut();
        headers.insert(&LIMIT, number(state.limit));
        headers.insert(&REMAINING, number(state.remaining));
        headers.insert(&RESET, number(whole_seconds(state.reset)));
        if let Some(mode) = state.mode {
            headers.insert(&MODE, HeaderValue::from_static(mode));
        }
    }
}

/// A number as a field's value; `http`'s own conversion allocates twice.
fn number(number: u64) -> HeaderValue {
    let mut buffer = itoa::Buffer::new();
    HeaderValue::from_str(buffer.format(number)).unwrap_or_else(|_| HeaderValue::from(number))
}
