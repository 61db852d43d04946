//! nginx: one worker, `reuseport`, and buffers that hold a large answer without a temporary file.

use super::Stage;
use crate::child::Line;
use crate::failure::Outcome;
use crate::workloads::{Back, Front};

pub(super) fn prepare(line: Line, stage: &Stage<'_>) -> Outcome<Line> {
    start(line, stage, &text(stage))
}

/// The command line that serves this config.
pub(super) fn start(line: Line, stage: &Stage<'_>, text: &str) -> Outcome<Line> {
    let config = stage.write("nginx.conf", text)?;
    let errors = stage.folder.join("error.log");
    Ok(line.arg("-p").arg(stage.folder).arg("-e").arg(errors).arg("-c").arg(config))
}

pub(super) fn text(stage: &Stage<'_>) -> String {
    let folder = stage.folder.display();
    let (backend, workers) = (stage.backend_port, stage.workers);
    let server = server(stage);
    let locations = locations(stage);
    format!(
        "\
daemon off;
user root;
worker_processes {workers};
worker_rlimit_nofile 20000;
pid {folder}/nginx.pid;
error_log {folder}/error.log error;
events {{ worker_connections 10000; }}
http {{
  access_log off;
  keepalive_requests 1000000000;
  keepalive_timeout 1h;
  client_body_buffer_size 64k;
  client_body_temp_path {folder}/body;
  proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi;
  scgi_temp_path {folder}/scgi;
  upstream origin {{
    server 127.0.0.1:{backend};
    keepalive 256;
    keepalive_requests 1000000000;
    keepalive_timeout 1h;
  }}
  proxy_http_version 1.1;
  proxy_set_header Host $http_host;
  proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
  proxy_buffers 16 64k;
  proxy_max_temp_file_size 0;
{server}{locations}  }}
}}
"
    )
}

fn server(stage: &Stage<'_>) -> String {
    let port = stage.port;
    let words = match stage.workload.front {
        Front::Plain => "",
        Front::Tls => " ssl",
        Front::Http2 => " ssl http2",
        Front::Http2Plain => " http2",
    };
    let mut text =
        format!("  server {{\n    listen 127.0.0.1:{port}{words} reuseport backlog=4096;\n");
    if stage.workload.is_encrypted() {
        let (certificate, key) = (stage.ground.certificate.display(), stage.ground.key.display());
        text.push_str(&format!(
            "    ssl_certificate {certificate};\n    ssl_certificate_key {key};\n    \
             ssl_protocols TLSv1.3;\n"
        ));
    }
    text.push_str(match stage.workload.back {
        Back::Http => "    proxy_set_header Connection \"\";\n",
        Back::WebSocket => {
            "    proxy_set_header Connection upgrade;\n    \
             proxy_set_header Upgrade $http_upgrade;\n    proxy_read_timeout 1h;\n"
        }
        Back::Grpc => "    grpc_set_header X-Forwarded-For $proxy_add_x_forwarded_for;\n",
    });
    text
}

fn locations(stage: &Stage<'_>) -> String {
    let pass = match stage.workload.back {
        Back::Grpc => "grpc_pass grpc://origin;",
        Back::Http | Back::WebSocket => "proxy_pass http://origin;",
    };
    let location = |prefix: &str| format!("    location {prefix} {{ {pass} }}\n");
    let many: String = stage.prefixes().map(|prefix| location(&prefix)).collect();
    if many.is_empty() { location("/") } else { many }
}
