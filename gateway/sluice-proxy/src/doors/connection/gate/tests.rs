//! What comes out of the gate, however the bytes come in and however much hyper asks for.

use std::collections::VecDeque;

use proptest::prelude::*;

use super::*;

/// A stream that yields one piece per read, then blocks, or ends.
struct Pieces {
    left: VecDeque<Vec<u8>>,
    ends: bool,
}

impl AsyncRead for Pieces {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let Some(mut piece) = self.left.pop_front() else {
            return if self.ends { Poll::Ready(Ok(())) } else { Poll::Pending };
        };
        let fits = piece.len().min(buf.remaining());
        let rest = piece.split_off(fits);
        buf.put_slice(&piece);
        if !rest.is_empty() {
            self.left.push_front(rest);
        }
        Poll::Ready(Ok(()))
    }
}

fn gate(pieces: impl IntoIterator<Item = Vec<u8>>) -> Gate<Pieces> {
    let left = pieces.into_iter().filter(|piece| !piece.is_empty()).collect();
    Gate::new(Pieces { left, ends: false }, Clocks::start(), 32 * 1024)
}

/// Everything the gate hands on now, asked for in buffers of `size`.
fn drain(gate: &mut Gate<Pieces>, size: usize) -> io::Result<Vec<u8>> {
    let cx = &mut Context::from_waker(std::task::Waker::noop());
    let mut out = Vec::new();
    loop {
        let mut bytes = vec![0; size];
        let mut buf = ReadBuf::new(&mut bytes);
        match Pin::new(&mut *gate).poll_read(cx, &mut buf) {
            Poll::Ready(Ok(())) if buf.filled().is_empty() => return Ok(out),
            Poll::Ready(Ok(())) => out.extend_from_slice(buf.filled()),
            Poll::Ready(Err(error)) => return Err(error),
            Poll::Pending => return Ok(out),
        }
    }
}

fn push(gate: &mut Gate<Pieces>, bytes: &[u8]) {
    gate.stream.left.push_back(bytes.to_vec());
}

const OFFER: &[u8] = b"GET / HTTP/1.1\r\nUpgrade: x\r\n\r\n";

#[test]
fn a_head_is_handed_on_whole() {
    let mut gate = gate([b"GET / HTTP/1.1\r\nHost: a\r\n\r\nGET /second".to_vec()]);
    assert_eq!(drain(&mut gate, 8192).unwrap(), b"GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    assert!(gate.is_amid_head() && gate.clocks.is_amid_head());
    push(&mut gate, b" HTTP/1.1\r\n\r");
    assert_eq!(drain(&mut gate, 8192).unwrap(), b"");
    push(&mut gate, b"\n");
    assert_eq!(drain(&mut gate, 8192).unwrap(), b"GET /second HTTP/1.1\r\n\r\n");
    assert!(!gate.is_amid_head() && !gate.clocks.is_amid_head());
    assert_eq!(gate.held.capacity(), 0, "what is not needed is given back");
}

#[test]
fn nothing_follows_a_stand_in() {
    let mut gate = gate([
        b"GET / HTTP/1.1\r\n\r\nGET / HTTP/1.1\r\nX : y\r\n\r\nGET /smuggled HTTP/1.1\r\n\r\n"
            .to_vec(),
        b"GET /smuggled HTTP/1.1\r\n\r\n".to_vec(),
    ]);
    let out = drain(&mut gate, 8192).unwrap();
    assert_eq!(out, b"GET / HTTP/1.1\r\n\r\nOPTIONS * HTTP/1.1\r\n\r\n");
    let signals = &gate.clocks.signals;
    assert_eq!((signals.take(), signals.take()), (None, Some(Fault::HeadMalformed)));
    assert!(gate.is_unfinished());
}

#[test]
fn a_head_that_is_overdue_is_refused_when_hyper_asks_next() {
    let mut gate = gate([b"HEAD / HT".to_vec()]);
    assert_eq!(drain(&mut gate, 8192).unwrap(), b"");
    gate.clocks.signals.set_overdue();
    assert_eq!(drain(&mut gate, 8192).unwrap(), b"HEAD * HTTP/1.1\r\n\r\n");
    assert_eq!(gate.clocks.signals.take(), Some(Fault::HeadTimeout));
}

#[test]
fn bytes_behind_an_offer_wait_for_the_answer() {
    for (switches, follows) in [(true, &b"\x81\x00GET x"[..]), (false, b"GET / HTTP/1.1\r\n\r\n")] {
        let mut gate = gate([[OFFER, follows].concat()]);
        assert_eq!(drain(&mut gate, 8192).unwrap(), OFFER);
        assert_eq!(drain(&mut gate, 8192).unwrap(), b"", "nobody knows yet");
        assert_eq!(gate.clocks.signals.take(), None);
        gate.clocks.signals.answered(switches);
        push(&mut gate, follows);
        assert_eq!(drain(&mut gate, 8192).unwrap(), [follows, follows].concat());
    }
}

#[test]
fn what_is_kept_behind_an_offer_is_bounded() {
    let mut gate = gate([OFFER.to_vec()]);
    (0..100).for_each(|_| push(&mut gate, &[b'x'; 1024]));
    assert_eq!(drain(&mut gate, 8192).unwrap(), OFFER);
    assert!(gate.held.len() <= UNDECIDED + 8192, "{}", gate.held.len());
}

#[test]
fn a_body_that_cannot_be_read_is_an_error_and_what_follows_is_never_seen() {
    let head = b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n";
    let mut gate = gate([[&head[..], b"3\r\nabc\r\nx\r\nGET / HTTP/1.1\r\n\r\n"].concat()]);
    let error = drain(&mut gate, 8192).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::InvalidData);
    assert!(!gate.clocks.signals.is_between_requests());
}

#[test]
fn a_parked_gate_asks_for_hyper_only_when_there_is_something_to_read() {
    let cx = &mut Context::from_waker(std::task::Waker::noop());
    let mut gate = gate([b"\r\nGET / HT".to_vec()]);
    assert!(gate.poll_head(cx).is_pending());
    push(&mut gate, b"TP/1.1\r\n\r\n");
    assert!(matches!(gate.poll_head(cx), Poll::Ready(Ok(true))));
    assert_eq!(drain(&mut gate, 4).unwrap(), b"\r\nGET / HTTP/1.1\r\n\r\n");
    gate.stream.ends = true;
    assert!(matches!(gate.poll_head(cx), Poll::Ready(Ok(false))));
}

#[test]
fn what_hyper_gives_back_comes_first() {
    let mut gate = gate([b"GET /2 HTTP/1.1\r\n\r\nGET".to_vec()]);
    let read = drain(&mut gate, 8192).unwrap();
    gate.rest(&read);
    let cx = &mut Context::from_waker(std::task::Waker::noop());
    assert!(matches!(gate.poll_head(cx), Poll::Ready(Ok(true))));
    push(&mut gate, b" /3 HTTP/1.1\r\n\r\n");
    assert_eq!(drain(&mut gate, 8192).unwrap(), b"GET /2 HTTP/1.1\r\n\r\nGET /3 HTTP/1.1\r\n\r\n");
}

/// Well-formed requests, one after another.
fn requests() -> impl Strategy<Value = Vec<Vec<u8>>> {
    let request = prop_oneof![
        Just(b"GET /a HTTP/1.1\r\nHost: a\r\n\r\n".to_vec()),
        Just(b"\r\nGET /b HTTP/1.0\n\n".to_vec()),
        proptest::collection::vec(any::<u8>(), 0..50).prop_map(|body| {
            let head = format!("POST /c HTTP/1.1\r\nContent-Length: {}\r\n\r\n", body.len());
            [head.into_bytes(), body].concat()
        }),
        "[a-zA-Z \r\n]{1,30}".prop_map(|body| {
            let head = "POST /d HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n";
            format!("{head}{:x};x=y\r\n{body}\r\n0\r\nT: x\r\n\r\n", body.len()).into_bytes()
        }),
    ];
    proptest::collection::vec(request, 1..8)
}

proptest! {
    #[test]
    fn honest_bytes_come_out_as_they_went_in(
        requests in requests(),
        cuts in proptest::collection::vec(1..40_usize, 1..20),
        size in 1..100_usize,
    ) {
        let all = requests.concat();
        let (mut rest, mut pieces) = (&all[..], Vec::new());
        for cut in cuts.iter().cycle() {
            let (piece, more) = rest.split_at((*cut).min(rest.len()));
            pieces.push(piece.to_vec());
            rest = more;
            if rest.is_empty() {
                break;
            }
        }
        let mut gate = gate(pieces);
        let mut out = Vec::new();
        for _ in 0..all.len() + 1 {
            out.extend(drain(&mut gate, size).unwrap());
        }
        prop_assert_eq!(out.escape_ascii().to_string(), all.escape_ascii().to_string());
        for left in (0..requests.len()).rev() {
            prop_assert_eq!(gate.clocks.signals.take(), None);
            prop_assert_eq!(gate.clocks.signals.is_between_requests(), left == 0);
        }
    }
}
