//! A provider of keys and of logins: a JWKS whose keys rotate, WeChat's `code2Session` and what other
//! platforms have in its place, and calls between servers, over HTTP or HTTPS. It can be slow, empty, huge or wrong, and counts who asked.
//!
//! Signing tokens is left to `keys`, what a login answers to `login`, the rest to `server_api`. The one rule: it is as awkward as
//! the real ones, whose JSON comes as `text/plain` and whose errors come with status 200.

mod keys;
mod login;
mod platforms;
mod push;
mod server_api;

use std::{collections::BTreeMap, net::SocketAddr, sync::Arc, time::Duration};

use rustls::ServerConfig;

pub use login::Login;
pub use push::{PUSH_KEY, PUSH_TOKEN, Push};
pub use server_api::{CHECK_SESSION, PHONE, Phone, STABLE_TOKEN, changed, encrypt, sha1};

use crate::{
    record::Recorded,
    recorder::{Answer, Recorder},
    watched::Watched,
};
use keys::Keys;
use server_api::Servers;

/// Where the keys are.
pub const JWKS: &str = "/.well-known/jwks.json";
/// Where a code becomes a session.
pub const CODE2SESSION: &str = "/sns/jscode2session";
/// Who may ask for that: this, and whatever begins with it.
pub const APPID: &str = "wx0123456789abcdef";
/// What they have to say with it.
pub const SECRET: &str = "not a secret at all";

/// How the provider answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Manner {
    /// As it should.
    Well,
    /// As it should, but after so long.
    Slow(Duration),
    /// With 200 and nothing.
    Empty,
    /// With 200 and so many bytes.
    Huge(usize),
    /// With 200 and half an answer.
    Broken,
    /// With a page for people and this status.
    Page(u16),
}

/// A running provider; dropping it stops it.
pub struct Provider {
    recorder: Recorder,
    state: Arc<Watched<State>>,
}

struct State {
    manner: Manner,
    keys: Keys,
    logins: BTreeMap<String, Login>,
    fetches: u64,
    exchanges: BTreeMap<String, u64>,
    alipay_key: Vec<u8>,
    servers: Servers,
    /// The newest session key of each user.
    session_keys: BTreeMap<String, String>,
}

impl Provider {
    /// Listens for HTTP.
    pub fn start() -> Self {
        Self::listen(None)
    }

    /// Listens for HTTPS.
    pub fn start_tls(config: Arc<ServerConfig>) -> Self {
        Self::listen(Some(config))
    }

    fn listen(tls: Option<Arc<ServerConfig>>) -> Self {
        let state = Arc::new(Watched::new(State {
            manner: Manner::Well,
            keys: Keys::new(),
            logins: BTreeMap::new(),
            fetches: 0,
            exchanges: BTreeMap::new(),
            alipay_key: Vec::new(),
            servers: Servers::default(),
            session_keys: BTreeMap::new(),
        }));
        let asked = Arc::clone(&state);
        let setup = Recorder::setup().decide(move |request| asked.change(|s| s.answer(request)));
        let setup = tls.into_iter().fold(setup, crate::recorder::Setup::tls);
        Self { recorder: setup.start(), state }
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.recorder.addr()
    }

    /// Answers in this manner from now on, keys and logins alike.
    pub fn set(&self, manner: Manner) {
        self.state.change(|state| state.manner = manner);
    }

    /// A token with these claims, signed by the newest key.
    pub fn token(&self, claims: &str) -> String {
        self.state.look(|state| state.keys.token(claims))
    }

    /// Signs with a new key from now on; the one before stays published, older ones do not.
    pub fn rotate(&self) {
        self.state.change(|state| state.keys.rotate());
    }

    /// Decides what becomes of a code. One that nobody has decided about is invalid.
    pub fn decide(&self, code: &str, login: Login) {
        self.state.change(|state| state.logins.insert(code.to_owned(), login));
    }

    /// The public RSA key (DER) of the app at Alipay, whose signatures are checked from now on.
    pub fn alipay_key(&self, der: Vec<u8>) {
        self.state.change(|state| state.alipay_key = der);
    }

    /// How often the keys were asked for.
    pub fn fetches(&self) -> u64 {
        self.state.look(|state| state.fetches)
    }

    /// How often this code was exchanged, or tried to be.
    pub fn exchanges(&self, code: &str) -> u64 {
        self.state.look(|state| state.exchanges.get(code).copied().unwrap_or(0))
    }

    /// The key of the session that this user got last.
    pub fn session_key(&self, openid: &str) -> String {
        self.state.look(|state| state.session_keys.get(openid).cloned().unwrap_or_default())
    }

    /// How often a token was asked for.
    pub fn token_calls(&self) -> u64 {
        self.state.look(|state| state.servers.asked)
    }

    /// How often of these another one was forced.
    pub fn forced(&self) -> u64 {
        self.state.look(|state| state.servers.forced)
    }

    /// The token that is good, if one was given out.
    pub fn access_token(&self) -> Option<String> {
        self.state.look(|state| state.servers.token(APPID))
    }

    /// Tells of tokens from now on that they are good for so many seconds.
    pub fn token_life(&self, seconds: i64) {
        self.state.change(|state| state.servers.life = seconds);
    }

    /// Another token takes the place of the one that was good, as if somebody else had forced it.
    pub fn replace_token(&self) {
        self.state.change(|state| state.servers.replace(APPID));
    }

    /// Refuses the token from now on that is given out, until another one is forced.
    pub fn spoil_token(&self) {
        self.state.change(|state| state.servers.spoilt = true);
    }

    /// Gives out no token from now on but says this; `None` makes it well again.
    pub fn refuse_tokens(&self, code: Option<i64>) {
        self.state.change(|state| state.servers.refuses = code);
    }

    /// Decides what becomes of the code of a button for phone numbers.
    pub fn phone(&self, code: &str, phone: Phone) {
        self.state.change(|state| state.servers.phones.insert(code.to_owned(), phone));
    }

    /// How often such a code was sent.
    pub fn phone_calls(&self, code: &str) -> u64 {
        self.state.look(|state| state.servers.phone_codes.get(code).copied().unwrap_or(0))
    }

    /// Every request.
    pub fn requests(&self) -> Vec<Recorded> {
        self.recorder.requests()
    }
}

impl State {
    fn answer(&mut self, request: &Recorded) -> Answer {
        let (path, query) = request.target.split_once('?').unwrap_or((&request.target, ""));
        let (kind, body) = match (request.method.as_str(), path) {
            ("GET", JWKS) => {
                self.fetches += 1;
                ("application/json", self.keys.published())
            }
            ("GET", CODE2SESSION) => ("text/plain", self.exchange(query)),
            (method, path) => match platforms::asked(method, path, request, &self.alipay_key) {
                Some((platform, asked)) => {
                    ("application/json", self.exchange_at(&platform, &asked))
                }
                None => match self.servers.answer(request, &self.session_keys) {
                    Some(said) => ("text/plain", said),
                    None => return Answer::new(404),
                },
            },
        };
        let answer = |status: u16, body: Vec<u8>| {
            Answer::new(status).header("Content-Type", kind).body(body)
        };
        match self.manner {
            Manner::Well => answer(200, body.into_bytes()),
            Manner::Slow(delay) => answer(200, body.into_bytes()).delay(delay),
            Manner::Empty => answer(200, Vec::new()),
            Manner::Huge(bytes) => answer(200, vec![b' '; bytes]),
            Manner::Broken => answer(200, body.into_bytes().split_off(1)),
            Manner::Page(status) => answer(status, b"<h1>Sorry</h1>".to_vec()),
        }
    }

    fn exchange(&mut self, query: &str) -> String {
        let asked = login::Asked::parse(query);
        let used = self.is_used(&asked.code);
        let login = self.logins.get(&asked.code);
        let key = login::session_key();
        if let (Some(Login::Session { openid, .. }), false) = (login, used) {
            self.session_keys.insert(openid.clone(), key.clone());
        }
        login::answer(&asked, login, used, &key)
    }

    fn exchange_at(&mut self, platform: &platforms::Platform, asked: &login::Asked) -> String {
        let used = self.is_used(&asked.code);
        platform.answer(asked, self.logins.get(&asked.code), used)
    }

    /// Whether a code was asked about before; it was now.
    fn is_used(&mut self, code: &str) -> bool {
        let count = self.exchanges.entry(code.to_owned()).or_default();
        *count += 1;
        *count > 1
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use serde_json::Value;

    use super::*;
    use crate::{client, pki, raw};

    async fn jwks(provider: &Provider) -> raw::Response {
        raw::get(provider.addr(), "keys.test", JWKS).await
    }

    fn kids(answer: &raw::Response) -> Vec<String> {
        let keys = answer.json();
        let kid = |key: &Value| key["kid"].as_str().unwrap().to_owned();
        keys["keys"].as_array().unwrap().iter().map(kid).collect()
    }

    async fn exchange(provider: &Provider, code: &str) -> raw::Response {
        let query = format!("appid={APPID}&secret=not%20a%20secret+at%20all&js_code={code}");
        let path = format!("{CODE2SESSION}?{query}&grant_type=authorization_code");
        raw::get(provider.addr(), "api.test", &path).await
    }

    #[tokio::test]
    async fn keys_rotate_and_fetches_are_counted() {
        let provider = Provider::start();
        let first = provider.token(r#"{"sub":"1"}"#);
        assert_eq!(kids(&jwks(&provider).await), ["key-1"]);
        provider.rotate();
        provider.rotate();
        assert_eq!(kids(&jwks(&provider).await), ["key-2", "key-3"]);
        assert_eq!(provider.fetches(), 2);
        let published = jwks(&provider).await.json();
        let newest = published["keys"].as_array().unwrap().last().unwrap().clone();
        assert!(keys::verifies(&provider.token(r#"{"sub":"1"}"#), &newest));
        assert!(!keys::verifies(&first, &newest));
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn keys_come_by_https_too() {
        let authority = pki::Authority::new();
        let config = pki::server_config(&authority.issue(&["keys.test"]), &["http/1.1"]);
        let provider = Provider::start_tls(config);
        let trust = pki::client_config(&authority, &["http/1.1"]);
        let mut client = client::tls(provider.addr(), "keys.test", trust).await;
        let (head, body, _) = client.send(client::get(JWKS)).await;
        assert_eq!(head.headers["content-type"], "application/json");
        let keys: Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(keys["keys"][0]["crv"], "Ed25519");
    }

    #[tokio::test]
    async fn it_can_be_awkward() {
        let provider = Provider::start();
        provider.set(Manner::Slow(Duration::from_millis(80)));
        let start = Instant::now();
        assert_eq!(kids(&jwks(&provider).await).len(), 1);
        assert!(start.elapsed() >= Duration::from_millis(80));
        for (manner, status, length) in [
            (Manner::Empty, 200, 0),
            (Manner::Huge(3_000_000), 200, 3_000_000),
            (Manner::Page(503), 503, 14),
        ] {
            provider.set(manner.clone());
            let answer = jwks(&provider).await;
            assert_eq!((answer.status, answer.body.len()), (status, length), "{manner:?}");
        }
        provider.set(Manner::Broken);
        assert!(serde_json::from_slice::<Value>(&jwks(&provider).await.body).is_err());
        assert_eq!(provider.fetches(), 5);
        assert_eq!(raw::get(provider.addr(), "h", "/").await.status, 404);
    }

    #[tokio::test]
    async fn a_code_is_good_once() {
        let provider = Provider::start();
        provider.decide("good", Login::session("o-1", Some("u-1")));
        let answer = exchange(&provider, "good").await;
        assert_eq!(answer.header("content-type"), Some("text/plain"));
        let session = answer.json();
        assert_eq!(
            (session["openid"].as_str(), session["unionid"].as_str()),
            (Some("o-1"), Some("u-1"))
        );
        assert_eq!(session["session_key"].as_str().unwrap().len(), 24);
        let again = exchange(&provider, "good").await;
        assert_eq!((again.status, again.json()["errcode"].as_i64()), (200, Some(40163)));
        assert_eq!(provider.exchanges("good"), 2);
    }

    #[tokio::test]
    async fn errors_come_with_status_200() {
        let provider = Provider::start();
        for code in [-1, 40029, 45011, 40226] {
            let name = format!("c{code}");
            provider.decide(&name, Login::Error(code));
            for _ in 0..2 {
                let answer = exchange(&provider, &name).await;
                assert_eq!((answer.status, answer.json()["errcode"].as_i64()), (200, Some(code)));
                assert!(!answer.json()["errmsg"].as_str().unwrap().is_empty());
            }
        }
        assert_eq!(exchange(&provider, "unknown").await.json()["errcode"], 40029);
        for (query, code) in [
            ("secret=x&js_code=c", 41002),
            ("appid=a&js_code=c", 41004),
            ("appid=a&secret=x", 41008),
            ("appid=a&secret=x&js_code=c", 40013),
            ("appid=wx0123456789abcdef&secret=x&js_code=c", 40125),
        ] {
            let path = format!("{CODE2SESSION}?{query}&grant_type=authorization_code");
            let answer = raw::get(provider.addr(), "h", &path).await;
            assert_eq!(answer.json()["errcode"], code, "{query}");
        }
    }
}
