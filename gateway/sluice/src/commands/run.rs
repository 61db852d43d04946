//! `sluice run`: serves until told to stop.

use std::io::{IsTerminal as _, Write as _};
use std::process::ExitCode;

use sluice_proxy::{Options, RunError};
use tracing_subscriber::EnvFilter;

use super::{BAD_CONFIG, FAILED, USAGE, complain};
use crate::{cli, greeting, locate};

pub(super) fn run(args: &cli::Run) -> ExitCode {
    if let Err(error) = log_to_stderr(&args.log) {
        return complain(USAGE, &format!("--log {}: {error}", args.log));
    }
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let options = Options {
        origin: locate::origin(&args.config),
        environment: locate::environment(),
        workers: args.workers.unwrap_or(cores),
    };
    let outcome = sluice_proxy::run(options, |started| {
        let mut stderr = std::io::stderr();
        let _ = stderr.write_all(started.warnings.as_bytes());
        let _ = stderr.write_all(greeting::text(started).as_bytes());
    });
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(RunError::Config(problems)) => complain(BAD_CONFIG, &problems),
        Err(RunError::System(error)) => complain(FAILED, &format!("error: {error}")),
    }
}

/// For people on a terminal, one JSON object per line for machines.
fn log_to_stderr(filter: &str) -> Result<(), tracing_subscriber::filter::ParseError> {
    let filter = EnvFilter::builder().parse(filter)?;
    let builder = tracing_subscriber::fmt().with_writer(std::io::stderr).with_env_filter(filter);
    if std::io::stderr().is_terminal() {
        builder.with_target(false).init();
    } else {
        builder.json().init();
    }
    Ok(())
}
