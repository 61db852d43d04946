//! `sluice run`: serves until told to stop.

use std::io::Write as _;
use std::process::ExitCode;

use sluice_proxy::{Options, RunError};

use super::{BAD_CONFIG, FAILED, USAGE, complain};
use crate::log::NoLog;
use crate::{cli, greeting, hardening, locate, log};

pub(super) fn run(args: &cli::Run) -> ExitCode {
    let journal = match log::start(&args.log) {
        Ok(journal) => journal,
        Err(NoLog::Filter(error)) => {
            return complain(USAGE, &format!("--log {}: {error}", args.log));
        }
        Err(NoLog::System(error)) => return complain(FAILED, &format!("error: no log: {error}")),
    };
    hardening::harden();
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let options = Options {
        origin: locate::origin(&args.config),
        environment: locate::environment(),
        workers: args.workers.unwrap_or(cores),
        takeover: args.takeover,
    };
    let outcome = sluice_proxy::run(options, |started| {
        let mut stderr = std::io::stderr();
        let _ = stderr.write_all(started.warnings.as_bytes());
        let _ = stderr.write_all(greeting::text(started).as_bytes());
    });
    journal.flush();
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(RunError::Config(problems)) => complain(BAD_CONFIG, &problems),
        Err(RunError::System(error)) => complain(FAILED, &format!("error: {error}")),
    }
}
