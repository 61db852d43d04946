//! A closed loop of whole visits: connect, a full TLS handshake, one request, and away.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::{Duration, Instant};

use tokio::task::JoinSet;

use super::Count;
use super::link::Target;
use crate::failure::Outcome;

/// After so many failures in a row a visitor gives up.
const PATIENCE: u32 = 10;

pub(super) async fn run(target: Rc<Target>, at_once: usize, length: Duration) -> Outcome<Count> {
    let count = Rc::new(RefCell::new(Count::new()));
    let end = Instant::now() + length;
    let mut visitors = JoinSet::new();
    for _ in 0..at_once {
        visitors.spawn_local(visit(Rc::clone(&target), Rc::clone(&count), end));
    }
    while visitors.join_next().await.is_some() {}
    Ok(count.replace(Count::new()))
}

async fn visit(target: Rc<Target>, count: Rc<RefCell<Count>>, end: Instant) {
    let mut failures = 0;
    while failures < PATIENCE {
        let began = Instant::now();
        if began >= end {
            return;
        }
        let visited = async {
            let mut link = target.connect().await?;
            target.ask(&mut link).await
        };
        match visited.await {
            Ok(bytes) => {
                failures = 0;
                count.borrow_mut().answered(bytes, began.elapsed());
            }
            Err(why) => {
                failures += 1;
                count.borrow_mut().failed(&why);
            }
        }
    }
}
