//! Making a connection to Redis: finding the server, logging in, and leaving the scripts there.

use std::future::Future;
use std::net::SocketAddr;
use std::pin::pin;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout_at;

use super::CONNECT;
use super::address::{Address, Login, Servers};
use super::connection::Connection;
use super::counting::Scripts;
use super::resp::{self, Reply};
use super::why::Why;
use crate::base::clock;
use crate::lasting::resolver::Names;

/// A way to a server.
pub(super) trait Stream: AsyncRead + AsyncWrite + Unpin {}

impl<S: AsyncRead + AsyncWrite + Unpin> Stream for S {}

/// Connects to `address`, or to the server that sentinels name. Says nothing there yet.
pub(super) async fn dial(
    servers: &Servers,
    names: &Names,
    address: &Address,
) -> Result<Box<dyn Stream>, Why> {
    match servers {
        Servers::One(..) | Servers::Cluster(..) => connect(names, address).await,
        Servers::Sentinel { sentinels, name, .. } => {
            let mut why = Why::Lost;
            for (sentinel, login) in sentinels {
                match master(names, sentinel, login, name).await {
                    Ok(master) => return connect(names, &master).await,
                    Err(other) => why = other,
                }
            }
            Err(why)
        }
    }
}

/// Logs in, and leaves the scripts where they are run.
pub(super) async fn greet(
    connection: &Connection,
    servers: &Servers,
    scripts: &Scripts,
) -> Result<(), Why> {
    let login = match servers {
        Servers::One(_, login) | Servers::Cluster(_, login) => login,
        Servers::Sentinel { login, .. } => login,
    };
    log_in(connection, login).await?;
    if matches!(servers, Servers::Sentinel { .. }) {
        // A sentinel may not have noticed yet, and a replica would count nothing.
        let role = say(connection, &[b"ROLE"]).await?;
        if role.items().first().and_then(Reply::text) != Some("master") {
            return Err(Why::ReadOnly);
        }
    }
    for source in scripts.sources() {
        // Who may not load scripts may still run them: they are sent whole when they are missing.
        connection
            .tell(|out| put(&[b"SCRIPT", b"LOAD", source.as_bytes()], out), clock::now())
            .map_err(Why::from)?;
    }
    say(connection, &[b"PING"]).await.map(drop)
}

/// A name is looked up for each connection: the server may have moved.
async fn connect(names: &Names, address: &Address) -> Result<Box<dyn Stream>, Why> {
    let until = clock::deadline(clock::now().after(CONNECT));
    let connected = timeout_at(until, async {
        match address {
            Address::Tcp(host, port) => {
                let stream = if names.are_chosen() {
                    let found = names.look_up(host).await.map_err(std::io::Error::other)?;
                    let found: Vec<_> =
                        found.into_iter().map(|ip| SocketAddr::new(ip, *port)).collect();
                    TcpStream::connect(&found[..]).await?
                } else {
                    // The system also knows short names, which the resolver does not complete.
                    TcpStream::connect((host.as_str(), *port)).await?
                };
                stream.set_nodelay(true)?;
                Ok(Box::new(stream) as Box<dyn Stream>)
            }
            Address::Unix(path) => UnixStream::connect(path).await.map(|s| Box::new(s) as _),
        }
    });
    match connected.await {
        Err(_) => Err(Why::Timeout),
        Ok(connected) => connected.map_err(|_: std::io::Error| Why::Lost),
    }
}

/// Asks a sentinel who counts.
async fn master(
    names: &Names,
    sentinel: &Address,
    login: &Login,
    name: &str,
) -> Result<Address, Why> {
    let (connection, driver) = Connection::over(connect(names, sentinel).await?);
    let asks = async {
        log_in(&connection, login).await?;
        let words: [&[u8]; 3] = [b"SENTINEL", b"GET-MASTER-ADDR-BY-NAME", name.as_bytes()];
        let told = say(&connection, &words).await?;
        let [host, port] = told.items() else { return Err(Why::Refused) };
        let text = format!("{}:{}", host.text().unwrap_or(""), port.text().unwrap_or(""));
        Address::told(&text, sentinel).ok_or(Why::Refused)
    };
    driven(driver, asks).await
}

/// Runs `work` while the connection it uses is driven.
pub(super) async fn driven<T>(
    driver: impl Future<Output = ()>,
    work: impl Future<Output = Result<T, Why>>,
) -> Result<T, Why> {
    let driver = pin!(driver);
    tokio::select! {
        biased;
        done = work => done,
        () = driver => Err(Why::Lost),
    }
}

async fn log_in(connection: &Connection, login: &Login) -> Result<(), Why> {
    if let Some(password) = &login.password {
        let words: &[&[u8]] = match &login.user {
            Some(user) => &[b"AUTH", user.as_bytes(), password.as_bytes()],
            None => &[b"AUTH", password.as_bytes()],
        };
        say(connection, words).await?;
    }
    if login.database > 0 {
        let number = login.database.to_string();
        say(connection, &[b"SELECT", number.as_bytes()]).await?;
    }
    Ok(())
}

/// Sends one command; an error is a failure.
pub(super) async fn say(connection: &Connection, words: &[&[u8]]) -> Result<Reply, Why> {
    let until = clock::now().after(CONNECT);
    match connection.ask(|out| put(words, out), until, false).await? {
        Reply::Error(error) => Err(Why::of(&error)),
        reply => Ok(reply),
    }
}

fn put(words: &[&[u8]], out: &mut Vec<u8>) {
    resp::words(words.len(), out);
    words.iter().for_each(|word| resp::word(word, out));
}
