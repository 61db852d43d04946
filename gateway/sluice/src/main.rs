//! The program: reads the command line and the environment, once, and hands over to the library.

mod cli;
mod commands;
mod greeting;
mod locate;

use std::process::ExitCode;

use clap::Parser as _;

fn main() -> ExitCode {
    let cli = cli::Cli::parse();
    commands::dispatch(cli)
}
