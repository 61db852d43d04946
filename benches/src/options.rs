//! The command line of a run. Only what the harness itself decides is here; fetching programs and
//! building Sluice is `cargo xtask bench`'s.

use std::path::PathBuf;

use crate::cell::Lengths;
use crate::failure::{Failure, Outcome};
use crate::peers::{Kind, Peer};
use crate::workloads::{self, Pass, Workload};

pub(crate) const USAGE: &str = "\
usage: cargo xtask bench [options]

  --only W[,W..]       only these workloads; --list names them
  --peers P[,P..]      only these proxies beside Sluice (default: all that are there)
  --sluice NAME=PATH   this build of Sluice, instead of the tree's; may be given several times,
                       and NAME@N=PATH gives it N workers
  --workers N          workers of all others; with several, proxy and load share processors
  --rounds N           rounds of the whole table (default 5)
  --seconds N          seconds measured in each cell (default 3)
  --quick              1 round of 1 second
  --slices N           turns of short slices in each round (default 20)
  --redis-with-proxy   Redis shares the processor of the proxy, not that of load and back end
  --pass P[,P..]       only these of saturation, slices, steady, idle, calls
  --write-docs         put the tables into docs/performance.md
  --list               name the workloads and stop
  --help               this text";

/// What is to be done.
#[derive(Debug)]
pub(crate) struct Options {
    pub(crate) workloads: Vec<Workload>,
    pub(crate) peers: Vec<Peer>,
    pub(crate) rounds: usize,
    pub(crate) lengths: Lengths,
    pub(crate) list: bool,
    pub(crate) write_docs: bool,
    pub(crate) redis: Option<PathBuf>,
    /// Redis runs where the proxy does, so that load and back end are not what bounds the rate.
    pub(crate) redis_with_proxy: bool,
    pub(crate) slices: usize,
    wanted: Vec<String>,
}

/// The words for `--pass`.
const PASSES: [&str; 5] = ["saturation", "slices", "steady", "idle", "calls"];

impl Options {
    /// What is done when nothing is said.
    pub(crate) fn of(workloads: Vec<Workload>, peers: Vec<Peer>) -> Self {
        Self {
            workloads,
            peers,
            rounds: 5,
            lengths: Lengths { warm_up: 1, measured: 3 },
            list: false,
            write_docs: false,
            redis: None,
            redis_with_proxy: false,
            slices: 20,
            wanted: PASSES.map(str::to_owned).into(),
        }
    }

    /// Reads the words of a command line; `find` knows where a program is.
    pub(crate) fn read(words: &[String], find: impl Fn(&str) -> Option<PathBuf>) -> Outcome<Self> {
        let mut options = Self::of(workloads::all(), Vec::new());
        options.redis = find("redis-server");
        let mut wanted: Option<Vec<String>> = None;
        let mut builds = Vec::new();
        let mut workers = 1;
        let mut words = words.iter();
        while let Some(word) = words.next() {
            let mut value =
                || words.next().ok_or_else(|| Failure(format!("{word} wants a value\n\n{USAGE}")));
            match word.as_str() {
                "--only" => options.workloads = only(value()?)?,
                "--peers" => wanted = Some(value()?.split(',').map(str::to_owned).collect()),
                "--sluice" => builds.push(build(value()?)?),
                "--workers" => workers = number(word, value()?)?,
                "--rounds" => options.rounds = number(word, value()?)?,
                "--seconds" => options.lengths.measured = number(word, value()?)?,
                "--quick" => {
                    options.rounds = 1;
                    options.slices = 5;
                    options.lengths.measured = 1;
                }
                "--slices" => options.slices = number(word, value()?)?,
                "--redis-with-proxy" => options.redis_with_proxy = true,
                "--pass" => options.wanted = passes(value()?)?,
                "--write-docs" => options.write_docs = true,
                "--list" => options.list = true,
                _ => return Err(Failure(format!("`{word}` is not understood\n\n{USAGE}"))),
            }
        }
        options.peers = others(wanted.as_deref(), find)?;
        options.peers.extend(builds);
        for peer in &mut options.peers {
            peer.workers = if peer.workers == 0 { workers } else { peer.workers };
        }
        Ok(options)
    }

    /// The passes over a workload that are wanted.
    pub(crate) fn passes(&self, workload: &Workload) -> Vec<Pass> {
        let word = |pass: &Pass| match pass {
            Pass::Saturation => "saturation",
            Pass::Slices => "slices",
            Pass::Steady(_) => "steady",
            Pass::Idle => "idle",
            Pass::Calls => "calls",
        };
        let mut passes = workload.passes();
        passes.retain(|pass| self.wanted.iter().any(|wanted| wanted == word(pass)));
        passes
    }
}

fn passes(names: &str) -> Outcome<Vec<String>> {
    let named = |name: &str| {
        let known = PASSES.contains(&name);
        if known { Ok(name.to_owned()) } else { Err(Failure(format!("there is no pass `{name}`"))) }
    };
    names.split(',').map(named).collect()
}

fn only(names: &str) -> Outcome<Vec<Workload>> {
    let all = workloads::all();
    let named = |name: &str| {
        let found = all.iter().find(|workload| workload.name == name).cloned();
        found.ok_or_else(|| Failure(format!("there is no workload `{name}`; --list names them")))
    };
    names.split(',').map(named).collect()
}

/// The proxies beside Sluice: those that were asked for, or all that are on this machine.
fn others(wanted: Option<&[String]>, find: impl Fn(&str) -> Option<PathBuf>) -> Outcome<Vec<Peer>> {
    let known = Kind::ALL.into_iter().filter(|(kind, _)| *kind != Kind::Sluice);
    if let Some(stranger) = wanted.and_then(|wanted| {
        wanted.iter().find(|name| !known.clone().any(|(_, known)| known == name.as_str()))
    }) {
        return Err(Failure(format!("there is no peer `{stranger}`")));
    }
    let mut peers = Vec::new();
    for (kind, name) in known {
        let asked_for = wanted.map(|wanted| wanted.iter().any(|it| it == name));
        match find(name) {
            Some(program) if asked_for != Some(false) => {
                peers.push(Peer { name: name.to_owned(), kind, program, workers: 0 });
            }
            None if asked_for == Some(true) => {
                return Err(Failure(format!("{name} is not on this machine")));
            }
            _ => {}
        }
    }
    Ok(peers)
}

/// A build of Sluice, as `name=path` or `name@workers=path`; no workers are as many as all have.
fn build(word: &str) -> Outcome<Peer> {
    let parts = word.split_once('=').filter(|(name, _)| !name.is_empty());
    let Some((name, path)) = parts else {
        return Err(Failure(format!("`{word}` is not NAME=PATH")));
    };
    let program = PathBuf::from(path);
    if !program.is_file() {
        return Err(Failure(format!("{path} is not a file")));
    }
    let workers = match name.split_once('@') {
        Some((_, workers)) => number("NAME@N", workers)?,
        None => 0,
    };
    Ok(Peer { name: name.to_owned(), kind: Kind::Sluice, program, workers })
}

fn number<N: std::str::FromStr + Default + PartialEq>(word: &str, value: &str) -> Outcome<N> {
    let number = value.parse().ok().filter(|number| *number != N::default());
    number.ok_or_else(|| Failure(format!("{word} wants a number above 0, not `{value}`")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(line: &str) -> Outcome<Options> {
        let words: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        Options::read(&words, |name| (name == "nginx").then(|| PathBuf::from("/bin/nginx")))
    }

    #[test]
    fn several_builds_take_part_in_one_run() {
        let options =
            read("--only get-128 --sluice old=/bin/sh --sluice new@2=/bin/ls --rounds 2").unwrap();
        let name = |peer: &Peer| (peer.name.clone(), peer.workers);
        let names: Vec<(String, usize)> = options.peers.iter().map(name).collect();
        assert_eq!(names, [("nginx".into(), 1), ("old".into(), 1), ("new@2".into(), 2)]);
        assert_eq!((options.workloads.len(), options.rounds), (1, 2));
    }

    #[test]
    fn mistakes_are_told() {
        for (line, told) in [
            ("--only nothing", "no workload `nothing`"),
            ("--peers apache", "no peer `apache`"),
            ("--sluice /bin/sh", "not NAME=PATH"),
            ("--sluice a=/none", "/none is not a file"),
            ("--rounds 0", "above 0"),
            ("--rounds", "wants a value"),
            ("--pass fast", "no pass `fast`"),
            ("--faster", "not understood"),
        ] {
            let Failure(why) = read(line).unwrap_err();
            assert!(why.contains(told), "{line}: {why}");
        }
    }
}
