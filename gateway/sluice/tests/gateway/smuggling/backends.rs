//! Services of several makes. Each answers with the path it was asked for, `<</path>>`, and tells every
//! request that it saw, malformed ones too.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;

use sluice_chaos::process::{Daemon, Ready, free_port, tool};
use sluice_chaos::recorder::{Answer, Recorder};
use tempfile::TempDir;

use super::Counts;

pub(super) struct Backend {
    name: &'static str,
    addr: SocketAddr,
    kind: Kind,
}

enum Kind {
    Recorder(Recorder),
    /// Prints a line for each request.
    Printing(Daemon, #[expect(dead_code, reason = "removed with the program")] TempDir),
    /// Writes them to a file.
    Writing(#[expect(dead_code, reason = "ended when dropped")] Daemon, TempDir),
}

/// What lines about requests begin with.
const MARK: &str = "SEEN ";
const LOG: &str = "requests.log";

fn scene(file: &str, text: &str) -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(file);
    std::fs::write(&path, text).unwrap();
    (folder, path)
}

fn address() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], free_port()))
}

impl Backend {
    pub(super) fn recorder() -> Self {
        let recorder = Recorder::deciding(|seen| Answer::ok(format!("<<{}>>", seen.target)));
        Self { name: "recorder", addr: recorder.addr(), kind: Kind::Recorder(recorder) }
    }

    pub(super) async fn nginx() -> Self {
        let addr = address();
        let folder = tempfile::tempdir().unwrap();
        let here = folder.path().display();
        let text = format!(
            "daemon off; master_process off; worker_processes 1; user root;\npid {here}/pid;\n\
             error_log {here}/error.log;\nevents {{ worker_connections 512; }}\nhttp {{\n\
             log_format seen '{MARK}$request';\naccess_log {here}/{LOG} seen;\n\
             client_body_temp_path {here}/body; proxy_temp_path {here}/proxy;\n\
             fastcgi_temp_path {here}/fastcgi; uwsgi_temp_path {here}/uwsgi; scgi_temp_path {here}/scgi;\n\
             server {{ listen {addr}; location / {{ return 200 \"<<$request_uri>>\"; }} }} }}\n"
        );
        let config = folder.path().join("nginx.conf");
        std::fs::write(&config, text).unwrap();
        let mut command = Command::new(tool("nginx"));
        command.arg("-p").arg(folder.path()).arg("-c").arg(&config);
        command.arg("-e").arg(folder.path().join("error.log"));
        let daemon = Daemon::start(command, Ready::Tcp(addr)).await;
        Self { name: "nginx", addr, kind: Kind::Writing(daemon, folder) }
    }

    pub(super) async fn haproxy() -> Self {
        let addr = address();
        let (folder, config) = scene(
            "haproxy.cfg",
            &format!(
                "global\n  log stdout format raw local0\n  maxconn 512\ndefaults\n  mode http\n  log global\n  \
                 log-format \"{MARK}%HM %HU\"\n  error-log-format \"{MARK}%HM %HU malformed\"\n  option dontlognull\n  timeout client 10s\n  \
                 timeout server 10s\n  timeout connect 5s\nfrontend all\n  bind {addr}\n  \
                 option http-buffer-request\n  \
                 http-request return status 200 content-type text/plain lf-string \"<<%[pathq]>>\"\n"
            ),
        );
        let mut command = Command::new(tool("haproxy"));
        command.args(["-db", "-f"]).arg(config);
        let daemon = Daemon::start(command, Ready::Tcp(addr)).await;
        Self { name: "haproxy", addr, kind: Kind::Printing(daemon, folder) }
    }

    pub(super) async fn node() -> Self {
        const SERVER: &str = "
const http = require('http');
const server = http.createServer((request, response) => {
  console.log('SEEN ' + request.method + ' ' + request.url);
  request.on('data', () => {});
  request.on('end', () => response.end('<<' + request.url + '>>'));
});
server.on('clientError', (error, socket) => {
  // Who breaks off amid a body is no other request.
  if (!['ECONNRESET', 'HPE_INVALID_EOF_STATE'].includes(error.code)) console.log('SEEN malformed ' + error.code);
  socket.destroy();
});
server.listen(+process.argv[2], '127.0.0.1', () => console.log('ready'));
";
        Self::script("node", "server.js", SERVER).await
    }

    pub(super) async fn python() -> Self {
        const SERVER: &str = "
import http.server, os, sys

def say(*words):
    # One call, since threads share the output.
    os.write(1, (' '.join(map(str, words)) + '\\n').encode())

class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = 'HTTP/1.1'
    def answer(self):
        say('SEEN', self.command, self.path)
        if 'chunked' in self.headers.get('Transfer-Encoding', ''):
            while True:
                size = int(self.rfile.readline().split(b';')[0], 16)
                self.rfile.read(size)
                if size == 0:
                    break
                self.rfile.readline()
            while self.rfile.readline().strip():
                pass
        else:
            self.rfile.read(int(self.headers.get('Content-Length', 0)))
        body = ('<<' + self.path + '>>').encode()
        self.send_response(200)
        self.send_header('Content-Length', str(len(body)))
        self.end_headers()
        if self.command != 'HEAD':
            self.wfile.write(body)
    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = do_PATCH = do_OPTIONS = answer
    def log_message(self, *args):
        pass
    def log_error(self, form, *args):
        if 'timed out' not in form:
            say('SEEN malformed', args)
class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 512
    # A client that leaves is no concern of the test.
    def handle_error(self, *args):
        pass
Server(('127.0.0.1', int(sys.argv[1])), Handler).serve_forever()
";
        Self::script("python3", "server.py", SERVER).await
    }

    async fn script(program: &'static str, file: &str, text: &str) -> Self {
        let addr = address();
        let (folder, script) = scene(file, text);
        let mut command = Command::new(tool(program));
        command.arg(script).arg(addr.port().to_string());
        let daemon = Daemon::start(command, Ready::Tcp(addr)).await;
        Self { name: program, addr, kind: Kind::Printing(daemon, folder) }
    }

    pub(super) fn name(&self) -> &'static str {
        self.name
    }

    pub(super) fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Every request so far, by method and path.
    pub(super) fn seen(&self) -> Counts {
        let text = match &self.kind {
            Kind::Recorder(recorder) => {
                let requests = recorder.requests();
                let whole = requests.iter().filter(|request| request.complete);
                return counted(whole.map(|it| format!("{} {}", it.method, it.target)));
            }
            Kind::Printing(daemon, _) => daemon.output(),
            Kind::Writing(_, folder) => {
                std::fs::read_to_string(folder.path().join(LOG)).unwrap_or_default()
            }
        };
        // HAProxy and others say something for a connection that ends without a request, too.
        counted(text.lines().filter_map(|line| line.strip_prefix(MARK)).map(str::to_owned))
    }
}

fn counted(requests: impl Iterator<Item = String>) -> Counts {
    let mut counts = Counts::new();
    for request in requests {
        let mut words = request.split(' ');
        let (method, target) = (words.next().unwrap_or(""), words.next().unwrap_or(""));
        let path = target.split('?').next().unwrap_or_default();
        *counts.entry(format!("{method} {path}")).or_default() += 1;
    }
    counts
}
