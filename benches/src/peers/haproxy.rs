//! HAProxy: one thread, connections to the back end shared by all clients, routes in a map.

use super::Stage;
use crate::child::Line;
use crate::failure::Outcome;
use crate::workloads::{Back, Front};

pub(super) fn prepare(line: Line, stage: &Stage<'_>) -> Outcome<Line> {
    let map: String = stage.prefixes().map(|prefix| format!("{prefix} origin\n")).collect();
    let map_file = stage.write("routes.map", &map)?;
    let choose = if map.is_empty() {
        String::from("default_backend origin")
    } else {
        format!("use_backend %[path,map_beg({})]", map_file.display())
    };
    let config = stage.write("haproxy.cfg", &text(stage, &choose))?;
    // -db: in the foreground, as one process.
    Ok(line.args(["-db", "-f"]).arg(config))
}

fn text(stage: &Stage<'_>, choose: &str) -> String {
    let (port, backend) = (stage.port, stage.backend_port);
    let both = stage.ground.both.display();
    let words = match stage.workload.front {
        Front::Plain => String::new(),
        Front::Tls => format!("ssl crt {both} alpn http/1.1"),
        Front::Http2 => format!("ssl crt {both} alpn h2,http/1.1"),
        Front::Http2Plain => "proto h2".to_owned(),
    };
    let towards = if stage.workload.back == Back::Grpc { "proto h2" } else { "" };
    format!(
        "\
global
  nbthread 1
  maxconn 9000
  ssl-default-bind-options ssl-min-ver TLSv1.3
defaults
  mode http
  option forwardfor
  http-reuse always
  timeout connect 5s
  timeout client 1h
  timeout server 1h
  timeout tunnel 1h
  timeout http-keep-alive 1h
frontend bench
  bind 127.0.0.1:{port} backlog 4096 {words}
  {choose}
backend origin
  server one 127.0.0.1:{backend} pool-max-conn -1 pool-purge-delay 1h {towards}
"
    )
}
