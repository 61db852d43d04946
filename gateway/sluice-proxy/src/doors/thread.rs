//! A worker thread: a runtime of its own, its accept loops, its housekeeping. It is told what to do
//! by commands and shares nothing with other workers but cells.

use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use sluice_engine::pressure::Stage;
use tokio::runtime::{Builder, LocalOptions};
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::accept::{self, Door};
use super::crowd::Crowd;
use super::shared::{Command, Mood, Shared};
use crate::base::{clock, deadline, seat};
use crate::lasting::pool::Pools;
use crate::lasting::redis;
use crate::lasting::tasks::{self, Kind};
use crate::path::login;
use crate::path::worker::Worker;

/// Polls between two looks at the sockets: measured to be cheaper than tokio's 61 under load.
const EVENT_INTERVAL: u32 = 256;
const TICK: Duration = Duration::from_millis(250);

/// Runs a worker until the program ends.
pub(crate) fn run(
    index: usize,
    shared: &Arc<Shared>,
    commands: UnboundedReceiver<Command>,
) -> std::io::Result<()> {
    let runtime = Builder::new_current_thread()
        .enable_all()
        .event_interval(EVENT_INTERVAL)
        .build_local(LocalOptions::default())?;
    let Some(shard) = shared.workshop.metrics.workers.get(index).map(Arc::clone) else {
        return Ok(());
    };
    seat::take(index);
    let siblings = shared.workshop.metrics.workers.len();
    let others = Arc::downgrade(shared);
    let pools = Pools::new(Box::new(move |link| {
        if let Some(shared) = others.upgrade() {
            shared.command(|_| Command::Yield(link));
        }
    }));
    runtime.block_on(async {
        let worker = Rc::new(Worker::new(index, siblings, &shared.live, pools, shard));
        serve(&worker, shared, commands).await;
        // What the runtime drops from here on is cut.
        worker.unattended.close();
    });
    Ok(())
}

async fn serve(
    worker: &Rc<Worker>,
    shared: &Arc<Shared>,
    mut commands: UnboundedReceiver<Command>,
) {
    let (feel, mood) = watch::channel(Mood::Normal);
    let crowd = Rc::new(Crowd::default());
    let mut accepting: HashMap<Arc<str>, JoinHandle<()>> = HashMap::new();
    let mut tick = tokio::time::interval(TICK);
    tasks::local(Kind::Worker, tasks::supervise("deadlines", deadline::keep));
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            command = commands.recv() => match command {
                Some(Command::Listen(sockets)) => for (name, socket) in sockets {
                    let door = Door {
                        worker: Rc::clone(worker),
                        shared: Arc::clone(shared),
                        name: Arc::clone(&name),
                        crowd: Rc::clone(&crowd),
                        mood: mood.clone(),
                    };
                    let accept = tasks::supervise("accept", move || door.clone().open(socket.try_clone()));
                    let task = tasks::local(Kind::Worker, accept);
                    if let Some(old) = accepting.insert(name, task) {
                        old.abort();
                    }
                },
                Some(Command::Serve(handed)) => {
                    shared.underway.taken(worker.index);
                    accept::take(worker, &crowd, handed, mood.clone());
                }
                Some(Command::Unlisten(names)) => for name in names {
                    if let Some(task) = accepting.remove(&name) {
                        task.abort();
                    }
                },
                Some(Command::Log(log)) => {
                    if let Some(mut old) = worker.log.replace(log) {
                        old.flush();
                    }
                }
                Some(Command::Yield(link)) => worker.pools.yield_one(link),
                Some(Command::Pressure(stage)) => {
                    worker.stage.set(stage);
                    let lean = if stage >= Stage::Lean { Mood::Lean } else { Mood::Normal };
                    feel.send_if_modified(|mood| {
                        let changes = *mood != Mood::Draining && *mood != lean;
                        if changes {
                            *mood = lean;
                        }
                        changes
                    });
                }
                Some(Command::Shed) => {
                    let shed = crowd.shed();
                    worker.shard.connections_shed.add(shed as u64);
                }
                Some(Command::MakeRoom) => accept::make_room(worker, &crowd, None),
                Some(Command::Farewell) => worker.draining.set(true),
                Some(Command::Drain) => {
                    worker.draining.set(true);
                    // The accept loops empty their queues before they close their sockets.
                    let _ = feel.send(Mood::Draining);
                }
                None => return,
            },
            _ = tick.tick() => tasks::guarded("housekeeping", || housekeeping(worker)),
        }
    }
}

/// Brings the worker to the snapshot in force, and connects it to what that needs.
fn attend(worker: &Worker) {
    let view = worker.view();
    if let Some(target) = &view.settings.redis {
        redis::attend(target);
    }
    if worker.index == 0
        && let Some(login) = &view.login
    {
        login::tend(login);
    }
}

fn housekeeping(worker: &Worker) {
    // A worker without requests would hold on to an old snapshot, and with it to all it retains.
    attend(worker);
    worker.pools.sweep(clock::now());
    redis::sweep();
    if let Some(log) = worker.log.borrow_mut().as_mut() {
        log.flush();
    }
}
