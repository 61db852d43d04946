//! One file per command, and the exit codes they share: 0 fine, 1 invalid or failed, 2 wrong usage,
//! 3 warnings under `--strict`, 78 (`EX_CONFIG`, sysexits.h) a config that cannot be served.

mod admin;
mod breakers;
mod check;
mod dev_cert;
mod healthcheck;
mod key;
mod routes;
mod run;
mod table;
mod token;

use std::io::Write as _;
use std::process::ExitCode;

use clap::CommandFactory as _;

use crate::cli::{Cli, Command};

const FAILED: u8 = 1;
const USAGE: u8 = 2;
const WARNINGS: u8 = 3;
const BAD_CONFIG: u8 = 78;

/// Does what the command line asks for.
pub(crate) fn dispatch(cli: Cli) -> ExitCode {
    match cli.command {
        None => run::run(&cli.run),
        Some(Command::Run(run)) => run::run(&run),
        Some(Command::Check(args)) => check::run(&args),
        Some(Command::Routes(args)) => routes::run(&args),
        Some(Command::Schema) => schema(),
        Some(Command::Key(args)) => key::run(&args),
        Some(Command::Token(args)) => token::run(args),
        Some(Command::Breakers(args)) => breakers::list(&args),
        Some(Command::Breaker { command }) => breakers::force(&command),
        Some(Command::Healthcheck(args)) => healthcheck::run(&args),
        Some(Command::DevCert(args)) => dev_cert::run(&args),
        Some(Command::Version) => print(&format!("sluice {}\n", env!("CARGO_PKG_VERSION"))),
        Some(Command::Completions { shell }) => {
            clap_complete::generate(shell, &mut Cli::command(), "sluice", &mut std::io::stdout());
            ExitCode::SUCCESS
        }
    }
}

fn schema() -> ExitCode {
    match serde_json::to_string_pretty(&sluice_proxy::config_schema()) {
        Ok(text) => print(&format!("{text}\n")),
        Err(error) => complain(FAILED, &error.to_string()),
    }
}

/// Prints a result; a reader that is gone is no failure of ours.
fn print(text: &str) -> ExitCode {
    let _ = std::io::stdout().write_all(text.as_bytes());
    ExitCode::SUCCESS
}

/// Says what went wrong.
fn complain(code: u8, text: &str) -> ExitCode {
    let _ = writeln!(std::io::stderr(), "{}", text.trim_end());
    ExitCode::from(code)
}
