//! The same bytes read by this codec and by hyper's client. What we accept, hyper must read alike;
//! what hyper accepts and we do not must be one of the strictnesses listed here.

use proptest::prelude::*;

use crate::fuzzing::readings;

/// Lines from which heads are made: sound ones, odd ones, and wrong ones.
const LINES: [&str; 22] = [
    "content-length: 5",
    "Content-Length: 5",
    "content-length: 3",
    "content-length: 0",
    "content-length: +5",
    "content-length: 5, 5",
    "content-length:",
    "transfer-encoding: chunked",
    "Transfer-Encoding:  CHUNKED ",
    "transfer-encoding: gzip, chunked",
    "transfer-encoding: gzip",
    "connection: close",
    "connection: keep-alive, x",
    "x: y",
    "x:y",
    "x : y",
    " folded",
    "no colon",
    ": nameless",
    "x: \u{1}",
    "x: a\rb",
    "set-cookie: a=b",
];
const STATUS: [&str; 12] = [
    "HTTP/1.1 200 OK",
    "HTTP/1.1 200",
    "HTTP/1.0 200 OK",
    "HTTP/1.1 204 No Content",
    "HTTP/1.1 304 Not Modified",
    "HTTP/1.1 100 Continue",
    "HTTP/1.1 103 Early Hints",
    "HTTP/1.1 099 Low",
    "HTTP/1.1 999 High",
    "HTTP/2.0 200 OK",
    "HTTP/1.1  200 OK",
    "http/1.1 200 OK",
];
const BODIES: [&str; 12] = [
    "",
    "hello",
    "hel",
    "hello and more",
    "5\r\nhello\r\n0\r\n\r\n",
    "5;x=y\r\nhello\r\n0\r\nt: u\r\n\r\n",
    "5\r\nhello\r\n",
    "5\nhello\n0\n\n",
    "5 \r\nhello\r\n0\r\n\r\n",
    "0\r\n\r\nHTTP/1.1 200 OK\r\n\r\n",
    "fffffffffffffffff\r\n",
    "5\r\nhelloX\r\n0\r\n\r\n",
];

fn message() -> impl Strategy<Value = Vec<u8>> {
    let head = (
        prop::sample::select(&STATUS[..]),
        prop::collection::vec(prop::sample::select(&LINES[..]), 0..4),
    );
    let heads = prop::collection::vec(head, 1..3);
    let ends = prop::sample::select(&["\r\n", "\r\n", "\r\n", "\n"][..]);
    (heads, prop::sample::select(&BODIES[..]), ends).prop_map(|(heads, body, end)| {
        let mut wire = String::new();
        for (status, lines) in heads {
            for line in std::iter::once(status).chain(lines).chain([""]) {
                wire.push_str(line);
                wire.push_str(end);
            }
        }
        wire.push_str(body);
        wire.into_bytes()
    })
}

/// A message, or one with a byte changed, or cut short.
fn wire() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        3 => message(),
        1 => (message(), any::<prop::sample::Index>(), any::<u8>()).prop_map(|(mut wire, at, byte)| {
            let at = at.index(wire.len());
            wire[at] = byte;
            wire
        }),
        1 => (message(), any::<prop::sample::Index>()).prop_map(|(mut wire, at)| {
            wire.truncate(at.index(wire.len()));
            wire
        }),
    ]
}

/// Whether the bytes hold something that we refuse on purpose and hyper does not: a coding other than
/// one `chunked`, a length that is not one plain number, or control bytes within chunk framing.
fn is_strictness(wire: &[u8]) -> bool {
    let text = String::from_utf8_lossy(wire).to_ascii_lowercase();
    let values = |name: &str| {
        text.lines()
            .filter_map(|line| line.strip_prefix(name))
            .map(|value| value.trim().to_owned())
            .collect::<Vec<_>>()
    };
    let codings = values("transfer-encoding:");
    let lengths = values("content-length:");
    codings.len() > 1
        || codings.iter().any(|coding| coding != "chunked")
        || lengths.iter().any(|length| length.is_empty() || !length.bytes().all(|b| b.is_ascii_digit()))
        || lengths.windows(2).any(|pair| pair[0] != pair[1])
        // hyper reads on over any number of interim answers, and over what is not text.
        || wire.iter().any(|byte| !matches!(byte, b'\r' | b'\n' | b' '..=b'~'))
}

fn compare(wire: &[u8]) -> Result<(), TestCaseError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (our, their) = runtime.block_on(readings(wire));
    match (our, their) {
        (Some(our), Some(their)) => {
            let (short, long) = (our.2.len().min(their.2.len()), our.2.len());
            prop_assert_eq!((our.0, &our.1), (their.0, &their.1));
            prop_assert_eq!(&our.2[..short], &their.2[..short]);
            prop_assert!(
                !our.3 || (their.3 && their.2.len() == long),
                "ours looks whole: {:?}",
                their
            );
            prop_assert!(our.3 || !their.3 || is_strictness(wire), "theirs only looks whole");
        }
        (Some(our), None) => prop_assert!(false, "only we accept it: {:?}", our),
        (None, Some(their)) => {
            prop_assert!(is_strictness(wire), "only hyper accepts it: {:?}", their)
        }
        (None, None) => {}
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_500))]
    #[test]
    fn we_read_what_hyper_reads_or_less(wire in wire()) {
        compare(&wire)?;
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400_000))]
    #[test]
    #[ignore = "second tier: takes minutes"]
    fn long_we_read_what_hyper_reads_or_less(wire in wire()) {
        compare(&wire)?;
    }
}
