//! The watch over a client's HTTP/2 frames against a reading of all bytes at once.

use sluice_engine::http2::frames::Frames;

const PREFACE: usize = 24;
const DATA: u8 = 0;
const SETTINGS: u8 = 4;
/// PRIORITY, SETTINGS, PING; above these and CONTINUATION nothing is known.
const IDLE: [u8; 3] = [2, 4, 6];
const LAST_KNOWN: u8 = 9;

pub(super) fn check(data: &[u8]) {
    // Half of the inputs need not find the preface, which is not compared anyway.
    let (first, rest) = data.split_first().unwrap_or((&0, &[]));
    let wire = if first & 1 == 1 { [&[b'*'; PREFACE], rest].concat() } else { rest.to_vec() };
    let expected = slow(&wire);
    for step in [1, usize::from(*first).max(2), wire.len().max(1)] {
        let mut frames = Frames::default();
        let idle: u32 = wire.chunks(step).map(|part| frames.read(part)).sum();
        assert_eq!((idle, frames.is_amid()), expected, "{step} bytes at a time");
    }
}

/// Frames that serve no request, and whether something other than DATA is owed.
fn slow(wire: &[u8]) -> (u32, bool) {
    let Some(mut rest) = wire.get(PREFACE..) else { return (0, true) };
    let (mut idle, mut settled) = (0, false);
    loop {
        let Some((header, payload)) = rest.split_at_checked(9) else {
            return (idle, !rest.is_empty() || !settled);
        };
        let length = u32::from_be_bytes([0, header[0], header[1], header[2]]) as usize;
        let kind = header[3];
        settled |= kind == SETTINGS;
        idle += u32::from(IDLE.contains(&kind) || kind > LAST_KNOWN);
        let Some(next) = payload.get(length..) else { return (idle, kind != DATA) };
        rest = next;
    }
}
