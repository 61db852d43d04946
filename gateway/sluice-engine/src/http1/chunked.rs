//! The chunked transfer coding (RFC 9112 section 7.1), read piece by piece.
//!
//! The caller owns the bytes; the reader only says what the next ones are. Parsing trailer fields is
//! left to the caller. The one rule: line ends are CR LF and nothing else, since readers that accept
//! a bare LF disagree with those that do not about where a body ends.

/// Bytes of chunk extensions in one body.
const MAX_EXTENSIONS: u32 = 16 * 1024;
/// Bytes of the trailer section.
const MAX_TRAILERS: u32 = 16 * 1024;

/// Where in a chunked body the reader stands.
#[derive(Clone, Debug)]
pub struct Chunked {
    state: State,
    /// Of the chunk being read: its size so far, then the bytes that are still to come.
    left: u64,
    extensions: u32,
    trailers: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Start,
    Size,
    SizeSpace,
    Extension,
    SizeLf,
    Data,
    DataCr,
    DataLf,
    LineStart,
    Line,
    LineLf,
    EndLf,
    End,
}

/// What some bytes of a chunked body are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Sizes, extensions, line ends.
    Framing,
    /// The body itself.
    Data,
    /// Lines of the trailer section, each with its CR LF.
    Trailer,
}

/// The next bytes of a chunked body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Piece {
    /// What they are.
    pub kind: Kind,
    /// How many they are; never 0, never more than the input had.
    pub len: usize,
}

/// The body breaks the coding's grammar or a limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed;

impl Default for Chunked {
    fn default() -> Self {
        Self { state: State::Start, left: 0, extensions: 0, trailers: 0 }
    }
}

impl Chunked {
    /// Whether the last byte of the body was read.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.state == State::End
    }

    /// Bytes of the current chunk that are still to come; a hint for the size of a read.
    #[must_use]
    pub fn left_in_chunk(&self) -> u64 {
        if self.state == State::Data { self.left } else { 0 }
    }

    /// Says what the first bytes of `input` are, and counts them as read. `None` when there is nothing
    /// to read: the input is empty or the body is over.
    ///
    /// # Errors
    ///
    /// [`Malformed`], after which the reader must not be used again.
    pub fn read(&mut self, input: &[u8]) -> Result<Option<Piece>, Malformed> {
        if input.is_empty() || self.is_done() {
            return Ok(None);
        }
        if self.state == State::Data {
            return Ok(Some(self.data(input.len())));
        }
        let kind = if self.in_trailers(input) { Kind::Trailer } else { Kind::Framing };
        let mut len = 0;
        for byte in input {
            if self.state == State::Data || self.is_done() || kind != self.kind_of(*byte) {
                break;
            }
            self.state = self.step(*byte)?;
            len += 1;
        }
        Ok(Some(Piece { kind, len }))
    }

    fn data(&mut self, available: usize) -> Piece {
        let len = usize::try_from(self.left).map_or(available, |left| left.min(available));
        self.left -= len as u64;
        if self.left == 0 {
            self.state = State::DataCr;
        }
        Piece { kind: Kind::Data, len }
    }

    fn in_trailers(&self, input: &[u8]) -> bool {
        input.first().is_some_and(|byte| self.kind_of(*byte) == Kind::Trailer)
    }

    /// What `byte` would be in this state, data aside.
    fn kind_of(&self, byte: u8) -> Kind {
        match self.state {
            State::Line | State::LineLf => Kind::Trailer,
            State::LineStart if byte != b'\r' => Kind::Trailer,
            _ => Kind::Framing,
        }
    }

    fn step(&mut self, byte: u8) -> Result<State, Malformed> {
        match (self.state, byte) {
            (State::Start | State::Size, b'0'..=b'9' | b'a'..=b'f' | b'A'..=b'F') => {
                self.grow(byte)?;
                Ok(State::Size)
            }
            (State::Size | State::SizeSpace, b' ' | b'\t') => Ok(State::SizeSpace),
            (State::Size | State::SizeSpace, b';') => Ok(State::Extension),
            (State::Size | State::SizeSpace | State::Extension, b'\r') => Ok(State::SizeLf),
            (State::Extension, _) if is_text(byte) => {
                self.extensions += 1;
                if self.extensions < MAX_EXTENSIONS { Ok(State::Extension) } else { Err(Malformed) }
            }
            (State::SizeLf, b'\n') if self.left == 0 => Ok(State::LineStart),
            (State::SizeLf, b'\n') => Ok(State::Data),
            (State::DataCr, b'\r') => Ok(State::DataLf),
            (State::DataLf, b'\n') => Ok(State::Start),
            (State::LineStart, b'\r') => Ok(State::EndLf),
            (State::EndLf, b'\n') => Ok(State::End),
            (State::LineStart | State::Line | State::LineLf, _) => self.trailer(byte),
            _ => Err(Malformed),
        }
    }

    fn grow(&mut self, digit: u8) -> Result<(), Malformed> {
        let digit = char::from(digit).to_digit(16).ok_or(Malformed)?;
        let shifted = self.left.checked_mul(16).ok_or(Malformed)?;
        self.left = shifted + u64::from(digit);
        Ok(())
    }

    fn trailer(&mut self, byte: u8) -> Result<State, Malformed> {
        self.trailers += 1;
        if self.trailers > MAX_TRAILERS {
            return Err(Malformed);
        }
        match (self.state, byte) {
            (State::LineLf, b'\n') => Ok(State::LineStart),
            (State::LineStart | State::Line, b'\r') => Ok(State::LineLf),
            (State::LineStart | State::Line, _) if is_text(byte) => Ok(State::Line),
            _ => Err(Malformed),
        }
    }
}

/// Whether a byte may stand in a line: no control characters but the tab.
fn is_text(byte: u8) -> bool {
    byte == b'\t' || (byte >= b' ' && byte != 0x7f)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Body and trailer section of `wire`, fed in steps of `step` bytes, and how much was read.
    fn read(wire: &[u8], step: usize) -> Result<(Vec<u8>, Vec<u8>, usize), Malformed> {
        let (mut body, mut trailers, mut at) = (Vec::new(), Vec::new(), 0);
        let mut reader = Chunked::default();
        for part in wire.chunks(step) {
            let mut part = part;
            while let Some(piece) = reader.read(part)? {
                let (bytes, rest) = part.split_at(piece.len);
                match piece.kind {
                    Kind::Data => body.extend_from_slice(bytes),
                    Kind::Trailer => trailers.extend_from_slice(bytes),
                    Kind::Framing => {}
                }
                at += piece.len;
                part = rest;
            }
        }
        if reader.is_done() { Ok((body, trailers, at)) } else { Err(Malformed) }
    }

    #[test]
    fn body_and_trailers_come_out_however_they_arrive() {
        let wire = b"4;name=value\r\nWiki\r\n6 \t\r\npedia \r\nE\r\nin \r\n\r\nchunks.\r\n0\r\n\
            Grpc-Status: 0\r\nx: y\r\n\r\nGET / HTTP/1.1\r\n";
        for step in 1..wire.len() {
            let (body, trailers, at) = read(wire, step).unwrap();
            assert_eq!(body, b"Wikipedia in \r\n\r\nchunks.");
            assert_eq!(trailers, b"Grpc-Status: 0\r\nx: y\r\n");
            assert_eq!(&wire[at..], b"GET / HTTP/1.1\r\n", "what follows is not ours");
        }
    }

    #[test]
    fn what_readers_disagree_about_is_refused() {
        let wires: [&[u8]; 17] = [
            b"4\nWiki\r\n0\r\n\r\n",
            b"4\r\nWiki\n0\r\n\r\n",
            b"4\r\nWikis\r\n0\r\n\r\n",
            b"0x4\r\nWiki\r\n0\r\n\r\n",
            b"-4\r\nWiki\r\n0\r\n\r\n",
            b"+4\r\nWiki\r\n0\r\n\r\n",
            b" 4\r\nWiki\r\n0\r\n\r\n",
            b"\r\n0\r\n\r\n",
            b";a\r\n0\r\n\r\n",
            b"4 4\r\nWiki\r\n0\r\n\r\n",
            b"10000000000000000\r\n",
            b"4;a\nb\r\nWiki\r\n0\r\n\r\n",
            b"4;a\0b\r\nWiki\r\n0\r\n\r\n",
            b"4\r\r\nWiki\r\n0\r\n\r\n",
            b"0\r\n\n",
            b"0\r\nx: y\n\r\n",
            b"0\r\nGET /x HTTP/1.1\rHost: a\r\n\r\n",
        ];
        for wire in wires {
            assert_eq!(read(wire, 1), Err(Malformed), "{:?}", wire.escape_ascii().to_string());
            assert_eq!(read(wire, wire.len()), Err(Malformed));
        }
    }

    #[test]
    fn the_largest_size_is_read_and_no_larger() {
        let mut reader = Chunked::default();
        assert!(reader.read(b"ffffffffffffffff\r\n").is_ok());
        assert_eq!(reader.left_in_chunk(), u64::MAX);
    }

    #[test]
    fn extensions_and_trailers_have_limits() {
        let mut wire = b"1;".to_vec();
        wire.resize(MAX_EXTENSIONS as usize + 2, b'a');
        assert_eq!(Chunked::default().read(&wire), Err(Malformed));
        let many = b"1;aaaaaaaaaaaaaaa\r\nx\r\n".repeat(1_100);
        assert_eq!(read(&many, many.len()), Err(Malformed), "the limit is the body's");
        let mut wire = b"0\r\nx: ".to_vec();
        wire.resize(MAX_TRAILERS as usize + 10, b'a');
        assert_eq!(read(&wire, wire.len()), Err(Malformed));
    }
}
