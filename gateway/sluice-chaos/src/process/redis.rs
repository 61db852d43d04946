//! A Redis server for one test: in memory, on loopback, and easy to hurt.
//!
//! The one rule: nothing is kept. A killed server that is started again on its port is empty.

use std::{
    net::SocketAddr,
    process::Command,
    time::{Duration, Instant},
};

use tempfile::TempDir;

use super::{Daemon, Ready, free_port, tool};
use crate::{
    ground::{DEADLINE, within},
    wire::{self, Pipe},
};

/// A running server; dropping it kills it.
pub struct Redis {
    daemon: Daemon,
    port: u16,
    _folder: TempDir,
}

/// How often a start is tried, since a port may still be held, or be taken by a stranger.
const TRIES: usize = 5;

impl Redis {
    /// Starts a server on a free port.
    pub async fn start() -> Self {
        Self::start_with(&[]).await
    }

    /// Starts a server with more words on its command line.
    pub async fn start_with(words: &[&str]) -> Self {
        Self::persist(free_port, words, None).await
    }

    /// Starts a server on this port, such as that of one that was killed.
    pub async fn start_on(port: u16) -> Self {
        Self::persist(|| port, &[], None).await
    }

    /// Starts a node of a cluster, which has no slots yet.
    pub async fn start_node() -> Self {
        let bus = free_port().to_string();
        let words = ["--cluster-enabled", "yes", "--cluster-node-timeout", "1000"];
        let words = [&words[..], &["--cluster-require-full-coverage", "no"]].concat();
        Self::start_with(&[&words[..], &["--cluster-port", &bus]].concat()).await
    }

    /// Starts a sentinel, whose file holds these lines.
    pub async fn start_sentinel(lines: &str) -> Self {
        Self::persist(free_port, &["--sentinel"], Some(lines)).await
    }

    async fn persist(port: impl Fn() -> u16, words: &[&str], file: Option<&str>) -> Self {
        let mut failure = String::new();
        for _ in 0..TRIES {
            match Self::try_start_on(port(), words, file).await {
                Ok(redis) => return redis,
                Err(error) => failure = error,
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("{failure}")
    }

    async fn try_start_on(port: u16, words: &[&str], file: Option<&str>) -> Result<Self, String> {
        let folder = tempfile::tempdir().expect("a folder for Redis");
        let mut command = Command::new(tool("redis-server"));
        if let Some(lines) = file {
            let path = folder.path().join("redis.conf");
            std::fs::write(&path, lines).expect("a file for Redis");
            command.arg(path);
        }
        command.arg("--port").arg(port.to_string()).args(["--bind", "127.0.0.1"]);
        command.arg("--dir").arg(folder.path());
        // Said by Redis after it has bound its port: a connection alone might be to a stranger.
        let ready = if file.is_some() {
            Ready::Says("Sentinel ID is".to_owned())
        } else {
            command.args(["--save", "", "--appendonly", "no"]);
            Ready::Says("Ready to accept connections".to_owned())
        };
        command.args(words);
        let daemon = Daemon::try_start(command, ready).await?;
        Ok(Self { daemon, port, _folder: folder })
    }

    /// `redis://127.0.0.1:<port>`.
    pub fn url(&self) -> String {
        format!("redis://{}", self.addr())
    }

    /// The port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The address.
    pub fn addr(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.port))
    }

    /// Stops the process (STOP): connections stay open and nothing is answered.
    pub fn pause(&self) {
        self.daemon.signal("STOP");
        self.until("stopped", |state| state == 'T');
    }

    /// Lets a paused process go on (CONT).
    pub fn resume(&self) {
        self.daemon.signal("CONT");
        self.until("going on", |state| state != 'T');
    }

    /// Kills the process (KILL); its port refuses connections from now on.
    pub fn kill(&mut self) {
        self.daemon.kill();
    }

    /// Sends one command and gives back the reply: errors begin with `-`, nothing reads `(nil)`, and
    /// the items of an array stand in lines of their own.
    pub async fn command(&self, words: &[&str]) -> String {
        let stream = within(DEADLINE, "a connection to Redis", wire::connect(self.addr())).await;
        let mut pipe = Pipe::new(Box::new(stream.expect("Redis accepts connections")));
        let mut bytes = format!("*{}\r\n", words.len());
        words.iter().for_each(|word| bytes.push_str(&format!("${}\r\n{word}\r\n", word.len())));
        pipe.send(bytes.as_bytes()).await.expect("Redis reads");
        let mut items = Vec::new();
        within(DEADLINE, "a reply of Redis", read(&mut pipe, &mut items)).await;
        items.join("\n")
    }

    /// Every name and every text that is kept, one after the other; what is no text is left out.
    pub async fn dump(&self) -> String {
        let names = self.command(&["KEYS", "*"]).await;
        let mut all = String::new();
        for name in names.lines().filter(|name| !name.is_empty()) {
            let value = self.command(&["GET", name]).await;
            all.push_str(&format!("{name}\n{value}\n"));
        }
        all
    }

    /// A signal takes effect when the system gets to it; the state is the third word of the stat
    /// file, after the name in brackets.
    fn until(&self, what: &str, reached: impl Fn(char) -> bool) {
        let file = format!("/proc/{}/stat", self.daemon.pid());
        let start = Instant::now();
        while start.elapsed() < DEADLINE {
            let stat = std::fs::read_to_string(&file).expect("a running Redis");
            let state = stat.rsplit_once(") ").and_then(|(_, rest)| rest.chars().next());
            if state.is_some_and(&reached) {
                return;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        panic!("waited in vain for Redis to be {what}");
    }
}

/// Reads a reply of the Redis protocol, version 2, item by item; `left` counts what an array still
/// owes.
async fn read(pipe: &mut Pipe, items: &mut Vec<String>) {
    let mut left = 1_u64;
    while left > 0 {
        left -= 1;
        let line = pipe.through(b"\r\n").await.expect("a reply").expect("a whole reply");
        let line = String::from_utf8_lossy(&line).trim_end().to_owned();
        match line.split_at(1) {
            ("*", count) => left += count.parse().unwrap_or(0),
            ("$", "-1") => items.push("(nil)".to_owned()),
            ("$", length) => {
                let length: usize = length.parse().expect("the length of a string");
                let text = pipe.exactly(length + 2).await.expect("a string").expect("all of it");
                items.push(String::from_utf8_lossy(&text[..length]).into_owned());
            }
            ("-", _) => items.push(line),
            (_, value) => items.push(value.to_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn redis_can_be_asked_paused_and_killed() {
        let mut redis = Redis::start().await;
        assert_eq!(redis.url(), format!("redis://127.0.0.1:{}", redis.port()));
        assert_eq!(redis.command(&["SET", "a", "one two"]).await, "OK");
        assert_eq!(redis.command(&["MGET", "a", "b"]).await, "one two\n(nil)");
        assert_eq!(redis.command(&["INCR", "n"]).await, "1");
        assert!(redis.command(&["NONSENSE"]).await.starts_with("-ERR"));

        redis.pause();
        let asked = redis.command(&["GET", "a"]);
        assert!(tokio::time::timeout(Duration::from_millis(100), asked).await.is_err());
        redis.resume();
        assert_eq!(redis.command(&["GET", "a"]).await, "one two");

        redis.kill();
        assert!(wire::connect(redis.addr()).await.is_err());
        let again = Redis::start_on(redis.port()).await;
        assert_eq!(again.command(&["GET", "a"]).await, "(nil)");
    }
}
