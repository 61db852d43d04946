//! The gateway's own log on its way out: masked, bounded, and written by a thread of its own. Nobody
//! waits for it: a reader that stands still or is gone costs lines, which are counted.
//!
//! What is said again and again by one place of the code is left out for the rest of a second; the next
//! line of that place says how many were. The one rule: a line leaves here whole or not at all.

use std::collections::HashMap;
use std::io::Write;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use sluice_engine::mask::Mask;
use tracing::callsite::Identifier;

use super::privacy;
use crate::base::clock::{self, Moment};

/// Lines a second that one place of the code may write.
const OF_ONE: u32 = 100;
/// Lines a second in all.
const OF_ALL: u32 = 1_000;
/// Lines that may wait for the writer.
const QUEUE: usize = 4_096;
/// Longest line, bytes: a hundred problems of a config with the lines around them.
const MAX_LINE: usize = 256 * 1024;
/// How long the end of the program waits for the last lines.
const LAST_WORDS: Duration = Duration::from_millis(500);
const SECOND: Duration = Duration::from_secs(1);

/// Lines left out because their place or all places together said too much.
static REPEATED: AtomicU64 = AtomicU64::new(0);
/// Lines lost because they could not be written.
static LOST: AtomicU64 = AtomicU64::new(0);

/// Lines that are missing in this process's log, by why.
pub(crate) fn missing() -> [(&'static str, u64); 2] {
    [("repeated", REPEATED.load(Ordering::Relaxed)), ("unwritten", LOST.load(Ordering::Relaxed))]
}

/// The way out of the gateway's own log.
pub struct Journal {
    entries: SyncSender<Entry>,
    mask: Mask,
    quotas: Mutex<Quotas>,
}

enum Entry {
    Line(Vec<u8>),
    /// Answered when all that came before has been tried.
    Flush(SyncSender<()>),
}

impl Journal {
    /// Starts the thread that writes to `out`.
    ///
    /// # Errors
    ///
    /// The system has no thread for it.
    pub fn start(out: impl Write + Send + 'static) -> std::io::Result<Self> {
        let (entries, waiting) = sync_channel(QUEUE);
        std::thread::Builder::new().name("log".to_owned()).spawn(move || write(out, &waiting))?;
        Ok(Self { entries, mask: privacy::mask([], None), quotas: Mutex::default() })
    }

    /// Takes a whole line, with its end, from one place of the code.
    pub fn line(&self, place: Identifier, line: &[u8]) {
        let now = clock::now();
        // Held for a look into a small map.
        let verdict = self.quotas.lock().unwrap_or_else(PoisonError::into_inner).admit(place, now);
        let Some(left_out) = verdict else {
            REPEATED.fetch_add(1, Ordering::Relaxed);
            return;
        };
        let line = counted(&self.mask.apply(line, MAX_LINE).text, left_out);
        if let Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) =
            self.entries.try_send(Entry::Line(line))
        {
            LOST.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Waits until what was said is written, but not for long.
    pub fn flush(&self) {
        let (done, written) = sync_channel(1);
        if self.entries.try_send(Entry::Flush(done)).is_ok() {
            let _ = written.recv_timeout(LAST_WORDS);
        }
    }
}

/// With the number of lines that were left out before it, where there were any.
fn counted(line: &[u8], left_out: u64) -> Vec<u8> {
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    let mut out = Vec::with_capacity(line.len() + 32);
    match (left_out, line.strip_suffix(b"}")) {
        (0, _) => out.extend_from_slice(line),
        (_, Some(object)) if line.starts_with(b"{") => {
            out.extend_from_slice(object);
            let _ = write!(out, ",\"left_out\":{left_out}}}");
        }
        _ => {
            out.extend_from_slice(line);
            let _ = write!(out, " left_out={left_out}");
        }
    }
    out.push(b'\n');
    out
}

fn write(mut out: impl Write, entries: &Receiver<Entry>) {
    while let Ok(entry) = entries.recv() {
        match entry {
            Entry::Line(line) => {
                if out.write_all(&line).and_then(|()| out.flush()).is_err() {
                    LOST.fetch_add(1, Ordering::Relaxed);
                }
            }
            Entry::Flush(done) => {
                let _ = done.try_send(());
            }
        }
    }
}

/// Who has said how much in this second.
#[derive(Default)]
struct Quotas {
    /// As many as there are places in the code.
    places: HashMap<Identifier, Quota>,
    all: Quota,
}

#[derive(Default)]
struct Quota {
    since: Option<Moment>,
    said: u32,
    left_out: u64,
}

impl Quotas {
    /// How many lines of this place were left out before this one; `None` if this one is, too.
    fn admit(&mut self, place: Identifier, now: Moment) -> Option<u64> {
        let quota = self.places.entry(place).or_default();
        if quota.has_room(OF_ONE, now) && self.all.has_room(OF_ALL, now) {
            quota.said += 1;
            self.all.said += 1;
            Some(std::mem::take(&mut quota.left_out))
        } else {
            quota.left_out += 1;
            None
        }
    }
}

impl Quota {
    fn has_room(&mut self, most: u32, now: Moment) -> bool {
        if self.since.is_none_or(|since| now.saturating_since(since) >= SECOND) {
            (self.since, self.said) = (Some(now), 0);
        }
        self.said < most
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    fn place() -> Identifier {
        use tracing::Callsite as _;
        tracing::callsite! { name: "a place", kind: tracing::metadata::Kind::EVENT, fields: x }
            .metadata()
            .callsite()
    }

    #[derive(Clone, Default)]
    struct Paper(Arc<Mutex<Vec<u8>>>);

    impl Write for Paper {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_place_has_so_many_lines_a_second_and_says_what_it_left_out() {
        let mut quotas = Quotas::default();
        let at = |millis: u64| Moment::from_nanos(millis * 1_000_000);
        for n in 0..OF_ONE {
            assert_eq!(quotas.admit(place(), at(u64::from(n))), Some(0));
        }
        for _ in 0..7 {
            assert_eq!(quotas.admit(place(), at(500)), None);
        }
        assert_eq!(quotas.admit(place(), at(1000)), Some(7));
        assert_eq!(quotas.admit(place(), at(1001)), Some(0));
    }

    #[test]
    fn lines_are_masked_and_counted_in_both_forms() {
        assert_eq!(counted(b"{\"a\":1}\n", 3), b"{\"a\":1,\"left_out\":3}\n");
        assert_eq!(counted(b"{\"a\":1}\n", 0), b"{\"a\":1}\n");
        assert_eq!(counted(b"WARN x\n", 3), b"WARN x left_out=3\n");
        let paper = Paper::default();
        let journal = Journal::start(paper.clone()).unwrap();
        journal.line(place(), b"{\"message\":\"token=abc\"}\n");
        journal.flush();
        assert_eq!(*paper.0.lock().unwrap(), b"{\"message\":\"token=***\"}\n");
    }
}
