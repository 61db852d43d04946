//! Canonical paths: one form for all spellings, and nothing dangerous in it.

use std::borrow::Cow;

use proptest::prelude::*;
use sluice_engine::canon::{EncodedSlash, PathFault, PathPolicy, path, path_with};

/// Paths made of pieces that have caused trouble somewhere.
fn troubled() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        Just("/".to_owned()),
        Just(".".to_owned()),
        Just("..".to_owned()),
        Just("%2e".to_owned()),
        Just("%2E%2e".to_owned()),
        Just("%2f".to_owned()),
        Just("%252e".to_owned()),
        Just("%5c".to_owned()),
        Just(";".to_owned()),
        Just("%3b".to_owned()),
        Just("%".to_owned()),
        "[a-z]{1,3}",
        "%[0-9a-fA-F]{2}",
        "\\PC",
    ];
    proptest::collection::vec(piece, 0..12).prop_map(|pieces| format!("/{}", pieces.concat()))
}

fn policies() -> [PathPolicy; 2] {
    [EncodedSlash::Refuse, EncodedSlash::Keep].map(|encoded_slash| PathPolicy { encoded_slash })
}

/// Spells each unreserved character of a path in the way that `choices` says.
fn respelled(path: &str, choices: &[u8]) -> String {
    let mut rest = path.bytes();
    let mut choices = choices.iter().cycle();
    let mut out = String::new();
    while let Some(byte) = rest.next() {
        match (byte, choices.next()) {
            (b'%', _) => {
                out.push('%');
                out.extend(rest.by_ref().take(2).map(char::from));
            }
            (byte, Some(1)) if byte != b'/' && byte.is_ascii_alphanumeric() => {
                out.push_str(&format!("%{byte:02x}"));
            }
            (byte, Some(2)) if byte == b'.' || byte == b'-' => {
                out.push_str(&format!("%{byte:02X}"));
            }
            (b'/', Some(3)) => out.push_str("//"),
            (b'/', Some(4)) => out.push_str("/./"),
            (b'/', Some(5)) => out.push_str("/x/../"),
            (byte, _) => out.push(char::from(byte)),
        }
    }
    out
}

proptest! {
    #[test]
    fn a_canonical_path_is_its_own_form(raw in troubled()) {
        for policy in policies() {
            if let Ok(canonical) = path_with(&raw, &policy) {
                let again = path_with(&canonical, &policy);
                prop_assert!(matches!(again, Ok(Cow::Borrowed(same)) if same == canonical));
            }
        }
    }

    #[test]
    fn an_unchanged_path_is_borrowed(raw in troubled()) {
        for policy in policies() {
            match path_with(&raw, &policy) {
                Ok(Cow::Borrowed(same)) => prop_assert_eq!(same, &raw),
                Ok(Cow::Owned(other)) => prop_assert_ne!(other, raw.as_str()),
                Err(_) => {}
            }
        }
    }

    #[test]
    fn nothing_dangerous_is_left(raw in troubled()) {
        for policy in policies() {
            let Ok(canonical) = path_with(&raw, &policy) else { continue };
            prop_assert!(canonical.starts_with('/') && !canonical.contains("//"));
            prop_assert!(canonical.bytes().all(|byte| byte.is_ascii_graphic()));
            let foreign = canonical.contains(['\\', '?', '#', '"', '<', '>', '{', '}']);
            prop_assert!(!foreign, "{canonical}");
            prop_assert!(!canonical.contains("%5C") && !canonical.contains("%00"));
            for piece in canonical.split('/').flat_map(|segment| segment.split("%2F")) {
                let name = piece.split(';').next().unwrap_or_default();
                prop_assert!(name != "." && name != "..", "{raw} gave {canonical}");
            }
            if policy.encoded_slash == EncodedSlash::Refuse {
                prop_assert!(!canonical.contains("%2F"));
            }
        }
    }

    #[test]
    fn every_spelling_leads_to_the_same_path(
        raw in "(/[a-zA-Z0-9.~!$@%-]{0,6}){1,5}",
        choices in proptest::collection::vec(0_u8..6, 1..40),
    ) {
        if let Ok(canonical) = path(&raw) {
            let other = respelled(&canonical, &choices);
            prop_assert_eq!(path(&other), Ok(Cow::Borrowed(&*canonical)), "{}", other);
        }
    }

    #[test]
    fn any_text_has_an_answer(raw in "\\PC*") {
        if !raw.starts_with('/') {
            prop_assert_eq!(path(&raw), Err(PathFault::NotAbsolute));
        }
        if let Err(fault) = path(&format!("/{raw}")) {
            prop_assert!(fault.as_str().starts_with("path_"));
        }
    }
}
