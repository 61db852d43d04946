//! As much of structured fields (RFC 9651) as signatures need: a dictionary of inner lists of strings
//! with parameters, and of byte sequences. The one rule: the bytes of a member are kept, since they are
//! part of what was signed.

use super::{MAX_COVERED, Unclear};

/// An inner list of names, with the bytes it was read from.
pub(super) struct List<'a> {
    pub(super) label: &'a str,
    pub(super) items: Vec<&'a str>,
    pub(super) parameters: Vec<(&'a str, Value<'a>)>,
    /// From the opening parenthesis to the end of the parameters.
    pub(super) raw: &'a str,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Value<'a> {
    Text(&'a str),
    Integer(u64),
}

/// Reads `label=("a" "b");c=1;d="e"`, the only member.
pub(super) fn list(field: &str) -> Result<List<'_>, Unclear> {
    let (label, raw) = field.split_once('=').ok_or(Unclear)?;
    let mut rest = raw.strip_prefix('(').ok_or(Unclear)?;
    let mut items = Vec::new();
    loop {
        rest = rest.trim_start_matches(' ');
        if let Some(after) = rest.strip_prefix(')') {
            rest = after;
            break;
        }
        let (item, after) = string(rest)?;
        // Components with parameters are of no use here, and no other kind of item is one.
        if items.len() == MAX_COVERED || !after.starts_with([' ', ')']) || items.contains(&item) {
            return Err(Unclear);
        }
        items.push(item);
        rest = after;
    }
    let mut parameters: Vec<(&str, Value<'_>)> = Vec::new();
    while let Some(after) = rest.strip_prefix(';') {
        let (name, after) = after.split_once('=').ok_or(Unclear)?;
        let (value, after) = value(after)?;
        if !is_key(name) || parameters.iter().any(|(known, _)| *known == name) {
            return Err(Unclear);
        }
        parameters.push((name, value));
        rest = after;
    }
    if rest.is_empty() && is_key(label) {
        Ok(List { label, items, parameters, raw })
    } else {
        Err(Unclear)
    }
}

/// The byte sequence of `label=:…:`, which must be the only member if `alone`.
pub(super) fn bytes<'a>(
    field: &'a str,
    label: &str,
    alone: bool,
) -> Result<Option<&'a str>, Unclear> {
    let mut found = None;
    for (at, member) in field.split(',').map(|member| member.trim_matches([' ', '\t'])).enumerate()
    {
        let (name, value) = member.split_once('=').ok_or(Unclear)?;
        if name != label || alone && at > 0 {
            if alone {
                return Err(Unclear);
            }
            continue;
        }
        let value = value.strip_prefix(':').and_then(|value| value.strip_suffix(':'));
        if found.replace(value.ok_or(Unclear)?).is_some() {
            return Err(Unclear);
        }
    }
    Ok(found)
}

fn is_key(name: &str) -> bool {
    let fits = |b: u8| {
        b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'_' | b'-' | b'.' | b'*')
    };
    !name.is_empty() && name.bytes().all(fits)
}

fn value(text: &str) -> Result<(Value<'_>, &str), Unclear> {
    if text.starts_with('"') {
        return string(text).map(|(value, after)| (Value::Text(value), after));
    }
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (digits, after) = text.split_at_checked(end).ok_or(Unclear)?;
    // RFC 9651 section 3.3.1: fifteen digits at most.
    let number = digits.parse().ok().filter(|_| digits.len() <= 15).ok_or(Unclear)?;
    Ok((Value::Integer(number), after))
}

/// A string without escapes; what needs them is of no use in a signature.
fn string(text: &str) -> Result<(&str, &str), Unclear> {
    let (value, after) = text.strip_prefix('"').and_then(|t| t.split_once('"')).ok_or(Unclear)?;
    let fits = value.bytes().all(|b| (b' '..=b'~').contains(&b) && b != b'\\');
    fits.then_some((value, after)).ok_or(Unclear)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_keeps_its_bytes() {
        let read = list(r#"sig-1=("date" "@authority");created=1;keyid="k y""#).unwrap();
        assert_eq!((read.label, read.items.as_slice()), ("sig-1", &["date", "@authority"][..]));
        assert_eq!(
            read.parameters,
            [("created", Value::Integer(1)), ("keyid", Value::Text("k y"))]
        );
        assert_eq!(read.raw, r#"("date" "@authority");created=1;keyid="k y""#);
        for bad in [
            "",
            "a",
            "a=",
            "a=(",
            r#"a=("x""#,
            r#"a=("x" "x")"#,
            r#"a=("x";sf)"#,
            r#"a=("x"), b=("y")"#,
            r#"a=("x");created"#,
            r#"a=("x");created=-1"#,
            r#"a=("x");created=1;created=2"#,
            r#"a=("x") ;created=1"#,
            r#"A=("x")"#,
        ] {
            assert!(list(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn byte_sequences_are_found_by_their_label() {
        assert_eq!(bytes("sig1=:YQ==:", "sig1", true), Ok(Some("YQ==")));
        assert_eq!(bytes("sha-512=:x:, sha-256=:y:", "sha-256", false), Ok(Some("y")));
        assert_eq!(bytes("sha-512=:x:", "sha-256", false), Ok(None));
        assert!(bytes("sig1=:a:, sig2=:b:", "sig1", true).is_err());
        assert!(bytes("a=:x:, a=:y:", "a", false).is_err());
        assert!(bytes("a=x", "a", false).is_err());
    }
}
