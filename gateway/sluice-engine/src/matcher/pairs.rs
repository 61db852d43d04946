//! Names and values inside a query and inside cookies.
//!
//! Comparing them is left to predicates. The one rule: counting stops at [`MAX_PAIRS`] and says so,
//! and whoever asked then has to refuse, because the pair that matters may be the next one.

use smallvec::SmallVec;

/// How many pairs are looked at (row P-11).
pub(super) const MAX_PAIRS: usize = 256;

/// Calls `f` with each value of `name` in a query, decoded. False when there were too many pairs.
pub(super) fn each_query_value(query: &str, name: &str, f: &mut dyn FnMut(&[u8])) -> bool {
    let pairs = query.as_bytes().split(|byte| *byte == b'&').filter(|pair| !pair.is_empty());
    for (number, pair) in pairs.enumerate() {
        if number == MAX_PAIRS {
            return false;
        }
        let (key, value) = divided(pair).unwrap_or((pair, b""));
        if decoded(key, &mut Buffer::new()) == name.as_bytes() {
            f(decoded(value, &mut Buffer::new()));
        }
    }
    true
}

/// Calls `f` with each value of the cookie `name` on one field line, as it stands. `seen` counts the
/// pairs of all lines. False when there were too many.
pub(super) fn each_cookie_value(
    line: &[u8],
    name: &str,
    seen: &mut usize,
    f: &mut dyn FnMut(&[u8]),
) -> bool {
    for pair in line.split(|byte| *byte == b';') {
        if *seen == MAX_PAIRS {
            return false;
        }
        *seen += 1;
        let Some((key, value)) = divided(pair) else { continue };
        if key.trim_ascii() == name.as_bytes() {
            f(value.trim_ascii());
        }
    }
    true
}

/// The first value of the cookie `name` on one field line, as it stands; of more than 256 cookies none.
#[must_use]
pub fn cookie<'a>(line: &'a [u8], name: &str) -> Option<&'a [u8]> {
    let pairs = line.split(|byte| *byte == b';').take(MAX_PAIRS).filter_map(divided);
    let mut named = pairs.filter(|(key, _)| key.trim_ascii() == name.as_bytes());
    named.next().map(|(_, value)| value.trim_ascii())
}

type Buffer = SmallVec<[u8; 128]>;

fn divided(pair: &[u8]) -> Option<(&[u8], &[u8])> {
    let at = pair.iter().position(|byte| *byte == b'=')?;
    let (key, value) = pair.split_at_checked(at)?;
    Some((key, value.get(1..)?))
}

/// The text of a form-encoded piece: `+` is a space, escapes are decoded, broken ones stay.
fn decoded<'a>(raw: &'a [u8], buffer: &'a mut Buffer) -> &'a [u8] {
    if !raw.iter().any(|byte| matches!(byte, b'%' | b'+')) {
        return raw;
    }
    let mut rest = raw;
    while let [byte, tail @ ..] = rest {
        rest = tail;
        match (byte, tail) {
            (b'+', _) => buffer.push(b' '),
            (b'%', [high, low, after @ ..]) => match escape(*high, *low) {
                Some(value) => {
                    buffer.push(value);
                    rest = after;
                }
                None => buffer.push(b'%'),
            },
            _ => buffer.push(*byte),
        }
    }
    buffer
}

fn escape(high: u8, low: u8) -> Option<u8> {
    Some(crate::canon::hex(high)? << 4 | crate::canon::hex(low)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn query(query: &str, name: &str) -> (bool, Vec<String>) {
        let mut values = Vec::new();
        let whole = each_query_value(query, name, &mut |value| {
            values.push(String::from_utf8_lossy(value).into_owned());
        });
        (whole, values)
    }

    fn cookies(lines: &[&str], name: &str) -> (bool, Vec<String>) {
        let (mut values, mut seen, mut whole) = (Vec::new(), 0, true);
        for line in lines {
            whole &= each_cookie_value(line.as_bytes(), name, &mut seen, &mut |value| {
                values.push(String::from_utf8_lossy(value).into_owned());
            });
        }
        (whole, values)
    }

    #[test]
    fn query_values_are_decoded_once() {
        let expect = |values: &[&str]| (true, values.iter().map(ToString::to_string).collect());
        assert_eq!(query("a=1&b=2&&a=3", "a"), expect(&["1", "3"]));
        assert_eq!(query("a=x+y%20z%2", "a"), expect(&["x y z%2"]));
        assert_eq!(query("%61=%2541", "a"), expect(&["%41"]));
        assert_eq!(query("a&a=&a=b=c", "a"), expect(&["", "", "b=c"]));
        assert_eq!(query("a=%zz%", "a"), expect(&["%zz%"]));
        assert_eq!(query("b=1;a=2", "a"), expect(&[]));
        assert_eq!(query("", "a"), expect(&[]));
    }

    #[test]
    fn cookies_are_taken_as_they_stand() {
        let expect = |values: &[&str]| (true, values.iter().map(ToString::to_string).collect());
        assert_eq!(cookies(&["a=1; b=2;a=%41+", "a=\"3\""], "a"), expect(&["1", "%41+", "\"3\""]));
        assert_eq!(cookies(&["a; b", "A=1"], "a"), expect(&[]));
    }

    #[test]
    fn the_first_cookie_of_a_name_counts() {
        assert_eq!(cookie(b"b=1; a = 2 ;a=3", "a"), Some(&b"2"[..]));
        assert_eq!(cookie(b"aa=1; A=2", "a"), None);
        let many = format!("{};a=1", vec!["x=1"; MAX_PAIRS].join(";"));
        assert_eq!(cookie(many.as_bytes(), "a"), None);
    }

    #[test]
    fn too_many_pairs_are_admitted_to() {
        let exact = vec!["x=1"; MAX_PAIRS];
        assert!(query(&exact.join("&"), "a").0);
        assert!(!query(&format!("{}&a=1", exact.join("&")), "a").0);
        assert!(cookies(&[&exact.join(";")], "a").0);
        assert!(!cookies(&[&exact.join(";"), "a=1"], "a").0);
    }
}
