//! Values by name in Redis, for what gateways have to agree about. Every call says whether Redis could say
//! anything at all; what to do without it is the caller's to know.

use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::digest;
use sluice_engine::trace::write_hex;

use super::Target;
use super::counting::{Command, Word};
use super::resp::Reply;

/// Longest wait for a value: a login has more time than a limit.
const PATIENCE: Duration = Duration::from_millis(250);

/// A name of which nobody can read what it was made of.
pub(crate) fn hidden(kind: &str, parts: &[&[u8]]) -> String {
    let mut context = digest::Context::new(&digest::SHA256);
    for part in parts {
        context.update(&part.len().to_be_bytes());
        context.update(part);
    }
    let (digest, mut hex) = (context.finish(), [0; 32]);
    write_hex(digest.as_ref().get(..16).unwrap_or_default(), &mut hex);
    format!("sluice:{kind}:{{{}}}", std::str::from_utf8(&hex).unwrap_or_default())
}

/// A line of a log: its id, and names with values.
pub(crate) type Line = (String, Vec<(String, String)>);

/// Redis could not say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Gone;

impl Target {
    pub(crate) async fn get(self: &Arc<Self>, name: &str) -> Result<Option<Vec<u8>>, Gone> {
        text(self.run(b"GET", name, &[]).await?)
    }

    pub(crate) async fn put(
        self: &Arc<Self>,
        name: &str,
        value: &[u8],
        life: Duration,
    ) -> Result<(), Gone> {
        let words = [Word::Text(value), Word::Text(b"PX"), millis(life)];
        self.run(b"SET", name, &words).await.map(|_| ())
    }

    /// Writes what is not there yet; says whether it did.
    pub(crate) async fn put_new(
        self: &Arc<Self>,
        name: &str,
        value: &[u8],
        life: Duration,
    ) -> Result<bool, Gone> {
        let words = [Word::Text(value), Word::Text(b"PX"), millis(life), Word::Text(b"NX")];
        self.run(b"SET", name, &words).await.map(|reply| reply != Reply::Nothing)
    }

    /// Writes over a value that is still `old`; says whether it was.
    pub(crate) async fn swap(
        self: &Arc<Self>,
        name: &str,
        old: &[u8],
        new: &[u8],
        life: Duration,
    ) -> Result<bool, Gone> {
        let words = [Word::Text(old), Word::Text(new), millis(life)];
        let command = self.scripts.swap(name.as_bytes(), &words);
        let reply = self.ask_within(PATIENCE, &command).await.ok_or(Gone)?;
        Ok(reply.number() == Some(1))
    }

    /// Reads a value and lets it live for so long from now.
    pub(crate) async fn touch(
        self: &Arc<Self>,
        name: &str,
        life: Duration,
    ) -> Result<Option<Vec<u8>>, Gone> {
        text(self.run(b"GETEX", name, &[Word::Text(b"PX"), millis(life)]).await?)
    }

    pub(crate) async fn remove(self: &Arc<Self>, name: &str) -> Result<(), Gone> {
        self.run(b"DEL", name, &[]).await.map(|_| ())
    }

    /// Adds a line of names and values to a log of about so many lines, which lives for so long from now.
    pub(crate) async fn append(
        self: &Arc<Self>,
        log: &str,
        most: u64,
        line: &[&str],
        life: Duration,
    ) -> Result<(), Gone> {
        let mut words = vec![Word::Text(b"MAXLEN"), Word::Text(b"~"), Word::Number(most)];
        words.push(Word::Text(b"*"));
        words.extend(line.iter().map(|word| Word::Text(word.as_bytes())));
        self.run(b"XADD", log, &words).await?;
        self.run(b"PEXPIRE", log, &[millis(life)]).await.map(|_| ())
    }

    /// Up to so many lines of a log behind the one with this id: ids, names and values.
    pub(crate) async fn lines_after(
        self: &Arc<Self>,
        log: &str,
        id: &str,
        most: u64,
    ) -> Result<Vec<Line>, Gone> {
        let after = format!("({id}");
        let words = [
            Word::Text(after.as_bytes()),
            Word::Text(b"+"),
            Word::Text(b"COUNT"),
            Word::Number(most),
        ];
        let reply = self.run(b"XRANGE", log, &words).await?;
        reply.items().iter().map(line).collect::<Option<_>>().ok_or(Gone)
    }

    async fn run(
        self: &Arc<Self>,
        command: &'static [u8],
        name: &str,
        words: &[Word<'_>],
    ) -> Result<Reply, Gone> {
        let command = Command::plain(command, name.as_bytes(), words);
        self.ask_within(PATIENCE, &command).await.ok_or(Gone)
    }
}

fn text(reply: Reply) -> Result<Option<Vec<u8>>, Gone> {
    match reply {
        Reply::Text(text) => Ok(Some(text)),
        Reply::Nothing => Ok(None),
        _ => Err(Gone),
    }
}

fn line(reply: &Reply) -> Option<Line> {
    let [id, words] = reply.items() else { return None };
    let mut words = words.items().iter().map(|word| word.text().map(str::to_owned));
    let mut line = Vec::new();
    while let Some(name) = words.next() {
        line.push((name?, words.next()??));
    }
    Some((id.text()?.to_owned(), line))
}

fn millis(span: Duration) -> Word<'static> {
    Word::Number(u64::try_from(span.as_millis()).unwrap_or(u64::MAX).max(1))
}
