//! The mask of logs against a corpus: what people may be known by is found in every dress, and what
//! operators need to find a request again survives.

use std::fmt::Write as _;

use proptest::prelude::*;
use sluice_engine::mask::Mask;

/// Shown instead of an identity.
const PRINT: u64 = 0xabcd;

fn mask() -> Mask {
    Mask::new([], Box::new(|_| PRINT))
}

fn shown(text: &str) -> String {
    String::from_utf8(mask().apply(text.as_bytes(), 4096).text.into_owned()).unwrap()
}

/// Numbers without a clock and without chance (Knuth, `MMIX`).
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next()).unwrap() % bound
    }

    fn next(&mut self) -> u64 {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        self.0 >> 33
    }

    fn of(&mut self, letters: &[u8], count: usize) -> String {
        (0..count).map(|_| char::from(letters[self.below(letters.len())])).collect()
    }

    fn digits(&mut self, count: usize) -> String {
        self.of(b"0123456789", count)
    }
}

const WORD: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-";

// === What people may be known by ===

fn phone(numbers: &mut Numbers) -> String {
    format!("1{}{}", numbers.of(b"3456789", 1), numbers.digits(9))
}

/// GB 11643: weights are powers of two modulo eleven.
fn identity_card(numbers: &mut Numbers) -> String {
    let (year, month) = (1940 + numbers.next() % 80, 1 + numbers.next() % 12);
    let body = format!(
        "{}{year}{month:02}{:02}{}",
        110_000 + numbers.next() % 700_000,
        1 + numbers.next() % 28,
        numbers.digits(3)
    );
    let weights = [7, 9, 10, 5, 8, 4, 2, 1, 6, 3, 7, 9, 10, 5, 8, 4, 2];
    let sum: u32 =
        body.bytes().zip(weights).map(|(byte, weight)| u32::from(byte - b'0') * weight).sum();
    let check = b"10X98765432"[sum as usize % 11];
    let check = if numbers.next().is_multiple_of(2) { check.to_ascii_lowercase() } else { check };
    format!("{body}{}", char::from(check))
}

fn bank_card(numbers: &mut Numbers) -> String {
    let issuer = ["62", "4", "53", "35", "60"][numbers.below(5)];
    let length = 15 + numbers.below(4);
    let body = format!("{issuer}{}", numbers.digits(length - issuer.len()));
    let sum: u32 = body
        .bytes()
        .rev()
        .enumerate()
        .map(|(at, byte)| {
            let value = u32::from(byte - b'0') * if at % 2 == 0 { 2 } else { 1 };
            if value > 9 { value - 9 } else { value }
        })
        .sum();
    format!("{body}{}", (10 - sum % 10) % 10)
}

fn openid(numbers: &mut Numbers) -> String {
    format!("o{}", numbers.of(WORD, 27))
}

fn token(numbers: &mut Numbers) -> String {
    format!("eyJ{}.eyJ{}.{}", numbers.of(WORD, 30), numbers.of(WORD, 60), numbers.of(WORD, 43))
}

/// The ways a value comes into a log.
fn dressed(value: &str, dress: usize) -> String {
    let percent = |text: &str| {
        text.bytes().fold(String::new(), |mut out, byte| {
            let _ = write!(out, "%{byte:02X}");
            out
        })
    };
    match dress {
        0 => value.to_owned(),
        1 => format!("/api/users/{value}/orders"),
        2 => format!("GET /x?q={value}&page=2"),
        3 => format!("{{\"value\":\"{value}\",\"n\":1}}"),
        4 => format!("Mozilla/5.0 ({value}; zh_CN)"),
        5 => format!("/x/{}", percent(value)),
        6 => format!("/x/{}", percent(&percent(value))),
        7 => value.bytes().fold(String::new(), |mut out, byte| {
            let _ = write!(out, "\\u{:04x}", u32::from(byte));
            out
        }),
        8 => format!("\u{7528}\u{6237}{value}\u{7684}"),
        _ => format!("a,{value};b"),
    }
}

const DRESSES: usize = 10;

/// Everything in the text that can be read by whoever undoes its escapes.
fn read(text: &str) -> String {
    let mut text = text.replace("\\u00", "%");
    for _ in 0..3 {
        let mut out = Vec::new();
        let mut rest = text.as_bytes();
        while let Some((first, after)) = rest.split_first() {
            let code = (*first == b'%').then(|| after.get(..2)).flatten();
            let code =
                code.and_then(|code| u8::from_str_radix(std::str::from_utf8(code).ok()?, 16).ok());
            out.push(code.unwrap_or(*first));
            rest = code.map_or(after, |_| &after[2..]);
        }
        text = String::from_utf8_lossy(&out).into_owned();
    }
    text
}

type Make = fn(&mut Numbers) -> String;

#[test]
fn a_corpus_of_people_is_masked_in_every_dress() {
    let kinds: [(&str, Make); 5] = [
        ("phone", phone),
        ("identity card", identity_card),
        ("bank card", bank_card),
        ("openid", openid),
        ("token", token),
    ];
    let mut numbers = Numbers(11);
    let mut count = 0;
    for (kind, make) in kinds {
        for round in 0..50 {
            let value = make(&mut numbers);
            let text = dressed(&value, round % DRESSES);
            let shown = shown(&text);
            count += 1;
            assert!(!read(&shown).contains(&value), "{kind} {value} in {text} is shown as {shown}");
            // Nothing of its middle is left either.
            let middle = &value[4..value.len() - 4];
            assert!(!read(&shown).contains(middle), "{kind} {value} in {text} is shown as {shown}");
        }
    }
    assert_eq!(count, 250);
}

#[test]
fn a_corpus_of_everything_else_survives() {
    let kinds: [(&str, Make); 20] = [
        ("seconds", |n| format!("17{}", n.digits(8))),
        ("milliseconds", |n| format!("17{}", n.digits(11))),
        ("microseconds", |n| format!("17{}", n.digits(14))),
        ("nanoseconds", |n| format!("17{}", n.digits(17))),
        ("snowflake", |n| format!("1{}", n.digits(18))),
        ("snowflake of 18", |n| format!("7{}", n.digits(17))),
        ("order by date", |n| format!("20261121{}", n.digits(12))),
        ("order of 16", |n| format!("20261{}", n.digits(11))),
        ("payment", |n| format!("4200002{}", n.digits(21))),
        ("row", |n| n.digits(6)),
        ("price", |n| format!("{}.{}", n.digits(4), n.digits(2))),
        ("trace", |n| {
            format!("00-{}-{}-01", n.of(b"0123456789abcdef", 32), n.of(b"0123456789abcdef", 16))
        }),
        ("uuid", |n| {
            let part = |n: &mut Numbers, count| n.of(b"0123456789abcdef", count);
            format!("{}-{}-4{}-a{}-{}", part(n, 8), part(n, 4), part(n, 3), part(n, 3), part(n, 12))
        }),
        ("digest", |n| n.of(b"0123456789abcdef", 64)),
        ("version", |n| format!("v{}.{}.{}-beta.1", n.digits(1), n.digits(2), n.digits(3))),
        ("address", |n| {
            format!("10.{}.{}.1:{}", n.next() % 256, n.next() % 256, 1024 + n.next() % 60_000)
        }),
        ("agent", |n| {
            format!(
                "Mozilla/5.0 (iPhone; CPU iPhone OS 18_{} like Mac OS X) MicroMessenger/8.0.{}(0x18003{})",
                n.digits(1),
                n.digits(2),
                n.digits(3)
            )
        }),
        ("path", |n| {
            format!(
                "/api/v{}/shops/{}/goods/{}?page={}",
                n.digits(1),
                n.digits(5),
                n.digits(7),
                n.digits(2)
            )
        }),
        ("appid", |n| format!("wx{}", n.of(b"0123456789abcdef", 16))),
        ("words", |n| format!("/{}", n.of(b"abcdefghijklmnopqrstuvwxyz-", 28))),
    ];
    let mut numbers = Numbers(13);
    let mut changed = Vec::new();
    let mut count = 0;
    for round in 0..15 {
        for (kind, make) in &kinds {
            let plain = make(&mut numbers);
            let text = if round % 3 == 0 { format!("/x/{plain}?a=1") } else { plain };
            count += 1;
            if shown(&text) != text {
                changed.push(format!("{kind}: {text} as {}", shown(&text)));
            }
        }
    }
    // One in a hundred may be taken for somebody's number.
    assert!(changed.len() * 100 <= count, "{} of {count}: {changed:#?}", changed.len());
}

proptest! {
    #[test]
    fn any_text_has_an_answer(text in any::<Vec<u8>>(), most in 0_usize..64) {
        let mask = mask();
        let masked = mask.apply(&text, most);
        prop_assert_eq!(masked.truncated, text.len() > most);
        let all = mask.apply(&text, usize::MAX);
        prop_assert!(!all.truncated);
        // What is cut is the beginning of the whole.
        prop_assert!(most == 0 || masked.text.len() <= most + 64 * 17);
    }

    /// The quick pass over texts that are long and have the number anywhere.
    #[test]
    fn a_number_is_found_wherever_it_stands(before in "[a-zA-Z0-9 /.-]{0,60}[a-z /]", after in "[a-z /][a-zA-Z0-9 /.-]{0,60}") {
        let text = format!("{before}13812341234{after}");
        prop_assert!(shown(&text).contains("138****1234"), "{}", shown(&text));
        let text = format!("{before} bearer secret0 {after}");
        prop_assert!(!shown(&text).contains("secret0"), "{}", shown(&text));
    }

    #[test]
    fn digits_between_digits_are_nobodys_phone(number in "1[3-9][0-9]{9}", more in "[0-9]{1,4}") {
        for text in [format!("9{number}{more}"), format!("{number}{more}")] {
            // Longer numbers may be cards; those have 16 digits and more.
            prop_assume!(text.len() < 16 && !text.starts_with("86"));
            prop_assert_eq!(shown(&text), text);
        }
    }

    #[test]
    fn what_is_around_a_number_stays(before in "[a-z/ .]{0,20}", after in "[a-z/ .]{0,20}") {
        let text = format!("{before}13812341234{after}");
        prop_assert_eq!(shown(&text), format!("{before}138****1234{after}"));
    }
}
