//! WeChat's own examples, and what is none.

use super::*;

const AES_KEY: &str = "abcdefghijklmnopqrstuvwxyz0123456789ABCDEFG";
const AT: u64 = 1_714_036_504;
const QUERY: &str = "timestamp=1714036504&nonce=1514711492";

fn push(token: &str, appid: &str, aes_key: Option<&str>) -> MessagePush {
    MessagePush {
        app: "shop".to_owned(),
        appid: appid.to_owned(),
        token: Secret::new(token),
        key: aes_key.map(|key| aes_key_of(key).unwrap()),
        max_age: 600,
        remember: Duration::from_secs(600),
        most: 1024,
        reply: Reply::Success,
        redis: None,
        shelf: Arc::default(),
    }
}

fn aes_key_of(text: &str) -> Option<Zeroizing<Vec<u8>>> {
    aes_key(&Secret::new(text))
}

/// As the platform seals: chance, length, message, app, padding to 32.
fn sealed(message: &str, appid: &str) -> String {
    let mut text = b"aaaabbbbccccdddd".to_vec();
    text.extend_from_slice(&u32::try_from(message.len()).unwrap().to_be_bytes());
    text.extend_from_slice(message.as_bytes());
    text.extend_from_slice(appid.as_bytes());
    let padding = 32 - text.len() % 32;
    text.extend(std::iter::repeat_n(u8::try_from(padding).unwrap(), padding));
    let key = aes_key_of(AES_KEY).unwrap();
    let sealed = cipher::seal_whole(&key, &key[..16], &text).unwrap();
    base64::engine::general_purpose::STANDARD.encode(sealed)
}

#[test]
fn addresses_are_verified_as_the_platform_documents() {
    let push = push("AAAAA", "wx1", None);
    let query = "signature=f464b24fc39322e44b38aa78f5edd27bd1441696&echostr=4375120948345356249&\
        timestamp=1714036504&nonce=1514711492";
    let said = push.admit(Some(query), AT).unwrap();
    assert_eq!(push.echo(&said).unwrap(), b"4375120948345356249");
    assert!(push.signs(&["1714037059", "486452656"], "899cf89e464efb63f54ddac96b0a0a235f53aa78"));
    for (query, now, meant) in [
        (query.replace("f464", "f465"), AT, Fault::PushRefused),
        (query.replace("f464", ""), AT, Fault::PushRefused),
        (query.replace("nonce=", "nonce=1"), AT, Fault::PushRefused),
        (format!("{query}&nonce=1"), AT, Fault::PushRefused),
        (query.replace("signature=", "msg_signature="), AT, Fault::PushRefused),
        (query.to_owned(), AT + 601, Fault::PushOld),
        (query.to_owned(), AT - 601, Fault::PushOld),
        (String::new(), AT, Fault::PushRefused),
    ] {
        assert_eq!(push.admit(Some(&query), now).unwrap_err(), meant, "{query}");
    }
    assert_eq!(push.admit(None, AT).unwrap_err(), Fault::PushRefused);
}

/// The vectors of the library that the platform gives to developers.
#[test]
fn messages_are_opened_as_the_platform_seals_them() {
    assert_eq!(
        sealed("我是中文abcd123", "wxb11529c136998cb6"),
        "jn1L23DB+6ELqJ+6bruv21Y6MD7KeIfP82D6gU39rmkgczbWwt5+3bnyg5K55bgVtVzd832WzZGMhkP72vVOfg=="
    );
    let push = push("spamtest", "wx2c2769f8efd9abc2", Some(AES_KEY));
    let sealed = "hyzAe4OzmOMbd6TvGdIOO6uBmdJoD0Fk53REIHvxYtJlE2B655HuD0m8KUePWB3+LrPXo87wzQ1QLvbeUgmBM4x6F8PGHQHFVAFmOD2LdJF9FrXpbUAh0B5GIItb52sn896wVsMSHGuPE328HnRGBcrS7C41IzDWyWNlZkyyXwon8T332jisa+h6tEDYsVticbSnyU8dKOIbgU6ux5VTjg3yt+WGzjlpKn6NPhRjpA912xMezR4kw6KWwMrCVKSVCZciVGCgavjIQ6X8tCOp3yZbGpy0VxpAe+77TszTfRd5RJSVO/HTnifJpXgCSUdUue1v6h0EIBYYI1BD1DlD+C0CR8e6OewpusjZ4uBl9FyJvnhvQl+q5rv1ixrcpCumEPo5MJSgM9ehVsNPfUM669WuMyVWQLCzpu9GhglF2PE=";
    let body = format!(
        "<xml><ToUserName><![CDATA[gh_10f6c3c3ac5a]]></ToUserName><Encrypt><![CDATA[{sealed}]]></Encrypt></xml>"
    );
    let query = "timestamp=1409735669&nonce=1320562132&\
        msg_signature=5d197aaffba7e9b25a30732f161a50dee96bd5fa";
    let message = push.open(Some(query), Bytes::from(body.clone())).unwrap();
    let text = String::from_utf8(message.body.to_vec()).unwrap();
    assert!(text.contains("<Content><![CDATA[abcdteT]]></Content>"), "{text}");
    let other = tests::push("spamtest", "wx2c2769f8efd9abc3", Some(AES_KEY));
    let refused = |push: &MessagePush, query: &str, body: &str| {
        push.open(Some(query), Bytes::from(body.to_owned())).err().unwrap()
    };
    assert_eq!(refused(&other, query, &body), Fault::PushRefused, "another app's");
    assert_eq!(refused(&push, query, &body.replace("hyzA", "hyzB")), Fault::PushRefused);
    assert_eq!(refused(&push, "timestamp=1&nonce=2", &body), Fault::PushRefused);
    assert_eq!(refused(&push, query, "<xml><a>1</a></xml>"), Fault::PushInvalid, "in clear");
    assert_eq!(refused(&push, query, "?"), Fault::PushInvalid);
}

#[test]
fn an_address_may_be_verified_in_secret() {
    let push = push("AAAAA", "wx1", Some(AES_KEY));
    let echo = sealed("1616140317555161061", "wx1");
    let at = AT.to_string();
    let mut all = ["AAAAA", &at, "n", &echo];
    all.sort_unstable();
    let signature = sluice_chaos::provider::sha1(&all);
    let encoded: String = url::form_urlencoded::byte_serialize(echo.as_bytes()).collect();
    let query = format!("msg_signature={signature}&timestamp={at}&nonce=n&echostr={encoded}");
    let said = push.admit(Some(&query), AT).unwrap();
    assert_eq!(push.echo(&said).unwrap(), b"1616140317555161061");
    let said = push.admit(Some(&query.replace("nonce=n", "nonce=m")), AT).unwrap();
    assert_eq!(push.echo(&said), None);
}

#[test]
fn keys_are_those_of_the_console() {
    assert!(aes_key_of(AES_KEY).is_some());
    for text in ["", "abc", &AES_KEY[1..], &format!("{AES_KEY}="), &format!("{AES_KEY}A")] {
        assert!(aes_key_of(text).is_none(), "{text}");
    }
}

/// The platform judges every picture of a page within a second: eight of nine events were taken for the first
/// one tried again, and never reached the service.
#[test]
fn events_of_one_second_are_not_one_event() {
    let push = push("AAAAA", "wx1", None);
    let name = |text: &str| push.open(Some(QUERY), Bytes::from(text.to_owned())).unwrap().name;
    let message = r#"{"MsgId":7,"FromUserName":"a","CreateTime":1}"#;
    assert_eq!(name(message), name(r#"{"MsgId":7,"FromUserName":"b","CreateTime":2}"#));
    assert_eq!(name(message), name("<xml><MsgId>7</MsgId></xml>"));
    let judged = |trace: &str| {
        let head =
            r#""FromUserName":"a","CreateTime":1,"MsgType":"event","Event":"wxa_media_check""#;
        name(&format!(r#"{{{head},"trace_id":"{trace}","result":{{"suggest":"pass"}}}}"#))
    };
    assert_eq!(judged("1-a"), judged("1-a"));
    assert_ne!(judged("1-a"), judged("1-b"));
    assert_ne!(name(r#"{"a":1}"#), name(r#"{"a":2}"#));
}

/// A message is signed as the word is that proves an address. Asked for in its place, it came back in clear.
#[test]
fn a_sealed_message_is_not_told_back() {
    let push = push("AAAAA", "wx1", Some(AES_KEY));
    let at = AT.to_string();
    for (text, told) in [
        ("1616140317555161061", true),
        ("<xml><Content>secret</Content></xml>", false),
        (r#"{"Content":"secret"}"#, false),
        (&"1".repeat(129), false),
    ] {
        let sealed = sealed(text, "wx1");
        let mut all = ["AAAAA", &at, "n", &sealed];
        all.sort_unstable();
        let signature = sluice_chaos::provider::sha1(&all);
        let encoded: String = url::form_urlencoded::byte_serialize(sealed.as_bytes()).collect();
        let query = format!("msg_signature={signature}&timestamp={at}&nonce=n&echostr={encoded}");
        let said = push.admit(Some(&query), AT).unwrap();
        assert_eq!(push.echo(&said).as_deref(), told.then_some(text.as_bytes()), "{text}");
    }
    let said =
        Said { signature: Some(String::new()), echostr: Some("<b>".into()), ..Said::default() };
    assert_eq!(push.echo(&said), None, "nor is anything else that a page could show");
}

/// `remember: 30s` beside `max_age: 1d` let every message in again half a minute later.
#[test]
fn a_message_is_known_for_as_long_as_it_could_be_repeated() {
    let mut push = push("AAAAA", "wx1", None);
    let mut message = push.open(Some(QUERY), Bytes::from_static(b"{\"MsgId\":7}")).unwrap();
    assert_eq!(message.at, AT);
    push.remember = Duration::from_secs(30);
    assert_eq!(push.life(&message, AT).as_secs(), 601);
    assert_eq!(push.life(&message, AT + 590).as_secs(), 30);
    message.at = AT + 600;
    assert_eq!(push.life(&message, AT).as_secs(), 1201, "a clock that is ahead");
}

#[tokio::test]
async fn a_message_is_taken_once() {
    let push = push("AAAAA", "wx1", None);
    let message = push.open(Some(QUERY), Bytes::from_static(b"{\"MsgId\":7}")).unwrap();
    assert!(matches!(push.claim(&message).await, Claim::Ours));
    assert!(matches!(push.claim(&message).await, Claim::UnderWay));
    push.settle(&message, false).await;
    assert!(matches!(push.claim(&message).await, Claim::Ours), "it failed, so it may come again");
    push.settle(&message, true).await;
    assert!(matches!(push.claim(&message).await, Claim::Done));
}
