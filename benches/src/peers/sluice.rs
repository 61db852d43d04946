//! Sluice: one worker and the defaults, so that every safety that is built is switched on. Only
//! what would close connections during a run is moved out of the way.

use std::fs;

use super::Stage;
use crate::child::Line;
use crate::failure::{Failure, Outcome};

pub(super) fn prepare(line: Line, stage: &Stage<'_>) -> Outcome<Line> {
    let config = stage.folder.join("routes.yaml");
    fs::write(&config, text(stage)).map_err(Failure::at(&config))?;
    Ok(line.args(["run", "--workers", "1", "--log", "warn", "--config"]).arg(config))
}

fn text(stage: &Stage<'_>) -> String {
    let (port, admin, backend) = (stage.port, stage.admin_port, stage.backend_port);
    format!(
        "\
version: 1
listeners:
  - name: bench
    address: \"127.0.0.1:{port}\"
    limits: {{ requests_per_connection: 1000000000 }}
admin: {{ address: \"127.0.0.1:{admin}\" }}
access_log: {{ output: \"off\" }}
shutdown: {{ delay: 0s, grace: 1s }}
upstreams:
  origin:
    endpoints: [{{ address: \"127.0.0.1:{backend}\" }}]
    keepalive: {{ max_requests: 1000000000 }}
routes:
  - {{ id: bench, match: {{ path: \"/**\" }}, upstream: origin }}
"
    )
}
