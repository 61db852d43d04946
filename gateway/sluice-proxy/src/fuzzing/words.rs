//! Small parsers of field values: addresses of proxies, traces, options of `Connection`, hosts, and
//! texts with holes.

use std::net::{IpAddr, SocketAddr};

use sluice_engine::cidr;
use sluice_engine::forwarded::{MAX_ENTRIES, client_address};
use sluice_engine::template::{Part, Template};
use sluice_engine::trace::{LENGTH, TraceParent};

use crate::base::hop;
use crate::path::admission;

pub(super) fn check(data: &[u8]) {
    let (first, rest) = data.split_first().unwrap_or((&0, &[]));
    let text = String::from_utf8_lossy(rest);
    match first % 5 {
        0 => chain(&text),
        1 => trace(&text),
        2 => template(&text),
        3 => options(rest),
        _ => host(rest),
    }
}

/// `X-Forwarded-For` in several lines, by a walk over the list of all entries.
fn chain(text: &str) {
    let nets = ["10.0.0.0/8", "fd00::/8"];
    let trusted = cidr::Set::new(nets.iter().map(|net| cidr::parse_net(net).unwrap()));
    let near: IpAddr = [10, 0, 0, 1].into();
    let lines: Vec<&str> = text.split('\n').collect();
    let found = client_address(near, &trusted, lines.iter().copied());
    let entries: Vec<&str> = lines.iter().flat_map(|line| line.split(',')).collect();
    let mut client = near;
    for entry in entries.iter().rev().take(MAX_ENTRIES) {
        let entry = entry.trim_matches([' ', '\t']);
        if !inside(client) {
            break;
        }
        if !entry.is_empty() {
            let Some(address) = address(entry) else { break };
            client = address;
        }
    }
    assert_eq!(found, client, "{text:?}");
    let stranger: IpAddr = [192, 0, 2, 1].into();
    assert_eq!(client_address(stranger, &trusted, lines.into_iter()), stranger);
}

fn inside(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => address.octets()[0] == 10,
        IpAddr::V6(address) => address.octets()[0] == 0xfd,
    }
}

fn address(entry: &str) -> Option<IpAddr> {
    let bare = entry.parse::<IpAddr>().ok();
    let with_port = || entry.parse::<SocketAddr>().ok().map(|address| address.ip());
    let bracketed = || {
        let inner = entry.strip_prefix('[')?.strip_suffix(']')?;
        inner.parse::<std::net::Ipv6Addr>().ok().map(IpAddr::V6)
    };
    bare.or_else(with_port).or_else(bracketed).map(|address| address.to_canonical())
}

fn trace(text: &str) {
    let Some(parent) = TraceParent::parse(text) else { return };
    let known = &text[..LENGTH];
    assert!(known.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f' | b'-')), "{text:?}");
    assert!(parent.trace_id != [0; 16] && parent.parent_id != [0; 8]);
    let written = parent.to_string();
    assert_eq!(TraceParent::parse(&written), Some(parent));
    assert_eq!(written[3..53], known[3..53], "the ids are kept");
}

fn template(text: &str) {
    let parsed = Template::parse(text, |name| name.starts_with('a').then(|| name.to_owned()));
    match parsed {
        Ok(template) => {
            let again: String = template
                .parts()
                .iter()
                .map(|part| match part {
                    Part::Literal(text) => text.replace('{', "{{").replace('}', "}}"),
                    Part::Value(name) => format!("{{{name}}}"),
                })
                .collect();
            assert_eq!(again, text, "written as it was read");
        }
        Err(error) => {
            assert!(text.get(error.offset..).is_some_and(|rest| !rest.is_empty()), "{error}");
        }
    }
}

fn options(line: &[u8]) {
    let mut options = hop::Options::default();
    let given: Vec<String> = line
        .split(|byte| *byte == b',')
        .map(|option| String::from_utf8_lossy(option.trim_ascii()).to_ascii_lowercase())
        .filter(|option| !option.is_empty())
        .collect();
    let Ok(()) = options.read(line) else { return assert!(given.len() > 32) };
    assert_eq!(options.close, given.iter().any(|option| option == "close"));
    for name in &options.nominated {
        assert!(given.iter().any(|option| option == name.as_str()), "{name}");
        for kept in ["authorization", "cookie", "host", "content-length"] {
            assert_ne!(name.as_str(), kept);
        }
    }
}

/// A host that passes has one form, which passes again and is the same.
fn host(value: &[u8]) {
    let Ok(value) = http::HeaderValue::from_bytes(value) else { return };
    let Ok(host) = admission::normal_host(value) else { return };
    let name = host.name();
    assert!(!name.is_empty() && name.len() <= 255 && !name.ends_with('.'), "{name:?}");
    assert!(
        name.bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-_.[]:".contains(&b)),
        "{name:?}"
    );
    let again = admission::normal_host(host.value().clone()).expect("its own form");
    assert_eq!((again.name(), again.value()), (name, host.value()));
}
