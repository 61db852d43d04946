//! Several keys of which one is counted: the first that a call has whole. What a caller has proven goes
//! before what it only says of itself, and the two are never counted as one.

use http::request::Parts;

use crate::base::cx::Cx;
use crate::base::yaml::Place;
use crate::parts::env::{Env, Owner};
use crate::parts::key::{self, Key, Part, Use};

/// One of the keys.
#[derive(Debug)]
pub(super) struct Choice(Vec<Part>);

impl Choice {
    /// Reads `claim:sub + route | address` and the like, or records what is wrong.
    pub(super) fn read(
        text: &str,
        at: &Place<'_>,
        owner: &Owner,
        env: &mut Env<'_>,
    ) -> Option<Vec<Self>> {
        let used = Use::Limit(&owner.captures);
        let choices = text.split('|').map(|words| key::parts(words, at, used, env).map(Self));
        let choices = choices.collect::<Option<Vec<_>>>()?;
        let unproven = choices.iter().position(Self::is_unproven);
        let proven = choices.iter().rposition(Self::is_proven);
        if unproven.zip(proven).is_some_and(|(unproven, proven)| unproven < proven) {
            env.problems
                .error(
                    at,
                    "what a caller only says of itself would be counted before what it proves",
                )
                .help("write the keys with a `claim:` first");
            return None;
        }
        Some(choices)
    }

    /// Whether callers choose it as they like.
    pub(super) fn is_unproven(&self) -> bool {
        self.0.iter().any(Part::is_claimed)
    }

    /// Whether it is known before the caller is.
    pub(super) fn is_known_early(&self) -> bool {
        self.0.iter().all(|part| matches!(part, Part::Address | Part::Route))
    }

    /// Whether the address is a part of it.
    pub(super) fn has_address(&self) -> bool {
        self.0.contains(&Part::Address)
    }

    fn is_proven(&self) -> bool {
        !self.is_unproven() && self.0.iter().any(|part| matches!(part, Part::Claim(_)))
    }

    fn is_whole(&self, cx: &Cx, head: &Parts) -> bool {
        self.0.iter().all(|part| part.is_in(cx, head))
    }
}

/// What is counted of a call, and whether its caller chose that as it liked. If the call has no key whole, it
/// is the last, in which its address stands for what is missing.
pub(super) fn key(choices: &[Choice], cx: &Cx, head: &Parts) -> (Key, bool) {
    if let [only] = choices {
        return (key::key(&only.0, cx, head), only.is_unproven());
    }
    let whole = choices.iter().position(|choice| choice.is_whole(cx, head));
    let chosen = whole.unwrap_or_else(|| choices.len().saturating_sub(1));
    let Some(choice) = choices.get(chosen) else { return (key::address(cx), false) };
    (key::key(&choice.0, cx, head).of(chosen), choice.is_unproven())
}
