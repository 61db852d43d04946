//! What a token holds, and which routes accept it: `sluice token --inspect`. The one rule: nothing of a
//! token's signature is printed, and nobody is asked for keys.

use std::fmt::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Map, Value};

use super::app::Checked;
use crate::base::clock;

impl Checked {
    /// What a token holds, and what each route with a `jwt` filter says to it.
    #[must_use]
    pub fn inspect(&self, token: &str) -> String {
        let mut parts = token.split('.');
        let mut part = || -> Option<Map<String, Value>> {
            let bytes = URL_SAFE_NO_PAD.decode(parts.next()?).ok()?;
            serde_json::from_slice(&bytes).ok()
        };
        let (header, claims) = (part(), part());
        let mut out = String::new();
        for (name, object) in [("header", &header), ("claims", &claims)] {
            let text = match object.clone() {
                None => "not readable".to_owned(),
                Some(object) => Value::Object(object).to_string(),
            };
            let _ = writeln!(out, "{name:8} {text}");
        }
        for (name, word) in [("iat", "issued"), ("nbf", "from"), ("exp", "expires")] {
            let moment = claims.as_ref().and_then(|claims| claims.get(name)?.as_i64());
            if let Some(time) = moment.and_then(|at| jiff::Timestamp::from_second(at).ok()) {
                let _ = writeln!(out, "{word:8} {time}{}", distance(time.as_second()));
            }
        }
        for route in &self.snapshot().routes {
            let mut filters = route.chain.iter().filter_map(|filter| filter.as_jwt()).peekable();
            if filters.peek().is_none() {
                continue;
            }
            let refused = filters.find_map(|jwt| jwt.try_token(token.as_bytes()).err());
            let verdict = refused.map_or("accepted", crate::base::fault::Fault::reason);
            let _ = writeln!(out, "route    {}: {verdict}", route.id);
        }
        out
    }
}

fn distance(at: i64) -> String {
    let now = i64::try_from(clock::unix_seconds()).unwrap_or(i64::MAX);
    let away = at.saturating_sub(now);
    if away >= 0 { format!(" (in {away}s)") } else { format!(" ({}s ago)", away.saturating_neg()) }
}
