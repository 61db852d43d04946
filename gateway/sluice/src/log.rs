//! Sets up the gateway's own log: for people on a terminal, one JSON object per line for machines.
//! Everything that goes to standard error while the gateway serves goes through here, panics too, so
//! that nothing is written unmasked and nobody waits for who reads it.

use std::io::{IsTerminal as _, Write};
use std::panic::PanicHookInfo;
use std::sync::Arc;

use sluice_proxy::Journal;
use tracing::Metadata;
use tracing::callsite::Identifier;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;

/// Longest text of a panic that is logged.
const MAX_PANIC: usize = 300;

/// Why there is no log.
#[derive(Debug)]
pub(crate) enum NoLog {
    /// What the operator asked for cannot be understood.
    Filter(String),
    /// The system does not give what is needed.
    System(std::io::Error),
}

/// Starts logging to standard error.
pub(crate) fn start(filter: &str) -> Result<Arc<Journal>, NoLog> {
    let filter = EnvFilter::builder().parse(filter);
    let filter = filter.map_err(|error| NoLog::Filter(error.to_string()))?;
    let journal = Arc::new(Journal::start(std::io::stderr()).map_err(NoLog::System)?);
    let out = Out(Arc::clone(&journal));
    let builder = tracing_subscriber::fmt().with_writer(out).with_env_filter(filter);
    if std::io::stderr().is_terminal() {
        builder.with_target(false).init();
    } else {
        builder.json().init();
    }
    std::panic::set_hook(Box::new(tell));
    Ok(journal)
}

/// A panic as one line. The text may quote what a client sent: what stands in quotes is not told.
fn tell(panic: &PanicHookInfo<'_>) {
    let text = panic.payload_as_str().unwrap_or("?");
    let place = panic.location().map_or_else(String::new, ToString::to_string);
    let thread = std::thread::current();
    let thread = thread.name().unwrap_or("?");
    tracing::error!(thread, place, "panic: {}", without_quotes(text));
}

fn without_quotes(text: &str) -> String {
    let mut quote = None;
    let told = text.chars().filter(|&c| match quote {
        Some(open) if open == c => {
            quote = None;
            true
        }
        Some(_) => false,
        None => {
            quote = matches!(c, '`' | '"' | '\'').then_some(c);
            true
        }
    });
    told.take(MAX_PANIC).collect()
}

struct Out(Arc<Journal>);

/// The writer of one event.
struct Event<'a> {
    journal: &'a Journal,
    /// Where in the code it was said.
    place: Option<Identifier>,
}

impl<'a> MakeWriter<'a> for Out {
    type Writer = Event<'a>;

    fn make_writer(&'a self) -> Self::Writer {
        Event { journal: &self.0, place: None }
    }

    fn make_writer_for(&'a self, event: &Metadata<'_>) -> Self::Writer {
        Event { journal: &self.0, place: Some(event.callsite()) }
    }
}

impl Write for Event<'_> {
    /// Is given an event's line as a whole.
    fn write(&mut self, line: &[u8]) -> std::io::Result<usize> {
        if let Some(place) = &self.place {
            self.journal.line(place.clone(), line);
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_does_not_quote() {
        let text = "byte index 3 is not a char boundary; it is inside 'é' of `/u?token=abc`";
        assert_eq!(
            without_quotes(text),
            "byte index 3 is not a char boundary; it is inside '' of ``"
        );
        assert_eq!(without_quotes("an open `quote"), "an open `");
        assert_eq!(without_quotes(&"x".repeat(1000)).len(), MAX_PANIC);
    }
}
