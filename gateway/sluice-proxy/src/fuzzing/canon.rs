//! The canonical path against a slow reading of what its documentation says.

use std::borrow::Cow;

use sluice_engine::canon::{EncodedSlash, PathPolicy, path_with};

pub(super) fn check(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    for raw in [format!("/{text}"), text.into_owned()] {
        for encoded_slash in [EncodedSlash::Refuse, EncodedSlash::Keep] {
            let keep = encoded_slash == EncodedSlash::Keep;
            let policy = PathPolicy { encoded_slash };
            let found = path_with(&raw, &policy);
            assert_eq!(found.as_deref().ok(), slow(&raw, keep).as_deref(), "{raw:?}");
            let Ok(canonical) = found else { continue };
            if let Cow::Owned(changed) = &canonical {
                assert_ne!(*changed, raw, "copied for nothing");
            }
            let again = path_with(&canonical, &policy);
            assert!(matches!(again, Ok(Cow::Borrowed(same)) if same == canonical), "{raw:?}");
            is_harmless(&canonical, keep);
        }
    }
}

/// A piece of a path, decoded once: a separator, a character, or a byte that stays escaped.
#[derive(Clone, Copy, PartialEq)]
enum Unit {
    Slash,
    Plain(u8),
    Escaped(u8),
}

fn slow(raw: &str, keep: bool) -> Option<String> {
    raw.starts_with('/').then_some(())?;
    let units = units(raw.as_bytes(), keep)?;
    let mut segments: Vec<&[Unit]> = Vec::new();
    let mut open = true;
    for segment in units[1..].split(|unit| *unit == Unit::Slash) {
        open = match segment {
            [] | [Unit::Plain(b'.')] => true,
            [Unit::Plain(b'.'), Unit::Plain(b'.')] => {
                // The root is no segment, and there is nothing above it.
                segments.pop()?;
                true
            }
            other => {
                let mut pieces = other.split(|unit| *unit == Unit::Escaped(b'/'));
                if pieces.any(poses_as_dots) {
                    return None;
                }
                segments.push(other);
                false
            }
        };
    }
    let written = segments.iter().map(|segment| format!("/{}", write(segment)));
    Some(written.collect::<String>() + if open { "/" } else { "" })
}

fn units(mut raw: &[u8], keep: bool) -> Option<Vec<Unit>> {
    let unreserved = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    let control = |byte: u8| byte < 0x20 || byte == 0x7f;
    let mut units = Vec::new();
    while let [byte, rest @ ..] = raw {
        raw = rest;
        units.push(match *byte {
            b'/' => Unit::Slash,
            b'%' => {
                let (digits, rest) = raw.split_at_checked(2)?;
                raw = rest;
                digits.iter().all(u8::is_ascii_hexdigit).then_some(())?;
                match u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()? {
                    byte if unreserved(byte) => Unit::Plain(byte),
                    b'/' if !keep => return None,
                    byte if control(byte) || byte == b'\\' => return None,
                    byte => Unit::Escaped(byte),
                }
            }
            byte if control(byte) || b"\\?#".contains(&byte) => return None,
            byte if unreserved(byte) || b"!$&'()*+,;=:@".contains(&byte) => Unit::Plain(byte),
            byte => Unit::Escaped(byte),
        });
    }
    Some(units)
}

/// One or two dots, alone or with parameters, or parameters alone: only in disguise, since plain ones
/// were resolved.
fn poses_as_dots(piece: &[Unit]) -> bool {
    let semicolon = |unit: &Unit| matches!(unit, Unit::Plain(b';') | Unit::Escaped(b';'));
    let name = piece.split(semicolon).next().unwrap_or_default();
    let dots = name.iter().all(|unit| *unit == Unit::Plain(b'.'));
    !piece.is_empty() && name.len() < 3 && dots
}

fn write(units: &[Unit]) -> String {
    let one = |unit: &Unit| match unit {
        Unit::Slash => "/".to_owned(),
        Unit::Plain(byte) => char::from(*byte).to_string(),
        Unit::Escaped(byte) => format!("%{byte:02X}"),
    };
    units.iter().map(one).collect()
}

fn is_harmless(canonical: &str, keep: bool) {
    assert!(canonical.starts_with('/') && !canonical.contains("//"), "{canonical:?}");
    assert!(canonical.bytes().all(|byte| byte.is_ascii_graphic()), "{canonical:?}");
    assert!(!canonical.contains(['\\', '?', '#', '"', '<', '>', '{', '}', '`', '^', '|']));
    assert!(!canonical.contains("%5C") && !canonical.contains("%00"), "{canonical:?}");
    assert!(keep || !canonical.contains("%2F"), "{canonical:?}");
}
