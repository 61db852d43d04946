//! Licence expressions as crates write them: SPDX 2.3, annex D, with the old `A/B` for `A OR B`.
//!
//! Holds reading and judging; which licences are allowed is left to `policy`. `WITH` binds closest,
//! then `AND`, then `OR`. A licence with an exception is a licence of its own: allowing
//! `Apache-2.0` does not allow `Apache-2.0 WITH LLVM-exception`.

use std::iter::Peekable;
use std::vec::IntoIter;

/// Nesting beyond this is refused: no honest licence comes near it.
const MAX_DEPTH: u32 = 32;

/// A licence expression.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Expression {
    /// One licence, with its exception if it has one, in single spaces.
    Licence(String),
    /// All must be met.
    All(Vec<Self>),
    /// One must be met.
    Any(Vec<Self>),
}

impl Expression {
    /// Reads an expression, or says what is wrong with it.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let mut words = words_of(text).into_iter().peekable();
        let whole = any(&mut words, MAX_DEPTH)?;
        match words.next() {
            None => Ok(whole),
            Some(extra) => Err(format!("`{extra}` stands where nothing more was expected")),
        }
    }

    /// Whether the licences in `allowed` satisfy the expression.
    ///
    /// Identifiers are compared without regard to case. `X+` (X or any later version) is met by X.
    pub(super) fn is_met_by(&self, allowed: &[String]) -> bool {
        match self {
            Self::Licence(wanted) => {
                let at_least = wanted.strip_suffix('+').unwrap_or(wanted);
                allowed
                    .iter()
                    .any(|it| it.eq_ignore_ascii_case(wanted) || it.eq_ignore_ascii_case(at_least))
            }
            Self::All(parts) => parts.iter().all(|part| part.is_met_by(allowed)),
            Self::Any(parts) => parts.iter().any(|part| part.is_met_by(allowed)),
        }
    }
}

type Words = Peekable<IntoIter<String>>;

fn words_of(text: &str) -> Vec<String> {
    let spaced = text.replace('(', " ( ").replace(')', " ) ").replace('/', " OR ");
    spaced.split_whitespace().map(str::to_owned).collect()
}

fn any(words: &mut Words, depth: u32) -> Result<Expression, String> {
    let mut parts = vec![all(words, depth)?];
    while words.next_if(|word| word == "OR").is_some() {
        parts.push(all(words, depth)?);
    }
    Ok(joined(parts, Expression::Any))
}

fn all(words: &mut Words, depth: u32) -> Result<Expression, String> {
    let mut parts = vec![one(words, depth)?];
    while words.next_if(|word| word == "AND").is_some() {
        parts.push(one(words, depth)?);
    }
    Ok(joined(parts, Expression::All))
}

fn one(words: &mut Words, depth: u32) -> Result<Expression, String> {
    if words.next_if(|word| word == "(").is_some() {
        let deeper = depth.checked_sub(1).ok_or("the parentheses are nested too deeply")?;
        let inner = any(words, deeper)?;
        return match words.next_if(|word| word == ")") {
            Some(_) => Ok(inner),
            None => Err("a parenthesis is not closed".to_owned()),
        };
    }
    let mut licence = identifier(words)?;
    if words.next_if(|word| word == "WITH").is_some() {
        licence.push_str(" WITH ");
        licence.push_str(&identifier(words)?);
    }
    Ok(Expression::Licence(licence))
}

fn identifier(words: &mut Words) -> Result<String, String> {
    match words.next() {
        None => Err("a licence is missing at the end".to_owned()),
        Some(word) if matches!(word.as_str(), "AND" | "OR" | "WITH" | ")") => {
            Err(format!("`{word}` stands where a licence was expected"))
        }
        Some(word) => Ok(word),
    }
}

fn joined(mut parts: Vec<Expression>, join: fn(Vec<Expression>) -> Expression) -> Expression {
    match (parts.pop(), parts.is_empty()) {
        (Some(only), true) => only,
        (Some(last), false) => {
            parts.push(last);
            join(parts)
        }
        (None, _) => join(parts),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn met(expression: &str, allowed: &[&str]) -> bool {
        let allowed: Vec<String> = allowed.iter().map(|it| (*it).to_owned()).collect();
        Expression::parse(expression).unwrap().is_met_by(&allowed)
    }

    #[test]
    fn one_of_an_or_is_enough_and_all_of_an_and_are_needed() {
        assert!(met("MIT OR GPL-3.0-only", &["MIT"]));
        assert!(met("GPL-3.0-only OR MIT", &["MIT"]));
        assert!(!met("GPL-3.0-only OR LGPL-2.1-only", &["MIT"]));
        assert!(met("MIT AND ISC", &["ISC", "MIT"]));
        assert!(!met("MIT AND ISC", &["MIT"]));
    }

    #[test]
    fn and_binds_closer_than_or_unless_parentheses_say_otherwise() {
        assert!(met("MIT OR ISC AND GPL-3.0-only", &["MIT"]));
        assert!(!met("(MIT OR ISC) AND GPL-3.0-only", &["MIT"]));
        assert!(met("(MIT OR ISC) AND (Zlib OR GPL-3.0-only)", &["ISC", "Zlib"]));
        assert!(met("((MIT))", &["MIT"]));
    }

    #[test]
    fn an_exception_makes_another_licence() {
        let whole = "Apache-2.0 WITH LLVM-exception";
        assert!(!met(whole, &["Apache-2.0"]));
        assert!(met(whole, &[whole]));
        assert!(!met("Apache-2.0", &[whole]));
        assert!(met("Apache-2.0 WITH LLVM-exception OR Apache-2.0 OR MIT", &["MIT"]));
        assert!(met("MIT AND  Apache-2.0   WITH LLVM-exception", &["MIT", whole]));
    }

    #[test]
    fn old_slashes_later_versions_and_letter_case() {
        assert!(met("MIT/Apache-2.0", &["Apache-2.0"]));
        assert!(met("Apache-2.0 / MIT", &["MIT"]));
        assert!(met("Apache-2.0+", &["Apache-2.0"]));
        assert!(!met("Apache-1.1+", &["Apache-2.0"]));
        assert!(met("mit", &["MIT"]));
    }

    #[test]
    fn nonsense_is_refused_with_what_is_wrong() {
        let why = |text: &str| Expression::parse(text).unwrap_err();
        assert_eq!(why(""), "a licence is missing at the end");
        assert_eq!(why("MIT OR"), "a licence is missing at the end");
        assert_eq!(why("MIT Apache-2.0"), "`Apache-2.0` stands where nothing more was expected");
        assert_eq!(why("AND MIT"), "`AND` stands where a licence was expected");
        assert_eq!(why("(MIT"), "a parenthesis is not closed");
        assert_eq!(why("MIT)"), "`)` stands where nothing more was expected");
        assert_eq!(why("MIT WITH"), "a licence is missing at the end");
        assert_eq!(why(&"(".repeat(10_000)), "the parentheses are nested too deeply");
    }

    #[test]
    fn shapes_are_as_written() {
        let licence = |name: &str| Expression::Licence(name.to_owned());
        assert_eq!(
            Expression::parse("A OR B AND C WITH D").unwrap(),
            Expression::Any(vec![
                licence("A"),
                Expression::All(vec![licence("B"), licence("C WITH D")])
            ])
        );
    }
}
