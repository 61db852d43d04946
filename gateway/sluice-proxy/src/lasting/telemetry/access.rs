//! The access log: one JSON line per request, collected in a worker's own buffer and written by a
//! thread of its own. A request never waits for the log: when the writer cannot keep up, lines are
//! dropped and counted.

use std::fs::OpenOptions;
use std::io::Write;
use std::os::fd::AsFd as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::time::Duration;

use sluice_engine::mask::Mask;

use super::metrics::Metrics;

/// A buffer is handed over when it has grown to this many bytes.
const BATCH: usize = 32 * 1024;
/// Batches that may wait for the writer.
const QUEUE: usize = 64;
/// Longest value of one field as it is written, bytes; more is cut.
const MAX_FIELD: usize = 1024;
/// Longest line, bytes.
const MAX_LINE: usize = 8 * 1024;
/// What names, numbers and flags of a line take at most; the rest is for texts.
const FOR_NUMBERS: usize = 1024;

/// Where lines go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Output {
    Stdout,
    File(PathBuf),
}

/// A worker's end of the log.
pub(crate) struct Log {
    buffer: Vec<u8>,
    lines: u64,
    batches: SyncSender<Batch>,
    metrics: Arc<Metrics>,
}

struct Batch {
    bytes: Vec<u8>,
    lines: u64,
}

/// The writing end, one thread per output.
pub(crate) struct Writer {
    batches: SyncSender<Batch>,
    reopen: Arc<AtomicBool>,
    metrics: Arc<Metrics>,
}

// === impl Writer ===

impl Writer {
    /// Starts the writing thread.
    pub(crate) fn start(output: Output, metrics: Arc<Metrics>) -> std::io::Result<Self> {
        let (batches, waiting) = sync_channel(QUEUE);
        let reopen = Arc::new(AtomicBool::new(false));
        let flag = Arc::clone(&reopen);
        let counted = Arc::clone(&metrics);
        std::thread::Builder::new()
            .name("access-log".to_owned())
            .spawn(move || write(&output, &waiting, &flag, &counted))?;
        Ok(Self { batches, reopen, metrics })
    }

    /// A worker's end.
    pub(crate) fn log(&self) -> Log {
        Log {
            buffer: Vec::with_capacity(BATCH + 4096),
            lines: 0,
            batches: self.batches.clone(),
            metrics: Arc::clone(&self.metrics),
        }
    }

    /// Opens the file anew before the next batch, after it was rotated away.
    pub(crate) fn reopen(&self) {
        self.reopen.store(true, Ordering::Relaxed);
    }
}

fn write(output: &Output, batches: &Receiver<Batch>, reopen: &AtomicBool, metrics: &Metrics) {
    let mut sink = open(output);
    // Whether what was written last ends amid a line.
    let mut torn = false;
    loop {
        let batch = match batches.recv_timeout(Duration::from_secs(1)) {
            Ok(batch) => batch,
            Err(RecvTimeoutError::Timeout) => continue,
            Err(RecvTimeoutError::Disconnected) => return,
        };
        if reopen.swap(false, Ordering::Relaxed) || sink.is_none() {
            sink = open(output);
        }
        let written = sink.as_mut().map_or(0, |sink| put(&mut **sink, &batch.bytes, &mut torn));
        let whole = memchr::memchr_iter(b'\n', batch.bytes.get(..written).unwrap_or_default());
        let lines = u64::try_from(whole.count()).unwrap_or(u64::MAX).min(batch.lines);
        metrics.log_lines.fetch_add(lines, Ordering::Relaxed);
        if written < batch.bytes.len() {
            // A full disk or a closed pipe costs lines, never requests; the next batch tries again.
            metrics.log_dropped.fetch_add(batch.lines - lines, Ordering::Relaxed);
            sink = None;
        }
    }
}

/// Writes what can be written, and says how much that was. A line that was torn before ends first.
fn put(sink: &mut dyn Write, bytes: &[u8], torn: &mut bool) -> usize {
    if *torn {
        if !matches!(sink.write(b"\n"), Ok(1)) {
            return 0;
        }
        *torn = false;
    }
    let mut written = 0;
    while let Some(rest) = bytes.get(written..).filter(|rest| !rest.is_empty()) {
        match sink.write(rest) {
            Ok(more @ 1..) => written += more,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            _ => break,
        }
    }
    *torn = written > 0 && bytes.get(written - 1) != Some(&b'\n');
    written
}

fn open(output: &Output) -> Option<Box<dyn Write>> {
    match output {
        // Without the buffer of the standard library, which would keep what cannot be written.
        Output::Stdout => match std::io::stdout().as_fd().try_clone_to_owned() {
            Ok(descriptor) => Some(Box::new(std::fs::File::from(descriptor))),
            Err(_) => Some(Box::new(std::io::stdout())),
        },
        Output::File(path) => match OpenOptions::new().create(true).append(true).open(path) {
            Ok(file) => Some(Box::new(file)),
            Err(error) => {
                tracing::error!(path = %path.display(), %error, "cannot open the access log");
                None
            }
        },
    }
}

// === impl Log ===

impl Log {
    /// Adds one line: `fields` writes the members of the JSON object. What others wrote is masked.
    pub(crate) fn line(&mut self, mask: &Mask, fields: impl FnOnce(&mut Line<'_>)) {
        self.buffer.push(b'{');
        let mut line = Line::new(&mut self.buffer, mask);
        fields(&mut line);
        line.end();
        self.buffer.extend_from_slice(b"}\n");
        self.lines += 1;
        if self.buffer.len() >= BATCH {
            self.flush();
        }
    }

    /// Hands over what has been collected.
    pub(crate) fn flush(&mut self) {
        if self.buffer.is_empty() {
            return;
        }
        let bytes = std::mem::replace(&mut self.buffer, Vec::with_capacity(BATCH + 4096));
        let batch = Batch { bytes, lines: std::mem::take(&mut self.lines) };
        if let Err(TrySendError::Full(batch) | TrySendError::Disconnected(batch)) =
            self.batches.try_send(batch)
        {
            self.metrics.log_dropped.fetch_add(batch.lines, Ordering::Relaxed);
        }
    }
}

/// One JSON object being written.
pub(crate) struct Line<'a> {
    out: &'a mut Vec<u8>,
    mask: &'a Mask,
    start: usize,
    /// Nothing more fits into the member being written.
    full: bool,
    /// Some member is not whole.
    truncated: bool,
}

impl<'a> Line<'a> {
    /// Writes members, without the braces around them, to the end of `out`.
    pub(crate) fn new(out: &'a mut Vec<u8>, mask: &'a Mask) -> Self {
        let start = out.len();
        Self { out, mask, start, full: false, truncated: false }
    }

    /// A text of the gateway's own: words, names of the config, numbers as text.
    pub(crate) fn text(&mut self, name: &str, value: &str) {
        self.quoted(name, value.as_bytes());
    }

    /// A text that somebody else wrote; it need not be UTF-8. Control bytes and quotes cannot break the
    /// line, and what it tells of people and secrets is masked.
    pub(crate) fn foreign(&mut self, name: &str, value: &[u8]) {
        let masked = self.mask.apply(value, MAX_FIELD);
        self.truncated |= masked.truncated;
        self.quoted(name, &masked.text);
    }

    fn quoted(&mut self, name: &str, value: &[u8]) {
        self.name(name);
        self.full = false;
        self.out.push(b'"');
        let used = self.out.len() - self.start;
        let end = self.out.len() + MAX_FIELD.min((MAX_LINE - FOR_NUMBERS).saturating_sub(used));
        for chunk in value.utf8_chunks() {
            self.chars(chunk.valid(), end);
            if !chunk.invalid().is_empty() {
                self.char('\u{fffd}', end);
            }
        }
        self.truncated |= self.full;
        self.out.push(b'"');
    }

    pub(crate) fn number(&mut self, name: &str, value: u64) {
        self.name(name);
        self.out.extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
    }

    pub(crate) fn flag(&mut self, name: &str, value: bool) {
        self.name(name);
        self.out.extend_from_slice(if value { b"true" } else { b"false" });
    }

    /// A duration in milliseconds with three decimals.
    pub(crate) fn millis(&mut self, name: &str, value: Duration) {
        self.name(name);
        let micros = u64::try_from(value.as_micros()).unwrap_or(u64::MAX);
        self.out.extend_from_slice(itoa::Buffer::new().format(micros / 1000).as_bytes());
        self.out.push(b'.');
        let rest = micros % 1000;
        for digit in [rest / 100, rest / 10 % 10, rest % 10] {
            self.out.push(b'0' + u8::try_from(digit).unwrap_or(0));
        }
    }

    /// Says whether something is missing in it.
    pub(crate) fn end(mut self) {
        if self.truncated {
            self.flag("truncated", true);
        }
    }

    fn name(&mut self, name: &str) {
        if self.out.len() > self.start {
            self.out.push(b',');
        }
        self.out.push(b'"');
        self.out.extend_from_slice(name.as_bytes());
        self.out.extend_from_slice(b"\":");
    }

    fn chars(&mut self, text: &str, end: usize) {
        let odd = text.bytes().position(|byte| !is_plain(byte)).unwrap_or(text.len());
        let (plain, rest) = text.split_at_checked(odd).unwrap_or((text, ""));
        let room = end.saturating_sub(self.out.len());
        if self.full {
            return;
        }
        self.full = plain.len() > room;
        self.out.extend_from_slice(plain.as_bytes().get(..room).unwrap_or(plain.as_bytes()));
        for c in rest.chars() {
            self.char(c, end);
        }
    }

    /// Writes a character if it fits, and nothing behind one that does not.
    fn char(&mut self, c: char, end: usize) {
        let mut buffer = [0; 6];
        let written: &[u8] = match c {
            '"' => b"\\\"",
            '\\' => b"\\\\",
            '\u{0}'..='\u{1f}' | '\u{7f}'..='\u{9f}' | '\u{2028}' | '\u{2029}' => {
                let _ = write!(buffer.as_mut_slice(), "\\u{:04x}", u32::from(c));
                &buffer
            }
            _ => c.encode_utf8(&mut buffer).as_bytes(),
        };
        self.full |= self.out.len() + written.len() > end;
        if !self.full {
            self.out.extend_from_slice(written);
        }
    }
}

/// Whether a byte stands for itself in JSON and on a terminal.
fn is_plain(byte: u8) -> bool {
    matches!(byte, b' '..=b'~') && byte != b'"' && byte != b'\\'
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn mask() -> Mask {
        Mask::new([], Box::new(|_| 1))
    }

    fn written(fields: impl FnOnce(&mut Line<'_>)) -> String {
        let (mut out, mask) = (Vec::new(), mask());
        let mut line = Line::new(&mut out, &mask);
        fields(&mut line);
        line.end();
        format!("{{{}}}", String::from_utf8(out).unwrap())
    }

    fn parsed(text: &str) -> serde_json::Value {
        serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
    }

    #[test]
    fn log_injection_is_impossible() {
        let text = written(|line| {
            line.foreign("ua", b"a\r\n\"\x1b[31m\\\xff\xe2\x80\xa8");
            line.number("n", 7);
            line.millis("t", Duration::from_micros(1_234_567));
        });
        assert!(text.bytes().all(|b| b >= b' '), "{text}");
        let parsed = parsed(&text);
        assert_eq!(parsed["ua"], "a\r\n\"\u{1b}[31m\\\u{fffd}\u{2028}");
        assert_eq!(parsed["t"].as_f64(), Some(1234.567));
        assert_eq!(parsed.get("truncated"), None);
    }

    #[test]
    fn what_others_wrote_is_masked_and_what_is_ours_is_not() {
        let line = parsed(&written(|line| {
            line.foreign("path", b"/u/13812341234");
            line.foreign("query", b"token=abc");
            line.text("trace_id", "13812341234");
        }));
        assert_eq!(
            (&line["path"], &line["query"]),
            (&"/u/138****1234".into(), &"token=***".into())
        );
        assert_eq!(line["trace_id"], "13812341234");
    }

    #[test]
    fn long_texts_and_lines_are_cut_and_say_so() {
        for text in ["x".repeat(5000), "\u{7}".repeat(5000), "\u{4e2d}".repeat(5000)] {
            let line = written(|line| {
                for name in ["a", "b", "c", "d", "e", "f", "g", "h", "i", "j"] {
                    line.foreign(name, text.as_bytes());
                }
                line.text("k", "");
                line.number("n", u64::MAX);
            });
            assert!(line.len() <= MAX_LINE, "{} bytes", line.len());
            let line = parsed(&line);
            assert_eq!(
                (line["truncated"].as_bool(), line["n"].as_u64()),
                (Some(true), Some(u64::MAX))
            );
            assert!(line["a"].as_str().is_some_and(|a| a.len() > 100 && a.len() <= MAX_FIELD));
        }
        // One field that is cut does not silence the next.
        let line = parsed(&written(|line| {
            line.foreign("a", &[b'x'; 5000]);
            line.foreign("b", "\u{e9}".as_bytes());
        }));
        assert_eq!(line["b"], "\u{e9}");
    }

    proptest! {
        /// Shows S-03 beside the sockets.
        #[test]
        fn any_bytes_are_one_line_of_json(
            a in any::<Vec<u8>>(),
            b in proptest::collection::vec(any::<u8>(), 900..1200),
        ) {
            let text = written(|line| {
                line.foreign("a", &a);
                line.foreign("b", &b);
                line.flag("c", true);
            });
            let breaks = |c: char| c.is_control() || matches!(c, '\u{2028}' | '\u{2029}');
            prop_assert!(!text.contains(breaks));
            let line = parsed(&text);
            prop_assert_eq!(line["c"].as_bool(), Some(true));
            prop_assert!(line["a"].is_string() && line["b"].is_string());
        }
    }

    /// Takes so many bytes and then no more.
    struct Full(Vec<u8>, usize);

    impl Write for Full {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            let room = self.1.saturating_sub(self.0.len()).min(bytes.len());
            self.0.extend_from_slice(&bytes[..room]);
            if room == 0 { Err(std::io::ErrorKind::StorageFull.into()) } else { Ok(room) }
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_line_that_a_full_disk_tore_does_not_spoil_the_next() {
        let (mut disk, mut torn) = (Full(Vec::new(), 7), false);
        assert_eq!((put(&mut disk, b"one\ntwo\n", &mut torn), torn), (7, true));
        assert_eq!((put(&mut disk, b"three\n", &mut torn), torn), (0, true));
        disk.1 = 100;
        assert_eq!((put(&mut disk, b"four\n", &mut torn), torn), (5, false));
        assert_eq!(disk.0, b"one\ntwo\nfour\n");
    }

    #[test]
    fn a_stuck_writer_costs_lines_and_is_counted() {
        let metrics = Arc::new(Metrics::new(1));
        let (batches, stuck) = sync_channel(1);
        let mut log = Log { buffer: Vec::new(), lines: 0, batches, metrics: Arc::clone(&metrics) };
        for _ in 0..3 {
            log.line(&mask(), |line| line.flag("x", true));
            log.flush();
        }
        assert_eq!(metrics.log_dropped.load(Ordering::Relaxed), 2);
        assert_eq!(stuck.recv().unwrap().bytes, b"{\"x\":true}\n");
    }
}
