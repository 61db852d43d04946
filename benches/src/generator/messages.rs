//! WebSocket echo (RFC 6455): each connection sends a small message and waits until it comes back.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::{Duration, Instant};

use tokio::task::JoinSet;

use super::Count;
use super::link::{Link, Target};
use crate::failure::{Failure, Outcome};

/// Bytes of a message, without its frame. With less than 126 a frame's head has two bytes.
const MESSAGE: usize = 62;
const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];
/// What a final binary frame begins with.
const BINARY: u8 = 0x82;

pub(super) async fn run(
    target: Rc<Target>,
    connections: usize,
    length: Duration,
) -> Outcome<Count> {
    let count = Rc::new(RefCell::new(Count::new()));
    let mut links = Vec::new();
    for _ in 0..connections {
        links.push(open(&target).await?);
    }
    let end = Instant::now() + length;
    let mut talking = JoinSet::new();
    for link in links {
        talking.spawn_local(talk(link, Rc::clone(&count), end));
    }
    while talking.join_next().await.is_some() {}
    Ok(count.replace(Count::new()))
}

async fn open(target: &Target) -> Outcome<Link> {
    let mut link = target.connect().await?;
    link.write(handshake(&target.path).as_bytes()).await?;
    let (head, _) = link.head().await?;
    if !head.starts_with("HTTP/1.1 101 ") {
        return Err(Failure(head.lines().next().unwrap_or_default().to_owned()));
    }
    Ok(link)
}

/// The opening handshake, with the nonce of the RFC's own example.
pub(crate) fn handshake(path: &str) -> String {
    format!(
        "GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
    )
}

async fn talk(mut link: Link, count: Rc<RefCell<Count>>, end: Instant) {
    let mut sent = vec![BINARY, 0x80 | MESSAGE as u8];
    sent.extend_from_slice(&MASK);
    sent.extend((0..MESSAGE).zip(MASK.into_iter().cycle()).map(|(_, mask)| b'x' ^ mask));
    let mut wanted = vec![BINARY, MESSAGE as u8];
    wanted.resize(MESSAGE + 2, b'x');
    let mut came = vec![0; wanted.len()];
    loop {
        let began = Instant::now();
        if began >= end {
            return;
        }
        let there_and_back = async {
            link.write(&sent).await?;
            link.read(&mut came).await
        };
        match there_and_back.await {
            Ok(()) if came == wanted => {
                count.borrow_mut().answered(came.len(), began.elapsed());
            }
            Ok(()) => count.borrow_mut().failed(&"another message came back"),
            Err(why) => {
                count.borrow_mut().failed(&why);
                return;
            }
        }
    }
}
