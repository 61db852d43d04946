//! The minimal proxy on Pingora, whose source is in `benches/pingora`.

use super::Stage;
use crate::child::Line;
use crate::workloads::{Back, Front};

pub(super) fn prepare(line: Line, stage: &Stage<'_>) -> Line {
    let numbers = [stage.workers.to_string(), stage.port.to_string()];
    let mut line = line.args(numbers).arg(stage.backend_port.to_string());
    if stage.workload.front == Front::Http2Plain {
        line = line.arg("h2c");
    }
    if stage.workload.back == Back::Grpc {
        line = line.arg("grpc");
    }
    if stage.workload.is_encrypted() {
        line = line.arg("tls").arg(&stage.ground.certificate).arg(&stage.ground.key);
    }
    line
}
