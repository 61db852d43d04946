//! The client's address behind trusted proxies, out of the `X-Forwarded-For` field lines.
//!
//! Reading the lines from the request and writing our own are left to the caller. The one rule:
//! only what a trusted hop wrote is believed, so the walk goes from the right and stops at the
//! first address nobody vouches for.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use crate::cidr;

/// How many entries are looked at; a longer chain is not a chain of proxies.
pub const MAX_ENTRIES: usize = 64;

/// The address to treat as the client's.
///
/// `peer` is who connected; `xff` gives the field lines in the order of the request. An untrusted
/// peer is itself the client. Otherwise the client is the rightmost address that is not trusted;
/// when all are trusted, the leftmost. An entry that is no address ends the walk at the last good
/// one, and so does the end of the first [`MAX_ENTRIES`]. Entries may carry a port, and IPv6 may
/// stand in brackets. The answer is never an IPv4 address mapped into IPv6.
pub fn client_address<'a>(
    peer: IpAddr,
    trusted: &cidr::Set,
    xff: impl DoubleEndedIterator<Item = &'a str>,
) -> IpAddr {
    let mut client = peer.to_canonical();
    let entries = xff.rev().flat_map(|line| line.rsplit(','));
    for entry in entries.take(MAX_ENTRIES) {
        if !trusted.contains(client) {
            return client;
        }
        let entry = entry.trim_matches([' ', '\t']);
        if entry.is_empty() {
            // RFC 9110 section 5.6.1.2 asks recipients to pass over empty list elements.
            continue;
        }
        let Some(next) = address(entry) else { break };
        client = next.to_canonical();
    }
    client
}

/// One address as proxies write it: perhaps with a port, IPv6 perhaps in brackets.
#[must_use]
pub fn address(entry: &str) -> Option<IpAddr> {
    if let Ok(address) = entry.parse::<IpAddr>() {
        return Some(address);
    }
    if let Ok(with_port) = entry.parse::<SocketAddr>() {
        return Some(with_port.ip());
    }
    let inner = entry.strip_prefix('[')?.strip_suffix(']')?;
    inner.parse::<Ipv6Addr>().ok().map(IpAddr::V6)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(peer: &str, lines: &[&str]) -> String {
        let trusted = cidr::Set::new(
            ["10.0.0.0/8", "fd00::/8"].iter().map(|net| cidr::parse_net(net).unwrap()),
        );
        client_address(peer.parse().unwrap(), &trusted, lines.iter().copied()).to_string()
    }

    #[test]
    fn an_untrusted_peer_is_the_client() {
        assert_eq!(client("1.2.3.4", &["5.6.7.8"]), "1.2.3.4");
        assert_eq!(client("::ffff:1.2.3.4", &[]), "1.2.3.4");
    }

    #[test]
    fn the_rightmost_untrusted_address_is_the_client() {
        assert_eq!(client("10.0.0.1", &["6.6.6.6, 5.6.7.8, 10.0.0.2"]), "5.6.7.8");
        assert_eq!(client("10.0.0.1", &["6.6.6.6", "5.6.7.8", "10.0.0.2"]), "5.6.7.8");
        assert_eq!(client("10.0.0.1", &[]), "10.0.0.1");
        assert_eq!(client("10.0.0.1", &["10.0.0.3, 10.0.0.2"]), "10.0.0.3");
        assert_eq!(client("fd00::1", &["2001:db8::9"]), "2001:db8::9");
    }

    #[test]
    fn ports_and_brackets_are_read() {
        assert_eq!(client("10.0.0.1", &["5.6.7.8:123"]), "5.6.7.8");
        assert_eq!(client("10.0.0.1", &["[2001:db8::9]:443"]), "2001:db8::9");
        assert_eq!(client("10.0.0.1", &["[2001:db8::9]"]), "2001:db8::9");
        assert_eq!(client("10.0.0.1", &["::ffff:5.6.7.8"]), "5.6.7.8");
    }

    #[test]
    fn rubbish_ends_the_walk_at_the_last_good_address() {
        assert_eq!(client("10.0.0.1", &["6.6.6.6, unknown, 10.0.0.2"]), "10.0.0.2");
        assert_eq!(client("10.0.0.1", &["1.2.3.4, \u{fffd}"]), "10.0.0.1");
        assert_eq!(client("10.0.0.1", &["5.6.7.8,, \t,10.0.0.2 "]), "5.6.7.8");
        for bad in ["[1.2.3.4]", "1.2.3.4:99999", "[::1", "1.2.3", "1.2.3.4 5"] {
            assert_eq!(client("10.0.0.1", &[bad]), "10.0.0.1", "{bad}");
        }
    }

    #[test]
    fn the_chain_is_capped() {
        let short = vec!["10.0.0.9"; MAX_ENTRIES - 1].join(",");
        assert_eq!(client("10.0.0.1", &["5.6.7.8", &short]), "5.6.7.8");
        let long = vec!["10.0.0.9"; MAX_ENTRIES].join(",");
        assert_eq!(client("10.0.0.1", &["5.6.7.8", &long]), "10.0.0.9");
    }
}
