//! One run of the gateway under callgrind: a back end and clients of ours around it, all plain and
//! blocking. Requests go out on all connections before answers are read, as a busy worker sees them.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::Duration;

use super::callgrind::Counts;
use crate::shell::{Failure, Shell};

const CONNECTIONS: u64 = 16;
const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\nDate: Sat, 21 Nov 2026 00:00:00 GMT\r\n\
    Content-Type: text/plain\r\nContent-Length: 128\r\nConnection: keep-alive\r\n\r\n";
/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(60);
/// How often the gateway is looked for while it starts.
const TRIES: u32 = 600;
const BETWEEN_TRIES: Duration = Duration::from_millis(100);
/// Which code the C library takes must not depend on the newest of a processor's features.
pub(super) const TUNABLES: &str =
    "glibc.cpu.hwcaps=-AVX512F_Usable,-AVX2_Usable,-AVX_Fast_Unaligned_Load,-ERMS";

/// Runs `requests` through a gateway with `filters` and tells what its worker did.
pub(super) fn run(
    shell: &Shell,
    program: &Path,
    filters: &str,
    token: bool,
    requests: u64,
    folder: &Path,
) -> Result<Counts, Failure> {
    let _ = std::fs::remove_dir_all(folder);
    let failed = |what: &str| {
        let what = what.to_owned();
        move |error: std::io::Error| Failure(format!("{what}: {error}"))
    };
    std::fs::create_dir_all(folder).map_err(failed("a folder for callgrind"))?;
    let back = backend().map_err(failed("the back end"))?;
    let [front, admin] = [free_port()?, free_port()?];
    let config = folder.join("routes.yaml");
    std::fs::write(&config, text(front, admin, back, filters)).map_err(failed("the config"))?;
    let head = head(shell, program, &config, token)?;
    let mut gateway = start(shell, program, &config, folder)?;
    let done = drive(front, &head, requests).map_err(failed("a request through the gateway"));
    stop(shell, &mut gateway)?;
    done?;
    worker(folder)
}

fn text(front: u16, admin: u16, back: SocketAddr, filters: &str) -> String {
    format!(
        "version: 1
listeners: [ {{ name: main, address: \"127.0.0.1:{front}\" }} ]
admin: {{ address: \"127.0.0.1:{admin}\" }}
access_log: {{ output: \"off\" }}
shutdown: {{ delay: 0s, grace: 1s }}
upstreams:
  back: {{ endpoints: [ {{ address: \"{back}\" }} ], breaker: {{ failure_rate: 50% }} }}
routes:
  - {{ id: all, match: {{ path: \"/**\" }}, {filters} upstream: back }}
"
    )
}

/// The request, with a token that the config accepts if it wants one.
fn head(shell: &Shell, program: &Path, config: &Path, token: bool) -> Result<String, Failure> {
    let mut head = "GET /some/path?x=1 HTTP/1.1\r\nHost: api.example.com\r\nUser-Agent: budget\r\n\
        Accept: */*\r\n"
        .to_owned();
    if token {
        let mut command = shell.command(program);
        command.args(["token", "--claim", "sub=u-1", "--config"]).arg(config);
        head += &format!("Authorization: Bearer {}\r\n", shell.capture(command)?.trim());
    }
    Ok(head + "\r\n")
}

fn start(shell: &Shell, program: &Path, config: &Path, folder: &Path) -> Result<Child, Failure> {
    let mut command = shell.command("valgrind");
    command
        .args(["--tool=callgrind", "--separate-threads=yes", "-q"])
        .arg(format!("--callgrind-out-file={}", folder.join("out").display()))
        .arg(program)
        .args(["run", "--workers", "1", "--log", "error", "--config"])
        .arg(config)
        .env("GLIBC_TUNABLES", TUNABLES)
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    command.spawn().map_err(|e| Failure(format!("valgrind: {e}")))
}

fn stop(shell: &Shell, gateway: &mut Child) -> Result<(), Failure> {
    let mut kill = shell.command("kill");
    kill.arg(gateway.id().to_string());
    shell.run(kill)?;
    let _ = gateway.wait();
    Ok(())
}

/// Sends the requests, one on each connection before the answers are read.
fn drive(port: u16, head: &str, requests: u64) -> std::io::Result<()> {
    let mut connections = Vec::new();
    for _ in 0..CONNECTIONS {
        connections.push(connect(port)?);
    }
    for _ in 0..requests / CONNECTIONS {
        for connection in &mut connections {
            connection.write_all(head.as_bytes())?;
        }
        for connection in &mut connections {
            take(connection)?;
        }
    }
    Ok(())
}

/// Tries until the gateway listens, which under callgrind takes seconds.
fn connect(port: u16) -> std::io::Result<TcpStream> {
    let mut tries = 0;
    loop {
        match TcpStream::connect((Ipv4Addr::LOCALHOST, port)) {
            Ok(stream) => {
                stream.set_read_timeout(Some(PATIENCE))?;
                stream.set_nodelay(true)?;
                return Ok(stream);
            }
            Err(error) if tries == TRIES => return Err(error),
            Err(_) => tries += 1,
        }
        #[expect(clippy::disallowed_methods, reason = "nothing else runs on this thread")]
        std::thread::sleep(BETWEEN_TRIES);
    }
}

/// Reads one answer, which has to be a whole 200.
fn take(connection: &mut TcpStream) -> std::io::Result<()> {
    let mut got = Vec::new();
    let mut part = [0; 4096];
    loop {
        let read = connection.read(&mut part)?;
        got.extend_from_slice(part.get(..read).unwrap_or(&[]));
        let end = got.windows(4).position(|four| four == b"\r\n\r\n");
        let wrong = read == 0 || end.is_some() && !got.starts_with(b"HTTP/1.1 200");
        if wrong {
            let said = String::from_utf8_lossy(&got).into_owned();
            return Err(std::io::Error::other(format!("the gateway said `{said}`")));
        }
        if end.is_some_and(|end| got.len() >= end + 4 + 128) {
            return Ok(());
        }
    }
}

/// Answers every request alike until the process ends.
fn backend() -> std::io::Result<SocketAddr> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let address = listener.local_addr()?;
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            std::thread::spawn(move || serve(stream));
        }
    });
    Ok(address)
}

fn serve(mut stream: TcpStream) {
    let answer = [ANSWER, &[b'x'; 128]].concat();
    let (mut got, mut part) = (Vec::new(), [0; 4096]);
    let _ = stream.set_nodelay(true);
    while let Ok(read @ 1..) = stream.read(&mut part) {
        got.extend_from_slice(part.get(..read).unwrap_or(&[]));
        if got.ends_with(b"\r\n\r\n") {
            got.clear();
            if stream.write_all(&answer).is_err() {
                return;
            }
        }
    }
}

fn free_port() -> Result<u16, Failure> {
    let bound = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).and_then(|l| l.local_addr());
    bound.map(|address| address.port()).map_err(|e| Failure(format!("no free port: {e}")))
}

/// Only a worker has seen a request, whatever else a thread did while the program started.
fn worker(folder: &Path) -> Result<Counts, Failure> {
    let files = std::fs::read_dir(folder).map_err(|e| Failure(e.to_string()))?;
    let of = |file: std::io::Result<std::fs::DirEntry>| {
        let path = file.ok()?.path();
        let ours = path.file_name()?.to_str()?.starts_with("out");
        let text = std::fs::read_to_string(path).ok().filter(|_| ours)?;
        text.contains("sluice_proxy::path::pipeline").then(|| Counts::read(&text))
    };
    files
        .filter_map(of)
        .max_by_key(|counts| counts.instructions)
        .filter(|counts| counts.instructions > 0)
        .ok_or_else(|| Failure(format!("callgrind wrote nothing under {}", folder.display())))
}
