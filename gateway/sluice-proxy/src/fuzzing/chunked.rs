//! The chunked coding, piece by piece, against a reading of the whole.

use sluice_engine::http1::chunked::{Chunked, Kind};

/// Beyond this the limits of extensions and trailers come into play, which the slow reading has not.
const MOST: usize = 8 * 1024;

#[derive(Debug, PartialEq)]
struct Read {
    body: Vec<u8>,
    trailers: Vec<u8>,
    used: usize,
}

pub(super) fn check(data: &[u8]) {
    let wire = &data[..data.len().min(MOST)];
    let slow = slow(wire);
    for step in [1, 3, wire.len().max(1)] {
        assert_eq!(quick(wire, step), slow, "{step} bytes at a time");
    }
}

/// `None` if it is malformed or does not end.
fn quick(wire: &[u8], step: usize) -> Option<Read> {
    let mut reader = Chunked::default();
    let mut read = Read { body: Vec::new(), trailers: Vec::new(), used: 0 };
    for mut part in wire.chunks(step) {
        while let Some(piece) = reader.read(part).ok()? {
            assert!(piece.len > 0 && piece.len <= part.len());
            let (bytes, rest) = part.split_at(piece.len);
            match piece.kind {
                Kind::Data => read.body.extend_from_slice(bytes),
                Kind::Trailer => read.trailers.extend_from_slice(bytes),
                Kind::Framing => {}
            }
            read.used += piece.len;
            part = rest;
        }
    }
    reader.is_done().then_some(read)
}

fn slow(wire: &[u8]) -> Option<Read> {
    let mut body = Vec::new();
    let mut rest = wire;
    loop {
        let line = line(&mut rest)?;
        let head = line.split(|byte| *byte == b';').next()?;
        let size = head.trim_ascii_end();
        let blanks = &head[size.len()..];
        let sound = !size.is_empty()
            && size.iter().all(u8::is_ascii_hexdigit)
            && blanks.iter().all(|byte| matches!(byte, b' ' | b'\t'))
            && line.iter().all(|byte| is_text(*byte));
        sound.then_some(())?;
        let size = u64::from_str_radix(std::str::from_utf8(size).ok()?, 16).ok()?;
        if size == 0 {
            break;
        }
        let (data, after) = rest.split_at_checked(usize::try_from(size).ok()?)?;
        body.extend_from_slice(data);
        rest = after.strip_prefix(b"\r\n")?;
    }
    let mut trailers = Vec::new();
    loop {
        let line = line(&mut rest)?;
        if line.is_empty() {
            return Some(Read { body, trailers, used: wire.len() - rest.len() });
        }
        line.iter().all(|byte| is_text(*byte)).then_some(())?;
        trailers.extend_from_slice(line);
        trailers.extend_from_slice(b"\r\n");
    }
}

/// Up to the next CR LF, which is taken too.
fn line<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let end = rest.windows(2).position(|pair| pair == b"\r\n")?;
    let line = &rest[..end];
    *rest = &rest[end + 2..];
    Some(line)
}

fn is_text(byte: u8) -> bool {
    !byte.is_ascii_control() || byte == b'\t'
}
