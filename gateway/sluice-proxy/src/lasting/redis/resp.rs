//! The Redis protocol, version 2: commands as bytes, and bytes as replies. No IO.
//!
//! Replies come from a server that may be another one than was meant: every length is bounded, and what
//! breaks a bound is [`Garbled`], which costs the connection.

/// Longest text in a reply.
const TEXT: usize = 64 * 1024;
/// Most items of one list. A cluster of a thousand nodes names fewer.
const ITEMS: usize = 16 * 1024;
/// Lists within lists.
const DEPTH: usize = 5;
/// Longest line: a number, a status or an error.
const LINE: usize = 4 * 1024;

/// What a server says to one command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Reply {
    Nothing,
    Number(i64),
    Text(Vec<u8>),
    /// A refusal; its first word says the kind.
    Error(String),
    Items(Vec<Self>),
}

/// What came is no reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Garbled;

impl Reply {
    pub(super) fn text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => std::str::from_utf8(text).ok(),
            _ => None,
        }
    }

    pub(super) fn number(&self) -> Option<u64> {
        match self {
            Self::Number(number) => u64::try_from(*number).ok(),
            _ => None,
        }
    }

    pub(super) fn items(&self) -> &[Self] {
        match self {
            Self::Items(items) => items,
            _ => &[],
        }
    }
}

/// The head of a command of so many words.
pub(super) fn words(count: usize, out: &mut Vec<u8>) {
    head(b'*', count, out);
}

/// One word of a command.
pub(super) fn word(word: &[u8], out: &mut Vec<u8>) {
    head(b'$', word.len(), out);
    out.extend_from_slice(word);
    out.extend_from_slice(b"\r\n");
}

/// A number as a word of a command.
pub(super) fn number(number: u64, out: &mut Vec<u8>) {
    word(itoa::Buffer::new().format(number).as_bytes(), out);
}

fn head(kind: u8, count: usize, out: &mut Vec<u8>) {
    out.push(kind);
    out.extend_from_slice(itoa::Buffer::new().format(count).as_bytes());
    out.extend_from_slice(b"\r\n");
}

/// The first reply in `bytes` and its length, or nothing while it is not whole.
pub(super) fn reply(bytes: &[u8]) -> Result<Option<(Reply, usize)>, Garbled> {
    let mut reader = Reader { bytes, at: 0 };
    Ok(reader.reply(DEPTH)?.map(|reply| (reply, reader.at)))
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn reply(&mut self, depth: usize) -> Result<Option<Reply>, Garbled> {
        let Some(line) = self.line()? else { return Ok(None) };
        let (kind, rest) = line.split_first().ok_or(Garbled)?;
        let reply = match kind {
            b'+' => Reply::Text(rest.to_vec()),
            b'-' => Reply::Error(String::from_utf8_lossy(rest).into_owned()),
            b':' => Reply::Number(whole(rest)?),
            b'$' => match length(rest, TEXT)? {
                None => Reply::Nothing,
                Some(length) => match self.text(length)? {
                    None => return Ok(None),
                    Some(text) => Reply::Text(text.to_vec()),
                },
            },
            b'*' => match length(rest, ITEMS)? {
                None => Reply::Nothing,
                Some(length) => {
                    let Some(depth) = depth.checked_sub(1) else { return Err(Garbled) };
                    let mut items = Vec::with_capacity(length.min(16));
                    for _ in 0..length {
                        let Some(item) = self.reply(depth)? else { return Ok(None) };
                        items.push(item);
                    }
                    Reply::Items(items)
                }
            },
            _ => return Err(Garbled),
        };
        Ok(Some(reply))
    }

    fn line(&mut self) -> Result<Option<&'a [u8]>, Garbled> {
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        let Some(end) = memchr::memchr(b'\n', rest) else {
            return if rest.len() > LINE { Err(Garbled) } else { Ok(None) };
        };
        self.at += end + 1;
        let line = rest.get(..end).and_then(|line| line.strip_suffix(b"\r")).ok_or(Garbled)?;
        Ok(Some(line))
    }

    fn text(&mut self, length: usize) -> Result<Option<&'a [u8]>, Garbled> {
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        let Some((text, end)) = rest.get(..length + 2).map(|whole| whole.split_at(length)) else {
            return Ok(None);
        };
        self.at += length + 2;
        if end == b"\r\n" { Ok(Some(text)) } else { Err(Garbled) }
    }
}

fn whole(digits: &[u8]) -> Result<i64, Garbled> {
    std::str::from_utf8(digits).ok().and_then(|text| text.parse().ok()).ok_or(Garbled)
}

/// A length, or nothing for -1.
fn length(digits: &[u8], most: usize) -> Result<Option<usize>, Garbled> {
    match whole(digits)? {
        -1 => Ok(None),
        length => usize::try_from(length).ok().filter(|&n| n <= most).ok_or(Garbled).map(Some),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replies_are_read_when_they_are_whole_and_not_before() {
        let text = |text: &str| Reply::Text(text.as_bytes().to_vec());
        let inner = vec![Reply::Nothing, Reply::Number(-3), Reply::Nothing];
        let error = Reply::Error("MOVED 1 a:2".to_owned());
        let whole = Reply::Items(vec![text("OK"), Reply::Items(inner), text("a\r\nb"), error]);
        let bytes = b"*4\r\n+OK\r\n*3\r\n$-1\r\n:-3\r\n*-1\r\n$4\r\na\r\nb\r\n-MOVED 1 a:2\r\n";
        for end in 0..bytes.len() {
            assert_eq!(reply(&bytes[..end]), Ok(None), "{end}");
        }
        let mut more = bytes.to_vec();
        more.extend_from_slice(b":1\r\n");
        assert_eq!(reply(&more), Ok(Some((whole, bytes.len()))));
    }

    #[test]
    fn what_is_no_reply_is_garbled() {
        for bytes in [
            &b"HTTP/1.1 400\r\n"[..],
            b"\r\n",
            b":12x\r\n",
            b":1\n",
            b"$3\r\nabcd\r\n",
            b"$-2\r\n",
            b"$65537\r\n",
            b"*16385\r\n",
            b"*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n",
            b":99999999999999999999\r\n",
        ] {
            assert_eq!(reply(bytes), Err(Garbled), "{}", String::from_utf8_lossy(bytes));
        }
        assert_eq!(reply(&[b'+'; LINE + 2]), Err(Garbled));
    }

    #[test]
    fn commands_are_lists_of_texts() {
        let mut out = Vec::new();
        words(3, &mut out);
        word(b"SET", &mut out);
        word(b"a\r\n", &mut out);
        number(12, &mut out);
        assert_eq!(out, b"*3\r\n$3\r\nSET\r\n$3\r\na\r\n\r\n$2\r\n12\r\n");
    }
}
