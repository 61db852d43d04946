//! The benchmark harness: Sluice beside other proxies, on one core each, in interleaved rounds.
//!
//! Holds the verbs (a run, and what a run starts: back ends and load) and the environment. `workloads` is
//! the table of what is asked, `peers` knows the proxies, `cell` measures one of them once, `rounds`
//! does it in turn, `report` tells. The one rule: figures are compared within one run only.
#![expect(
    clippy::disallowed_methods,
    reason = "the bans guard the gateway's invented time; a measurement needs the true one"
)]
#![expect(clippy::print_stdout, reason = "the program's output")]
#![expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "figures of a report are rounded anyway"
)]

mod account;
mod backend;
mod calls;
mod cell;
mod child;
mod failure;
mod generator;
mod ground;
mod histogram;
mod load;
mod machine;
mod options;
mod peers;
mod probe;
mod report;
mod request;
mod rounds;
mod slices;
mod stand;
mod stats;
mod workloads;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use failure::{Failure, Outcome};
use options::Options;

/// Where reports and the files of cells go, below the current folder.
const FOLDER: &str = "target/bench";
/// Where the tables go that are shown to everybody.
const PAGE: &str = "docs/performance.md";

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let done = match words.as_slice() {
        [verb, address, count] if verb == "backend" => serve(backend::serve, address, count),
        [verb, address, count] if verb == "grpc" => serve(backend::grpc::serve, address, count),
        [verb, job] if verb == "load" => generator::run(job),
        [word] if word == "--help" => {
            println!("{}", options::USAGE);
            Ok(())
        }
        _ => run(&words),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure(why)) => {
            eprintln!("bench: {why}");
            ExitCode::FAILURE
        }
    }
}

/// A back end on one address, and its count on another.
fn serve(backend: fn(SocketAddr) -> Outcome<()>, address: &str, count: &str) -> Outcome<()> {
    backend::count::tell(at(count)?)?;
    backend(at(address)?)
}

fn at(address: &str) -> Outcome<SocketAddr> {
    address.parse().map_err(|_| Failure(format!("`{address}` is no address")))
}

fn run(words: &[String]) -> Outcome<()> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let find = |program: &str| {
        std::env::split_paths(&path).map(|folder| folder.join(program)).find(|at| at.is_file())
    };
    let options = Options::read(words, find)?;
    if options.list {
        for workload in &options.workloads {
            println!("{:<16} {}", workload.name, workload.title);
        }
        return Ok(());
    }
    let folder = absolute(Path::new(FOLDER))?;
    let harness = std::env::current_exe()?;
    let machine = machine::Machine::look(&options.peers);
    let table = rounds::measure(&options, &folder, &harness, |line| println!("{line}"))?;
    let report = report::Report::new(&options, machine, table);
    report.write(&folder)?;
    println!("\n{}", report.markdown());
    if options.write_docs {
        report.write_docs(Path::new(PAGE))?;
    }
    println!("written to {}/report.md and report.json", folder.display());
    report.verdict()
}

fn absolute(folder: &Path) -> Outcome<PathBuf> {
    std::fs::create_dir_all(folder).map_err(Failure::at(folder))?;
    folder.canonicalize().map_err(Failure::at(folder))
}
