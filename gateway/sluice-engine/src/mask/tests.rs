//! Examples of the mask: what it hides, what it leaves, and how it is cut.

use super::*;

fn mask() -> Mask {
    let print = |letters: &[u8]| {
        letters.iter().fold(7, |hash: u64, byte| hash * 31 % 0xffff_ffff + u64::from(*byte))
    };
    Mask::new(["nickname"], Box::new(print))
}

fn shown(text: &str) -> String {
    String::from_utf8(mask().apply(text.as_bytes(), 1024).text.into_owned()).unwrap()
}

#[test]
fn numbers_of_people_keep_their_ends_only() {
    for (text, expected) in [
        ("/u/13812341234", "/u/138****1234"),
        ("tel 8613812341234,", "tel 86138****1234,"),
        ("+008613812341234", "+0086138****1234"),
        ("x13812341234y", "x138****1234y"),
        ("/id/11010119900307125X", "/id/110101********125X"),
        ("11010119900307387x", "110101********387x"),
        ("6222021234567890128", "***************0128"),
        ("4111111111111111", "************1111"),
        ("2221000000000009", "************0009"),
        ("zhang.san@qq.com", "z***@qq.com"),
    ] {
        assert_eq!(shown(text), expected, "{text}");
    }
}

#[test]
fn what_only_looks_alike_stays() {
    for text in [
        "/orders/20261121000012345678",
        "1795000000 1795000000123 1795000000123456 1795000000123456789",
        "12345678901",
        "1381234123",
        "138123412345",
        "110101199003071234",
        "110101199013071230",
        "4111111111111112",
        "1111111111111117",
        "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        "a95e7e3c-0e4c-4c43-9ab1-28b1b9a6b4a4",
        "/orders-and-returns-of-summer",
        "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0",
        "%E4%B8%AD%E6%96%87",
        "10:30:00 a=b; tokens: 5",
        "@user me@localhost",
        "/api/token/refresh",
    ] {
        let masked = mask().apply(text.as_bytes(), 1024);
        assert_eq!(masked.text, text.as_bytes(), "{text}");
    }
}

#[test]
fn what_holds_nothing_is_borrowed() {
    let text = b"/api/v1/items/42?page=2&size=20";
    let masked = mask().apply(text, 1024);
    assert!(matches!(masked, Masked { text: Cow::Borrowed(_), truncated: false }));
    assert!(!mask().may_hold(text));
}

#[test]
fn identities_and_tokens_are_known_by_their_shape() {
    let openid = "oGZUI0egBJY1zhBYw2KhdUfwVJJE";
    let print = shown(openid);
    assert!(print.starts_with('#') && print.len() == 17, "{print}");
    assert_eq!(shown(&format!("/u/{openid}/x")), format!("/u/{print}/x"));
    assert_eq!(shown(&format!("{openid}x")), format!("{openid}x"));
    assert_eq!(shown("/t/eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2ln-_/x"), "/t/***/x");
}

#[test]
fn a_name_hides_its_value_however_it_is_written() {
    for (text, expected) in [
        ("token=abc&page=2", "token=***&page=2"),
        ("a=1;js_code=0a1b;b=2", "a=1;js_code=***;b=2"),
        (
            "{\"sessionKey\": \"tiihtNczf5v6AKRyjwEUhQ==\", \"n\": 1}",
            "{\"sessionKey\": \"***\", \"n\": 1}",
        ),
        ("{\\\"session_key\\\":\\\"x\\\"}", "{\\\"session_key\\\":\\\"***\\\"}"),
        ("Session-Key=x", "Session-Key=***"),
        ("phone=13812341234", "phone=138****1234"),
        ("phone=1234", "phone=***"),
        ("user[mobile]=1234&x=1", "user[mobile]=***&x=1"),
        ("token%3Dabc%26page%3D2", "token%3D***%26page%3D2"),
        ("%74oken=abc", "%74oken=***"),
        ("%2574oken=abc", "%2574oken=***"),
        ("Authorization: Bearer abc def", "Authorization: *** def"),
        ("Bearer abc, x", "Bearer ***, x"),
        ("Cookie: a=b; c=d", "Cookie: ***"),
        ("nick_name=Li", "nick_name=***"),
        ("token=", "token="),
        ("token=&page=2", "token=&page=2"),
        ("my_token=x tokens=y", "my_token=x tokens=y"),
    ] {
        assert_eq!(shown(text), expected, "{text}");
    }
    let text = shown("openid=oGZUI0egBJY1zhBYw2KhdUfwVJJE");
    assert_eq!(text, format!("openid={}", shown("oGZUI0egBJY1zhBYw2KhdUfwVJJE")));
    assert!(mask().covers("X-Token") && !mask().covers("page"));
}

#[test]
fn escapes_hide_nothing_from_it() {
    for text in [
        "/u/%31%33%38%31%32%33%34%31%32%33%34",
        "/u/%2531%2533%38%31%32%33%34%31%32%33%34",
        "\\u0031\\u0033\\u0038\\u0031\\u0032\\u0033\\u0034\\u0031\\u0032\\u0033\\u0034",
        "\\x31381234123\\u0034",
    ] {
        let shown = shown(text);
        assert!(shown.contains("138****1234"), "{text}: {shown}");
    }
    assert_eq!(shown("%zz % \\q \\u12"), "%zz % \\q \\u12");
}

#[test]
fn a_cut_leaves_no_half_of_a_number() {
    let text = format!("{}13812341234/rest", "/".repeat(20));
    for most in 0..text.len() + 3 {
        let masked = mask().apply(text.as_bytes(), most);
        assert_eq!(masked.truncated, most < text.len());
        let shown = String::from_utf8(masked.text.into_owned()).unwrap();
        assert!(!shown.contains("1381"), "{most}: {shown}");
        assert_eq!(shown.contains("138****1234"), most > 20, "{most}: {shown}");
    }
}
