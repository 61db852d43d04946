//! nginx: one worker, `reuseport`, and buffers that hold a large answer without a temporary file.

use std::fs;

use super::Stage;
use crate::child::Line;
use crate::failure::{Failure, Outcome};

pub(super) fn prepare(line: Line, stage: &Stage<'_>) -> Outcome<Line> {
    let config = stage.folder.join("nginx.conf");
    fs::write(&config, text(stage)).map_err(Failure::at(&config))?;
    Ok(line
        .arg("-p")
        .arg(stage.folder)
        .arg("-e")
        .arg(stage.folder.join("error.log"))
        .arg("-c")
        .arg(config))
}

fn text(stage: &Stage<'_>) -> String {
    let folder = stage.folder.display();
    let (port, backend) = (stage.port, stage.backend_port);
    format!(
        "\
daemon off;
user root;
worker_processes 1;
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
  proxy_set_header Connection \"\";
  proxy_set_header Host $http_host;
  proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
  proxy_buffers 16 64k;
  proxy_max_temp_file_size 0;
  server {{
    listen 127.0.0.1:{port} reuseport backlog=4096;
    location / {{ proxy_pass http://origin; }}
  }}
}}
"
    )
}
