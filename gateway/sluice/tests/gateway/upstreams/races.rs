//! The race with a service that closes its idle connections at any moment.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use sluice_chaos::raw::Client;
use sluice_chaos::rogue::{Conversation, Rogue};

use crate::configs::passing;
use crate::support::Gateway;

/// How often each POST was read to its end.
type Read = Arc<Mutex<HashMap<String, u64>>>;

/// Answers each request and closes after a random time of up to 100 ms without another one.
async fn impatient(mut talk: Conversation, read: Read) {
    let mut patience = sluice_chaos::DEADLINE;
    loop {
        let Ok(Some(head)) = tokio::time::timeout(patience, talk.next_head()).await else { return };
        talk.read_body(&head).await;
        if head.method == "POST" {
            *read.lock().unwrap().entry(head.target).or_default() += 1;
        }
        if !talk.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await {
            return;
        }
        patience = Duration::from_micros(fastrand::u64(..100_000));
    }
}

/// GETs that did not get 200, POSTs that did not, and POSTs that were read twice; and that in words.
async fn race(clients: u64, requests: u64, post_each: u64) -> ([u64; 3], String) {
    let read = Read::default();
    let noted = Arc::clone(&read);
    let rogue = Rogue::start(move |talk| impatient(talk, Arc::clone(&noted)));
    let gateway = Gateway::start(&passing(rogue.addr())).await;
    let failed = Arc::new([AtomicU64::new(0), AtomicU64::new(0)]);
    let tasks: Vec<_> = (0..clients)
        .map(|client| {
            let (failed, http) = (Arc::clone(&failed), gateway.http);
            tokio::spawn(async move {
                let mut connection = Client::connect(http).await;
                for number in 0..requests / clients {
                    let pause = Duration::from_micros(fastrand::u64(..50_000));
                    tokio::time::sleep(pause).await;
                    let post = number % post_each == 0;
                    let (method, body) =
                        if post { ("POST", &b"order"[..]) } else { ("GET", &b""[..]) };
                    let path = format!("/{client}/{number}");
                    let answer = connection.request(method, &path, "localhost", &[], body).await;
                    if answer.status != 200 {
                        failed[usize::from(post)].fetch_add(1, Ordering::Relaxed);
                    }
                    if answer.closed {
                        connection = Client::connect(http).await;
                    }
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    let doubled = read.lock().unwrap().values().filter(|times| **times > 1).count() as u64;
    let [gets, posts] = [0, 1].map(|at: usize| failed[at].load(Ordering::Relaxed));
    let story = format!(
        "{requests} requests over {} connections: {} second attempts, {gets} GETs and {posts} POSTs \
         failed, {doubled} POSTs doubled",
        rogue.connections(),
        gateway.metric("sluice_upstream_retries_total").await,
    );
    ([gets, posts, doubled], story)
}

/// A POST that meets a closing connection fails, since nobody knows whether it was read.
///
/// Shows U-05.
#[tokio::test(flavor = "multi_thread")]
async fn idle_connections_that_close_at_any_moment_cost_no_get() {
    let ([gets, posts, doubled], story) = race(16, 800, 5).await;
    assert_eq!((gets, doubled), (0, 0), "{story}");
    assert!(posts <= 16, "{story}");
}

/// Shows U-05.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "second tier: cargo xtask soak"]
async fn long_race_with_closing_connections() {
    let ([gets, posts, doubled], story) = race(48, 110_000, 11).await;
    println!("{story}");
    assert_eq!((gets, doubled), (0, 0), "{story}");
    assert!(posts <= 300, "{story}");
}
