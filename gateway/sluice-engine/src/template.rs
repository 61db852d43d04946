//! Texts with `{name}` holes, parsed once and filled many times.
//!
//! Which names exist, and what they stand for, is the caller's: parsing turns each name into a value
//! of the caller's type. The one rule: an unknown name is an error at parse time, so that filling
//! cannot fail.

use std::fmt;

/// A parsed text. `{{` and `}}` stand for literal braces.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template<V> {
    parts: Vec<Part<V>>,
}

/// A piece of a template.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Part<V> {
    /// Text as it stands; never empty, and never beside another literal.
    Literal(String),
    /// A hole.
    Value(V),
}

/// What is wrong with a template, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TemplateError {
    /// The byte offset in the text at which the trouble begins.
    pub offset: usize,
    /// A sentence for the operator. Listing the known names is left to the caller.
    pub message: String,
}

impl fmt::Display for TemplateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (at byte {})", self.message, self.offset)
    }
}

impl std::error::Error for TemplateError {}

impl<V> Template<V> {
    /// Parses `text`; `resolve` turns a name into a value, or says `None` when there is no such
    /// name.
    ///
    /// # Errors
    /// An unknown or empty name, a brace that is not closed, or a closing brace that stands alone.
    pub fn parse(text: &str, resolve: impl Fn(&str) -> Option<V>) -> Result<Self, TemplateError> {
        let mut parts = Vec::new();
        let mut literal = String::new();
        let mut rest = text;
        while let Some(at) = rest.find(['{', '}']) {
            let (before, from_brace) = rest.split_at(at);
            literal.push_str(before);
            let offset = text.len() - from_brace.len();
            let fault = |message: String| TemplateError { offset, message };
            if let Some(after) = from_brace.strip_prefix("{{") {
                literal.push('{');
                rest = after;
            } else if let Some(after) = from_brace.strip_prefix("}}") {
                literal.push('}');
                rest = after;
            } else if let Some(after) = from_brace.strip_prefix('{') {
                let (name, after) = after.split_once('}').ok_or_else(|| {
                    fault("this `{` is not closed; write `{{` for a brace".into())
                })?;
                if name.is_empty() {
                    return Err(fault("there is no name between `{` and `}`".into()));
                }
                let value = resolve(name).ok_or_else(|| fault(format!("unknown name `{name}`")))?;
                if !literal.is_empty() {
                    parts.push(Part::Literal(std::mem::take(&mut literal)));
                }
                parts.push(Part::Value(value));
                rest = after;
            } else {
                return Err(fault("this `}` closes nothing; write `}}` for a brace".into()));
            }
        }
        literal.push_str(rest);
        if !literal.is_empty() {
            parts.push(Part::Literal(literal));
        }
        Ok(Self { parts })
    }

    /// The pieces in order.
    #[must_use]
    pub fn parts(&self) -> &[Part<V>] {
        &self.parts
    }

    /// Appends the filled text to `out`; `fill` appends the text of one value.
    pub fn render(&self, out: &mut String, mut fill: impl FnMut(&V, &mut String)) {
        for part in &self.parts {
            match part {
                Part::Literal(text) => out.push_str(text),
                Part::Value(value) => fill(value, out),
            }
        }
    }

    /// Whether there are no holes, so that the text is the same each time.
    #[must_use]
    pub fn is_literal(&self) -> bool {
        self.parts.iter().all(|part| matches!(part, Part::Literal(_)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Template<char>, TemplateError> {
        Template::parse(text, |name| match name {
            "user" => Some('u'),
            "ip" => Some('i'),
            _ => None,
        })
    }

    fn filled(text: &str) -> String {
        let mut out = String::from(">");
        parse(text).unwrap().render(&mut out, |value, out| out.push(*value));
        out
    }

    #[test]
    fn names_are_filled_and_braces_doubled() {
        assert_eq!(filled("a{user}b{ip}"), ">aubi");
        assert_eq!(filled("{user}{ip}"), ">ui");
        assert_eq!(filled("{{{user}}}"), ">{u}");
        assert_eq!(filled("é{{}}"), ">é{}");
        assert_eq!(filled(""), ">");
    }

    #[test]
    fn literals_are_joined() {
        let template = parse("a{{b").unwrap();
        assert!(template.is_literal());
        assert_eq!(template.parts(), [Part::Literal("a{b".to_owned())]);
        assert!(!parse("{ip}").unwrap().is_literal());
        assert!(parse("").unwrap().parts().is_empty());
    }

    #[test]
    fn errors_say_where() {
        for (text, offset, word) in [
            ("ab{nobody}", 2, "unknown name `nobody`"),
            ("é{user", 2, "not closed"),
            ("a}", 1, "closes nothing"),
            ("{}", 0, "no name"),
            ("{us{ip}", 0, "us{ip"),
        ] {
            let error = parse(text).unwrap_err();
            assert_eq!(error.offset, offset, "{text}");
            assert!(error.to_string().contains(word), "{error}");
        }
    }
}
