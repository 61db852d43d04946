//! Signatures of requests: no bytes make a dialect stumble, and what changes a request changes its text.

use std::cell::RefCell;

use proptest::prelude::*;
use sluice_engine::signature::hmac::{self, Dialect};
use sluice_engine::signature::{Body, Fields, Proof, Request, rfc9421, session, x_ca};

struct Any(Vec<(String, Vec<u8>)>);

impl Fields for Any {
    fn each<'a>(&'a self, name: &str, f: &mut dyn FnMut(&'a [u8])) {
        self.0.iter().filter(|(known, _)| known == name).for_each(|(_, value)| f(value));
    }
}

fn request<'a>(target: &'a str, fields: &'a dyn Fields) -> Request<'a> {
    let (path, query) = target.split_once('?').map_or((target, None), |(p, q)| (p, Some(q)));
    let (method, version, scheme) = ("POST", "HTTP/1.1", "https");
    Request { method, version, scheme, authority: "h", path, query, fields }
}

const DIALECTS: [Dialect; 4] =
    [Dialect::Kong, Dialect::Apisix, Dialect::Tencent, Dialect::TencentApp];

/// Every text that some dialect finds for these fields.
fn texts(fields: &Any, target: &str, body: &[u8]) -> Vec<Vec<u8>> {
    let request = request(target, fields);
    let found = RefCell::new(Vec::new());
    let note = |text: Result<Vec<u8>, _>| found.borrow_mut().extend(text.ok());
    if let Ok(Some(proof)) = session::read(fields) {
        note(session::text(&request, &proof, Body::Sum(Some([7; 32])), "sid"));
    }
    if let Ok(Some(proof)) = x_ca::read(fields) {
        note(x_ca::text(&request, &proof, Body::Form(body)));
    }
    for dialect in DIALECTS {
        let rules = hmac::Rules { dialect, required: &[], nonce: None };
        if let Ok(Some(proof)) = hmac::read(fields, &rules) {
            note(hmac::text(&request, &proof, dialect, Body::Form(body)));
        }
    }
    if let Ok(Some(proof)) = rfc9421::read(fields, &rfc9421::Rules { required: &[], nonce: false })
    {
        note(rfc9421::text(&request, &proof));
    }
    found.into_inner()
}

fn value() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        prop::collection::vec(any::<u8>(), 0..60),
        "[ -~]{0,80}".prop_map(String::into_bytes),
        r#"(hmac|Signature) (id|username|keyId)="[a-z]{0,3}"(, ?(algorithm|headers|signature)="[a-z0-9 @-]{0,30}"){0,4}"#
            .prop_map(String::into_bytes),
        r#"[a-z]{1,3}=\(("@?[a-z-]{0,10}" ?){0,4}\)(;(created|keyid|nonce|alg|expires)=("[ -~]{0,20}"|[0-9]{1,16})){0,4}"#
            .prop_map(String::into_bytes),
        "v1;t=[0-9]{9,14};n=[a-zA-Z0-9_-]{15,18};s=[a-z]{0,5}".prop_map(String::into_bytes),
        "[a-z-]{1,5}=:[a-zA-Z0-9=+/]{0,10}:".prop_map(String::into_bytes),
    ]
}

fn name() -> impl Strategy<Value = String> {
    prop::sample::select(vec![
        "authorization",
        "signature",
        "signature-input",
        "content-digest",
        "digest",
        "content-md5",
        "content-type",
        "date",
        "x-date",
        "x-ca-key",
        "x-ca-nonce",
        "x-ca-signature",
        "x-ca-signature-headers",
        "x-ca-timestamp",
        "x-mp-sign",
        "accept",
    ])
    .prop_map(str::to_owned)
}

proptest! {
    #[test]
    fn no_bytes_make_it_stumble(
        fields in prop::collection::vec((name(), value()), 0..12),
        target in "/[ -~]{0,40}",
        body in prop::collection::vec(any::<u8>(), 0..60),
    ) {
        let _ = texts(&Any(fields), &target, &body);
    }

    /// What the caller sorts, percent-encodes or leaves out for the same parameters is one text; another
    /// parameter, value, path or method is another.
    #[test]
    fn k_04_the_sessions_text_tells_requests_apart(
        one in "[a-z]{1,2}(=[a-z0-9%]{0,2})?(&[a-z]{1,2}(=[a-z0-9%]{0,2})?){0,4}",
        two in "[a-z]{1,2}(=[a-z0-9%]{0,2})?(&[a-z]{1,2}(=[a-z0-9%]{0,2})?){0,4}",
    ) {
        let fields = Any(vec![("x-mp-sign".to_owned(), b"v1;t=1700000000;n=0123456789abcdef;s=x".to_vec())]);
        let proof = session::read(&fields).unwrap().unwrap();
        let text = |query: &str| {
            let target = format!("/p?{query}");
            session::text(&request(&target, &fields), &proof, Body::Sum(None), "sid").unwrap()
        };
        prop_assert_eq!(text(&one) == text(&two), sorted(&one) == sorted(&two));
    }

    #[test]
    fn k_04_the_text_of_x_ca_tells_parameters_apart(
        one in prop::collection::btree_map("[a-c&=%+ ]{1,2}", "[a-c&=%+ ]{0,2}", 0..4),
        two in prop::collection::btree_map("[a-c&=%+ ]{1,2}", "[a-c&=%+ ]{0,2}", 0..4),
    ) {
        let encode = |text: &str| text.bytes().map(|b| format!("%{b:02X}")).collect::<String>();
        let query = |map: &std::collections::BTreeMap<String, String>| {
            let pair = |(name, value): (&String, &String)| format!("{}={}", encode(name), encode(value));
            map.iter().map(pair).collect::<Vec<_>>().join("&")
        };
        let text = |map| {
            let fields = Any(vec![
                ("x-ca-signature".to_owned(), b"x".to_vec()),
                ("x-ca-key".to_owned(), b"demo".to_vec()),
                ("x-ca-nonce".to_owned(), b"0123456789abcdef".to_vec()),
                ("x-ca-timestamp".to_owned(), b"1700000000000".to_vec()),
                ("x-ca-signature-headers".to_owned(), b"x-ca-key,x-ca-nonce,x-ca-timestamp".to_vec()),
            ]);
            let proof: Proof<'_> = x_ca::read(&fields).unwrap().unwrap();
            let target = format!("/p?{}", query(map));
            x_ca::text(&request(&target, &fields), &proof, Body::Form(b"")).ok()
        };
        let (first, second) = (text(&one), text(&two));
        if one != two && first.is_some() {
            prop_assert_ne!(first, second);
        }
    }
}

/// The parameters of a query as the documentation says them: by name, those of one name in their order.
fn sorted(query: &str) -> Vec<(String, Vec<String>)> {
    let mut names: std::collections::BTreeMap<String, Vec<String>> =
        std::collections::BTreeMap::new();
    for piece in query.split('&') {
        let name = piece.split('=').next().unwrap_or_default();
        names.entry(name.to_owned()).or_default().push(piece.to_owned());
    }
    names.into_iter().collect()
}
