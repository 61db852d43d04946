//! Processes that the harness starts: pinned to a processor, in a session of their own, and gone
//! when their handle is dropped.
//!
//! A session of its own is also a scheduling group of its own, whose weight is raised where that is
//! allowed: other work on the machine then disturbs the figures less. The one rule: nothing started
//! here outlives the harness, not even the workers of a proxy that forks.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process, kill_process_group};

use crate::failure::{Failure, Outcome};

/// The processor of the proxy, and that of everything else.
pub(crate) const PROXY: usize = 0;
pub(crate) const LOAD: usize = 1;

/// How often, and how far apart, a process that was asked to end is looked for before it is killed.
const TRIES: u32 = 100;
const BETWEEN_TRIES: Duration = Duration::from_millis(20);

/// What becomes the program: it raises the weight of its session (a user who may not do that gets
/// the usual one), asks for SIGTERM when the harness dies, and goes to its processor.
const BECOME: &str = "{ echo -20 >/proc/self/autogroup; } 2>/dev/null; \
                      exec setpriv --pdeathsig TERM taskset -c \"$0\" \"$@\"";

/// A command line and what it needs.
#[derive(Debug, Clone)]
pub(crate) struct Line {
    program: OsString,
    args: Vec<OsString>,
    /// The processors it may run on, in the words of taskset.
    processors: String,
}

/// A running process with all its descendants.
pub(crate) struct Running {
    child: Child,
}

impl Line {
    /// A program beside the proxy, unless `on` says otherwise.
    pub(crate) fn new(program: impl AsRef<OsStr>) -> Self {
        let program = program.as_ref().to_owned();
        Self { program, args: Vec::new(), processors: LOAD.to_string() }
    }

    /// The same on other processors.
    pub(crate) fn on(mut self, processors: &str) -> Self {
        processors.clone_into(&mut self.processors);
        self
    }

    pub(crate) fn arg(mut self, arg: impl AsRef<OsStr>) -> Self {
        self.args.push(arg.as_ref().to_owned());
        self
    }

    pub(crate) fn args<A: AsRef<OsStr>>(mut self, args: impl IntoIterator<Item = A>) -> Self {
        self.args.extend(args.into_iter().map(|arg| arg.as_ref().to_owned()));
        self
    }

    /// The same in a session of its own; the process id of the child is that of the program.
    fn pinned(&self) -> Command {
        let mut command = Command::new("setsid");
        command.args(["sh", "-c", BECOME, &self.processors]);
        command.arg(&self.program).args(&self.args).stdin(Stdio::null());
        command
    }

    /// Starts it in the background; what it says goes to a file.
    pub(crate) fn start(&self, says: &Path) -> Outcome<Running> {
        let log = File::create(says).map_err(Failure::at(says))?;
        let also = log.try_clone().map_err(Failure::at(says))?;
        let mut command = self.pinned();
        let child = command.stdout(log).stderr(also).spawn();
        Ok(Running { child: child.map_err(|error| self.failed(&error))? })
    }

    /// Runs it to its end and gives back what it said.
    pub(crate) fn finish(&self) -> Outcome<String> {
        let mut command = self.pinned();
        let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
        let child = child.map_err(|error| self.failed(&error))?;
        let output = child.wait_with_output().map_err(|error| self.failed(&error))?;
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        if output.status.success() {
            return Ok(said);
        }
        let complaint = String::from_utf8_lossy(&output.stderr);
        Err(self.failed(&format!("{}: {} {}", output.status, said.trim(), complaint.trim())))
    }

    fn failed(&self, why: &dyn std::fmt::Display) -> Failure {
        Failure(format!("{}: {why}", Path::new(&self.program).display()))
    }
}

impl Running {
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Asks it to stop, as Ctrl-C would.
    pub(crate) fn interrupt(&self) {
        self.signal(Signal::INT);
    }

    /// Halts it until it may go on.
    pub(crate) fn halt(&self) {
        self.signal(Signal::STOP);
    }

    pub(crate) fn go_on(&self) {
        self.signal(Signal::CONT);
    }

    fn signal(&self, signal: Signal) {
        if let Some(process) = self.pid() {
            // One that has ended is found out by `has_ended`.
            let _ = kill_process(process, signal);
        }
    }

    fn pid(&self) -> Option<Pid> {
        i32::try_from(self.child.id()).ok().and_then(Pid::from_raw)
    }

    /// Whether it has ended by itself, which no proxy should do.
    pub(crate) fn has_ended(&mut self) -> bool {
        !matches!(self.child.try_wait(), Ok(None))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // A build that counts what it does writes its counts at an orderly end only.
        self.go_on();
        self.signal(Signal::TERM);
        for _ in 0..TRIES {
            if self.has_ended() {
                break;
            }
            std::thread::sleep(BETWEEN_TRIES);
        }
        if let Some(group) = self.pid() {
            let _ = kill_process_group(group, Signal::KILL);
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_process_is_pinned_and_goes_with_its_children() {
        let folder = std::env::temp_dir().join(format!("sluice-bench-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let line = Line::new("sh").args(["-c", "sleep 60 & sleep 60"]).on("0");
        let running = line.start(&folder.join("log")).unwrap();
        let root = running.id();
        // The shell that becomes the program has no children before.
        while crate::account::tree(root).len() < 2 {
            std::thread::yield_now();
        }
        let all = crate::account::tree(root);
        let status = fs::read_to_string(format!("/proc/{root}/status")).unwrap();
        assert!(status.contains("Cpus_allowed_list:\t0\n"), "{status}");
        drop(running);
        // A killed process is not gone at once; one that was missed would run for a minute.
        let began = std::time::Instant::now();
        for process in all {
            let stat = || fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
            let gone =
                |stat: &str| stat.is_empty() || stat.contains(") Z ") || stat.contains(") X ");
            while !gone(&stat()) {
                assert!(began.elapsed().as_secs() < 30, "{}", stat());
                std::thread::yield_now();
            }
        }
        fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn a_failing_program_is_named_with_what_it_said() {
        let line = Line::new("sh").args(["-c", "echo the reason >&2; exit 3"]);
        let Failure(why) = line.finish().unwrap_err();
        assert!(why.contains("sh: exit status: 3") && why.contains("the reason"), "{why}");
    }
}
