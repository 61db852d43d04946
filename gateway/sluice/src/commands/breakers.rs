//! `sluice breakers`: how breakers stand, and why one opened. `sluice breaker force` and `release`: holding
//! one open or closed for a while.

use std::fmt::Write as _;
use std::process::ExitCode;

use serde_json::{Value, json};

use super::admin::{Question, address, ask, escaped, token};
use super::table::table;
use super::{FAILED, complain, print};
use crate::cli;

pub(super) fn list(args: &cli::Breakers) -> ExitCode {
    let path = match &args.name {
        None => "/breakers".to_owned(),
        Some(name) => format!("/breakers/{}", escaped(name)),
    };
    let question = Question { method: "GET", path, token: None, body: None };
    let answer = address(&args.target).and_then(|address| ask(address, &question));
    match answer {
        Err(error) => complain(FAILED, &error),
        Ok(page) if args.json => print(&page),
        Ok(page) => match serde_json::from_str::<Value>(&page) {
            Ok(page) if args.name.is_some() => print(&timeline(&page)),
            Ok(page) => print(&all(&page)),
            Err(error) => complain(FAILED, &format!("the answer is no JSON: {error}")),
        },
    }
}

pub(super) fn force(args: &cli::BreakerCommand) -> ExitCode {
    let (name, target, file, method, body) = match args {
        cli::BreakerCommand::Force { name, state, long, note, access } => {
            let state = match state {
                cli::Forced::Open => "open",
                cli::Forced::Closed => "closed",
            };
            let body = json!({ "state": state, "for": long, "note": note });
            (name, &access.target, &access.token_file, "POST", Some(body.to_string()))
        }
        cli::BreakerCommand::Release { name, access } => {
            (name, &access.target, &access.token_file, "DELETE", None)
        }
    };
    let path = format!("/breakers/{}/force", escaped(name));
    let answer = token(file.as_deref()).and_then(|token| {
        let question = Question { method, path, token: Some(&token), body };
        ask(address(target)?, &question)
    });
    match answer {
        Err(error) => complain(FAILED, &error),
        Ok(page) => {
            let page: Value = serde_json::from_str(&page).unwrap_or_default();
            print(&format!("{name}: {}\n", standing(&page)))
        }
    }
}

const HEAD: [&str; 6] = ["BREAKER", "STATE", "SINCE", "CALLS", "FAILED", "REFUSED"];

fn all(page: &Value) -> String {
    let breakers = page.as_object().into_iter().flatten();
    let rows: Vec<[String; 6]> = breakers
        .map(|(name, one)| {
            [
                name.clone(),
                standing(one),
                word(&one["since"]),
                word(&one["requests"]),
                word(&one["failures"]),
                word(&one["refused"]),
            ]
        })
        .collect();
    table(HEAD, &rows)
}

/// The state, and until when somebody holds it.
fn standing(one: &Value) -> String {
    match one["forced_until"].as_str() {
        Some(until) => format!("{} (forced until {until})", word(&one["state"])),
        None => word(&one["state"]),
    }
}

fn timeline(one: &Value) -> String {
    let mut out = format!("{}: {}\n", word(&one["name"]), standing(one));
    for entry in one["timeline"].as_array().into_iter().flatten() {
        let _ = write!(
            out,
            "{}  {} -> {}  {}",
            word(&entry["at"]),
            word(&entry["from"]),
            word(&entry["to"]),
            word(&entry["why"])
        );
        let window = &entry["window"];
        if window["requests"].as_u64().is_some_and(|calls| calls > 0) {
            let (failures, calls) = (word(&window["failures"]), word(&window["requests"]));
            let _ = write!(out, "  {failures} of {calls} failed, {} slow", word(&window["slow"]));
        }
        if let Some(reason) = entry["top_reason"].as_str() {
            let _ = write!(out, "  mostly {reason}");
        }
        if let Some(long) = entry["open_for_seconds"].as_f64() {
            let _ = write!(out, "  for {long} s");
        }
        out.push('\n');
        for sample in entry["samples"].as_array().into_iter().flatten() {
            let _ = writeln!(out, "    {}  {}", word(&sample["trace_id"]), word(&sample["reason"]));
        }
    }
    out
}

fn word(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        other => other.to_string(),
    }
}
