//! Numbers and booleans out of a scalar's text, and the words for when there is none in it. Only
//! what is written without quotes, or came out of `${...}`, is read this way: a quoted `"8080"` is
//! text. The one rule: every message shows a value through [`shown`], which hides what must not be
//! seen.

use super::super::hints;
use super::super::node::{Kind, Node, Style};
use super::failure::Words;

/// A scalar's text with what its notation allows.
#[derive(Clone, Copy)]
pub(super) struct Scalar<'a> {
    pub(super) text: &'a str,
    /// Whether it may be read as a number or boolean.
    pub(super) open: bool,
}

/// The scalar of a node; `None` for anything else. Quotes around a key mean nothing.
pub(super) fn scalar(node: &Node, is_key: bool) -> Option<Scalar<'_>> {
    let open = is_key || node.style == Style::Plain || node.substituted;
    Some(Scalar { text: node.text()?, open })
}

/// What a node is, for the end of "expected a list, got ...".
pub(super) fn shown(node: Option<&Node>) -> String {
    let Some(node) = node else { return "nothing".to_owned() };
    match (node.kind(), node.text()) {
        (_, Some(_)) if node.substituted() => "***".to_owned(),
        (_, Some("")) => "an empty text".to_owned(),
        (_, Some(text)) => format!("`{}`", hints::clip(text.trim_end())),
        (Kind::Sequence, _) => "a list".to_owned(),
        (Kind::Mapping, _) => "a mapping".to_owned(),
        _ => "nothing".to_owned(),
    }
}

/// A whole number as YAML 1.2 writes it (core schema): `12`, `-3`, `0x1F`, `0o17`. A leading zero is
/// refused, because older YAML took it for octal.
pub(super) fn whole(scalar: Scalar<'_>) -> Option<i128> {
    let text = scalar.open.then_some(scalar.text)?;
    let (negative, digits) = match text.as_bytes().first()? {
        b'-' => (true, text.get(1..)?),
        b'+' => (false, text.get(1..)?),
        _ => (false, text),
    };
    let number = if let Some(digits) = digits.strip_prefix("0x") {
        unsigned(digits, 16)?
    } else if let Some(digits) = digits.strip_prefix("0o") {
        unsigned(digits, 8)?
    } else if digits.len() > 1 && digits.starts_with('0') {
        return None;
    } else {
        unsigned(digits, 10)?
    };
    Some(if negative { -number } else { number })
}

/// A finite number.
pub(super) fn float(scalar: Scalar<'_>) -> Option<f64> {
    let text = scalar.open.then_some(scalar.text)?;
    // Rust would also take `inf` and `nan`, for which no setting has a use.
    let numeric = text.starts_with(|c: char| c.is_ascii_digit() || matches!(c, '-' | '+' | '.'));
    let number: f64 = if numeric { text.parse().ok()? } else { return None };
    number.is_finite().then_some(number)
}

pub(super) fn boolean(scalar: Scalar<'_>) -> Option<bool> {
    match scalar.text {
        "true" if scalar.open => Some(true),
        "false" if scalar.open => Some(false),
        _ => None,
    }
}

/// The error for a node that holds no number of the wanted kind.
pub(super) fn not_a_number(expected: &str, node: Option<&Node>) -> Words {
    let message = format!("expected {expected}, got {}", shown(node));
    let Some(node) = node.filter(|node| !node.substituted()) else {
        return Words::plain(message, None);
    };
    let text = node.text().unwrap_or_default();
    let digits = text.trim_start_matches(['-', '+']);
    let numeric = digits.starts_with(|c: char| c.is_ascii_digit());
    let only = |allowed: &str| digits.chars().all(|c| c.is_ascii_digit() || allowed.contains(c));
    let help = if !numeric {
        None
    } else if node.style == Style::Quoted && only(".") {
        Some("remove the quotes: quoted, it is text".to_owned())
    } else if only("_,'") && !only("") {
        Some("write the digits without separators".to_owned())
    } else if only("") && digits.len() > 1 && digits.starts_with('0') {
        let bare = digits.trim_start_matches('0');
        Some(format!("leave out the leading zero: `{}`", if bare.is_empty() { "0" } else { bare }))
    } else if !only(".eE+-") {
        Some("write the number alone, without a unit".to_owned())
    } else {
        None
    };
    Words::plain(message, help)
}

/// The error for a node that is neither `true` nor `false`.
pub(super) fn not_a_boolean(node: Option<&Node>) -> Words {
    let message = format!("expected `true` or `false`, got {}", shown(node));
    let Some(node) = node.filter(|node| !node.substituted()) else {
        return Words::plain(message, None);
    };
    let text = node.text().unwrap_or_default().to_ascii_lowercase();
    let help = match (&*text, node.style) {
        ("true" | "false", Style::Quoted) => Some("remove the quotes: quoted, it is text"),
        ("true" | "yes" | "y" | "on" | "1", _) => Some("write `true`"),
        ("false" | "no" | "n" | "off" | "0", _) => Some("write `false`"),
        _ => None,
    };
    Words::plain(message, help.map(str::to_owned))
}

fn unsigned(digits: &str, radix: u32) -> Option<i128> {
    // `from_str_radix` would take a second sign.
    let bare = digits.bytes().all(|digit| digit.is_ascii_alphanumeric());
    i128::from_str_radix(digits, radix).ok().filter(|_| bare)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plain(text: &str) -> Scalar<'_> {
        Scalar { text, open: true }
    }

    #[test]
    fn whole_numbers() {
        let read = |text| whole(plain(text));
        assert_eq!(read("0"), Some(0));
        assert_eq!(read("-12"), Some(-12));
        assert_eq!(read("+7"), Some(7));
        assert_eq!(read("0x1F"), Some(31));
        assert_eq!(read("0o17"), Some(15));
        for text in ["", "-", "010", "1_000", "1.0", "1e3", "--1", "+-1", "0x-1", "0x", "5s", " 5"]
        {
            assert_eq!(read(text), None, "{text}");
        }
        assert_eq!(whole(Scalar { text: "5", open: false }), None);
    }

    #[test]
    fn floats_are_finite() {
        let read = |text| float(plain(text));
        assert_eq!(read("0.5"), Some(0.5));
        assert_eq!(read("-1e3"), Some(-1000.0));
        assert_eq!(read(".5"), Some(0.5));
        for text in ["nan", "inf", ".inf", "1e999", "-inf", "x", ""] {
            assert_eq!(read(text), None, "{text}");
        }
    }

    #[test]
    fn booleans_are_two_words() {
        assert_eq!(boolean(plain("true")), Some(true));
        assert_eq!(boolean(plain("false")), Some(false));
        for text in ["True", "yes", "on", "1", ""] {
            assert_eq!(boolean(plain(text)), None, "{text}");
        }
    }
}
