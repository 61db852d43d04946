//! The access log: one JSON line per request, collected in a worker's own buffer and written by a
//! thread of its own. A request never waits for the log: when the writer cannot keep up, lines are
//! dropped and counted.

use std::fs::OpenOptions;
use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::time::Duration;

use super::metrics::Metrics;

/// A buffer is handed over when it has grown to this many bytes.
const BATCH: usize = 32 * 1024;
/// Batches that may wait for the writer.
const QUEUE: usize = 64;
/// Longest value of one field, bytes; more is cut.
const MAX_FIELD: usize = 1024;

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
    loop {
        let batch = match batches.recv_timeout(Duration::from_secs(1)) {
            Ok(batch) => batch,
            Err(RecvTimeoutError::Timeout) => continue,
            Err(RecvTimeoutError::Disconnected) => return,
        };
        if reopen.swap(false, Ordering::Relaxed) || sink.is_none() {
            sink = open(output);
        }
        let written = sink.as_mut().is_some_and(|sink| sink.write_all(&batch.bytes).is_ok());
        if written {
            metrics.log_lines.fetch_add(batch.lines, Ordering::Relaxed);
        } else {
            // A full disk or a closed pipe costs lines, never requests; the next batch tries again.
            metrics.log_dropped.fetch_add(batch.lines, Ordering::Relaxed);
            sink = None;
        }
    }
}

fn open(output: &Output) -> Option<Box<dyn Write>> {
    match output {
        Output::Stdout => Some(Box::new(std::io::stdout())),
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
    /// Adds one line: `fields` writes the members of the JSON object.
    pub(crate) fn line(&mut self, fields: impl FnOnce(&mut Line<'_>)) {
        self.buffer.push(b'{');
        fields(&mut Line { out: &mut self.buffer, first: true });
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
    first: bool,
}

impl Line<'_> {
    /// A text member; control bytes, quotes and invalid UTF-8 cannot break the line.
    pub(crate) fn text(&mut self, name: &str, value: &str) {
        self.bytes(name, value.as_bytes());
    }

    /// A text member from bytes that need not be UTF-8.
    pub(crate) fn bytes(&mut self, name: &str, value: &[u8]) {
        self.name(name);
        self.out.push(b'"');
        let cut = value.get(..MAX_FIELD).unwrap_or(value);
        for chunk in cut.utf8_chunks() {
            chunk.valid().chars().for_each(|c| self.char(c));
            if !chunk.invalid().is_empty() {
                self.out.extend_from_slice(b"\\ufffd");
            }
        }
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

    fn name(&mut self, name: &str) {
        if !std::mem::take(&mut self.first) {
            self.out.push(b',');
        }
        self.out.push(b'"');
        self.out.extend_from_slice(name.as_bytes());
        self.out.extend_from_slice(b"\":");
    }

    fn char(&mut self, c: char) {
        match c {
            '"' => self.out.extend_from_slice(b"\\\""),
            '\\' => self.out.extend_from_slice(b"\\\\"),
            '\u{0}'..='\u{1f}' | '\u{7f}'..='\u{9f}' | '\u{2028}' | '\u{2029}' => {
                let _ = write!(self.out, "\\u{:04x}", u32::from(c));
            }
            _ => self.out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn log_injection_is_impossible() {
        let mut out = Vec::new();
        let mut line = Line { out: &mut out, first: true };
        line.bytes("ua", b"a\r\n\"\x1b[31m\\\xff\xe2\x80\xa8");
        line.number("n", 7);
        line.millis("t", Duration::from_micros(1_234_567));
        let text = format!("{{{}}}", String::from_utf8(out).unwrap());
        assert!(text.bytes().all(|b| b >= b' '), "{text}");
        let parsed: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(parsed["ua"], "a\r\n\"\u{1b}[31m\\\u{fffd}\u{2028}");
        assert_eq!(parsed["t"].as_f64(), Some(1234.567));
    }

    #[test]
    fn a_stuck_writer_costs_lines_and_is_counted() {
        let metrics = Arc::new(Metrics::new(1));
        let (batches, stuck) = sync_channel(1);
        let mut log = Log { buffer: Vec::new(), lines: 0, batches, metrics: Arc::clone(&metrics) };
        for _ in 0..3 {
            log.line(|line| line.flag("x", true));
            log.flush();
        }
        assert_eq!(metrics.log_dropped.load(Ordering::Relaxed), 2);
        assert_eq!(stuck.recv().unwrap().bytes, b"{\"x\":true}\n");
    }
}
