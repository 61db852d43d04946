//! A WebSocket upstream that sends every message back.
//!
//! The one rule: how each connection ended is noted, since a gateway that cuts tunnels and one that
//! closes them look alike from the client.

use std::{net::SocketAddr, sync::Arc};

use rustls::ServerConfig;

use super::{
    accept_key,
    frame::{self, CLOSE, PING, PONG},
};
use crate::{
    rogue::{Conversation, Head, Rogue},
    watched::Watched,
    wire::Pipe,
};

/// A running echo; dropping it cuts its connections.
pub struct Echo {
    rogue: Rogue,
    closes: Arc<Watched<Vec<Option<u16>>>>,
}

/// What a client without a mask is told (RFC 6455 section 7.4.1).
const PROTOCOL_ERROR: u16 = 1002;
/// Stands for a close frame without a code (RFC 6455 section 7.1.5).
const NO_CODE: u16 = 1005;

impl Echo {
    /// Listens at a free port.
    pub fn start() -> Self {
        Self::listen(None)
    }

    /// Listens at a free port, inside TLS.
    pub fn start_tls(config: Arc<ServerConfig>) -> Self {
        Self::listen(Some(config))
    }

    fn listen(tls: Option<Arc<ServerConfig>>) -> Self {
        let closes = Arc::new(Watched::new(Vec::new()));
        let noted = Arc::clone(&closes);
        let script = move |talk: Conversation| {
            let noted = Arc::clone(&noted);
            async move { serve(talk, &noted).await }
        };
        let rogue = match tls {
            None => Rogue::start(script),
            Some(config) => Rogue::start_tls(config, script),
        };
        Self { rogue, closes }
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.rogue.addr()
    }

    /// How many connections were ever accepted.
    pub fn connections(&self) -> u64 {
        self.rogue.connections()
    }

    /// How many connections are open now.
    pub fn open(&self) -> u64 {
        self.rogue.open()
    }

    /// Waits until exactly `wanted` connections are open.
    pub async fn wait_for_open(&self, wanted: u64) {
        self.rogue.wait_for_open(wanted).await;
    }

    /// The requests that asked for a WebSocket, and those that should have.
    pub fn handshakes(&self) -> Vec<Head> {
        self.rogue.heads()
    }

    /// How WebSockets ended: the code of the client's close frame (1005 when it had none), or
    /// nothing when the connection was cut without one.
    pub fn closes(&self) -> Vec<Option<u16>> {
        self.closes.all()
    }

    /// The same, once there are at least `wanted`.
    pub async fn wait_for_closes(&self, wanted: usize) -> Vec<Option<u16>> {
        self.closes.all_of(wanted, "closed WebSockets").await
    }
}

async fn serve(mut talk: Conversation, closes: &Watched<Vec<Option<u16>>>) {
    let Some(head) = talk.next_head().await else { return };
    let Some(opening) = opening(&head) else {
        talk.send(
            "HTTP/1.1 426 Upgrade Required\r\nUpgrade: websocket\r\nConnection: Upgrade, close\r\n\
             Content-Length: 0\r\n\r\n",
        )
        .await;
        return talk.close().await;
    };
    talk.send(opening).await;
    let mut pipe = talk.into_pipe();
    let code = echo(&mut pipe).await;
    closes.push(code);
    // The client may be gone.
    pipe.finish().await.ok();
}

/// The response to a proper handshake (RFC 6455 section 4.2.1).
fn opening(head: &Head) -> Option<String> {
    let key = head.header("sec-websocket-key")?;
    let proper = head.method == "GET"
        && head.lists("upgrade", "websocket")
        && head.lists("connection", "upgrade")
        && head.header("sec-websocket-version") == Some("13");
    let protocol = head.header("sec-websocket-protocol").and_then(|names| names.split(',').next());
    let protocol = protocol.map(|name| format!("Sec-WebSocket-Protocol: {name}\r\n"));
    proper.then(|| {
        format!(
            "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Accept: {}\r\n{}\r\n",
            accept_key(key),
            protocol.unwrap_or_default()
        )
    })
}

/// Serves until the end and tells which it was.
async fn echo(pipe: &mut Pipe) -> Option<u16> {
    loop {
        let frame = frame::read(pipe).await?;
        if !frame.masked {
            let farewell = frame::encode(CLOSE, &PROTOCOL_ERROR.to_be_bytes(), None);
            pipe.send(&farewell).await.ok();
            return None;
        }
        let opcode = match frame.opcode {
            PONG => continue,
            PING => PONG,
            other => other,
        };
        let mut reply = frame::encode(opcode, &frame.payload, None);
        if !frame.fin {
            reply[0] &= 0x7f;
        }
        pipe.send(&reply).await.ok()?;
        if frame.opcode == CLOSE {
            return Some(frame.close_code().unwrap_or(NO_CODE));
        }
    }
}
