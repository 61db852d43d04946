//! Sets of address ranges, and the allow and deny lists made of them.
//!
//! Finding out whose address it is belongs to `forwarded`. The one rule: an IPv4 address that
//! arrives dressed as IPv6 (`::ffff:a.b.c.d`) is judged as IPv4, in sets and in questions alike.

use std::net::IpAddr;

use ipnet::{IpNet, Ipv4Net};

/// An immutable set of addresses: sorted ranges that neither overlap nor touch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Set {
    v4: Vec<(u32, u32)>,
    v6: Vec<(u128, u128)>,
}

impl Set {
    /// The union of `nets`. An IPv6 net inside `::ffff:0:0/96` counts as IPv4.
    pub fn new(nets: impl IntoIterator<Item = IpNet>) -> Self {
        let (mut v4, mut v6) = (Vec::new(), Vec::new());
        for net in nets {
            match unmapped(net) {
                IpNet::V4(net) => v4.push((net.network().to_bits(), net.broadcast().to_bits())),
                IpNet::V6(net) => v6.push((net.network().to_bits(), net.broadcast().to_bits())),
            }
        }
        Self { v4: joined(v4, |end| end.checked_add(1)), v6: joined(v6, |end| end.checked_add(1)) }
    }

    /// Whether `ip` lies in one of the nets. Binary search.
    #[must_use]
    pub fn contains(&self, ip: IpAddr) -> bool {
        match ip.to_canonical() {
            IpAddr::V4(ip) => holds(&self.v4, ip.to_bits()),
            IpAddr::V6(ip) => holds(&self.v6, ip.to_bits()),
        }
    }

    /// Whether no address at all is in the set.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.v4.is_empty() && self.v6.is_empty()
    }
}

/// Who may pass by address.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rules {
    /// When not empty, only its members pass.
    pub allow: Set,
    /// Its members never pass, whatever `allow` says.
    pub deny: Set,
}

/// The answer of [`Rules::judge`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The address may go on.
    Pass,
    /// The address is denied, or missing from a list that admits only its members.
    Refuse,
}

impl Rules {
    /// Judges one address. Deny wins over allow.
    #[must_use]
    pub fn judge(&self, ip: IpAddr) -> Verdict {
        let admitted = self.allow.is_empty() || self.allow.contains(ip);
        if admitted && !self.deny.contains(ip) { Verdict::Pass } else { Verdict::Refuse }
    }
}

/// Reads `10.0.0.0/8`, `10.1.2.3` or `::1`; a bare address is a net of one.
///
/// # Errors
/// A sentence that says what to write instead. Bits set below the prefix are refused too, since the
/// writer meant either another prefix or another address.
pub fn parse_net(text: &str) -> Result<IpNet, String> {
    if let Ok(ip) = text.parse::<IpAddr>() {
        return Ok(unmapped(IpNet::from(ip)));
    }
    let net = text.parse::<IpNet>().map_err(|_| {
        format!("`{text}` is not an address; write one like 10.1.2.3, 10.0.0.0/8, ::1 or fd00::/8")
    })?;
    if net.trunc() != net {
        let (whole, one) = (net.trunc(), net.addr());
        return Err(format!("`{text}` has bits set below its prefix; write {whole} or {one}"));
    }
    Ok(unmapped(net))
}

fn unmapped(net: IpNet) -> IpNet {
    let IpNet::V6(six) = net else { return net };
    let four = six.addr().to_ipv4_mapped();
    match (four, six.prefix_len().checked_sub(V4_MAPPED_PREFIX)) {
        (Some(four), Some(prefix)) => Ipv4Net::new(four, prefix).map_or(net, IpNet::V4),
        _ => net,
    }
}

/// The length of `::ffff:0:0/96`.
const V4_MAPPED_PREFIX: u8 = 96;

/// Sorts ranges and joins those that overlap or touch. `after` is the number behind another one.
fn joined<N: Ord + Copy>(mut ranges: Vec<(N, N)>, after: fn(N) -> Option<N>) -> Vec<(N, N)> {
    ranges.sort_unstable();
    let mut out: Vec<(N, N)> = Vec::with_capacity(ranges.len());
    for (start, end) in ranges {
        match out.last_mut() {
            Some((_, last)) if after(*last).is_none_or(|next| start <= next) => {
                *last = end.max(*last);
            }
            _ => out.push((start, end)),
        }
    }
    out
}

fn holds<N: Ord + Copy>(ranges: &[(N, N)], wanted: N) -> bool {
    let below = ranges.partition_point(|(start, _)| *start <= wanted);
    below.checked_sub(1).and_then(|at| ranges.get(at)).is_some_and(|(_, end)| wanted <= *end)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(nets: &[&str]) -> Set {
        Set::new(nets.iter().map(|net| parse_net(net).unwrap()))
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn ranges_are_joined_and_found() {
        let set = set(&["10.0.1.0/24", "10.0.0.0/24", "10.0.0.128/25", "192.168.0.1", "fd00::/8"]);
        assert_eq!(set.v4.len(), 2);
        for inside in ["10.0.0.0", "10.0.1.255", "192.168.0.1", "fd12::1", "::ffff:10.0.0.7"] {
            assert!(set.contains(ip(inside)), "{inside}");
        }
        for outside in ["9.255.255.255", "10.0.2.0", "192.168.0.2", "fe80::1", "::10.0.0.7"] {
            assert!(!set.contains(ip(outside)), "{outside}");
        }
    }

    #[test]
    fn the_ends_of_the_number_line_are_no_trap() {
        let all = set(&["0.0.0.0/0", "255.255.255.255", "::/0", "::1"]);
        assert!(all.contains(ip("0.0.0.0")) && all.contains(ip("255.255.255.255")));
        assert!(all.contains(ip("::")));
        assert!(!Set::default().contains(ip("::")) && Set::default().is_empty());
    }

    #[test]
    fn mapped_nets_are_ipv4_nets() {
        assert_eq!(set(&["::ffff:10.0.0.0/104"]), set(&["10.0.0.0/8"]));
        assert_eq!(set(&["::ffff:10.0.0.1"]), set(&["10.0.0.1"]));
    }

    #[test]
    fn bad_nets_say_what_to_write() {
        assert!(parse_net("10.0.0.1/8").unwrap_err().contains("write 10.0.0.0/8 or 10.0.0.1"));
        for bad in ["", "10.0.0", "10.0.0.0/33", "example.com", " 10.0.0.1"] {
            assert!(parse_net(bad).unwrap_err().contains("10.0.0.0/8"), "{bad}");
        }
    }

    #[test]
    fn deny_wins_and_a_non_empty_allow_list_is_exclusive() {
        let open = Rules { allow: Set::default(), deny: set(&["10.0.0.5"]) };
        assert_eq!(open.judge(ip("10.0.0.4")), Verdict::Pass);
        assert_eq!(open.judge(ip("::ffff:10.0.0.5")), Verdict::Refuse);
        let closed = Rules { allow: set(&["10.0.0.0/24"]), deny: set(&["10.0.0.5"]) };
        assert_eq!(closed.judge(ip("10.0.0.4")), Verdict::Pass);
        assert_eq!(closed.judge(ip("10.0.0.5")), Verdict::Refuse);
        assert_eq!(closed.judge(ip("10.0.1.4")), Verdict::Refuse);
        assert_eq!(closed.judge(ip("::1")), Verdict::Refuse);
    }
}
