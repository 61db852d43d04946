//! One mechanism of the engine, so many times: `hot NAME COUNT`. `cargo xtask budget` counts the
//! instructions of it. Without words it names them.

#[path = "../../../benches/benches/engine/mechanisms.rs"]
mod mechanisms;

use std::process::ExitCode;

#[expect(clippy::print_stdout, clippy::print_stderr, reason = "a program of the command line")]
fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let all = mechanisms::all();
    let (name, count) = match words.as_slice() {
        [] => {
            all.iter().for_each(|mechanism| println!("{}", mechanism.name));
            return ExitCode::SUCCESS;
        }
        [name, count] => (name, count.parse::<u64>().ok()),
        _ => (&String::new(), None),
    };
    let found = all.iter().find(|mechanism| mechanism.name == *name);
    let (Some(mechanism), Some(count)) = (found, count) else {
        eprintln!("usage: hot NAME COUNT");
        return ExitCode::from(2);
    };
    let mut step = (mechanism.prepare)();
    for _ in 0..count {
        step();
    }
    ExitCode::SUCCESS
}
