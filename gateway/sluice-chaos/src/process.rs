//! Child processes for tests: started when they are ready, gone when they are dropped.
//!
//! Redis and promtool have helpers of their own in `redis` and `tools`. The one rule: only the child
//! is ever signalled, by its own process id.

mod redis;
mod tools;

use std::{
    ffi::OsStr,
    io::Read,
    net::SocketAddr,
    process::{Child, Command, ExitStatus, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use tokio::net::TcpStream;

pub use redis::Redis;
pub use tools::{promtool, promtool_check, tool};

pub use crate::ports::free_port;
use crate::{ground::DEADLINE, watched::Watched};

/// A running child process; dropping it kills it.
pub struct Daemon {
    name: String,
    child: Child,
    /// Whether the system has been told that the process id may be used again.
    reaped: AtomicBool,
    said: Arc<Watched<Said>>,
}

/// How a child shows that it is ready.
#[derive(Clone, Debug)]
pub enum Ready {
    /// It accepts connections there.
    Tcp(SocketAddr),
    /// It has printed this, on either output.
    Says(String),
    /// It needs no time, or ends by itself.
    AtOnce,
}

#[derive(Debug, Default)]
struct Said {
    text: String,
    /// Outputs that are still open.
    open: u64,
}

impl Daemon {
    /// Starts a program and waits until it is ready.
    pub async fn spawn(program: impl AsRef<OsStr>, args: &[&str], ready: Ready) -> Self {
        let mut command = Command::new(program);
        command.args(args);
        Self::start(command, ready).await
    }

    /// Starts a command, with its environment and folder, and waits until it is ready.
    pub async fn start(command: Command, ready: Ready) -> Self {
        Self::try_start(command, ready).await.unwrap_or_else(|failure| panic!("{failure}"))
    }

    /// The same; an error tells how the child ended before it was ready, and what it had said.
    pub async fn try_start(mut command: Command, ready: Ready) -> Result<Self, String> {
        let name = command.get_program().to_string_lossy().into_owned();
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().map_err(|error| format!("cannot start {name}: {error}"))?;
        let said = Arc::new(Watched::new(Said { text: String::new(), open: 2 }));
        listen(child.stdout.take().expect("a piped output"), Arc::clone(&said));
        listen(child.stderr.take().expect("a piped output"), Arc::clone(&said));
        let mut daemon = Self { name, child, reaped: AtomicBool::new(false), said };
        daemon.until_ready(&ready).await?;
        Ok(daemon)
    }

    async fn until_ready(&mut self, ready: &Ready) -> Result<(), String> {
        let start = Instant::now();
        while !self.is_ready(ready).await {
            if let Some(status) = self.ended() {
                self.until_silent().await;
                let said = self.output();
                return Err(format!("{} ended with {status} before {ready:?}: {said}", self.name));
            }
            if start.elapsed() > DEADLINE {
                let said = self.output();
                return Err(format!("waited in vain for {} ({ready:?}): {said}", self.name));
            }
            tokio::time::sleep(POLL).await;
        }
        Ok(())
    }

    async fn is_ready(&self, ready: &Ready) -> bool {
        match ready {
            Ready::Tcp(addr) => TcpStream::connect(addr).await.is_ok(),
            Ready::Says(text) => self.output().contains(text),
            Ready::AtOnce => true,
        }
    }

    /// The process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Whether the child has not ended.
    pub fn is_running(&mut self) -> bool {
        self.ended().is_none()
    }

    /// Sends a signal by its name, such as `TERM`. A child that is known to have ended fails the
    /// test: its process id may be a stranger's by now.
    pub fn signal(&self, name: &str) {
        assert!(!self.reaped.load(Ordering::Relaxed), "{} has ended", self.name);
        let pid = self.pid().to_string();
        let sent =
            Command::new("sh").args(["-c", "kill -s \"$1\" \"$2\"", "sh", name, &pid]).output();
        let sent = sent.expect("a shell to signal from");
        let complaint = String::from_utf8_lossy(&sent.stderr);
        assert!(sent.status.success(), "cannot send {name} to {}: {complaint}", self.name);
    }

    /// What the child has printed so far, both outputs as they came.
    pub fn output(&self) -> String {
        self.said.look(|said| said.text.clone())
    }

    /// Waits until the child has printed this.
    pub async fn wait_for_output(&self, text: &str) {
        let what = format!("outputs of {} that hold {text:?}", self.name);
        let found = |said: &Said| u64::from(said.text.contains(text));
        self.said.reaches(1, &what, found).await;
    }

    /// Waits for the child to end by itself; nothing when a signal ended it.
    pub async fn exit_code(&mut self) -> Option<i32> {
        self.exit_code_within(DEADLINE).await
    }

    /// The same with a limit of its own.
    pub async fn exit_code_within(&mut self, limit: Duration) -> Option<i32> {
        let start = Instant::now();
        loop {
            if let Some(status) = self.ended() {
                self.until_silent().await;
                return status.code();
            }
            assert!(
                start.elapsed() < limit,
                "{} still runs after {limit:?}, having said: {}",
                self.name,
                self.output()
            );
            tokio::time::sleep(POLL).await;
        }
    }

    /// Kills the child (KILL) and waits until it is gone.
    pub fn kill(&mut self) {
        // Both fail only when the child is gone already.
        self.child.kill().ok();
        self.child.wait().ok();
        self.reaped.store(true, Ordering::Relaxed);
    }

    /// Kills the child and gives back all that it has said.
    pub fn last_words(&mut self) -> String {
        self.kill();
        // Its outputs end with it, but are read by threads; a grandchild may hold them open for long.
        let start = Instant::now();
        while self.said.look(|said| said.open) > 0 && start.elapsed() < LAST_WORDS {
            std::thread::sleep(Duration::from_millis(1));
        }
        self.output()
    }

    fn ended(&mut self) -> Option<ExitStatus> {
        let status = self.child.try_wait().expect("a child can be asked");
        self.reaped.fetch_or(status.is_some(), Ordering::Relaxed);
        status
    }

    /// Waits for the last words of a child that has ended. A grandchild may hold the outputs open,
    /// so this is not for long.
    async fn until_silent(&self) {
        let silent = self.said.settles(0, "open outputs", |said| said.open);
        tokio::time::timeout(LAST_WORDS, silent).await.ok();
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.kill();
    }
}

const POLL: Duration = Duration::from_millis(5);
const LAST_WORDS: Duration = Duration::from_secs(1);

fn listen(mut output: impl Read + Send + 'static, said: Arc<Watched<Said>>) {
    std::thread::spawn(move || {
        let mut buffer = [0; 4096];
        while let Ok(read @ 1..) = output.read(&mut buffer) {
            let text = String::from_utf8_lossy(&buffer[..read]);
            said.change(|said| said.text.push_str(&text));
        }
        said.change(|said| said.open -= 1);
    });
}

#[cfg(test)]
mod tests {
    use std::panic::AssertUnwindSafe;

    use super::*;

    #[tokio::test]
    async fn a_child_says_signals_and_ends() {
        let script =
            "trap 'echo caught; exit 7' TERM; echo ready >&2; while :; do sleep 0.01; done";
        let ready = Ready::Says("ready".to_owned());
        let mut daemon = Daemon::spawn("sh", &["-c", script], ready).await;
        assert!(daemon.is_running());
        daemon.signal("TERM");
        daemon.wait_for_output("caught").await;
        assert_eq!(daemon.exit_code().await, Some(7));
        assert!(!daemon.is_running());
        assert!(std::panic::catch_unwind(AssertUnwindSafe(|| daemon.signal("TERM"))).is_err());
        assert!(daemon.output().contains("ready\n"));
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_dropped_child_is_gone() {
        let daemon = Daemon::spawn("sleep", &["60"], Ready::AtOnce).await;
        let folder = format!("/proc/{}", daemon.pid());
        assert!(std::path::Path::new(&folder).exists());
        drop(daemon);
        assert!(!std::path::Path::new(&folder).exists());
    }

    #[tokio::test]
    async fn an_early_end_is_told_with_the_last_words() {
        let mut command = Command::new("sh");
        command.args(["-c", "echo no luck; exit 3"]);
        let nowhere = Ready::Tcp(SocketAddr::from(([127, 0, 0, 1], free_port())));
        let failure = Daemon::try_start(command, nowhere).await.err().unwrap();
        assert!(failure.contains("exit status: 3") && failure.contains("no luck"), "{failure}");
    }
}
