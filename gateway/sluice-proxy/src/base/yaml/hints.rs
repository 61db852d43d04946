//! What a syntax error means to somebody who writes settings. The parser says which rule of YAML was
//! broken; the lines around it say what the hand meant. Looking at lines is left to
//! [`lines`](self::lines). The one rule: a guess is only offered where the text bears it out,
//! otherwise the parser's own words stand.

use serde_saphyr::granit_parser::{ErrorKind, ScanError};

use self::lines::Lines;
use super::build::position;

mod lines;

pub(super) use lines::clip;

/// A syntax error in our words.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Told {
    pub(super) line: u32,
    pub(super) column: u32,
    pub(super) message: String,
    pub(super) help: Option<String>,
}

/// Says what is wrong, and points at the cause rather than at where the parser gave up.
pub(super) fn explain(error: &ScanError, text: &str) -> Told {
    let lines = Lines::new(text);
    let at = position(error.marker());
    tab(error.kind(), &lines, at)
        .or_else(|| brackets(error.kind(), &lines, at))
        .or_else(|| quotes(error.kind(), &lines, at))
        .or_else(|| structure(error.kind(), &lines, at))
        .or_else(|| indicators(error.kind(), &lines, at))
        .unwrap_or_else(|| Told {
            line: at.0,
            column: at.1,
            message: format!("this is not valid YAML: {}", error.info()),
            help: None,
        })
}

/// A plain value that begins with `*`: nearly always a host pattern without its quotes.
pub(super) fn unknown_alias(name: &str) -> (String, String) {
    let name = clip(name);
    (
        format!("`*{name}` is read as an alias, and no anchor `&{name}` comes before it"),
        format!("if it is text, put it in quotes: \"*{name}\""),
    )
}

/// `key: value` for a text such as `key:value`.
pub(super) fn spaced(text: &str) -> Option<String> {
    let lines = Lines::new(text);
    lines.glued_colon((1, 1)).map(|(key, value)| clip(&format!("{key}: {value}")))
}

type At = (u32, u32);

fn told((line, column): At, message: impl Into<String>, help: impl Into<String>) -> Option<Told> {
    Some(Told { line, column, message: message.into(), help: Some(help.into()) })
}

fn tab(kind: &ErrorKind, lines: &Lines<'_>, at: At) -> Option<Told> {
    let about_tabs = matches!(
        kind,
        ErrorKind::TabNotAllowed
            | ErrorKind::TabInBlockIndentation
            | ErrorKind::TabInIndentation
            | ErrorKind::TabInPlainScalar
            | ErrorKind::TabAtBlockScalarStart
    );
    // The parser may give up at the end of the line before.
    let found = lines.tab_in_indentation(at.0);
    let found = found.or_else(|| lines.tab_in_indentation(at.0 + 1).filter(|_| about_tabs));
    match found {
        Some(tab) => told(tab, "a tab is used for indentation", "indent with spaces"),
        None if about_tabs => told(at, "a tab is not allowed here", "write spaces instead"),
        None => None,
    }
}

fn brackets(kind: &ErrorKind, lines: &Lines<'_>, at: At) -> Option<Told> {
    let in_brackets = matches!(
        kind,
        ErrorKind::ExpectedFlowMappingSeparator
            | ErrorKind::ExpectedFlowSequenceSeparator
            | ErrorKind::InvalidColonPlacement
            | ErrorKind::InvalidFlowScalarIndent
            | ErrorKind::MismatchedFlowCollectionEnd { .. }
            | ErrorKind::UnclosedFlowCollection { .. }
            | ErrorKind::UnexpectedEofFlowSequence
            | ErrorKind::UnexpectedEofFlowMapping
            | ErrorKind::UnexpectedEofImplicitFlowMapping
    );
    if in_brackets {
        let before = (at.0, at.1.saturating_sub(1));
        if lines.at(before) == Some('$') && lines.at(at) == Some('{') {
            return told(
                before,
                "`${...}` within brackets must be in quotes",
                "write \"${NAME}\"; a number or a boolean may be quoted there",
            );
        }
        if let Some((open, place)) = lines.unclosed_bracket(at) {
            let close = if open == '[' { ']' } else { '}' };
            return told(
                place,
                format!("`{open}` is opened here and not closed"),
                format!("close it with `{close}`, or put the value in quotes if it is text"),
            );
        }
        return told(
            at,
            "the list or mapping in brackets goes wrong here",
            "separate entries with commas, and put text that holds brackets in quotes",
        );
    }
    if matches!(kind, ErrorKind::MisplacedFlowCollectionEnd) {
        let bracket = lines.at(at).unwrap_or(']');
        return told(
            at,
            format!("`{bracket}` closes nothing"),
            "remove it, or put the value in quotes if it is text",
        );
    }
    if matches!(kind, ErrorKind::ExpectedBlockMappingKey) {
        let (open, place) = lines.value_in_brackets(at)?;
        let read = if open == '[' { "a list" } else { "a mapping" };
        return told(
            place,
            format!("a value that begins with `{open}` is read as {read}, and this one goes on"),
            "put the whole value in quotes if it is text",
        );
    }
    None
}

fn quotes(kind: &ErrorKind, lines: &Lines<'_>, at: At) -> Option<Told> {
    match kind {
        ErrorKind::UnclosedQuotedScalar
        | ErrorKind::InvalidQuotedScalarIndent
        | ErrorKind::DocumentIndicatorInQuotedScalar => told(
            lines.unclosed_quote(at).unwrap_or(at),
            "a quote is opened here and not closed",
            "close it on the same line, or quote with the other kind if the text holds one",
        ),
        ErrorKind::InvalidTrailingSingleQuotedScalar => told(
            at,
            "text goes on after the closing quote",
            "put all of the value in quotes; within '...' a quote is written twice: 'it''s'",
        ),
        ErrorKind::InvalidTrailingDoubleQuotedScalar => told(
            at,
            "text goes on after the closing quote",
            "put all of the value in quotes; within \"...\" a quote is written \\\"",
        ),
        ErrorKind::UnknownQuotedScalarEscape => {
            let (escape, place) = lines.unknown_escape(at)?;
            told(
                place,
                format!("`\\{escape}` means nothing within double quotes"),
                "use single quotes: within them a backslash stands for itself",
            )
        }
        _ => None,
    }
}

fn structure(kind: &ErrorKind, lines: &Lines<'_>, at: At) -> Option<Told> {
    match kind {
        ErrorKind::SimpleKeyExpected => match lines.glued_colon(at) {
            Some((key, value)) => told(
                at,
                format!("`{}` has no space after its colon", clip(&format!("{key}:{value}"))),
                format!("write `{}`", clip(&format!("{key}: {value}"))),
            ),
            None => told(
                at,
                "expected a `key: value` here",
                "write a colon and a space after a key; text of several lines begins with `|`",
            ),
        },
        ErrorKind::MappingValueNotAllowed => key_in_a_value(lines, at),
        ErrorKind::BlockSequenceEntryNotAllowed => told(
            at,
            "a list cannot begin on the line of its key",
            "put each `- ` on a line of its own below the key",
        ),
        ErrorKind::ExpectedBlockSequenceEntry
        | ErrorKind::ExpectedBlockMappingKey
        | ErrorKind::InvalidIndentation
            if lines.begins_at(at) =>
        {
            if !lines.lines_up(at) {
                return told(
                    at,
                    "this line does not line up with any line above it",
                    "indent it by exactly as many spaces as the lines it belongs with",
                );
            }
            let (expected, help) = if matches!(kind, ErrorKind::ExpectedBlockSequenceEntry) {
                (
                    "expected another list item",
                    "begin it with `- `, or indent it like the keys of the item it belongs to",
                )
            } else {
                ("expected a `key: value` here", "a list goes below a key of its own")
            };
            told(at, expected, help)
        }
        _ => None,
    }
}

/// A `key: value` where the parser is still reading a value, which may have begun a line above.
fn key_in_a_value(lines: &Lines<'_>, at: At) -> Option<Told> {
    if let Some((dash, rest)) = lines.glued_dash(at.0) {
        let help = format!("write `- {}`", clip(rest));
        return told(dash, "a `-` has no space after it", help);
    }
    if let Some((end, word)) = lines.word_above(at.0) {
        let help = format!("write `{}:`", clip(word));
        return told(end, format!("`{}` has no colon after it", clip(word)), help);
    }
    match lines.key_ending_at(at) {
        Some(column) => told(
            (at.0, column),
            "this line is indented more deeply than the keys it belongs with",
            "line it up with the keys above it",
        ),
        None => told(
            at,
            "a second `: ` on this line looks like another key",
            "put the value in quotes if it is text",
        ),
    }
}

fn indicators(kind: &ErrorKind, lines: &Lines<'_>, at: At) -> Option<Told> {
    match kind {
        ErrorKind::UnexpectedCharacter { character } if !character.is_control() => told(
            at,
            format!("a value cannot begin with `{character}` unless it is in quotes"),
            format!("write \"{}\"", lines.rest_of_value(at)),
        ),
        ErrorKind::MissingAnchorOrAliasName => {
            let character = lines.at(at).unwrap_or('*');
            told(
                at,
                format!("a value that begins with `{character}` must be in quotes"),
                format!("write \"{}\"", lines.rest_of_value(at)),
            )
        }
        ErrorKind::RecursionLimitExceeded => told(
            at,
            "lists and mappings lie too deep",
            "look for brackets that are opened again and again",
        ),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn about(text: &str) -> Told {
        let mut parser = serde_saphyr::granit_parser::Parser::new_from_str(text);
        let error = parser.find_map(Result::err).unwrap();
        explain(&error, text)
    }

    fn check(text: &str, line: u32, column: u32, words: &str, help: &str) {
        let told = about(text);
        assert_eq!((told.line, told.column), (line, column), "{text:?}: {told:?}");
        assert!(told.message.contains(words), "{text:?}: {told:?}");
        assert!(told.help.as_deref().unwrap_or_default().contains(help), "{text:?}: {told:?}");
    }

    #[test]
    fn indentation() {
        check("r:\n  - a: 1\n    b: 2\n\tc: 3\n", 4, 1, "tab", "spaces");
        check("a:\n\tb: 1\n", 2, 1, "tab", "spaces");
        check("a: |\n  x\n\tb: 1\n", 3, 1, "tab", "spaces");
        check("r:\n  - a: 1\n    b: c\n     d: 3\n", 4, 6, "more deeply", "line it up");
        check("r:\n  - a: 1\n    b: 2\n   c: 3\n", 4, 4, "not line up", "spaces");
        check("a:\n  - b\n - c\n", 3, 2, "not line up", "spaces");
        check("a:\n  - b\n  c: 1\n", 3, 3, "another list item", "- ");
    }

    #[test]
    fn colons() {
        check("r:\n  - id: a\n    timeout:3s\n", 3, 5, "no space after its colon", "`timeout: 3s`");
        check("a: 1\nb\n", 2, 1, "expected a `key: value`", "colon and a space");
        check("msg: hello: world\n", 1, 11, "second `: `", "quotes");
        check("routes\n  - id: a\n", 1, 1, "`routes` has no colon", "`routes:`");
        check("r:\n  -id: a\n   b: /\n", 2, 3, "no space after it", "`- id: a`");
        check("a: - b\n", 1, 4, "list cannot begin", "line of its own");
    }

    #[test]
    fn brackets_and_quotes() {
        check("path: [a-z]+/x\n", 1, 7, "begins with `[`", "quotes");
        check("a: [1, 2\nb: 3\n", 1, 4, "`[` is opened", "`]`");
        check("a: {b: 1, c: 2\nd: 3\n", 1, 4, "`{` is opened", "`}`");
        check("a: [1, 2", 1, 4, "`[` is opened", "`]`");
        check("c: ]\n", 1, 4, "`]` closes nothing", "quotes");
        check("a: {port: ${PORT}}\n", 1, 11, "within brackets", "\"${NAME}\"");
        check("a: [${A}, ${B}]\n", 1, 5, "within brackets", "\"${NAME}\"");
        check("a:\n  - id: \"x\n    path: /\n", 2, 9, "quote is opened", "close it");
        check("a: 'x\n", 1, 4, "quote is opened", "close it");
        check("a: 'it's'\n", 1, 8, "after the closing quote", "'it''s'");
        check("a: \"x\" y\n", 1, 8, "after the closing quote", "quotes");
        check("a: \"\\d+\"\n", 1, 5, "`\\d`", "single quotes");
    }

    #[test]
    fn indicators_that_need_quotes() {
        check("a: @foo # why\n", 1, 4, "begin with `@`", "\"@foo\"");
        check("a: `foo`\n", 1, 4, "begin with ```", "\"`foo`\"");
        check("a: %x\n", 1, 4, "begin with `%`", "\"%x\"");
        check("a: *\n", 1, 4, "begins with `*`", "\"*\"");
    }
}
