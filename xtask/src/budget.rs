//! `cargo xtask budget`: what one proxied request, and one call of each of the engine's mechanisms, may
//! cost in instructions and allocations, counted rather than timed, so that a busy machine does not
//! matter.
//!
//! The gateway runs under callgrind with one worker, 16 connections and a back end of ours. A worker's
//! start and its housekeeping fall out as the difference between a long run and a short one. Budgets
//! are committed in `benches/budgets.json`. The one rule: a budget moves only on purpose.

mod callgrind;
mod load;
mod mechanisms;

use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};

use crate::shell::{Failure, Shell};
use crate::tools;
use callgrind::Counts;

const BUDGETS: &str = "benches/budgets.json";
/// How far above its budget a count of instructions may be, in percent.
const TOLERANCE: u64 = 3;
/// Of a short function so many instructions are chance.
const LEAST: u64 = 3;
/// How far above theirs allocations may be, in tenths: chance decides about less than one.
const ALLOCATION_TOLERANCE: u64 = 5;
/// Requests of the short and of the long run.
const RUNS: [u64; 2] = [480, 2_400];

/// A way through the gateway that has a budget.
struct Passage {
    name: &'static str,
    /// Filters of the route, in the config's words.
    filters: &'static str,
    /// Whether requests carry a token.
    token: bool,
}

const PASSAGES: [Passage; 2] = [
    Passage { name: "get_bare", filters: "", token: false },
    Passage {
        name: "get_chain",
        filters: r#"filters: [ { request_id: {} }, { jwt: { keys: [ { kid: k, alg: HS256,
  secret: "a-secret-of-at-least-32-bytes-for-hs256" } ] } },
  { rate_limit: { limit: 1000000, per: 1s, key: "claim:sub" } } ],"#,
        token: true,
    },
];

/// What is wanted of the budgets.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wanted {
    /// Hold the engine's mechanisms against theirs: the gate does, since their crate is built in seconds.
    Calls,
    /// Hold everything against its budget, which takes an optimised build of the whole gateway.
    All,
    /// Make what is counted the budget.
    Write,
}

/// Counts, and compares or writes.
pub(crate) fn run(shell: &Shell, wanted: Wanted) -> Result<(), Failure> {
    let write = wanted == Wanted::Write;
    let (maker, place) = (json!(maker(shell)?), shell.root().join(BUDGETS));
    let budgets = read(&place)?;
    if !write && budgets.get("made_with") != Some(&maker) {
        // Another compiler or processor makes other code: minutes of counting would tell nothing.
        let theirs = budgets.get("made_with").unwrap_or(&Value::Null);
        shell.say(&format!(
            "xtask budget: not counted: the budgets were made with {theirs}, this is {maker}"
        ));
        return Ok(());
    }
    tools::ensure_for_budget(shell)?;
    let mut requests = Map::new();
    if wanted != Wanted::Calls {
        shell.say("xtask budget: building");
        let program = build(shell)?;
        for passage in &PASSAGES {
            let counts = count(shell, &program, passage)?;
            note(shell, &mut requests, passage.name, &counts);
        }
    }
    let mut calls = Map::new();
    for (name, counts) in mechanisms::count(shell)? {
        note(shell, &mut calls, &name, &counts);
    }
    let counted = json!({ "made_with": maker, "per_request": requests, "per_call": calls });
    if write {
        let text = format!("{counted:#}\n");
        return std::fs::write(&place, text)
            .map_err(|e| Failure(format!("{}: {e}", place.display())));
    }
    compare(&budgets, &counted)
}

/// Says what was counted, and writes it down.
fn note(shell: &Shell, into: &mut Map<String, Value>, name: &str, counts: &Counts) {
    shell.say(&format!(
        "xtask budget: {name:<14} {:>6} instructions, {:>4.1} allocations",
        counts.instructions,
        counts.tenths_of_allocations as f64 / 10.0
    ));
    let counts = json!({ "instructions": counts.instructions,
        "tenths_of_allocations": counts.tenths_of_allocations });
    into.insert(name.to_owned(), counts);
}

fn read(place: &Path) -> Result<Value, Failure> {
    let broken = |why: String| Failure(format!("{}: {why}", place.display()));
    let text = std::fs::read_to_string(place).map_err(|e| broken(e.to_string()))?;
    serde_json::from_str(&text).map_err(|e| broken(e.to_string()))
}

/// Fails when something got dearer.
fn compare(budgets: &Value, counted: &Value) -> Result<(), Failure> {
    let overrun = overrun(budgets, counted);
    if overrun.is_empty() {
        return Ok(());
    }
    Err(Failure(format!(
        "something has become dearer:\n  {}\nFind out where with callgrind_annotate over the files under \
         target/budget. If the cost is meant, run `cargo xtask budget --write`, commit {BUDGETS} with \
         the change, and say in the message what the cost buys.",
        overrun.join("\n  ")
    )))
}

/// What got dearer, and what has no budget.
fn overrun(budgets: &Value, counted: &Value) -> Vec<String> {
    let mut found = Vec::new();
    for part in ["per_request", "per_call"] {
        let all = counted.get(part).and_then(Value::as_object);
        for (name, now) in all.into_iter().flatten() {
            let budget = budgets.get(part).and_then(|budgets| budgets.get(name));
            for what in ["instructions", "tenths_of_allocations"] {
                let number = |of: &Value| of.get(what).and_then(Value::as_u64);
                let (Some(now), Some(budget)) = (number(now), budget.and_then(number)) else {
                    found.push(format!("{name}: {BUDGETS} has no {what} {part}"));
                    continue;
                };
                let most = match what {
                    "instructions" => budget + (budget * TOLERANCE / 100).max(LEAST),
                    _ => budget + ALLOCATION_TOLERANCE,
                };
                if now > most {
                    found.push(format!("{name}: {now} {what} {part}, the budget is {budget}"));
                }
            }
        }
    }
    found
}

/// What decides about instructions beside our code.
fn maker(shell: &Shell) -> Result<String, Failure> {
    let compiler = shell.capture({
        let mut command = shell.command("rustc");
        command.arg("--version");
        command
    })?;
    // The C library chooses its code by the model.
    let about = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = about.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    let model = model.map_or("an unknown processor", |(_, model)| model);
    Ok(format!("{}, {}", compiler.trim(), model.trim()))
}

/// Optimised, but quick to link; or what `SLUICE_PROGRAM` names, to compare builds.
fn build(shell: &Shell) -> Result<PathBuf, Failure> {
    if let Some(program) = std::env::var_os("SLUICE_PROGRAM") {
        return Ok(program.into());
    }
    let words =
        ["build", "--locked", "--profile", "soak", "--package", "sluice", "--bin", "sluice"];
    shell.run(shell.cargo(&words))?;
    let said = shell.capture(shell.cargo(&["metadata", "--format-version=1", "--no-deps"]))?;
    let said: Value = serde_json::from_str(&said).map_err(|e| Failure(e.to_string()))?;
    let target = said.get("target_directory").and_then(Value::as_str);
    target
        .map(|target| Path::new(target).join("soak/sluice"))
        .ok_or_else(|| Failure("cargo named no target directory".into()))
}

fn count(shell: &Shell, program: &Path, passage: &Passage) -> Result<Counts, Failure> {
    let [short, long] = RUNS;
    let folder = shell.root().join("target/budget").join(passage.name);
    let less = load::run(shell, program, passage.filters, passage.token, short, &folder)?;
    let more = load::run(shell, program, passage.filters, passage.token, long, &folder)?;
    Ok(more.per_request(&less, long - short))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(instructions: u64, allocations: u64) -> Value {
        let each = json!({ "instructions": instructions, "tenths_of_allocations": allocations });
        json!({ "made_with": "x", "per_request": { "get": each }, "per_call": { "find": each } })
    }

    #[test]
    fn only_what_is_dearer_than_the_tolerance_is_told() {
        let budgets = counts(1_000, 100);
        assert!(overrun(&budgets, &counts(1_030, 105)).is_empty());
        assert!(overrun(&budgets, &counts(10, 1)).is_empty());
        assert_eq!(overrun(&budgets, &counts(1_031, 100)).len(), 2);
        assert_eq!(overrun(&budgets, &counts(1_000, 106)).len(), 2);
        assert_eq!(overrun(&json!({}), &counts(1, 1)).len(), 4, "a budget that is missing is told");
    }

    #[test]
    fn the_committed_budgets_can_be_read() {
        let place = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(BUDGETS);
        let budgets = read(&place).unwrap_or_else(|Failure(why)| panic!("{why}"));
        assert!(overrun(&budgets, &budgets).is_empty());
        for passage in &PASSAGES {
            assert!(budgets.pointer(&format!("/per_request/{}", passage.name)).is_some());
        }
    }
}
