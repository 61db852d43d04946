//! Where a Redis is, and how one logs in there: a server, the nodes of a cluster, or sentinels that know.

use std::path::PathBuf;

use url::Url;

/// One server.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Address {
    Tcp(String, u16),
    Unix(PathBuf),
}

/// What is said first on a connection. It is never shown.
#[derive(Clone, Default, PartialEq, Eq)]
pub(crate) struct Login {
    pub(crate) user: Option<String>,
    pub(crate) password: Option<String>,
    pub(crate) database: u32,
}

/// Where to find who counts.
#[derive(Clone)]
pub(crate) enum Servers {
    One(Address, Login),
    /// Nodes of a cluster; they tell of the others.
    Cluster(Vec<Address>, Login),
    /// Sentinels, what they call the server, and how to log in there.
    Sentinel {
        sentinels: Vec<(Address, Login)>,
        name: String,
        login: Login,
    },
}

/// The text is no address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct NoAddress;

impl std::fmt::Display for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Tcp(host, port) if host.contains(':') => write!(f, "[{host}]:{port}"),
            Self::Tcp(host, port) => write!(f, "{host}:{port}"),
            Self::Unix(path) => write!(f, "{}", path.display()),
        }
    }
}

impl Address {
    /// `host:port` as Redis writes it: an IPv6 address has no brackets there, and no host means the one
    /// that was asked.
    pub(super) fn told(text: &str, asked: &Self) -> Option<Self> {
        let (host, port) = text.rsplit_once(':')?;
        // The port of the cluster's own talk may follow, and a name.
        let port = port.split(['@', ',']).next()?.parse().ok()?;
        match (host, asked) {
            ("" | "?", Self::Tcp(host, _)) => Some(Self::Tcp(host.clone(), port)),
            ("" | "?", Self::Unix(_)) => None,
            (host, _) => Some(Self::Tcp(host.trim_matches(['[', ']']).to_owned(), port)),
        }
    }
}

impl std::fmt::Debug for Login {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Login").field("database", &self.database).finish_non_exhaustive()
    }
}

/// Reads `redis://[user:password@]host[:port][/db]` or `redis+unix:///path[?db=&user=&pass=]`; `port` is
/// the one that is meant if none is given.
pub(crate) fn read(text: &str, port: u16) -> Result<(Address, Login), NoAddress> {
    let url = Url::parse(text).map_err(|_| NoAddress)?;
    let decoded = |text: &str| {
        let text =
            percent_encoding::percent_decode_str(text).decode_utf8().map_err(|_| NoAddress)?;
        Ok::<_, NoAddress>((!text.is_empty()).then(|| text.into_owned()))
    };
    match url.scheme() {
        "redis" => {
            let host = match url.host().ok_or(NoAddress)? {
                url::Host::Ipv6(address) => address.to_string(),
                host => host.to_string(),
            };
            if host.is_empty() || url.query().is_some() || url.fragment().is_some() {
                return Err(NoAddress);
            }
            let database = match url.path().trim_start_matches('/') {
                "" => 0,
                number => number.parse().map_err(|_| NoAddress)?,
            };
            let login = Login {
                user: decoded(url.username())?,
                password: url.password().map(decoded).transpose()?.flatten(),
                database,
            };
            Ok((Address::Tcp(host, url.port().unwrap_or(port)), login))
        }
        "redis+unix" | "unix" => {
            let path = decoded(url.path())?.ok_or(NoAddress)?;
            let mut login = Login::default();
            for (key, value) in url.query_pairs() {
                match &*key {
                    "db" => login.database = value.parse().map_err(|_| NoAddress)?,
                    "user" => login.user = Some(value.into_owned()),
                    "pass" => login.password = Some(value.into_owned()),
                    _ => return Err(NoAddress),
                }
            }
            Ok((Address::Unix(path.into()), login))
        }
        _ => Err(NoAddress),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tcp(host: &str, port: u16) -> Address {
        Address::Tcp(host.to_owned(), port)
    }

    #[test]
    fn addresses_say_where_and_how_to_log_in() {
        let (address, login) = read("redis://us%40er:p%3Aw@cache.example:7000/3", 6379).unwrap();
        assert_eq!(address, tcp("cache.example", 7000));
        assert_eq!(login.user.as_deref(), Some("us@er"));
        assert_eq!((login.password.as_deref(), login.database), (Some("p:w"), 3));
        assert!(!format!("{login:?}").contains("p:w"));
        assert_eq!(read("redis://:secret@127.0.0.1", 6379).unwrap().0, tcp("127.0.0.1", 6379));
        let (address, _) = read("redis://[::1]:7000", 6379).unwrap();
        assert_eq!((&address, address.to_string().as_str()), (&tcp("::1", 7000), "[::1]:7000"));
        let (address, login) = read("redis+unix:///run/redis.sock?db=2&pass=x", 6379).unwrap();
        assert_eq!(address, Address::Unix("/run/redis.sock".into()));
        assert_eq!((login.database, login.password.as_deref()), (2, Some("x")));
    }

    #[test]
    fn other_texts_are_no_addresses() {
        for text in [
            "",
            "127.0.0.1:6379",
            "redis://",
            "http://a",
            "rediss://a",
            "redis://a/x",
            "redis://a:99999",
            "redis://a?b=c",
            "redis+unix:///a?x=1",
        ] {
            assert!(read(text, 6379).is_err(), "{text}");
        }
    }

    #[test]
    fn nodes_tell_of_each_other() {
        let asked = tcp("10.0.0.1", 7000);
        assert_eq!(Address::told("10.0.0.2:7001", &asked), Some(tcp("10.0.0.2", 7001)));
        assert_eq!(Address::told("10.0.0.2:7001@17001,name", &asked), Some(tcp("10.0.0.2", 7001)));
        assert_eq!(Address::told(":7001", &asked), Some(tcp("10.0.0.1", 7001)));
        assert_eq!(Address::told("fd00::2:7001", &asked), Some(tcp("fd00::2", 7001)));
        assert_eq!(Address::told("nonsense", &asked), None);
    }
}
