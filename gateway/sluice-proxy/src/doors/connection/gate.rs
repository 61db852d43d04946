//! The gate between a stream and hyper's HTTP/1: it sees the raw bytes first. A head is handed on only
//! whole and only if it was let through; what is refused never reaches a parser. In its place hyper is
//! given a stand-in, so that the refusal is answered in its turn, like any request, and nothing follows
//! it. The one rule: not a byte is handed on before it is known whether it belongs to a head, to a body
//! or to neither.

use std::cell::RefCell;
use std::io;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use sluice_engine::http1::chunked::Chunked;
use sluice_engine::http1::request_head::{Framing, Refusal, RequestHead, Whole};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::base::clocks::Clocks;
use crate::base::fault::Fault;

/// Bytes read at a time while no hyper is there whose buffer could take them.
const SCRATCH: usize = 4 * 1024;
/// Bytes kept while it is open whether they are HTTP.
const UNDECIDED: usize = 16 * 1024;

/// Bytes that are cheaper to copy together than to write from several places.
const SMALL: usize = 16 * 1024;

thread_local! {
    static GATHERED: RefCell<Vec<u8>> = RefCell::new(Vec::with_capacity(SMALL));
}

/// A stream behind its gate.
pub(super) struct Gate<S> {
    stream: S,
    clocks: Arc<Clocks>,
    head: RequestHead,
    phase: Phase,
    /// What was read and not handed on.
    held: Vec<u8>,
    /// So many of the held bytes may be handed on.
    ready: usize,
}

/// What the next bytes belong to.
enum Phase {
    Head,
    /// A body with so many bytes to come.
    Length(u64),
    Chunked(Chunked),
    /// A body that cannot be read on.
    Broken,
    /// Nobody knows before the request has been answered that offers another protocol.
    Undecided,
    /// Another protocol.
    Raw,
    /// A head that was refused, and for which no stand-in has been handed on yet.
    Refused(Fault, StandIn),
    /// Nothing: what comes is not looked at.
    Shut,
}

/// The head handed on for one that was refused. A HEAD request gets no body.
#[derive(Clone, Copy)]
struct StandIn(&'static [u8]);

impl StandIn {
    fn of(head: &[u8]) -> Self {
        Self(if head.starts_with(b"HEAD ") {
            b"HEAD * HTTP/1.1\r\n\r\n"
        } else {
            b"OPTIONS * HTTP/1.1\r\n\r\n"
        })
    }
}

impl<S> Gate<S> {
    /// `limit` bounds heads, in bytes.
    pub(super) fn new(stream: S, clocks: Arc<Clocks>, limit: usize) -> Self {
        let head = RequestHead::new(limit);
        Self { stream, clocks, head, phase: Phase::Head, held: Vec::new(), ready: 0 }
    }

    /// Whether a part of a head is held.
    pub(super) fn is_amid_head(&self) -> bool {
        !self.held.is_empty()
    }

    /// Whether nothing may be read now.
    fn is_full(&self) -> bool {
        match self.phase {
            Phase::Shut | Phase::Refused(..) => true,
            Phase::Undecided => self.held.len() >= UNDECIDED,
            _ => false,
        }
    }

    /// Whether the client may still be sending what nobody will read.
    pub(super) fn is_unfinished(&self) -> bool {
        !matches!(self.phase, Phase::Head) || !self.held.is_empty()
    }

    /// Hyper is gone: takes back what it had read and not looked at.
    pub(super) fn rest(&mut self, unread: &[u8]) {
        if !unread.is_empty() {
            self.held.splice(..0, unread.iter().copied());
            self.ready += unread.len();
        }
    }

    /// Refuses the head that is being read.
    pub(super) fn refuse(&mut self, fault: Fault) {
        if let Phase::Head = self.phase {
            self.phase = Phase::Refused(fault, StandIn::of(&self.held));
            self.let_go();
        }
    }

    /// Says how many of these new bytes may be handed on; the rest has to be held.
    fn judge(&mut self, bytes: &[u8]) -> usize {
        let mut at = 0;
        while let Some(rest) = bytes.get(at..).filter(|rest| !rest.is_empty()) {
            match &mut self.phase {
                Phase::Head => match self.head.read(rest) {
                    Ok(Some(whole)) => match self.enter(&whole, rest) {
                        Some(fault) => self.phase = Phase::Refused(fault, StandIn::of(rest)),
                        None => at += whole.len,
                    },
                    Ok(None) => {
                        self.clocks.head_begins();
                        return at;
                    }
                    Err(refusal) => {
                        self.phase = Phase::Refused(fault(refusal), StandIn::of(rest));
                    }
                },
                Phase::Length(left) => {
                    let taken = usize::try_from(*left).map_or(rest.len(), |l| l.min(rest.len()));
                    at += taken;
                    *left -= taken as u64;
                    if *left == 0 {
                        self.expect_head();
                    }
                }
                Phase::Chunked(body) => {
                    match body.read(rest) {
                        Ok(piece) => at += piece.map_or(0, |piece| piece.len),
                        Err(_) => self.phase = Phase::Broken,
                    }
                    if matches!(&self.phase, Phase::Chunked(body) if body.is_done()) {
                        self.expect_head();
                    }
                }
                Phase::Undecided => match self.clocks.signals.switched() {
                    Some(switched) => self.phase = if switched { Phase::Raw } else { Phase::Head },
                    None => return at,
                },
                Phase::Raw => return bytes.len(),
                Phase::Broken | Phase::Refused(..) | Phase::Shut => return at,
            }
        }
        at
    }

    /// Goes on behind a head, unless its target is none.
    fn enter(&mut self, whole: &Whole, bytes: &[u8]) -> Option<Fault> {
        let target = bytes.get(whole.target.clone()).unwrap_or_default();
        if !whole.ordinary && http::Uri::try_from(target).is_err() {
            return Some(Fault::TargetInvalid);
        }
        let signals = &self.clocks.signals;
        self.clocks.head_ends();
        signals.pass(None);
        self.phase = match whole.framing {
            Framing::Nothing if whole.upgrade => {
                signals.ask_to_switch();
                Phase::Undecided
            }
            Framing::Nothing => Phase::Head,
            Framing::Length(length) => {
                signals.set_body(true);
                Phase::Length(length)
            }
            Framing::Chunked => {
                signals.set_body(true);
                Phase::Chunked(Chunked::default())
            }
        };
        None
    }

    fn expect_head(&mut self) {
        self.clocks.signals.set_body(false);
        self.phase = Phase::Head;
    }

    /// Forgets what is held, buffer and all.
    fn let_go(&mut self) {
        self.held = Vec::new();
        self.ready = 0;
    }

    /// Judges all that is held, none of which may be handed on yet.
    fn judge_held(&mut self) {
        let held = std::mem::take(&mut self.held);
        self.ready = self.judge(&held);
        self.held = held;
    }

    /// Hands on what needs no reading; tells whether there was anything.
    fn give(&mut self, buf: &mut ReadBuf<'_>) -> io::Result<bool> {
        if self.ready == 0 && !self.held.is_empty() {
            if matches!(self.phase, Phase::Undecided) && self.clocks.signals.switched().is_some() {
                self.judge_held();
            } else if self.clocks.signals.is_overdue() {
                self.refuse(Fault::HeadTimeout);
            }
        }
        if self.ready > 0 {
            let given = self.ready.min(buf.remaining());
            buf.put_slice(self.held.get(..given).unwrap_or_default());
            self.held.drain(..given);
            self.ready -= given;
            if self.held.is_empty() {
                self.let_go();
            }
            return Ok(true);
        }
        match self.phase {
            Phase::Broken => Err(io::Error::new(io::ErrorKind::InvalidData, "malformed body")),
            Phase::Refused(fault, stand_in) if buf.remaining() >= stand_in.0.len() => {
                buf.put_slice(stand_in.0);
                self.clocks.head_ends();
                self.clocks.signals.pass(Some(fault));
                self.phase = Phase::Shut;
                self.let_go();
                Ok(true)
            }
            _ => Ok(false),
        }
    }

    /// Judges what was read behind `start`; leaves in the buffer what may be handed on, and tells whether
    /// there is anything.
    fn sift(&mut self, buf: &mut ReadBuf<'_>, start: usize) -> bool {
        let fresh = buf.filled().get(start..).unwrap_or_default();
        let passed = if self.held.is_empty() {
            let passed = self.judge(fresh);
            if !matches!(self.phase, Phase::Refused(..) | Phase::Broken) {
                self.held.extend_from_slice(fresh.get(passed..).unwrap_or_default());
            }
            passed
        } else {
            self.held.extend_from_slice(fresh);
            self.judge_held();
            0
        };
        buf.set_filled(start + passed);
        passed > 0
    }
}

impl<S: AsyncRead + Unpin> Gate<S> {
    /// Reads until there is something to build a connection for; tells whether there is, or the client
    /// has left. Nothing is kept but what was read.
    pub(super) fn poll_head(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<bool>> {
        while self.ready == 0 && matches!(self.phase, Phase::Head) {
            let mut scratch = [const { MaybeUninit::uninit() }; SCRATCH];
            let mut buf = ReadBuf::uninit(&mut scratch);
            ready!(Pin::new(&mut self.stream).poll_read(cx, &mut buf))?;
            if buf.filled().is_empty() {
                return Poll::Ready(Ok(false));
            }
            self.held.extend_from_slice(buf.filled());
            self.judge_held();
        }
        Poll::Ready(Ok(true))
    }

    /// Reads what nobody wants any more; 0 at its end.
    pub(super) fn poll_discard(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        self.let_go();
        let mut scratch = [const { MaybeUninit::uninit() }; SCRATCH];
        let mut buf = ReadBuf::uninit(&mut scratch);
        ready!(Pin::new(&mut self.stream).poll_read(cx, &mut buf))?;
        Poll::Ready(Ok(buf.filled().len()))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Gate<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        loop {
            if this.give(buf)? {
                return Poll::Ready(Ok(()));
            }
            // What is left in the stream is for the lingering close, or waits for the answer.
            if this.is_full() {
                return Poll::Pending;
            }
            let start = buf.filled().len();
            ready!(Pin::new(&mut this.stream).poll_read(cx, buf))?;
            if buf.filled().len() == start || this.sift(buf, start) {
                return Poll::Ready(Ok(()));
            }
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Gate<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let stream = Pin::new(&mut self.stream);
        if slices.iter().map(|slice| slice.len()).sum::<usize>() > SMALL {
            return stream.poll_write_vectored(cx, slices);
        }
        GATHERED.with_borrow_mut(|gathered| {
            gathered.clear();
            slices.iter().for_each(|slice| gathered.extend_from_slice(slice));
            stream.poll_write(cx, gathered)
        })
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

fn fault(refusal: Refusal) -> Fault {
    match refusal {
        Refusal::Malformed => Fault::HeadMalformed,
        Refusal::TooLarge => Fault::HeadTooLarge,
        Refusal::TargetTooLong => Fault::TargetTooLong,
        Refusal::Version => Fault::VersionUnsupported,
        Refusal::Length => Fault::LengthInvalid,
        Refusal::LengthAndCoding => Fault::LengthAndCoding,
        Refusal::Coding => Fault::TransferCodingInvalid,
        Refusal::CodingUnsupported => Fault::TransferCodingUnsupported,
    }
}

#[cfg(test)]
mod tests;
