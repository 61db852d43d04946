//! An open loop: requests are due at even distances and leave on the next free connection; latency
//! counts from the instant a request was due, so that a proxy that stalls cannot hide it.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io;
use std::rc::Rc;
use std::time::{Duration, Instant};

use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
    timerfd_settime,
};
use tokio::net::unix::pipe::Receiver;
use tokio::sync::Notify;
use tokio::task::spawn_local;

use super::Count;
use super::link::{Link, Target};
use crate::failure::{Failure, Outcome};

/// Requests that are due within one tick leave together; a shorter tick would keep the processor of
/// the load busy with ticking.
const TICK: Duration = Duration::from_micros(100);
/// How long answers are waited for after the last request was due.
const LAST: Duration = Duration::from_secs(2);

/// What the clock and the connections share.
struct Shared {
    /// When the requests that have not left yet were due.
    due: RefCell<VecDeque<Instant>>,
    more: Notify,
    count: RefCell<Count>,
}

pub(super) async fn run(
    target: Rc<Target>,
    connections: usize,
    per_second: u32,
    length: Duration,
) -> Outcome<Count> {
    let count = RefCell::new(Count::new());
    let shared = Rc::new(Shared { due: RefCell::default(), more: Notify::new(), count });
    for _ in 0..connections {
        let mut link = target.connect().await?;
        target.ask(&mut link).await?;
        spawn_local(serve(Rc::clone(&target), Rc::clone(&shared), link));
    }
    let distance = Duration::from_secs(1) / per_second.max(1);
    let ticker = ticker(distance.max(TICK))?;
    let planned = u64::from(per_second) * length.as_secs();
    let began = Instant::now();
    let mut next = 0;
    while next < planned {
        tick(&ticker).await?;
        let now = Instant::now();
        while next < planned {
            let due = began + Duration::from_nanos(next * 1_000_000_000 / u64::from(per_second));
            if due > now {
                break;
            }
            shared.due.borrow_mut().push_back(due);
            shared.more.notify_one();
            next += 1;
        }
    }
    let last = Instant::now();
    while shared.count.borrow().ended() < planned && last.elapsed() < LAST {
        tick(&ticker).await?;
    }
    let mut count = shared.count.replace(Count::new());
    for _ in count.ended()..planned {
        count.failed(&"no answer in time");
    }
    // A proxy that falls behind answers its last requests late.
    count.took = began.elapsed();
    Ok(count)
}

/// One connection: takes what is due, as soon as it is free.
async fn serve(target: Rc<Target>, shared: Rc<Shared>, mut link: Link) {
    loop {
        let due = shared.due.borrow_mut().pop_front();
        let Some(due) = due else {
            shared.more.notified().await;
            continue;
        };
        match target.ask(&mut link).await {
            Ok(bytes) => shared.count.borrow_mut().answered(bytes, due.elapsed()),
            Err(Failure(why)) => {
                shared.count.borrow_mut().failed(&why);
                match target.connect().await {
                    Ok(new) => link = new,
                    Err(_) => return,
                }
            }
        }
    }
}

impl Count {
    fn ended(&self) -> u64 {
        self.histogram.total() + self.errors
    }
}

/// A timer of the kernel's, since those of the runtime count milliseconds. The runtime reads it as
/// it would read a pipe: each expiry makes it readable.
fn ticker(distance: Duration) -> io::Result<Receiver> {
    let timer = timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::NONBLOCK)?;
    let distance = Timespec {
        tv_sec: i64::try_from(distance.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: distance.subsec_nanos().into(),
    };
    let every = Itimerspec { it_interval: distance, it_value: distance };
    timerfd_settime(&timer, TimerfdTimerFlags::empty(), &every)?;
    Receiver::from_owned_fd_unchecked(timer)
}

async fn tick(ticker: &Receiver) -> io::Result<()> {
    loop {
        ticker.readable().await?;
        match ticker.try_read(&mut [0; 8]) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            done => return done.map(|_| ()),
        }
    }
}
