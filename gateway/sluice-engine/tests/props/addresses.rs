//! Address sets and forwarded chains against the slow and obvious way.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use proptest::prelude::*;
use sluice_engine::cidr::{self, Set, Verdict};
use sluice_engine::forwarded::client_address;

/// A crowded part of the address space, so that nets meet.
fn address() -> impl Strategy<Value = IpAddr> {
    prop_oneof![
        (0_u32..64).prop_map(|low| IpAddr::V4(Ipv4Addr::from(0x0a00_0000 | low))),
        (0_u128..64).prop_map(|low| IpAddr::V6(Ipv6Addr::from(0xfd00_u128 << 112 | low))),
        any::<u32>().prop_map(|bits| IpAddr::V4(Ipv4Addr::from(bits))),
        (0_u32..64)
            .prop_map(|low| { IpAddr::V6(Ipv4Addr::from(0x0a00_0000 | low).to_ipv6_mapped()) }),
    ]
}

/// A net as its text, with the bits below the prefix cleared.
fn net() -> impl Strategy<Value = String> {
    (address(), 0_u8..=8).prop_map(|(address, spare)| {
        let (bits, width) = match address.to_canonical() {
            IpAddr::V4(ip) => (u128::from(ip.to_bits()), 32),
            IpAddr::V6(ip) => (ip.to_bits(), 128),
        };
        let base = bits >> spare << spare;
        let prefix = width - spare;
        if width == 32 {
            format!("{}/{prefix}", Ipv4Addr::from(u32::try_from(base).unwrap()))
        } else {
            format!("{}/{prefix}", Ipv6Addr::from(base))
        }
    })
}

fn set(nets: &[String]) -> Set {
    Set::new(nets.iter().map(|net| cidr::parse_net(net).unwrap()))
}

fn naive(nets: &[String], ip: IpAddr) -> bool {
    let inside = |net: &String| cidr::parse_net(net).unwrap().contains(&ip.to_canonical());
    nets.iter().any(inside)
}

proptest! {
    #[test]
    fn a_set_is_the_union_of_its_nets(
        nets in proptest::collection::vec(net(), 0..12),
        asked in proptest::collection::vec(address(), 20),
    ) {
        let set = set(&nets);
        for ip in asked {
            prop_assert_eq!(set.contains(ip), naive(&nets, ip), "{} in {:?}", ip, nets);
        }
    }

    #[test]
    fn rules_are_allow_without_deny(
        allow in proptest::collection::vec(net(), 0..4),
        deny in proptest::collection::vec(net(), 0..4),
        ip in address(),
    ) {
        let passes = (allow.is_empty() || naive(&allow, ip)) && !naive(&deny, ip);
        let rules = cidr::Rules { allow: set(&allow), deny: set(&deny) };
        prop_assert_eq!(rules.judge(ip) == Verdict::Pass, passes);
    }

    /// What stands left of the first address nobody vouches for cannot change the answer.
    #[test]
    fn a_client_cannot_choose_its_address(
        invented in "[0-9a-f:., ]{0,40}",
        client in any::<u32>().prop_map(|bits| Ipv4Addr::from(bits | 0x8000_0000)),
        hops in proptest::collection::vec(0_u32..64, 0..5),
    ) {
        let trusted = set(&["10.0.0.0/8".to_owned()]);
        let peer = IpAddr::from([10, 0, 0, 1]);
        let mut chain = format!("{invented},{client}");
        for hop in hops {
            chain.push_str(&format!(", {}", Ipv4Addr::from(0x0a00_0000 | hop)));
        }
        let found = client_address(peer, &trusted, std::iter::once(chain.as_str()));
        prop_assert_eq!(found, IpAddr::V4(client));
        let lines: Vec<&str> = chain.split(',').collect();
        prop_assert_eq!(client_address(peer, &trusted, lines.into_iter()), found);
    }
}
