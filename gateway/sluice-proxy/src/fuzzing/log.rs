//! The access log: whatever the fields hold, a record is one line, and JSON, and short; and a secret in
//! front of any bytes is not in it.

use std::time::Duration;

use sluice_engine::mask::Mask;

use super::draw::Draw;
use crate::lasting::telemetry::access::Line;

const NAMES: [&str; 8] = ["a", "b", "c", "d", "e", "f", "g", "h"];
/// Longest field and line, bytes.
const MAX_FIELD: usize = 1024;
const MAX_LINE: usize = 8 * 1024;
/// What must be masked, whatever follows.
const SECRETS: [(&str, &str); 4] = [
    ("password=k3ptT0Itself&", "k3ptT0Itself"),
    ("13812341234 ", "13812341234"),
    ("%31%33812341234 ", "812341234"),
    ("{\"access_token\":\"k3ptT0Itself\"} ", "k3ptT0Itself"),
];

pub(super) fn check(data: &[u8]) {
    thread_local! {
        static MASK: Mask = Mask::new([], Box::new(|_| 1));
    }
    MASK.with(|mask| write(mask, &mut Draw::new(data)));
}

fn write(mask: &Mask, draw: &mut Draw<'_>) {
    let mut out = Vec::new();
    let mut expected = serde_json::Map::new();
    let mut hidden = Vec::new();
    let mut line = Line::new(&mut out, mask);
    for name in NAMES {
        if draw.is_empty() {
            break;
        }
        let value = match draw.below(5) {
            0 | 1 => {
                let (before, secret) = draw.one(&SECRETS);
                let bytes = draw.bytes(2 * MAX_FIELD);
                line.foreign(name, &[before.as_bytes(), bytes].concat());
                if !String::from_utf8_lossy(bytes).contains(secret) {
                    hidden.push((name, secret));
                }
                continue;
            }
            2 => {
                // Short and ours, so it is there as it is.
                let text = String::from_utf8_lossy(draw.bytes(64)).into_owned();
                line.text(name, &text);
                text.into()
            }
            3 => {
                let number = u64::from_le_bytes([(); 8].map(|()| draw.byte()));
                line.number(name, number);
                number.into()
            }
            _ => {
                let micros = u32::from_le_bytes([(); 4].map(|()| draw.byte()));
                line.millis(name, Duration::from_micros(u64::from(micros)));
                (f64::from(micros) / 1000.0).into()
            }
        };
        expected.insert(name.to_owned(), value);
    }
    line.end();
    let whole = [b"{", out.as_slice(), b"}"].concat();
    let text = String::from_utf8(whole).expect("a line is text");
    let breaks = |c: char| c.is_control() || matches!(c, '\u{2028}' | '\u{2029}');
    assert!(!text.contains(breaks), "{text:?}");
    assert!(text.len() <= MAX_LINE, "{} bytes", text.len());
    let read: serde_json::Map<String, serde_json::Value> = serde_json::from_str(&text).unwrap();
    for (name, secret) in hidden {
        assert!(!read[name].as_str().unwrap().contains(secret), "{name} in {text}");
    }
    for (name, value) in expected {
        assert_eq!(read.get(&name), Some(&value), "{name} in {text}");
    }
}
