//! Ports that stay one's own after they were closed.
//!
//! A port that the system picks may be picked again, for a listener or for an outgoing connection,
//! as soon as it is closed; a test that stops an upstream and starts it again would then fail now
//! and then. The one rule: ports come from below the range the system picks from (32768 and up on
//! Linux, unless it was changed), and each is given out once per process.

use std::{
    collections::BTreeSet,
    io::ErrorKind,
    net::{Ipv4Addr, SocketAddr, TcpListener},
    ops::Range,
    sync::Mutex,
    time::{Duration, Instant},
};

const RANGE: Range<u16> = 20_000..32_000;
/// So many tries in vain mean that something is wrong.
const TRIES: usize = 1000;

/// A port of 127.0.0.1 that nobody listens at.
pub fn free_port() -> u16 {
    let listener = listener();
    listener.local_addr().expect("a bound listener has an address").port()
}

/// A listener at such a port.
pub(crate) fn listener() -> TcpListener {
    static GIVEN: Mutex<BTreeSet<u16>> = Mutex::new(BTreeSet::new());
    for _ in 0..TRIES {
        let port = fastrand::u16(RANGE);
        let fresh = GIVEN.lock().expect("no panic while it is held").insert(port);
        if fresh && let Ok(listener) = TcpListener::bind((Ipv4Addr::LOCALHOST, port)) {
            return listener;
        }
    }
    panic!("no free port in {RANGE:?}")
}

/// A listener at an address that was just in use. A process that is being started holds, for the
/// moment before it becomes its program, everything that was open, also what was closed meanwhile;
/// so a port that is taken is tried for a while.
pub(crate) fn listener_at(addr: SocketAddr) -> TcpListener {
    let start = Instant::now();
    loop {
        match TcpListener::bind(addr) {
            Ok(listener) => return listener,
            Err(error) if error.kind() == ErrorKind::AddrInUse && start.elapsed() < PATIENCE => {
                std::thread::sleep(Duration::from_millis(5));
            }
            Err(error) => panic!("cannot bind {addr}: {error}"),
        }
    }
}

const PATIENCE: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_given_once() {
        let ports: BTreeSet<u16> = (0..50).map(|_| free_port()).collect();
        assert_eq!(ports.len(), 50);
        assert!(ports.iter().all(|port| RANGE.contains(port)));
    }
    #[test]
    fn a_port_that_is_given_up_is_waited_for() {
        let held = listener();
        let addr = held.local_addr().unwrap();
        let giving_up = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(50));
            drop(held);
        });
        assert_eq!(listener_at(addr).local_addr().unwrap(), addr);
        giving_up.join().unwrap();
    }
}
