//! HTTP/2 by hand: frames that no library would send.

use std::time::Duration;

use sluice_chaos::raw::Client;

use crate::support::Gateway;

pub(crate) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

pub(crate) const DATA: u8 = 0;
pub(crate) const HEADERS: u8 = 1;
pub(crate) const RST_STREAM: u8 = 3;
pub(crate) const SETTINGS: u8 = 4;
pub(crate) const GOAWAY: u8 = 7;
pub(crate) const WINDOW_UPDATE: u8 = 8;
pub(crate) const CONTINUATION: u8 = 9;

pub(crate) const END_STREAM: u8 = 1;
pub(crate) const END_HEADERS: u8 = 4;
/// Of a HEADERS frame that is a whole request.
pub(crate) const WHOLE: u8 = END_STREAM | END_HEADERS;

/// One frame.
pub(crate) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let [_, a, b, c] = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&[a, b, c, kind, flags], stream.to_be_bytes().as_slice(), payload].concat()
}

/// Fields as literals that nobody has to remember (RFC 7541 section 6.2.2).
pub(crate) fn block(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in fields {
        block.push(0);
        for text in [name.as_bytes(), value.as_bytes()] {
            length(text.len(), &mut block);
            block.extend_from_slice(text);
        }
    }
    block
}

/// A number with a prefix of seven bits (RFC 7541 section 5.1).
fn length(mut number: usize, out: &mut Vec<u8>) {
    if number < 127 {
        return out.push(number as u8);
    }
    out.push(127);
    number -= 127;
    while number >= 128 {
        out.push(number as u8 | 128);
        number /= 128;
    }
    out.push(number as u8);
}

/// The fields of a GET, and more behind them.
pub(crate) fn get<'f>(more: &[(&'f str, &'f str)]) -> Vec<(&'f str, &'f str)> {
    let mut fields =
        vec![(":method", "GET"), (":scheme", "http"), (":authority", "a"), (":path", "/")];
    fields.extend(more);
    fields
}

/// What the gateway said.
#[derive(Debug)]
pub(crate) struct Frame {
    pub(crate) kind: u8,
    pub(crate) flags: u8,
    pub(crate) stream: u32,
    pub(crate) payload: Vec<u8>,
}

impl Frame {
    /// The error code of a RST_STREAM or GOAWAY.
    pub(crate) fn error(&self) -> Option<u32> {
        let at = match self.kind {
            RST_STREAM => 0,
            GOAWAY => 4,
            _ => return None,
        };
        Some(u32::from_be_bytes(self.payload.get(at..at + 4)?.try_into().ok()?))
    }
}

/// A connection of which the preface has been said.
pub(crate) struct Talk {
    client: Client,
    read: Vec<u8>,
}

impl Talk {
    pub(crate) async fn begin(gateway: &Gateway) -> Self {
        let mut client = gateway.client().await;
        client.send([PREFACE, &frame(SETTINGS, 0, 0, &[])].concat()).await;
        Self { client, read: Vec::new() }
    }

    /// Sends as much as the gateway takes.
    pub(crate) async fn say(&mut self, bytes: &[u8]) {
        let _ = self.client.try_send(bytes).await;
    }

    /// The next frame; none when the gateway has closed, or says nothing for some seconds.
    pub(crate) async fn next(&mut self) -> Option<Frame> {
        loop {
            if let Some(frame) = self.take() {
                return Some(frame);
            }
            let more = self.client.read_some();
            let more = tokio::time::timeout(Duration::from_secs(5), more).await.ok()?;
            if more.is_empty() {
                return None;
            }
            self.read.extend(more);
        }
    }

    /// Reads until a frame of this kind has come.
    pub(crate) async fn until(&mut self, kind: u8) -> Option<Frame> {
        loop {
            let frame = self.next().await?;
            if frame.kind == kind {
                return Some(frame);
            }
        }
    }

    fn take(&mut self) -> Option<Frame> {
        let (header, rest) = self.read.split_at_checked(9)?;
        let length =
            usize::from(header[0]) << 16 | usize::from(header[1]) << 8 | usize::from(header[2]);
        let payload = rest.get(..length)?.to_vec();
        let stream = u32::from_be_bytes(header[5..9].try_into().unwrap()) & 0x7fff_ffff;
        let (kind, flags) = (header[3], header[4]);
        self.read.drain(..9 + length);
        Some(Frame { kind, flags, stream, payload })
    }
}
