//! The frames of a client (RFC 9113 sections 3.4 and 4.1), seen from outside: their kinds and their
//! ends, not what is in them.
//!
//! Whether they are correct is for whoever speaks the protocol. The one rule: every byte is looked at
//! once and none is kept, so watching costs a few instructions for each frame.

/// `PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n`, bytes.
const PREFACE: usize = 24;
/// Length, kind, flags and stream, bytes.
const HEADER: usize = 9;

const DATA: u8 = 0x0;
const PRIORITY: u8 = 0x2;
const SETTINGS: u8 = 0x4;
const PING: u8 = 0x6;
const CONTINUATION: u8 = 0x9;

/// How far the frames of a connection were seen.
#[derive(Clone, Debug)]
pub struct Frames {
    place: Place,
    /// Whether the first SETTINGS came, without which a preface is not whole.
    settled: bool,
}

#[derive(Clone, Debug)]
enum Place {
    /// So many bytes of the preface are to come.
    Preface(usize),
    /// So much of a frame's header is here.
    Header { bytes: [u8; HEADER], have: usize },
    /// So many bytes of a payload are to come.
    Payload { left: usize, data: bool },
}

impl Default for Frames {
    fn default() -> Self {
        Self { place: Place::Preface(PREFACE), settled: false }
    }
}

impl Frames {
    /// Looks at what came next. Tells how many frames in it do nothing for any request: PING, SETTINGS,
    /// PRIORITY, and kinds that are not known. WINDOW_UPDATE is not among them, since a download has
    /// one for each few kilobytes.
    pub fn read(&mut self, mut bytes: &[u8]) -> u32 {
        let mut idle = 0_u32;
        while !bytes.is_empty() {
            let rest = match &mut self.place {
                Place::Preface(left) | Place::Payload { left, .. } => {
                    let taken = (*left).min(bytes.len());
                    *left -= taken;
                    if *left == 0 {
                        self.place = Place::header();
                    }
                    bytes.split_at(taken).1
                }
                Place::Header { bytes: header, have } => {
                    let taken = (HEADER - *have).min(bytes.len());
                    let (now, rest) = bytes.split_at(taken);
                    header.iter_mut().skip(*have).zip(now).for_each(|(to, from)| *to = *from);
                    *have += taken;
                    if *have == HEADER {
                        let header = *header;
                        idle = idle.saturating_add(u32::from(self.enter(header)));
                    }
                    rest
                }
            };
            bytes = rest;
        }
        idle
    }

    /// Whether the client owes the rest of a preface, or of a frame that is not DATA, whose pace has
    /// limits of its own.
    #[must_use]
    pub fn is_amid(&self) -> bool {
        match self.place {
            Place::Preface(_) => true,
            Place::Header { have, .. } => have > 0 || !self.settled,
            Place::Payload { data, .. } => !data,
        }
    }

    /// Goes on behind a frame's header; tells whether it does nothing for any request.
    fn enter(&mut self, header: [u8; HEADER]) -> bool {
        let [a, b, c, kind, ..] = header;
        let left = usize::from(a) << 16 | usize::from(b) << 8 | usize::from(c);
        self.settled |= kind == SETTINGS;
        self.place = match left {
            0 => Place::header(),
            left => Place::Payload { left, data: kind == DATA },
        };
        matches!(kind, PRIORITY | SETTINGS | PING) || kind > CONTINUATION
    }
}

impl Place {
    const fn header() -> Self {
        Self::Header { bytes: [0; HEADER], have: 0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADERS: u8 = 0x1;
    const HELLO: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

    fn frame(kind: u8, payload: usize) -> Vec<u8> {
        let [.., a, b, c] = payload.to_be_bytes();
        [&[a, b, c, kind, 0, 0, 0, 0, 1], vec![0x2a; payload].as_slice()].concat()
    }

    fn settled() -> Frames {
        let mut frames = Frames::default();
        assert_eq!(frames.read(HELLO), 1);
        assert!(!frames.is_amid());
        frames
    }

    #[test]
    fn frames_that_serve_no_request_are_counted() {
        let mut frames = settled();
        for (kind, idle) in
            [(DATA, 0), (HEADERS, 0), (PRIORITY, 1), (3, 0), (SETTINGS, 1), (PING, 1), (7, 0)]
        {
            assert_eq!(frames.read(&frame(kind, 8)), idle, "{kind}");
        }
        for (kind, idle) in [(8, 0), (CONTINUATION, 0), (0xa, 1), (0xff, 1)] {
            assert_eq!(frames.read(&frame(kind, 0)), idle, "{kind}");
        }
        let many = [frame(PING, 8), frame(DATA, 3), frame(PING, 8), frame(0xb, 0)].concat();
        assert_eq!(frames.read(&many), 3);
        assert!(!frames.is_amid());
    }

    #[test]
    fn the_same_is_seen_however_the_bytes_arrive() {
        let wire = [HELLO, &frame(HEADERS, 40), &frame(PING, 8), &frame(DATA, 20)].concat();
        for step in 1..wire.len() {
            let mut frames = Frames::default();
            let idle: u32 = wire.chunks(step).map(|part| frames.read(part)).sum();
            assert_eq!((idle, frames.is_amid()), (2, false), "{step} bytes at a time");
        }
    }

    #[test]
    fn what_is_owed_is_known() {
        let mut frames = Frames::default();
        assert!(frames.is_amid(), "nothing came");
        frames.read(&HELLO[..PREFACE]);
        assert!(frames.is_amid(), "a preface has SETTINGS");
        let mut frames = settled();
        frames.read(&frame(HEADERS, 40)[..30]);
        assert!(frames.is_amid(), "half a head");
        let mut frames = settled();
        frames.read(&[0]);
        assert!(frames.is_amid(), "a byte of a frame");
        let mut frames = settled();
        frames.read(&frame(DATA, 40)[..30]);
        assert!(!frames.is_amid(), "a body has its own clock");
    }
}
