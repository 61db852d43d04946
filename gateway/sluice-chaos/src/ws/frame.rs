//! Frames of RFC 6455 section 5.2, written and read.
//!
//! The one rule: a length is bounded before it is believed.

use crate::wire::Pipe;

/// A piece of text.
pub const TEXT: u8 = 1;
/// A piece of binary data.
pub const BINARY: u8 = 2;
/// The beginning of the end.
pub const CLOSE: u8 = 8;
/// A question whether anyone is there.
pub const PING: u8 = 9;
/// The answer to a ping.
pub const PONG: u8 = 10;

/// More than any test sends in one frame.
const LONGEST: u64 = 16 * 1024 * 1024;

/// A frame as it was read, its mask taken off.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// Whether it is the last of its message.
    pub fin: bool,
    /// What it is, such as [`TEXT`].
    pub opcode: u8,
    /// What it carries.
    pub payload: Vec<u8>,
    /// Whether it came with a mask, as a client's must and a server's must not.
    pub masked: bool,
}

impl Frame {
    /// The payload as text, what is not UTF-8 replaced.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.payload).into_owned()
    }

    /// The code of a close frame, if it has one.
    pub fn close_code(&self) -> Option<u16> {
        let [high, low, ..] = *self.payload else { return None };
        (self.opcode == CLOSE).then_some(u16::from_be_bytes([high, low]))
    }
}

/// A frame that is a whole message.
pub(super) fn encode(opcode: u8, payload: &[u8], mask: Option<[u8; 4]>) -> Vec<u8> {
    let mut out = vec![0x80 | opcode];
    let bit = if mask.is_some() { 0x80 } else { 0 };
    let length = payload.len();
    match (u8::try_from(length), u16::try_from(length)) {
        (Ok(short @ ..126), _) => out.push(bit | short),
        (_, Ok(middle)) => {
            out.push(bit | 126);
            out.extend_from_slice(&middle.to_be_bytes());
        }
        _ => {
            out.push(bit | 127);
            out.extend_from_slice(&(length as u64).to_be_bytes());
        }
    }
    match mask {
        None => out.extend_from_slice(payload),
        Some(mask) => {
            out.extend_from_slice(&mask);
            out.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, key)| byte ^ key));
        }
    }
    out
}

/// Reads a frame; nothing when the connection ends, or when the length is beyond all bounds.
pub(super) async fn read(pipe: &mut Pipe) -> Option<Frame> {
    let head = exactly(pipe, 2).await?;
    let masked = head[1] & 0x80 != 0;
    let length = match head[1] & 0x7f {
        126 => number(&exactly(pipe, 2).await?),
        127 => number(&exactly(pipe, 8).await?),
        short => u64::from(short),
    };
    let length = usize::try_from(length.min(LONGEST + 1)).ok()?;
    if length as u64 > LONGEST {
        return None;
    }
    let mask = if masked { exactly(pipe, 4).await? } else { vec![0; 4] };
    let mut payload = exactly(pipe, length).await?;
    payload.iter_mut().zip(mask.iter().cycle()).for_each(|(byte, key)| *byte ^= key);
    Some(Frame { fin: head[0] & 0x80 != 0, opcode: head[0] & 0x0f, payload, masked })
}

fn number(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0, |number, byte| number << 8 | u64::from(*byte))
}

async fn exactly(pipe: &mut Pipe, wanted: usize) -> Option<Vec<u8>> {
    pipe.exactly(wanted).await.ok()?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_frames_of_the_standard() {
        // Examples of RFC 6455 section 5.7.
        assert_eq!(encode(TEXT, b"Hello", None), [0x81, 5, 0x48, 0x65, 0x6c, 0x6c, 0x6f]);
        assert_eq!(
            encode(TEXT, b"Hello", Some([0x37, 0xfa, 0x21, 0x3d])),
            [0x81, 0x85, 0x37, 0xfa, 0x21, 0x3d, 0x7f, 0x9f, 0x4d, 0x51, 0x58]
        );
        assert_eq!(encode(BINARY, &[0; 256], None)[..4], [0x82, 126, 1, 0]);
        assert_eq!(encode(BINARY, &[0; 65_536], None)[..10], [0x82, 127, 0, 0, 0, 0, 0, 1, 0, 0]);
    }
}
