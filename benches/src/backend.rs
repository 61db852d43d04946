//! The service behind every proxy: one thread, no allocation while answers are small, nothing that a
//! proxy would have to wait for.
//!
//! The last segment of the path says what to answer (`/128`, `/4k`, `/1m`, `/health`); `/echo` gives
//! the body back, and `/ws` becomes a WebSocket that echoes. The one rule: it understands what well-behaved proxies send and refuses the rest
//! loudly, so that a mistake in a config becomes an error in the report and not a strange figure.

pub(crate) mod count;
pub(crate) mod grpc;
mod wire;
mod ws;

use std::collections::HashMap;
use std::io::{self, Read as _, Write as _};
use std::net::SocketAddr;
use std::rc::Rc;

use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token};

use crate::failure::Outcome;
use wire::{Answers, Next};

/// How much is read at a time; a request with a body of 16 KiB fits.
const SCRATCH: usize = 64 * 1024;
const LISTENER: Token = Token(0);

/// One proxy's connection.
struct Connection {
    stream: TcpStream,
    /// Bytes of a request that is not whole yet.
    begun: Vec<u8>,
    /// Answers on their way out: the bytes, and how many of them have left.
    out: Vec<(Rc<[u8]>, usize)>,
    /// Whether it has become a WebSocket.
    switched: bool,
}

/// Serves for ever; the harness ends the process.
pub(crate) fn serve(address: SocketAddr) -> Outcome<()> {
    let mut poll = Poll::new()?;
    let mut events = Events::with_capacity(1024);
    let mut listener = TcpListener::bind(address)?;
    poll.registry().register(&mut listener, LISTENER, Interest::READABLE)?;
    let answers = Answers::new();
    let mut connections: HashMap<Token, Connection> = HashMap::new();
    let mut scratch = vec![0; SCRATCH];
    let mut last = LISTENER.0;
    loop {
        match poll.poll(&mut events, None) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            done => done?,
        }
        for event in &events {
            if event.token() == LISTENER {
                while let Ok((mut stream, _)) = listener.accept() {
                    last += 1;
                    stream.set_nodelay(true)?;
                    let both = Interest::READABLE | Interest::WRITABLE;
                    poll.registry().register(&mut stream, Token(last), both)?;
                    let new = Connection::new(stream);
                    connections.insert(Token(last), new);
                }
            } else if let Some(connection) = connections.get_mut(&event.token())
                && !connection.turn(&mut scratch, &answers)
            {
                connections.remove(&event.token());
            }
        }
    }
}

impl Connection {
    fn new(stream: TcpStream) -> Self {
        Self { stream, begun: Vec::new(), out: Vec::new(), switched: false }
    }

    /// Does what can be done now; false when the connection is over.
    fn turn(&mut self, scratch: &mut [u8], answers: &Answers) -> bool {
        if !self.write() {
            return false;
        }
        loop {
            match self.stream.read(scratch) {
                Ok(0) => return false,
                Ok(read) => {
                    let bytes = scratch.get(..read).unwrap_or_default();
                    if !self.take(bytes, answers) || !self.write() {
                        return false;
                    }
                    // Edge-triggered: a short read has emptied the socket, and the next bytes
                    // make a new event.
                    if read < scratch.len() {
                        return true;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return true,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return false,
            }
        }
    }

    /// Reads whole requests and queues their answers; false when something is not understood.
    fn take(&mut self, bytes: &[u8], answers: &Answers) -> bool {
        if !self.begun.is_empty() {
            self.begun.extend_from_slice(bytes);
            let begun = std::mem::take(&mut self.begun);
            return self.parse(&begun, answers);
        }
        self.parse(bytes, answers)
    }

    fn parse(&mut self, mut bytes: &[u8], answers: &Answers) -> bool {
        while !bytes.is_empty() {
            if self.switched {
                let Some((echo, used)) = ws::echo(bytes) else { return false };
                count::one();
                self.out.push((echo.into(), 0));
                self.begun.extend_from_slice(bytes.get(used..).unwrap_or_default());
                return true;
            }
            match wire::next(bytes, answers) {
                Next::Switch { used } => {
                    self.switched = true;
                    self.out.push((ws::SWITCHED.into(), 0));
                    bytes = bytes.get(used..).unwrap_or_default();
                }
                Next::Answer { answer, used } => {
                    count::one();
                    self.out.push((answer, 0));
                    bytes = bytes.get(used..).unwrap_or_default();
                }
                Next::More => {
                    self.begun.extend_from_slice(bytes);
                    return true;
                }
                Next::Wrong => return false,
            }
        }
        true
    }

    fn write(&mut self) -> bool {
        while let Some((answer, left)) = self.out.first_mut() {
            match self.stream.write(answer.get(*left..).unwrap_or_default()) {
                Ok(written) => *left += written,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return true,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return false,
            }
            if *left >= answer.len() {
                self.out.remove(0);
            }
        }
        true
    }
}
