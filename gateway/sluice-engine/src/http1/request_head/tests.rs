//! What passes, what does not, and that it makes no difference in which pieces a head arrives.

use super::*;

const LIMIT: usize = 32 * 1024;

/// Judges `head` in one piece and byte by byte; both must agree.
fn judge(head: &[u8]) -> Result<Option<Whole>, Refusal> {
    let whole = RequestHead::new(LIMIT).read(head);
    let mut slow = RequestHead::new(LIMIT);
    let mut last = Ok(None);
    for end in 1..=head.len() {
        last = slow.read(&head[..end]);
        if last != Ok(None) {
            break;
        }
    }
    assert_eq!(whole, last, "{}", head.escape_ascii());
    whole
}

fn text(head: &str) -> Result<Option<Whole>, Refusal> {
    judge(head.replace('\n', "\r\n").as_bytes())
}

fn framing(fields: &str) -> Result<Framing, Refusal> {
    let head = format!("POST / HTTP/1.1\nHost: a\n{fields}\n\n");
    text(&head).map(|whole| whole.unwrap().framing)
}

#[test]
fn a_head_ends_where_its_empty_line_ends() {
    let head = b"GET /a?b=c HTTP/1.1\r\nHost: a\r\nX:\r\n\r\n";
    let next = [&head[..], b"GET"].concat();
    let whole = RequestHead::new(LIMIT).read(&next).unwrap().unwrap();
    assert_eq!((whole.len, whole.framing), (head.len(), Framing::Nothing));
    assert_eq!((&head[whole.target], whole.ordinary, whole.upgrade), (&b"/a?b=c"[..], true, false));
    for partial in 1..head.len() {
        assert_eq!(RequestHead::new(LIMIT).read(&head[..partial]), Ok(None));
    }
    assert_eq!(judge(head).unwrap().unwrap().len, head.len());
}

#[test]
fn the_judge_is_ready_for_the_next_head() {
    let mut judge = RequestHead::new(LIMIT);
    let first = b"POST / HTTP/1.1\r\nContent-Length: 5\r\nUpgrade: x\r\n\r\n";
    assert_eq!(judge.read(first).unwrap().unwrap().framing, Framing::Length(5));
    let second = judge.read(b"GET * HTTP/1.0\r\n\r\n").unwrap().unwrap();
    assert_eq!((second.framing, second.upgrade, second.ordinary), (Framing::Nothing, false, false));
}

#[test]
fn empty_lines_before_and_bare_line_feeds_are_read_over() {
    let head = b"\r\n\n\r\nGET /x HTTP/1.1\nHost: a\r\nB: c\n\n";
    let whole = judge(head).unwrap().unwrap();
    assert_eq!((whole.len, &head[whole.target]), (head.len(), &b"/x"[..]));
}

#[test]
fn targets_that_parsers_may_differ_about_are_marked() {
    for ordinary in ["/", "/a/b.c~d;e=f,g", "/%41?q=1&x=@:!$'()*+"] {
        assert!(text(&format!("GET {ordinary} HTTP/1.1\n\n")).unwrap().unwrap().ordinary);
    }
    for odd in
        ["*", "http://a/", "a:80", "/a#b", "/a\\b", "/a\"", "/\u{e9}", "/{x}", "/a|b", "/[1]"]
    {
        assert!(!text(&format!("GET {odd} HTTP/1.1\n\n")).unwrap().unwrap().ordinary, "{odd}");
    }
}

#[test]
fn what_is_no_head_is_refused() {
    for head in [
        "GET /\n\n",
        "GET / \n\n",
        "GET  / HTTP/1.1\n\n",
        "GET / HTTP/1.1 \n\n",
        "GET / x HTTP/1.1\n\n",
        "GET / http/1.1\n\n",
        "GET / HTTP/11\n\n",
        "GET / HTTP/1.x\n\n",
        " GET / HTTP/1.1\n\n",
        "G(T / HTTP/1.1\n\n",
        "/ HTTP/1.1\n\n",
        "GET\t/ HTTP/1.1\n\n",
        "GET / HTTP/1.1\nHost: a\n b\n\n",
        "GET / HTTP/1.1\nHost: a\n\tb\n\n",
        "GET / HTTP/1.1\n Host: a\n\n",
        "GET / HTTP/1.1\nHost : a\n\n",
        "GET / HTTP/1.1\nHost\n\n",
        "GET / HTTP/1.1\n: a\n\n",
        "GET / HTTP/1.1\nX(A): b\n\n",
        "GET / HTTP/1.1\nX\u{e9}: b\n\n",
        "GET / HTTP/1.1\nX: a\rb\n\n",
        "GET / HTTP/1.1\nX: a\r\n\n",
        "GET / HTTP/1.1\nX: a\n\r\n",
        "GET / HTTP/1.1\nX: \0\n\n",
        "GET / HTTP/1.1\nX: \u{1}\n\n",
        "GET / HTTP/1.1\nX: \u{7f}\n\n",
        "GET / HTTP/1.1\nX: \u{1b}[31m\n\n",
        "GET /\u{1} HTTP/1.1\n\n",
        "GET /\ra HTTP/1.1\n\n",
    ] {
        assert_eq!(text(head), Err(Refusal::Malformed), "{}", head.escape_debug());
    }
    for version in ["0.9", "1.2", "2.0", "3.0"] {
        assert_eq!(text(&format!("GET / HTTP/{version}\n\n")), Err(Refusal::Version));
    }
}

#[test]
fn what_never_becomes_a_head_is_not_waited_for() {
    for junk in [&b"\x16\x03\x01\x02\x00"[..], b"GET\x00", b"{\"a\":1}", b" ", b"GET\t", b"\r\r"] {
        assert_eq!(judge(junk), Err(Refusal::Malformed), "{}", junk.escape_ascii());
    }
    for start in [&b"G"[..], b"\r", b"\r\n\r", b"PRI *", b"GET \x01"] {
        assert_eq!(judge(start), Ok(None), "{}", start.escape_ascii());
    }
}

#[test]
fn lengths() {
    assert_eq!(framing("Content-Length: 0"), Ok(Framing::Nothing));
    assert_eq!(framing("content-length:\t5 "), Ok(Framing::Length(5)));
    assert_eq!(framing("Content-Length: 5\nContent-Length: 05"), Ok(Framing::Length(5)));
    assert_eq!(framing("Content-Length: 18446744073709551613"), Ok(Framing::Length(u64::MAX - 2)));
    for bad in [
        "+5",
        "-1",
        "0x5",
        "5, 5",
        "",
        "5 5",
        "5;",
        "18446744073709551614",
        "18446744073709551615",
        "18446744073709551616",
        "5\nContent-Length: 6",
        "5\nContent-Length:",
    ] {
        assert_eq!(framing(&format!("Content-Length: {bad}")), Err(Refusal::Length), "{bad}");
    }
    assert_eq!(
        judge(b"POST / HTTP/1.1\r\nContent-Length: \xa05\r\n\r\n"),
        Err(Refusal::Length),
        "a no-break space is no space"
    );
}

#[test]
fn codings() {
    for fine in ["chunked", "Chunked", " \tCHUNKED\t "] {
        assert_eq!(framing(&format!("Transfer-Encoding:{fine}")), Ok(Framing::Chunked));
    }
    for (value, refusal) in [
        ("gzip, chunked", Refusal::CodingUnsupported),
        ("chunked, chunked", Refusal::CodingUnsupported),
        (",chunked", Refusal::CodingUnsupported),
        ("chunked\nTransfer-Encoding: chunked", Refusal::CodingUnsupported),
        ("identity\nTransfer-Encoding: chunked", Refusal::CodingUnsupported),
        ("chunked\nTransfer-Encoding: identity", Refusal::Coding),
        ("gzip", Refusal::Coding),
        ("identity", Refusal::Coding),
        ("xchunked", Refusal::Coding),
        ("\"chunked\"", Refusal::Coding),
        ("chunked;q=1", Refusal::Coding),
        ("chunked, identity", Refusal::Coding),
        ("chunked,", Refusal::Coding),
        ("", Refusal::Coding),
        ("\u{b}chunked", Refusal::Malformed),
        ("chunked\nContent-Length: 5", Refusal::LengthAndCoding),
        ("gzip\nContent-Length: 0", Refusal::LengthAndCoding),
    ] {
        assert_eq!(framing(&format!("Transfer-Encoding: {value}")), Err(refusal), "{value}");
    }
    let before = framing("Content-Length: 5\nTransfer-Encoding: chunked");
    assert_eq!(before, Err(Refusal::LengthAndCoding));
    let old = text("POST / HTTP/1.0\nTransfer-Encoding: chunked\n\n");
    assert_eq!(old, Err(Refusal::Coding), "HTTP/1.0 has no codings");
}

#[test]
fn upgrades_are_told_and_only_those_that_count() {
    assert!(text("GET / HTTP/1.1\nupgrade: x\n\n").unwrap().unwrap().upgrade);
    assert!(!text("GET / HTTP/1.0\nupgrade: x\n\n").unwrap().unwrap().upgrade);
}

#[test]
fn sizes() {
    let fields = |n: usize| format!("GET / HTTP/1.1\n{}\n", "A: b\n".repeat(n));
    assert!(text(&fields(MAX_FIELDS)).is_ok());
    assert_eq!(text(&fields(MAX_FIELDS + 1)), Err(Refusal::TooLarge));
    let target = |n: usize| format!("GET /{} HTTP/1.1\n\n", "a".repeat(n - 1));
    assert!(text(&target(MAX_TARGET)).is_ok());
    assert_eq!(text(&target(MAX_TARGET + 1)), Err(Refusal::TargetTooLong));
    assert_eq!(
        text(&format!("GET / HTTP/1.1\n{}: b\n\n", "a".repeat(1025))),
        Err(Refusal::TooLarge)
    );
    let head = |n: usize| {
        let mut head = b"GET / HTTP/1.1\r\nA: ".to_vec();
        head.resize(n - 4, b'a');
        head.extend_from_slice(b"\r\n\r\n");
        RequestHead::new(LIMIT).read(&head).map(|whole| whole.unwrap().len)
    };
    assert_eq!(head(LIMIT), Ok(LIMIT));
    assert_eq!(head(LIMIT + 1), Err(Refusal::TooLarge));
    assert_eq!(RequestHead::new(LIMIT).read(&vec![b'a'; LIMIT + 1]), Err(Refusal::TooLarge));
    assert_eq!(RequestHead::new(LIMIT).read(&vec![b'\n'; LIMIT + 1]), Err(Refusal::TooLarge));
}

/// Behind the gate nobody would have answered it: the parser refuses what it was given.
#[test]
fn a_tab_in_the_target_is_no_target() {
    for target in ["/\t", "\t", "/a\tb", "/?\t"] {
        let head = format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n");
        assert_eq!(judge(head.as_bytes()), Err(Refusal::Malformed), "{target:?}");
    }
}
