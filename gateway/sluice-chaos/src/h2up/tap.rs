//! Listens in on the frames that a peer sends (RFC 9113 section 4.1).
//!
//! It understands frame heads and the two frames that end things; all else passes unread. The one
//! rule: bytes pass through unchanged, also when they make no sense.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::Reset;
use crate::{watched::Watched, wire::AnyWire};

/// What was seen on all connections of an upstream.
#[derive(Debug, Default)]
pub(super) struct Frames {
    pub(super) resets: Vec<Reset>,
    pub(super) goaways: u64,
}

/// A wire that is listened in on.
pub(super) struct Tap {
    wire: AnyWire,
    connection: u64,
    scan: Scan,
    frames: Arc<Watched<Frames>>,
}

/// A frame with as much of its payload as is of interest.
#[derive(Debug, PartialEq, Eq)]
struct Frame {
    kind: u8,
    stream: u32,
    payload: Vec<u8>,
}

/// Finds frames in bytes that come in pieces.
struct Scan {
    /// Bytes of the client's preface that are still to come.
    preface: usize,
    head: Vec<u8>,
    /// The frame whose payload is passing, and how much of it is still to come.
    passing: Option<(Frame, usize)>,
}

/// The preface of RFC 9113 section 3.4 has this length.
const PREFACE: usize = 24;
const HEAD: usize = 9;
/// How much of a payload is kept.
const KEPT: usize = 8;
const RST_STREAM: u8 = 3;
const GOAWAY: u8 = 7;

impl Tap {
    pub(super) fn new(wire: AnyWire, connection: u64, frames: Arc<Watched<Frames>>) -> Self {
        Self { wire, connection, scan: Scan::new(), frames }
    }

    fn note(&self, frame: &Frame) {
        if frame.kind == RST_STREAM {
            let code =
                frame.payload.iter().take(4).fold(0, |code, byte| code << 8 | u32::from(*byte));
            let reset = Reset { connection: self.connection, stream: frame.stream, code };
            self.frames.change(|frames| frames.resets.push(reset));
        } else if frame.kind == GOAWAY {
            self.frames.change(|frames| frames.goaways += 1);
        }
    }
}

impl Scan {
    fn new() -> Self {
        Self { preface: PREFACE, head: Vec::new(), passing: None }
    }

    /// The frames that are whole once `bytes` have come.
    fn feed(&mut self, mut bytes: &[u8]) -> Vec<Frame> {
        let skipped = self.preface.min(bytes.len());
        self.preface -= skipped;
        bytes = &bytes[skipped..];
        let mut whole = Vec::new();
        while !bytes.is_empty() {
            bytes = match self.passing.take() {
                None => self.feed_head(bytes),
                Some((mut frame, left)) => {
                    let taken = left.min(bytes.len());
                    let kept = taken.min(KEPT - frame.payload.len());
                    frame.payload.extend_from_slice(&bytes[..kept]);
                    self.passing = Some((frame, left - taken));
                    &bytes[taken..]
                }
            };
            if let Some((frame, _)) = self.passing.take_if(|(_, left)| *left == 0) {
                whole.push(frame);
            }
        }
        whole
    }

    fn feed_head<'a>(&mut self, bytes: &'a [u8]) -> &'a [u8] {
        let taken = (HEAD - self.head.len()).min(bytes.len());
        self.head.extend_from_slice(&bytes[..taken]);
        if let [l0, l1, l2, kind, _flags, s0, s1, s2, s3] = *self.head {
            let length = u32::from_be_bytes([0, l0, l1, l2]);
            let stream = u32::from_be_bytes([s0 & 0x7f, s1, s2, s3]);
            let length = usize::try_from(length).expect("24 bits fit");
            self.passing = Some((Frame { kind, stream, payload: Vec::new() }, length));
            self.head.clear();
        }
        &bytes[taken..]
    }
}

impl AsyncRead for Tap {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.wire).poll_read(cx, buf))?;
        for frame in self.scan.feed(&buf.filled()[before..]) {
            self.note(&frame);
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Tap {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.wire).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.wire).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.wire).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_found_in_pieces_of_any_size() {
        let mut bytes = vec![b'P'; PREFACE];
        bytes.extend([0, 0, 0, 4, 0, 0, 0, 0, 0]);
        bytes.extend([0, 0, 10, 0, 1, 0, 0, 0, 5]);
        bytes.extend([3; 10]);
        bytes.extend([0, 0, 4, RST_STREAM, 0, 0x80, 0, 0, 5, 0, 0, 0, 8]);
        for size in [1, 2, 7, 100] {
            let mut scan = Scan::new();
            let found: Vec<Frame> = bytes.chunks(size).flat_map(|piece| scan.feed(piece)).collect();
            let kinds: Vec<(u8, u32)> =
                found.iter().map(|frame| (frame.kind, frame.stream)).collect();
            assert_eq!(kinds, [(4, 0), (0, 5), (RST_STREAM, 5)]);
            assert_eq!((found[1].payload.len(), &*found[2].payload), (KEPT, &[0, 0, 0, 8][..]));
        }
    }
}
