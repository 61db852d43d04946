//! `path?a&b=2` out of the parameters of a query and a form, sorted by name and with their values decoded,
//! as Alibaba's and Tencent's gateways sign them.
//!
//! Those sign only the first of several parameters of one name, and write decoded values beside `&` and
//! `=`: then one text stands for several requests. Such requests are refused.

use std::borrow::Cow;
use std::collections::BTreeMap;

use super::Unclear;

/// Parameters at most.
const MOST: usize = 512;

/// Writes path and parameters.
pub(super) fn write(
    path: &str,
    query: Option<&str>,
    form: &[u8],
    out: &mut Vec<u8>,
) -> Result<(), Unclear> {
    let mut all: BTreeMap<Cow<'_, [u8]>, Cow<'_, [u8]>> = BTreeMap::new();
    let query = query.unwrap_or("").as_bytes();
    for piece in query.split(|b| *b == b'&').chain(form.split(|b| *b == b'&')) {
        if piece.is_empty() {
            continue;
        }
        let at = piece.iter().position(|byte| *byte == b'=').unwrap_or(piece.len());
        let (name, value) = piece.split_at_checked(at).ok_or(Unclear)?;
        let (name, value) = (decoded(name)?, decoded(value.strip_prefix(b"=").unwrap_or(b""))?);
        let unclear = name.is_empty()
            || name.iter().any(|byte| matches!(byte, b'&' | b'='))
            || value.contains(&b'&');
        if unclear || all.len() == MOST || all.insert(name, value).is_some() {
            return Err(Unclear);
        }
    }
    out.extend_from_slice(path.as_bytes());
    for (at, (name, value)) in all.iter().enumerate() {
        out.push(if at == 0 { b'?' } else { b'&' });
        out.extend_from_slice(name);
        if !value.is_empty() {
            out.push(b'=');
            out.extend_from_slice(value);
        }
    }
    Ok(())
}

/// `%41` and `+` as the bytes they stand for.
fn decoded(text: &[u8]) -> Result<Cow<'_, [u8]>, Unclear> {
    if !text.iter().any(|byte| matches!(byte, b'%' | b'+')) {
        return Ok(Cow::Borrowed(text));
    }
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let [first, after @ ..] = rest {
        rest = after;
        out.push(match first {
            b'+' => b' ',
            b'%' => {
                let (digits, after) = rest.split_at_checked(2).ok_or(Unclear)?;
                rest = after;
                digits
                    .iter()
                    .try_fold(0, |byte, digit| {
                        let digit = char::from(*digit).to_digit(16)?;
                        Some(byte << 4 | u8::try_from(digit).ok()?)
                    })
                    .ok_or(Unclear)?
            }
            other => *other,
        });
    }
    Ok(Cow::Owned(out))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(query: &str, form: &[u8]) -> Result<String, Unclear> {
        let mut out = Vec::new();
        write("/p", Some(query), form, &mut out)?;
        Ok(String::from_utf8_lossy(&out).into_owned())
    }

    #[test]
    fn k_04_parameters_have_one_form() {
        let cases = [
            ("b=2&a=", "", "/p?a&b=2"),
            ("a&b=2", "", "/p?a&b=2"),
            ("", "", "/p"),
            ("z=1", "a=x+y&m=%e4%bd%A0", "/p?a=x y&m=\u{4f60}&z=1"),
            ("a=x%20y", "", "/p?a=x y"),
            ("&&a=1&", "", "/p?a=1"),
            ("a=b=c", "", "/p?a=b=c"),
        ];
        for (query, form, text) in cases {
            assert_eq!(written(query, form.as_bytes()).as_deref(), Ok(text), "{query} {form}");
        }
        for bad in ["a=1&a=2", "a=1%26b=2", "a%3D1=2", "a%26=1", "=1", "a=%4", "a=%zz", "a=%"] {
            assert_eq!(written(bad, b""), Err(Unclear), "{bad}");
        }
        assert_eq!(written("a=1", b"a=2"), Err(Unclear), "once in the query and once in the form");
    }
}
