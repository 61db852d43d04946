//! What a proxy costs, read from `/proc`: processor time of its whole process tree, memory, and how
//! busy the two processors were meanwhile.
//!
//! The scheduler's run time (`schedstat`) counts nanoseconds; the usual `utime` and `stime` count
//! ticks of 10 ms and are only good for their proportion. The one rule: parsing is pure, so that it
//! is tested on texts.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

/// Processor time of a process tree at one moment.
#[derive(Debug, Default)]
pub(crate) struct Spent {
    /// Nanoseconds by thread.
    threads: BTreeMap<u32, u64>,
    /// Ticks in user space and in the kernel, whole tree.
    user: u64,
    system: u64,
}

/// Memory of a process tree, in KiB.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Memory {
    /// The highest resident size of each process, added up.
    pub(crate) peak_rss: u64,
    /// The proportional share now: pages that several processes map count once.
    pub(crate) pss: u64,
}

/// Ticks of one processor since it was started.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Processor {
    busy: u64,
    stolen: u64,
    all: u64,
}

/// How a processor spent a while, as shares of it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Use {
    pub(crate) busy: f64,
    /// Taken by other guests of the host.
    pub(crate) stolen: f64,
}

impl Spent {
    /// What a process and all its descendants have used so far.
    pub(crate) fn by_tree(root: u32) -> Self {
        let mut spent = Self::default();
        for process in tree(root) {
            let place = format!("/proc/{process}");
            if let Some((user, system)) = ticks(&read(&format!("{place}/stat"))) {
                spent.user += user;
                spent.system += system;
            }
            for thread in numbers_in(Path::new(&place).join("task").as_path()) {
                if let Some(ns) = run_time(&read(&format!("{place}/task/{thread}/schedstat"))) {
                    spent.threads.insert(thread, ns);
                }
            }
        }
        spent
    }

    /// Nanoseconds used since `earlier`, by all threads that live now.
    pub(crate) fn since(&self, earlier: &Self) -> u64 {
        let used = |(thread, now): (&u32, &u64)| {
            now.saturating_sub(earlier.threads.get(thread).copied().unwrap_or(0))
        };
        self.threads.iter().map(used).sum()
    }

    /// The kernel's share of the time since `earlier`.
    pub(crate) fn kernel_share_since(&self, earlier: &Self) -> f64 {
        let user = self.user.saturating_sub(earlier.user);
        let system = self.system.saturating_sub(earlier.system);
        share(system, user + system)
    }
}

impl Memory {
    pub(crate) fn of_tree(root: u32) -> Self {
        let mut memory = Self::default();
        for process in tree(root) {
            let status = read(&format!("/proc/{process}/status"));
            let rollup = read(&format!("/proc/{process}/smaps_rollup"));
            memory.peak_rss += kib(&status, "VmHWM:").unwrap_or(0);
            memory.pss += kib(&rollup, "Pss:").unwrap_or(0);
        }
        memory
    }
}

impl Processor {
    pub(crate) fn now(number: usize) -> Self {
        Self::parse(&read("/proc/stat"), number).unwrap_or_default()
    }

    pub(crate) fn since(&self, earlier: &Self) -> Use {
        let all = self.all.saturating_sub(earlier.all);
        Use {
            busy: share(self.busy.saturating_sub(earlier.busy), all),
            stolen: share(self.stolen.saturating_sub(earlier.stolen), all),
        }
    }

    fn parse(stat: &str, number: usize) -> Option<Self> {
        let name = format!("cpu{number} ");
        let line = stat.lines().find_map(|line| line.strip_prefix(&name))?;
        // user nice system idle iowait irq softirq steal; guests' time is already in user.
        let fields: Vec<u64> =
            line.split_whitespace().take(8).filter_map(|n| n.parse().ok()).collect();
        let [user, nice, system, idle, iowait, irq, softirq, stolen] = *fields.as_slice() else {
            return None;
        };
        let busy = user + nice + system + irq + softirq;
        Some(Self { busy, stolen, all: busy + idle + iowait + stolen })
    }
}

/// The processes of a tree, its root first.
pub(crate) fn tree(root: u32) -> Vec<u32> {
    let parents: Vec<(u32, u32)> = numbers_in(Path::new("/proc"))
        .into_iter()
        .filter_map(|process| Some((process, parent(&read(&format!("/proc/{process}/stat")))?)))
        .collect();
    descendants(root, &parents)
}

fn descendants(root: u32, parents: &[(u32, u32)]) -> Vec<u32> {
    let mut found = vec![root];
    let mut next = 0;
    while let Some(process) = found.get(next).copied() {
        found.extend(parents.iter().filter(|(_, parent)| *parent == process).map(|(it, _)| *it));
        next += 1;
    }
    found
}

/// Fields of `stat` after the program's name, which may hold blanks and brackets itself.
fn after_name(stat: &str) -> impl Iterator<Item = &str> {
    stat.rsplit_once(')').map_or("", |(_, rest)| rest).split_whitespace()
}

fn parent(stat: &str) -> Option<u32> {
    after_name(stat).nth(1)?.parse().ok()
}

fn ticks(stat: &str) -> Option<(u64, u64)> {
    let mut fields = after_name(stat).skip(11);
    Some((fields.next()?.parse().ok()?, fields.next()?.parse().ok()?))
}

fn run_time(schedstat: &str) -> Option<u64> {
    schedstat.split_whitespace().next()?.parse().ok()
}

fn kib(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse().ok()
}

fn numbers_in(folder: &Path) -> Vec<u32> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).collect()
}

/// A file of `/proc`, or nothing where the process has gone.
fn read(place: &str) -> String {
    fs::read_to_string(place).unwrap_or_default()
}

fn share(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STAT: &str = "4242 (a (bad) name) S 17 4242 4242 0 -1 4194304 159 0 0 0 733 91 0 0 20 0 \
                        5 0 12345 1000 200";

    #[test]
    fn a_process_name_may_hold_brackets() {
        assert_eq!(parent(STAT), Some(17));
        assert_eq!(ticks(STAT), Some((733, 91)));
        assert_eq!(parent("nonsense"), None);
    }

    #[test]
    fn run_time_is_the_first_number_of_schedstat() {
        assert_eq!(run_time("987654321 1234 56\n"), Some(987_654_321));
        assert_eq!(run_time(""), None);
    }

    #[test]
    fn memory_is_found_by_its_name() {
        let status = "Name:\tx\nVmPeak:\t  9 kB\nVmHWM:\t   21504 kB\n";
        assert_eq!(kib(status, "VmHWM:"), Some(21_504));
        assert_eq!(kib(status, "Pss:"), None);
    }

    #[test]
    fn a_tree_holds_children_of_children_and_nobody_else() {
        let parents = [(2, 1), (10, 2), (11, 10), (12, 1), (13, 11)];
        assert_eq!(descendants(10, &parents), [10, 11, 13]);
    }

    #[test]
    fn threads_that_began_meanwhile_count_whole() {
        let of = |threads: &[(u32, u64)], user, system| Spent {
            threads: threads.iter().copied().collect(),
            user,
            system,
        };
        let before = of(&[(1, 100), (2, 50)], 10, 10);
        let after = of(&[(1, 150), (3, 7)], 20, 40);
        assert_eq!(after.since(&before), 57);
        assert!((after.kernel_share_since(&before) - 0.75).abs() < 1e-9);
    }

    #[test]
    fn a_processor_was_busy_for_a_share_of_the_time() {
        let stat =
            |idle| format!("cpu  1 2 3\ncpu0 10 0 10 {idle} 0 0 5 5 0 0\ncpu1 0 0 0 0 0 0 0 0\n");
        let before = Processor::parse(&stat(70), 0).unwrap();
        assert_eq!(before, Processor { busy: 25, stolen: 5, all: 100 });
        let after = Processor { busy: 100, stolen: 30, all: 200 };
        let meanwhile = after.since(&before);
        assert!((meanwhile.busy - 0.75).abs() < 1e-9 && (meanwhile.stolen - 0.25).abs() < 1e-9);
        assert_eq!(Processor::parse(&stat(70), 7), None);
        // The process that runs this test has spent something.
        let own = Spent::by_tree(std::process::id());
        assert!(own.since(&Spent::default()) > 0);
        assert!(Memory::of_tree(std::process::id()).peak_rss > 0);
    }
}
