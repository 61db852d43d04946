//! A DNS server on loopback that answers A and AAAA over UDP from a table.
//!
//! The bytes of messages are in `message`. The one rule: a query that cannot be read is dropped, as
//! a bounded server must, and every other one is noted before it is answered.

mod message;

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket as StdSocket},
    sync::Arc,
};

use tokio::{net::UdpSocket, task::AbortHandle};

pub use message::{A, AAAA};
use message::{NO_ERROR, NX_DOMAIN, SERV_FAIL};

use crate::{ground, watched::Watched};

/// How a name is answered that is not simply in the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Behaviour {
    /// The server has failed.
    ServFail,
    /// The name does not exist.
    NxDomain,
    /// No answer.
    Silent,
    /// The name exists, and has no records of the kind asked for.
    Empty,
}

/// A question that was asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Query {
    /// The name in lower case, without a dot at its end.
    pub name: String,
    /// The type, such as [`A`].
    pub kind: u16,
}

/// A running server; dropping it stops it. Names it was not told of do not exist.
pub struct FakeDns {
    addr: SocketAddr,
    zone: Arc<Watched<Zone>>,
    queries: Arc<Watched<Vec<Query>>>,
    task: AbortHandle,
}

#[derive(Debug, Default)]
struct Zone {
    names: BTreeMap<String, Entry>,
    /// Outranks the names.
    all: Option<Behaviour>,
}

#[derive(Clone, Debug)]
enum Entry {
    Records { addresses: Vec<IpAddr>, ttl: u32 },
    Behaves(Behaviour),
}

impl FakeDns {
    /// Listens at a free port of 127.0.0.1.
    pub fn start() -> Self {
        let socket = StdSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        socket.set_nonblocking(true).expect("a socket may be made non-blocking");
        let addr = socket.local_addr().expect("a bound socket has an address");
        let socket =
            ground::inside(|| UdpSocket::from_std(socket)).expect("a socket of the runtime");
        let zone = Arc::new(Watched::new(Zone::default()));
        let queries = Arc::new(Watched::new(Vec::new()));
        let task = ground::spawn(serve(socket, Arc::clone(&zone), Arc::clone(&queries)));
        Self { addr, zone, queries, task: task.abort_handle() }
    }

    /// Where it listens (UDP).
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Gives a name these addresses and no others, to be kept for `ttl` seconds.
    pub fn set(&self, name: &str, addresses: &[IpAddr], ttl: u32) {
        self.put(name, Entry::Records { addresses: addresses.to_vec(), ttl });
    }

    /// Answers for a name in this way.
    pub fn behave(&self, name: &str, behaviour: Behaviour) {
        self.put(name, Entry::Behaves(behaviour));
    }

    /// Answers for all names in this way, or from the table again.
    pub fn behave_all(&self, behaviour: Option<Behaviour>) {
        self.zone.change(|zone| zone.all = behaviour);
    }

    /// Forgets a name: it does not exist any more.
    pub fn remove(&self, name: &str) {
        self.zone.change(|zone| zone.names.remove(&plain(name)));
    }

    /// The questions so far.
    pub fn queries(&self) -> Vec<Query> {
        self.queries.all()
    }

    /// The same, once there are at least `wanted`.
    pub async fn wait_for_queries(&self, wanted: usize) -> Vec<Query> {
        self.queries.all_of(wanted, "DNS queries").await
    }

    fn put(&self, name: &str, entry: Entry) {
        self.zone.change(|zone| zone.names.insert(plain(name), entry));
    }
}

impl Drop for FakeDns {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn plain(name: &str) -> String {
    name.trim_end_matches('.').to_ascii_lowercase()
}

impl Zone {
    fn answer(&self, question: &message::Question) -> Option<Vec<u8>> {
        let name = plain(&question.name);
        let entry = self.all.map(Entry::Behaves).or_else(|| self.names.get(&name).cloned());
        match entry.unwrap_or(Entry::Behaves(Behaviour::NxDomain)) {
            Entry::Behaves(Behaviour::Silent) => None,
            Entry::Behaves(Behaviour::ServFail) => Some(question.reply(SERV_FAIL, &[], 0)),
            Entry::Behaves(Behaviour::NxDomain) => Some(question.reply(NX_DOMAIN, &[], 0)),
            Entry::Behaves(Behaviour::Empty) => Some(question.reply(NO_ERROR, &[], 0)),
            Entry::Records { addresses, ttl } => Some(question.reply(NO_ERROR, &addresses, ttl)),
        }
    }
}

async fn serve(socket: UdpSocket, zone: Arc<Watched<Zone>>, queries: Arc<Watched<Vec<Query>>>) {
    let mut buffer = [0; message::LARGEST];
    loop {
        // An error belongs to an earlier answer that nobody was there to take.
        let Ok((length, peer)) = socket.recv_from(&mut buffer).await else { continue };
        let Some(question) = message::Question::parse(&buffer[..length]) else { continue };
        queries.push(Query { name: plain(&question.name), kind: question.kind });
        if let Some(reply) = zone.look(|zone| zone.answer(&question)) {
            socket.send_to(&reply, peer).await.ok();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::ground::{DEADLINE, within};

    /// The response code and the addresses with their time to live; nothing when there is silence.
    async fn ask(dns: &FakeDns, name: &str, kind: u16) -> Option<(u8, Vec<(IpAddr, u32)>)> {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        socket.send_to(&message::query(77, name, kind), dns.addr()).await.unwrap();
        let mut buffer = [0; 512];
        let silence = Duration::from_millis(200);
        let length = tokio::time::timeout(silence, socket.recv(&mut buffer)).await.ok()?.unwrap();
        Some(message::read_reply(77, &buffer[..length]))
    }

    #[tokio::test]
    async fn the_table_is_answered() {
        let dns = FakeDns::start();
        let four: IpAddr = [10, 0, 0, 1].into();
        let six: IpAddr = std::net::Ipv6Addr::LOCALHOST.into();
        dns.set("Up.Test.", &[four, six], 30);
        assert_eq!(ask(&dns, "up.test", A).await, Some((NO_ERROR, vec![(four, 30)])));
        assert_eq!(ask(&dns, "uP.tesT", AAAA).await, Some((NO_ERROR, vec![(six, 30)])));
        assert_eq!(ask(&dns, "up.test", 16).await, Some((NO_ERROR, vec![])));
        assert_eq!(ask(&dns, "other.test", A).await, Some((NX_DOMAIN, vec![])));
        dns.remove("up.test");
        assert_eq!(ask(&dns, "up.test", A).await, Some((NX_DOMAIN, vec![])));
        let queries = dns.wait_for_queries(5).await;
        assert_eq!(queries[1], Query { name: "up.test".to_owned(), kind: AAAA });
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn failures_by_name_and_for_all() {
        let dns = FakeDns::start();
        dns.set("up.test", &[[10, 0, 0, 1].into()], 1);
        dns.behave("down.test", Behaviour::ServFail);
        dns.behave("empty.test", Behaviour::Empty);
        assert_eq!(ask(&dns, "down.test", A).await, Some((SERV_FAIL, vec![])));
        assert_eq!(ask(&dns, "empty.test", A).await, Some((NO_ERROR, vec![])));
        dns.behave_all(Some(Behaviour::Silent));
        assert_eq!(ask(&dns, "up.test", A).await, None);
        dns.behave_all(Some(Behaviour::NxDomain));
        assert_eq!(ask(&dns, "up.test", A).await, Some((NX_DOMAIN, vec![])));
        dns.behave_all(None);
        assert_eq!(ask(&dns, "up.test", A).await.unwrap().1.len(), 1);
    }

    #[tokio::test]
    async fn rubbish_is_dropped() {
        let dns = FakeDns::start();
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        for rubbish in [&b""[..], b"short", &[0xff; 300]] {
            socket.send_to(rubbish, dns.addr()).await.unwrap();
        }
        assert!(ask(&dns, "x", A).await.is_some());
        within(DEADLINE, "one query", dns.wait_for_queries(1)).await;
        assert_eq!(dns.queries().len(), 1);
    }
}
