//! `sluice token`: a token for trying protected routes, or what one holds.

use std::io::Read as _;
use std::process::ExitCode;

use serde_json::{Map, Value};
use sluice_proxy::TokenRequest;

use super::{FAILED, USAGE, complain, print};
use crate::{cli, locate};

pub(super) fn run(args: cli::Token) -> ExitCode {
    if let Some(token) = &args.inspect {
        return inspect(&args, token);
    }
    let mut claims = Map::new();
    for claim in &args.claims {
        let Some((name, value)) = claim.split_once('=') else {
            return complain(USAGE, &format!("--claim {claim}: write NAME=VALUE"));
        };
        let value = serde_json::from_str(value).unwrap_or_else(|_| Value::from(value));
        claims.insert(name.to_owned(), value);
    }
    let request = TokenRequest { kid: args.kid, claims, lifetime: args.lifetime };
    match sluice_proxy::mint(&locate::origin(&args.config), &locate::environment(), &request) {
        Ok(token) => print(&format!("{token}\n")),
        Err(rejected) => complain(FAILED, &rejected.to_string()),
    }
}

/// Longest token that is read.
const MAX_TOKEN: u64 = 64 * 1024;

fn inspect(args: &cli::Token, token: &str) -> ExitCode {
    let mut text = token.to_owned();
    if token == "-" {
        text.clear();
        if let Err(error) = std::io::stdin().take(MAX_TOKEN).read_to_string(&mut text) {
            return complain(FAILED, &format!("standard input: {error}"));
        }
    }
    match sluice_proxy::check(&locate::origin(&args.config), &locate::environment()) {
        Ok(checked) => print(&checked.inspect(text.trim())),
        Err(rejected) => complain(FAILED, &rejected.to_string()),
    }
}
