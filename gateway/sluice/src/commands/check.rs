//! `sluice check`: compiles a config as `run` does, and reports every problem.

use std::process::ExitCode;

use super::{FAILED, WARNINGS, complain, print};
use crate::{cli, locate};

pub(super) fn run(args: &cli::Check) -> ExitCode {
    let checked = match sluice_proxy::check(&locate::origin(&args.config), &locate::environment()) {
        Ok(checked) => checked,
        Err(rejected) => return complain(FAILED, &rejected.to_string()),
    };
    let routes = checked.routes().len();
    if !checked.warnings.is_empty() {
        let code = if args.strict { WARNINGS } else { 0 };
        complain(code, &checked.warnings);
        if args.strict {
            return ExitCode::from(code);
        }
    }
    print(&format!("fine: {routes} routes, hash {}\n", checked.hash()))
}
