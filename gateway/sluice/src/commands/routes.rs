//! `sluice routes`: the table in the order in which it is tried.

use std::process::ExitCode;

use sluice_proxy::RouteLine;

use super::table::table;
use super::{FAILED, complain, print};
use crate::{cli, locate};

const HEAD: [&str; 5] = ["ID", "HOST", "METHOD", "PATH", "LEADS TO"];

pub(super) fn run(args: &cli::Listing) -> ExitCode {
    let routes = match sluice_proxy::check(&locate::origin(&args.config), &locate::environment()) {
        Ok(checked) => checked.routes(),
        Err(rejected) => return complain(FAILED, &rejected.to_string()),
    };
    if args.json {
        return match serde_json::to_string_pretty(&routes) {
            Ok(text) => print(&format!("{text}\n")),
            Err(error) => complain(FAILED, &error.to_string()),
        };
    }
    print(&table(HEAD, &routes.iter().map(row).collect::<Vec<_>>()))
}

fn row(route: &RouteLine) -> [String; 5] {
    let or_any = |words: &[String]| {
        if words.is_empty() { "*".to_owned() } else { words.join(",") }
    };
    let mut leads = route.filters.join(" → ");
    if let Some(upstream) = &route.upstream {
        if !leads.is_empty() {
            leads.push_str(" → ");
        }
        leads.push_str(upstream);
    }
    [route.id.clone(), or_any(&route.hosts), or_any(&route.methods), route.path.clone(), leads]
}
