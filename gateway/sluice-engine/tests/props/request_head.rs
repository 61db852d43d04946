//! Request heads: what is let through is read in the same way by the parser behind the judge, and it
//! makes no difference in which pieces a head arrives.

use proptest::prelude::*;
use sluice_engine::http1::request_head::{Framing, RequestHead, Whole};

const LIMIT: usize = 4096;

/// Heads made of pieces that have caused trouble somewhere.
fn troubled() -> impl Strategy<Value = Vec<u8>> {
    let line = prop_oneof![
        6 => Just("Host: a".to_owned()),
        2 => "[A-Za-z-]{1,12}: ?[ -~]{0,20}",
        1 => "[ -~\t]{0,12}:?[ -~\t\r]{0,12}",
        1 => Just("Content-Length: 5".to_owned()),
        1 => Just("Transfer-Encoding: chunked".to_owned()),
        1 => "(Content-Length|Transfer-Encoding|Upgrade)[ :]{1,2}[-+0-9a-z, ]{0,9}",
    ];
    let start = prop_oneof![
        6 => Just("GET / HTTP/1.1".to_owned()),
        2 => "[A-Z]{1,7} [!-~]{1,9} HTTP/1\\.[01]",
        1 => "[ -~\r]{0,20}",
    ];
    let end = prop_oneof![8 => Just("\r\n"), 1 => Just("\n"), 1 => Just("\r\r\n")];
    let lines = proptest::collection::vec((line, end.clone()), 0..6);
    let noise = proptest::option::weighted(0.2, (any::<prop::sample::Index>(), any::<u8>()));
    ("(\r\n|\n)?", start, end.clone(), lines, end, noise).prop_map(
        |(blank, start, first, lines, last, noise)| {
            let mut head = format!("{blank}{start}{first}");
            lines.iter().for_each(|(line, end)| head.push_str(&format!("{line}{end}")));
            head.push_str(last);
            let mut bytes = head.into_bytes();
            if let Some((at, byte)) = noise {
                let at = at.index(bytes.len());
                bytes[at] = byte;
            }
            bytes
        },
    )
}

/// The head, read as it comes in pieces that end where `cuts` say.
fn in_pieces(head: &[u8], cuts: &[prop::sample::Index]) -> Option<Whole> {
    let mut ends: Vec<usize> = cuts.iter().map(|cut| cut.index(head.len())).collect();
    ends.sort_unstable();
    let mut judge = RequestHead::new(LIMIT);
    for end in ends.into_iter().chain([head.len()]) {
        match judge.read(&head[..end]) {
            Ok(Some(whole)) => return Some(whole),
            Ok(None) => {}
            Err(_) => return None,
        }
    }
    None
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4096, ..ProptestConfig::default() })]

    #[test]
    fn what_passes_is_parsed_in_the_same_way(head in troubled()) {
        let Ok(Some(whole)) = RequestHead::new(LIMIT).read(&head) else { return Ok(()) };
        let mut fields = [httparse::EMPTY_HEADER; 100];
        let mut request = httparse::Request::new(&mut fields);
        let parsed = request.parse(&head);
        prop_assert_eq!(parsed, Ok(httparse::Status::Complete(whole.len)));
        prop_assert_eq!(request.path.map(str::as_bytes), head.get(whole.target.clone()));
        let lines = head[..whole.len].split(|byte| *byte == b'\n');
        let filled = lines.filter(|line| !matches!(line, [] | [b'\r'])).count();
        prop_assert_eq!(request.headers.len() + 1, filled, "one line, one field");
        let named = |name: &str| {
            request.headers.iter().filter(|field| field.name.eq_ignore_ascii_case(name)).count()
        };
        let (lengths, codings) = (named("content-length"), named("transfer-encoding"));
        match whole.framing {
            Framing::Chunked => prop_assert_eq!((lengths, codings), (0, 1)),
            Framing::Length(_) => prop_assert!(lengths > 0 && codings == 0),
            Framing::Nothing => prop_assert_eq!(codings, 0),
        }
    }

    #[test]
    fn pieces_make_no_difference(
        head in troubled(),
        cuts in proptest::collection::vec(any::<prop::sample::Index>(), 0..5),
    ) {
        let whole = RequestHead::new(LIMIT).read(&head).ok().flatten();
        prop_assert_eq!(in_pieces(&head, &cuts), whole);
    }
}
