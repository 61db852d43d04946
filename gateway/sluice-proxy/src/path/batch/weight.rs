//! How much memory JSON takes once it is read. A text of many small values takes eighty times its own length: a
//! map of one entry has room for eleven.
//!
//! The one rule: a text that somebody else has written is weighed before it is read into values that are kept.

/// Bytes of a map's first node, of a list's first four places, and of whatever stands behind a comma. Above
/// what the library takes, by little.
const MAP: usize = 700;
const LIST: usize = 160;
const NEXT: usize = 112;

/// Bytes that a JSON text takes at most as a value. What stands in strings counts by its length.
pub(super) fn of(text: &[u8]) -> usize {
    let (mut weight, mut quoted, mut escaped) = (text.len(), false, false);
    for byte in text {
        if quoted {
            (quoted, escaped) = match (byte, escaped) {
                (_, true) => (true, false),
                (b'\\', false) => (true, true),
                (b'"', false) => (false, false),
                _ => (true, false),
            };
            continue;
        }
        weight += match byte {
            b'{' => MAP,
            b'[' => LIST,
            b',' => NEXT,
            b'"' => {
                quoted = true;
                0
            }
            _ => 0,
        };
    }
    weight
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_quoted_weighs_what_it_is_long() {
        for text in [r#""a""#, r#""{[,""#, r#""\"{[,""#, r#""\\\"{""#, "12", "true"] {
            assert_eq!(of(text.as_bytes()), text.len(), "{text}");
        }
        let list = r#"["\\",{"a":1},[]]"#;
        assert_eq!(of(list.as_bytes()), list.len() + 2 * LIST + 2 * NEXT + MAP);
    }
}
