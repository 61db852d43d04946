//! `overload:`: what the gateway as a whole takes on. Every bound has a default that is derived from the
//! machine or far above what one can serve, so that a flood ends in refusals and not in the kernel's
//! ending the process.

use std::path::Path;

use rustix::process::{Resource, getrlimit};
use schemars::JsonSchema;
use serde::Deserialize;

use super::bulkhead::{self, Bound};
use super::env::Env;
use crate::base::units::{ByteSize, Span};
use crate::base::yaml::Place;

/// Descriptors kept back for the admin address, logs, reloads and the workers themselves.
const RESERVE: u64 = 64;
/// A limit of memory below this leaves nothing for requests.
const LEAST_MEMORY: u64 = 8 * 1024 * 1024;

/// What the gateway takes on at most.
#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Config {
    /// Client connections of all listeners together. If not given: what the descriptors allow, with one
    /// for the client and one for a service, and some kept back.
    connections: Option<u32>,
    /// Requests on their way to services at a time, to the last byte of their answers; those of streaming
    /// routes and tunnels only to the head. More wait, or are refused with 503 `overloaded`.
    requests: u32,
    /// Requests that wait for a place at a time.
    queue: u32,
    /// Longest wait for a place.
    max_wait: Span,
    /// Writes that go on without their clients at a time (`on_client_abort: finish`), shared equally by the
    /// workers; 0 for none. More are cancelled.
    unattended: u32,
    /// Memory the gateway may use. From 85 % on connections are not kept, from 92 % on requests are
    /// refused with 503 `memory_short`, from 95 % on the connections that hold most are cut. If not
    /// given: the limit of the container or the machine.
    memory_limit: Option<ByteSize>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            connections: None,
            requests: 10_000,
            queue: 1_000,
            max_wait: Span(std::time::Duration::from_millis(200)),
            // Each holds a connection to a service, of which an endpoint has 1,024 by default. A client is on one
            // worker: who sends writes over HTTP/2 and resets them gains little over keeping 100 streams open.
            unattended: 256,
            memory_limit: None,
        }
    }
}

/// As compiled.
#[derive(Debug, Clone)]
pub(crate) struct Overload {
    /// Client connections of all listeners together.
    pub(crate) connections: usize,
    pub(crate) requests: Bound,
    pub(crate) unattended: Unattended,
    /// Bytes; `None` where neither the config nor the system says.
    pub(crate) memory_limit: Option<u64>,
}

/// How many writes may go on without their clients.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Unattended(u32);

impl Unattended {
    /// What one of so many workers may have; one at least, if there may be any.
    pub(crate) fn share(self, workers: usize) -> usize {
        usize::try_from(self.0).unwrap_or(usize::MAX).div_ceil(workers.max(1))
    }
}

impl Config {
    pub(crate) fn build(&self, at: &Place<'_>, env: &mut Env<'_>) -> Option<Overload> {
        let Self { requests, queue, max_wait, .. } = *self;
        let requests = bulkhead::Config { requests, queue, max_wait }.build("gateway", at, env);
        let connections = self.connections(&at.field("connections"), env);
        let too_small = |limit: &ByteSize| limit.0 < LEAST_MEMORY;
        if self.memory_limit.as_ref().is_some_and(too_small) {
            env.problems
                .error(&at.field("memory_limit"), "a gateway cannot live in so little memory")
                .help("idle it holds about 12MiB; give it 64MiB or more");
            return None;
        }
        Some(Overload {
            connections: connections?,
            requests: requests?,
            unattended: Unattended(self.unattended),
            memory_limit: self.memory_limit.map(|limit| limit.0).or_else(system_memory),
        })
    }

    fn connections(&self, at: &Place<'_>, env: &mut Env<'_>) -> Option<usize> {
        let descriptors = getrlimit(Resource::Nofile).current.unwrap_or(1 << 20);
        let left = descriptors.saturating_sub(RESERVE).max(2);
        let Some(wanted) = self.connections.map(u64::from) else {
            return usize::try_from(left / 2).ok();
        };
        if wanted == 0 {
            env.problems.error(at, "`connections: 0` would serve nobody");
            return None;
        }
        if wanted > left {
            env.problems
                .warn(at, format!("{wanted} connections need more than the {descriptors} descriptors there are; {left} are served"))
                .help("raise the limit (`ulimit -n`, or LimitNOFILE= of the unit)");
        }
        usize::try_from(wanted.min(left)).ok()
    }
}

/// What the container or the machine has, bytes.
fn system_memory() -> Option<u64> {
    let container = container_memory(Path::new("/sys/fs/cgroup"), Path::new("/proc/self/cgroup"));
    let machine = std::fs::read_to_string("/proc/meminfo").ok().and_then(|text| total(&text));
    container.into_iter().chain(machine).min()
}

/// `MemTotal` of /proc/meminfo (proc(5)), which counts in KiB.
fn total(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

/// The smallest limit of the control groups this process is in, whichever of both hierarchies the system
/// has (cgroups(7)). A group's limit holds for all below it, and inside of a container the path of the
/// group is often not to be seen from the mount, only its root.
fn container_memory(mount: &Path, groups: &Path) -> Option<u64> {
    let groups = std::fs::read_to_string(groups).ok()?;
    let mut least: Option<u64> = None;
    for line in groups.lines() {
        let mut fields = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (fields.next(), fields.next()) else { continue };
        let (root, file) = match controllers {
            "" => (mount.to_owned(), "memory.max"),
            list if list.split(',').any(|name| name == "memory") => {
                (mount.join("memory"), "memory.limit_in_bytes")
            }
            _ => continue,
        };
        let group = root.join(path.trim_start_matches('/'));
        for folder in group.ancestors().take_while(|folder| folder.starts_with(&root)) {
            let text = std::fs::read_to_string(folder.join(file)).unwrap_or_default();
            // "max", or a number beyond all memory, is no limit.
            let limit = text.trim().parse::<u64>().ok().filter(|limit| *limit < 1 << 60);
            least = least.into_iter().chain(limit).min();
        }
    }
    least
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_machine_says_what_it_has() {
        assert_eq!(total("MemTotal:       16 kB\nMemFree: 1 kB\n"), Some(16 * 1024));
        assert_eq!(total("nothing"), None);
    }

    fn group(files: &[(&str, &str)], groups: &str) -> Option<u64> {
        let root = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = root.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        let list = root.path().join("list");
        std::fs::write(&list, groups).unwrap();
        container_memory(root.path(), &list)
    }

    #[test]
    fn a_container_may_have_less_by_either_hierarchy() {
        let second = [("a/memory.max", "512\n"), ("a/b/memory.max", "max\n")];
        assert_eq!(group(&second, "0::/a/b\n"), Some(512), "a group is within its parent's limit");
        assert_eq!(group(&[("memory.max", "256\n")], "0::/\n"), Some(256));
        let first = [
            ("memory/a/memory.limit_in_bytes", "1024\n"),
            ("memory/memory.limit_in_bytes", "9223372036854771712\n"),
        ];
        assert_eq!(group(&first, "4:cpu,cpuacct:/x\n3:memory:/a\n"), Some(1024));
        assert_eq!(group(&first, "3:memory:/elsewhere\n"), None);
        assert_eq!(group(&[], "0::/../../x\n"), None);
    }
}
