//! Starts the real binary with a config of the test's own, on ports and in a folder of its own. What
//! it says is looked through for secrets when it ends.

mod leaks;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use sluice_chaos::pki::Pair;
use sluice_chaos::process::{Daemon, Ready, Redis, free_port};
use sluice_chaos::raw;

pub(crate) use leaks::CANARY;
use leaks::Leaks;

/// A running gateway; killed when dropped.
pub(crate) struct Gateway {
    pub(crate) http: SocketAddr,
    pub(crate) https: SocketAddr,
    pub(crate) admin: SocketAddr,
    pub(crate) daemon: Daemon,
    folder: tempfile::TempDir,
    head: String,
    leaks: Leaks,
    setup: Setup,
}

/// What differs between tests beyond the config.
#[derive(Default)]
pub(crate) struct Setup {
    /// Environment variables.
    pub(crate) env: Vec<(&'static str, String)>,
    /// Files to put beside the config before the start, by relative path.
    pub(crate) files: Vec<(&'static str, String)>,
    /// Replaces the listeners section; `{http}` and `{https}` stand for the addresses.
    pub(crate) listeners: Option<&'static str>,
    /// Worker threads; 2 if not given.
    pub(crate) workers: Option<usize>,
    /// Lets operators change something, by the token in the variable `ADMIN_TOKEN`.
    pub(crate) with_token: bool,
    /// A shell's command line to start it by: `"$@"` is the gateway, `$FOLDER` the config's folder.
    pub(crate) by: Option<&'static str>,
}

impl Setup {
    /// TLS beside the plain listener, with this certificate.
    pub(crate) fn with_tls(pair: &Pair) -> Self {
        let files = vec![("cert.pem", pair.cert_pem.clone()), ("key.pem", pair.key_pem.clone())];
        Self { files, listeners: Some(WITH_TLS), ..Self::default() }
    }
}

const LISTENERS: &str = r#"listeners:
  - { name: plain, address: "{http}" }
"#;

/// A listener with TLS beside the plain one; the certificate is made by `development: true`, or comes
/// from `files`.
pub(crate) const WITH_TLS: &str = r#"listeners:
  - { name: plain, address: "{http}" }
  - { name: tls, address: "{https}", tls: { certificates: [ { cert_file: cert.pem, key_file: key.pem } ] } }
"#;

impl Gateway {
    /// Starts with `config`, to which version, listeners, admin and access log are added.
    pub(crate) async fn start(config: &str) -> Self {
        Self::start_with(config, Setup::default()).await
    }

    pub(crate) async fn start_with(config: &str, setup: Setup) -> Self {
        let address = || SocketAddr::from(([127, 0, 0, 1], free_port()));
        let (http, https, admin) = (address(), address(), address());
        let listeners = setup
            .listeners
            .unwrap_or(LISTENERS)
            .replace("{http}", &http.to_string())
            .replace("{https}", &https.to_string());
        let token = if setup.with_token { ", token: \"${ADMIN_TOKEN}\"" } else { "" };
        let mut head = format!("version: 1\nadmin: {{ address: \"{admin}\"{token} }}\n{listeners}");
        if !config.contains("access_log:") {
            head.push_str("access_log: { output: access.log }\n");
        }
        if !config.contains("shutdown:") {
            head.push_str("shutdown: { delay: 100ms, grace: 10s }\n");
        }
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in &setup.files {
            std::fs::write(folder.path().join(name), text).unwrap();
        }
        let path = folder.path().join("routes.yaml");
        std::fs::write(&path, format!("{head}{config}")).unwrap();
        let leaks = Leaks::new(&setup);
        let mut command = match setup.by {
            None => Command::new(program()),
            Some(line) => {
                let mut shell = Command::new("sh");
                shell.args(["-c", line, "sh"]).arg(program()).env("FOLDER", folder.path());
                shell
            }
        };
        command.arg("run").arg("--config").arg(&path);
        command.args(["--workers", &setup.workers.unwrap_or(2).to_string()]);
        command.envs(setup.env.clone());
        let daemon = Daemon::start(command, serving()).await;
        Self { http, https, admin, daemon, folder, head, leaks, setup }
    }

    /// Starts with one worker, and waits until that is connected to the Redis that the config names as
    /// `${REDIS_URL}`.
    pub(crate) async fn start_with_redis(config: &str, redis: &Redis, mut setup: Setup) -> Self {
        setup.env.push(("REDIS_URL", redis.url()));
        let gateway = Self::start_with(config, Setup { workers: Some(1), ..setup }).await;
        gateway.connected().await;
        gateway
    }

    /// Waits until a worker is connected to a Redis.
    pub(crate) async fn connected(&self) {
        eventually("the connection to Redis", async || {
            self.metric("sluice_redis_connections").await > 0.5
        })
        .await;
    }

    /// Another process with the same config, and more words on its command line.
    pub(crate) async fn another(&self, words: &[&str]) -> Daemon {
        let mut command = Command::new(program());
        command.arg("run").arg("--config").arg(self.config_path()).args(words);
        command.args(["--workers", &self.setup.workers.unwrap_or(2).to_string()]);
        command.envs(self.setup.env.clone());
        Daemon::start(command, serving()).await
    }

    /// A raw connection to the plain listener.
    pub(crate) async fn client(&self) -> raw::Client {
        raw::Client::connect(self.http).await
    }

    /// One GET on a connection of its own.
    pub(crate) async fn get(&self, path: &str) -> raw::Response {
        raw::get(self.http, "localhost", path).await
    }

    /// A page of the admin interface.
    pub(crate) async fn admin(&self, path: &str) -> raw::Response {
        let page = raw::get(self.admin, "127.0.0.1", path).await;
        self.leaks.check(path, &page.text());
        page
    }

    /// The value of a series on `/metrics`; the series is written as it is printed, without the
    /// constant label. 0 if it is not there.
    pub(crate) async fn metric(&self, series: &str) -> f64 {
        let text = self.admin("/metrics").await.text();
        let (name, labels) = series.split_once('{').unwrap_or((series, ""));
        let labels: Vec<&str> =
            labels.trim_end_matches('}').split(',').filter(|l| !l.is_empty()).collect();
        text.lines()
            .filter(|line| !line.starts_with('#'))
            .filter_map(|line| line.rsplit_once(' '))
            .filter(|(key, _)| {
                let (known, rest) = key.split_once('{').unwrap_or((key, ""));
                known == name && labels.iter().all(|label| rest.contains(label))
            })
            .map(|(_, value)| value.parse::<f64>().unwrap())
            .sum()
    }

    /// Replaces the config as an editor does, by renaming over it; keeps ports and the rest of the
    /// head.
    pub(crate) fn write_config(&self, config: &str) {
        let new = self.folder.path().join("routes.yaml.new");
        std::fs::write(&new, format!("{}{config}", self.head)).unwrap();
        std::fs::rename(new, self.config_path()).unwrap();
    }

    pub(crate) fn config_path(&self) -> PathBuf {
        self.folder.path().join("routes.yaml")
    }

    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Waits until the gateway has accepted its `n`th config.
    pub(crate) async fn wait_for_generation(&self, n: u64) {
        eventually("the reload", async || {
            self.metric("sluice_config_generation").await >= n as f64
        })
        .await;
    }

    /// The access log's lines so far, waiting until there are `n`.
    pub(crate) async fn log_lines(&self, n: usize) -> Vec<serde_json::Value> {
        let path = self.folder.path().join("access.log");
        let read = || {
            let text = std::fs::read_to_string(&path).unwrap_or_default();
            text.lines().map(|line| serde_json::from_str(line).unwrap()).collect::<Vec<_>>()
        };
        eventually("log lines", async || read().len() >= n).await;
        read()
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        if std::thread::panicking() {
            return;
        }
        self.leaks.check("the log", &self.daemon.last_words());
        for file in std::fs::read_dir(self.folder.path()).into_iter().flatten().flatten() {
            let is_log = file.path().extension().is_some_and(|extension| extension == "log");
            if is_log && file.metadata().is_ok_and(|file| file.is_file()) {
                let text = std::fs::read(file.path()).unwrap_or_default();
                self.leaks.check("the access log", &String::from_utf8_lossy(&text));
            }
        }
    }
}

/// Figures about memory and load are those of the program that was built for releases.
fn program() -> std::ffi::OsString {
    std::env::var_os("SLUICE_PROGRAM").unwrap_or_else(|| env!("CARGO_BIN_EXE_sluice").into())
}

/// How a gateway shows that it is ready.
fn serving() -> Ready {
    Ready::Says("is serving".to_owned())
}

/// Memory of the gateway in bytes, shared pages counted by share.
pub(crate) fn proportional(gateway: &Gateway) -> u64 {
    let path = format!("/proc/{}/smaps_rollup", gateway.daemon.pid());
    let rollup = std::fs::read_to_string(path).unwrap();
    let line = rollup.lines().find(|line| line.starts_with("Pss:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
}

/// The status of an answer, and the word by which the gateway refuses.
pub(crate) fn reason(answer: &raw::Response) -> (u16, String) {
    (answer.status, answer.json()["reason"].as_str().unwrap_or_default().to_owned())
}

/// Waits until `condition` holds, 10 s at most.
pub(crate) async fn eventually(what: &str, condition: impl AsyncFn() -> bool) {
    for _ in 0..500 {
        if condition().await {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    panic!("waited 10 s in vain for {what}");
}

/// Resident memory of a gateway, bytes.
pub(crate) fn resident(gateway: &Gateway) -> u64 {
    let path = format!("/proc/{}/status", gateway.daemon.pid());
    let status = std::fs::read_to_string(path).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
}

/// What `sluice check` says about a config that it refuses; version and listeners are added.
pub(crate) fn refusal(config: &str) -> String {
    let listeners = "listeners: [ { name: plain, address: \"127.0.0.1:8080\" } ]\n";
    refusal_whole(&format!("{listeners}{config}"))
}

/// The same of a config that has listeners.
pub(crate) fn refusal_whole(config: &str) -> String {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("routes.yaml");
    std::fs::write(&path, format!("version: 1\n{config}")).unwrap();
    let checked =
        Command::new(env!("CARGO_BIN_EXE_sluice")).arg("check").arg("--config").arg(&path).output();
    let checked = checked.unwrap();
    let said = [checked.stdout, checked.stderr].concat();
    let said = String::from_utf8_lossy(&said).into_owned();
    assert_eq!(checked.status.code(), Some(1), "{said}");
    said
}
