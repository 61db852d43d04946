//! Connections that were used once and then idle until this process is ended.

use std::rc::Rc;

use tokio::task::JoinSet;

use super::link::Target;
use super::{Count, STANDING};
use crate::failure::Outcome;

/// How many are opened at a time; more would measure the back end's connections too.
const AT_ONCE: usize = 8;

pub(super) async fn run(target: Rc<Target>, connections: usize) -> Outcome<Count> {
    let mut held = Vec::with_capacity(connections);
    let mut opening = JoinSet::new();
    let mut begun = 0;
    while held.len() < connections {
        while begun < connections && opening.len() < AT_ONCE {
            let target = Rc::clone(&target);
            begun += 1;
            opening.spawn_local(async move {
                let mut link = target.connect().await?;
                target.ask(&mut link).await.map(|_| link)
            });
        }
        if let Some(Ok(opened)) = opening.join_next().await {
            held.push(opened?);
        }
    }
    println!("{STANDING}");
    std::future::pending().await
}
