//! The judge of request heads beside the parser that reads them afterwards. What passes must be read
//! alike; and a head with nothing odd in it must pass.

use sluice_engine::http1::request_head::{
    Framing, MAX_FIELDS, MAX_TARGET, Refusal, RequestHead, Whole,
};

const LIMIT: usize = 16 * 1024;

pub(super) fn check(data: &[u8]) {
    let found = RequestHead::new(LIMIT).read(data);
    let whole = found.clone().ok().flatten();
    for step in [1, 7] {
        assert_eq!(in_pieces(data, step), found.clone().map(|_| whole.clone()), "{step}");
    }
    let mut fields = [httparse::EMPTY_HEADER; MAX_FIELDS];
    let mut request = httparse::Request::new(&mut fields);
    let parsed = request.parse(data);
    match &whole {
        Some(whole) => {
            assert_eq!(parsed, Ok(httparse::Status::Complete(whole.len)));
            is_read_alike(whole, &request, data);
        }
        None => {
            if let Ok(httparse::Status::Complete(len)) = parsed {
                assert!(!is_plain(&request, &data[..len]), "refused: {found:?}");
            }
        }
    }
}

/// The verdict when the head arrives in pieces. What stands behind a head is not looked at, so pieces
/// end where the verdict falls.
fn in_pieces(data: &[u8], step: usize) -> Result<Option<Whole>, Refusal> {
    let mut judge = RequestHead::new(LIMIT);
    let ends = (step..data.len()).step_by(step).chain([data.len()]);
    for end in ends {
        if let Some(whole) = judge.read(&data[..end])? {
            return Ok(Some(whole));
        }
    }
    Ok(None)
}

fn is_read_alike(whole: &Whole, request: &httparse::Request<'_, '_>, data: &[u8]) {
    let head = &data[..whole.len];
    assert_eq!(request.path.map(str::as_bytes), head.get(whole.target.clone()));
    let filled = head.split(|byte| *byte == b'\n').filter(|line| !matches!(line, [] | [b'\r']));
    assert_eq!(request.headers.len() + 1, filled.count(), "one line, one field");
    let values = |name: &str| -> Vec<&[u8]> {
        let named = request.headers.iter().filter(|f| f.name.eq_ignore_ascii_case(name));
        named.map(|field| field.value).collect()
    };
    let (lengths, codings) = (values("content-length"), values("transfer-encoding"));
    match whole.framing {
        Framing::Chunked => {
            assert!(lengths.is_empty() && request.version == Some(1));
            assert!(
                matches!(codings[..], [one] if one.trim_ascii().eq_ignore_ascii_case(b"chunked"))
            );
        }
        Framing::Length(length) => {
            assert!(codings.is_empty() && length > 0 && !lengths.is_empty());
            assert!(lengths.iter().all(|value| number(value) == Some(length)), "{lengths:?}");
        }
        Framing::Nothing => {
            assert!(codings.is_empty());
            assert!(lengths.iter().all(|value| number(value) == Some(0)), "{lengths:?}");
        }
    }
    let upgrade = !values("upgrade").is_empty() && request.version == Some(1);
    assert_eq!(whole.upgrade, upgrade);
}

/// Decimal digits and nothing else.
fn number(value: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(value).ok()?.trim_matches([' ', '\t']);
    (!text.is_empty() && text.bytes().all(|b| b.is_ascii_digit())).then(|| text.parse().ok())?
}

/// Whether there is nothing in it that anybody could read in another way.
fn is_plain(request: &httparse::Request<'_, '_>, head: &[u8]) -> bool {
    let framed = ["content-length", "transfer-encoding"];
    let text = String::from_utf8_lossy(head);
    let lines: Vec<&str> = text.split("\r\n").collect();
    let printable = |line: &&str| line.bytes().all(|b| (b' '..=b'~').contains(&b));
    head.len() <= LIMIT
        && lines.iter().all(printable)
        && request.path.is_some_and(|path| path.len() <= MAX_TARGET)
        && request.headers.iter().all(|field| {
            field.name.len() <= 1024 && !framed.iter().any(|f| field.name.eq_ignore_ascii_case(f))
        })
}
