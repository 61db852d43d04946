//! The program: reads the command line and the environment, once, and hands over to the library.

mod cli;
mod commands;
mod greeting;
mod hardening;
mod locate;
mod log;

use std::process::ExitCode;

use clap::Parser as _;

/// Idle connections hold almost nothing, but that only helps if what they held goes back to the system:
/// docs/decisions/0006-jemalloc.md has the figures.
#[cfg(feature = "jemalloc")]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    let cli = cli::Cli::parse();
    commands::dispatch(cli)
}
