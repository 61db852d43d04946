//! The watch over memory. What the process holds is read ten times a second and compared with what it may
//! hold; workers are told when the stage changes, and to cut connections while it is the last one and does
//! not help by itself.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use sluice_engine::pressure::Stage;

use super::shared::{Command, Shared};
use crate::base::clock;

const LOOK: Duration = Duration::from_millis(100);
/// Looks between two cuts: what was cut must be able to show.
const PATIENCE: u32 = 5;

/// Watches until the program ends.
pub(crate) async fn watch(shared: Arc<Shared>) {
    let mut stage = Stage::Normal;
    let mut cutter = Cutter::default();
    loop {
        tokio::time::sleep_until(clock::deadline(clock::now().after(LOOK))).await;
        let Some(used) = resident() else { continue };
        shared.status.memory.store(used, Ordering::Relaxed);
        let limit = shared.live.snapshot().settings.overload.memory_limit;
        let next = limit.map_or(Stage::Normal, |limit| stage.next(used, limit));
        if next != stage {
            tell(next, stage, used, limit.unwrap_or(0));
            stage = next;
            shared.status.stage.store(stage as u8, Ordering::Relaxed);
            shared.command(|_| Command::Pressure(stage));
        }
        if cutter.cuts(stage, used) {
            shared.command(|_| Command::Shed);
        }
    }
}

fn tell(next: Stage, stage: Stage, used: u64, limit: u64) {
    let (from, to) = (stage.as_str(), next.as_str());
    if next > stage {
        tracing::warn!(used, limit, from, to, "memory is short");
    } else {
        tracing::info!(used, limit, from, to, "memory is less short");
    }
}

/// Decides when to cut: at once, and again whenever that has not made the use fall.
#[derive(Default)]
struct Cutter {
    /// Looks since the last cut, and what was in use at that time.
    last: Option<(u32, u64)>,
}

impl Cutter {
    fn cuts(&mut self, stage: Stage, used: u64) -> bool {
        if stage < Stage::Shedding {
            self.last = None;
            return false;
        }
        match &mut self.last {
            Some((looks, _)) if *looks < PATIENCE => {
                *looks += 1;
                false
            }
            Some((looks, before)) if used < *before => {
                (*looks, *before) = (0, used);
                false
            }
            last => {
                *last = Some((0, used));
                true
            }
        }
    }
}

/// Resident memory of this process, bytes (proc(5)); `VmRSS` is in KiB, whatever a page is.
fn resident() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_use_of_memory_is_known() {
        assert!(resident().is_some_and(|bytes| bytes > 100_000));
    }

    #[test]
    fn what_was_cut_is_given_time_to_show() {
        let mut cutter = Cutter::default();
        let cuts = |cutter: &mut Cutter, used: &[u64]| -> Vec<bool> {
            used.iter().map(|used| cutter.cuts(Stage::Shedding, *used)).collect()
        };
        assert_eq!(cuts(&mut cutter, &[9; 7]), [true, false, false, false, false, false, true]);
        let falling = [8, 8, 8, 8, 8, 7, 7, 7, 7, 7, 7, 7];
        let cut = cuts(&mut cutter, &falling);
        assert_eq!(cut.iter().position(|cut| *cut), Some(11), "{cut:?}: it fell, and then no more");
        assert!(!cutter.cuts(Stage::Refusing, 9));
        assert!(cutter.cuts(Stage::Shedding, 9), "anew");
    }
}
