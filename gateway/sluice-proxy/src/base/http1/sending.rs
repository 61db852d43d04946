//! The half of an exchange that writes: head and body of the request, as they come from the client.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, Waker, ready};

use bytes::{Buf as _, Bytes};
use http::HeaderMap;
use http_body::{Body as _, Frame};
use tokio::io::AsyncWrite as _;

use super::exchange::Failure;
use super::outgoing::{self, Framing, Head};
use super::stream::Stream;
use crate::base::body::Upload;

/// A piece of a body up to this size is copied behind what is written with it, bytes.
const COPIED: usize = 4 * 1024;
/// Bytes gathered before they are written.
const GATHERED: usize = 16 * 1024;
/// Room that a connection keeps between requests, and while a client is waited for, bytes.
const KEPT_ROOM: usize = 4 * 1024;

/// What is being written.
pub(super) struct Sending {
    buffer: Vec<u8>,
    written: usize,
    /// Written after the buffer, and never copied into it.
    piece: Bytes,
    /// Whether `piece` is a chunk, which a line end has to follow.
    chunk: bool,
    body: Option<Upload>,
    framing: Framing,
    flushed: bool,
    /// Writing failed, or was given up before the end.
    broken: bool,
    /// Who waits for the end of it, however it comes.
    waiters: Vec<Waker>,
}

impl Sending {
    pub(super) fn new() -> Self {
        Self {
            buffer: Vec::new(),
            written: 0,
            piece: Bytes::new(),
            chunk: false,
            body: None,
            framing: Framing::None,
            flushed: true,
            broken: false,
            waiters: Vec::new(),
        }
    }

    pub(super) fn begin(&mut self, head: Head<'_>, body: Upload) {
        let bodiless = body.is_end_stream();
        self.framing = if bodiless { Framing::None } else { Framing::of(head.fields) };
        self.body = (!bodiless).then_some(body);
        self.flushed = false;
        self.buffer.shrink_to(KEPT_ROOM);
        head.write(self.framing, &mut self.buffer);
    }

    /// Whether nothing is left to write.
    pub(super) fn is_done(&self) -> bool {
        self.body.is_none() && self.flushed
    }

    /// Whether all was written as it should.
    pub(super) fn is_whole(&self) -> bool {
        self.is_done() && !self.broken
    }

    /// Writes no more.
    pub(super) fn give_up(&mut self) {
        self.broken |= !self.is_done();
        self.body = None;
        self.piece = Bytes::new();
        self.buffer.clear();
        self.written = 0;
        self.flushed = true;
        self.wake();
    }

    /// Has `waker` called when nothing is left to write, or nothing more will be written.
    pub(super) fn wake_when_done(&mut self, waker: &Waker) {
        if !self.waiters.iter().any(|known| known.will_wake(waker)) {
            self.waiters.push(waker.clone());
        }
    }

    fn wake(&mut self) {
        self.waiters.drain(..).for_each(Waker::wake);
    }

    /// Writes what can be written. A service that takes no more may have answered all the same, so
    /// only the request's own body is a failure here.
    pub(super) fn poll(
        &mut self,
        stream: &mut Stream,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), Failure>> {
        while !self.is_done() {
            let gathered = self.gather(cx);
            if let Poll::Ready(Err(failure)) = gathered {
                self.give_up();
                return Poll::Ready(Err(failure));
            }
            if ready!(self.poll_write(stream, cx)).is_err() {
                self.give_up();
                return Poll::Ready(Ok(()));
            }
            if gathered.is_pending() {
                // Who waits for a client holds no large head meanwhile.
                self.buffer.shrink_to(KEPT_ROOM);
                return Poll::Pending;
            }
        }
        self.wake();
        Poll::Ready(Ok(()))
    }

    fn is_written(&self) -> bool {
        self.buffer.is_empty() && self.piece.is_empty()
    }

    /// Takes from the body what is there, so that a small body leaves with its head. Pending when the
    /// body is what has to be waited for.
    fn gather(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Failure>> {
        while self.piece.is_empty() && self.buffer.len() < GATHERED {
            let Some(body) = &mut self.body else { break };
            if std::mem::take(&mut self.chunk) {
                self.buffer.extend_from_slice(b"\r\n");
            }
            match ready!(Pin::new(body).poll_frame(cx)) {
                None => self.finish(&HeaderMap::new())?,
                Some(Ok(frame)) => self.take(frame)?,
                Some(Err(_)) => return Poll::Ready(Err(Failure::Upload)),
            }
        }
        Poll::Ready(Ok(()))
    }

    fn take(&mut self, frame: Frame<Bytes>) -> Result<(), Failure> {
        let data = match frame.into_data() {
            Ok(data) if data.is_empty() => return Ok(()),
            Ok(data) => data,
            Err(frame) => {
                let trailers = frame.into_trailers().unwrap_or_default();
                return self.finish(&trailers);
            }
        };
        let chunked = match &mut self.framing {
            Framing::Chunked => true,
            Framing::Length(left) => {
                *left = left.checked_sub(data.len() as u64).ok_or(Failure::Upload)?;
                false
            }
            Framing::None => return Err(Failure::Upload),
        };
        if chunked {
            outgoing::chunk_size(&mut self.buffer, &data);
        }
        if data.len() > COPIED {
            self.piece = data;
            self.chunk = chunked;
            return Ok(());
        }
        self.buffer.extend_from_slice(&data);
        if chunked {
            self.buffer.extend_from_slice(b"\r\n");
        }
        Ok(())
    }

    fn finish(&mut self, trailers: &HeaderMap) -> Result<(), Failure> {
        self.body = None;
        match self.framing {
            Framing::Chunked => outgoing::last_chunk(&mut self.buffer, trailers),
            // Shorter than promised: the service must not take it for the whole.
            Framing::Length(left) if left > 0 => return Err(Failure::Upload),
            Framing::Length(_) | Framing::None => {}
        }
        Ok(())
    }

    fn poll_write(&mut self, stream: &mut Stream, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut stream = Pin::new(stream);
        while !self.is_written() {
            let head = self.buffer.get(self.written..).unwrap_or(&[]);
            let wrote = match (head, &*self.piece) {
                (head, []) => ready!(stream.as_mut().poll_write(cx, head))?,
                ([], piece) => ready!(stream.as_mut().poll_write(cx, piece))?,
                (head, piece) => {
                    let slices = [IoSlice::new(head), IoSlice::new(piece)];
                    ready!(stream.as_mut().poll_write_vectored(cx, &slices))?
                }
            };
            if wrote == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.advance(wrote);
        }
        ready!(stream.poll_flush(cx))?;
        self.flushed = true;
        Poll::Ready(Ok(()))
    }

    fn advance(&mut self, wrote: usize) {
        let of_buffer = wrote.min(self.buffer.len() - self.written);
        self.written += of_buffer;
        if self.written == self.buffer.len() {
            self.buffer.clear();
            self.written = 0;
        }
        self.piece.advance(wrote - of_buffer);
    }
}
