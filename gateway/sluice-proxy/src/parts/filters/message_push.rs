//! Messages and events that WeChat pushes: whether they are the platform's, what they say in secure mode, and
//! whether they came before. The address is checked here; bodies are read by `path::push`. Below it the
//! `fields` of a message.
//!
//! The one rule: nothing is decrypted whose signature is not the platform's, so that nobody can find out by
//! trying how a text comes out.

mod fields;

use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::digest;
use base64::Engine as _;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, X_CONTENT_TYPE_OPTIONS};
use http::request::Parts;
use http::{HeaderValue, Method, Response};
use schemars::JsonSchema;
use serde::Deserialize;
use sluice_engine::matcher::MethodSet;
use zeroize::Zeroizing;

use self::fields::Fields;
use super::{Flow, Hooks};
use crate::base::body::Body;
use crate::base::clock;
use crate::base::cx::Cx;
use crate::base::fault::Fault;
use crate::base::units::{ByteSize, Secret, Span};
use crate::base::yaml::Place;
use crate::lasting::redis::{Gone, Target};
use crate::lasting::vault::Shelf;
use crate::parts::env::{Env, Owner};
use crate::parts::open_data::cipher;

/// Verifies what WeChat pushes, decrypts it, and lets each message through once.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Config {
    /// The app that messages are for, by its id.
    app: String,
    /// The token that stands in the platform's console.
    token: Secret,
    /// The `EncodingAESKey` that stands there, 43 characters; with it messages have to be encrypted.
    #[serde(default)]
    aes_key: Option<Secret>,
    /// How old a message may be, by its timestamp; between 1m and 1d.
    #[serde(default = "default_age")]
    max_age: Span,
    /// How long a message is known that was handled, at least; between 30s and 1d.
    #[serde(default = "default_remember")]
    remember: Span,
    /// Largest message; between 1KiB and 1MiB.
    #[serde(default = "default_body")]
    body: ByteSize,
    /// What the platform is told of a message that the service has taken.
    #[serde(default)]
    reply: Reply,
}

fn default_age() -> Span {
    Span(Duration::from_secs(600))
}

fn default_remember() -> Span {
    // The platform tries three times, five seconds apart.
    Span(Duration::from_secs(600))
}

fn default_body() -> ByteSize {
    ByteSize(128 * 1024)
}

/// What the platform is told.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Reply {
    /// `success`, whatever the service says, as long as its status is 2xx.
    #[default]
    Success,
    /// What the service says.
    Service,
}

/// Bytes of a secret key.
const KEY: usize = 32;
/// Longest padding of messages.
const PADDING: u8 = 32;
/// What stands before a message: chance, and its length.
const CHANCE: usize = 16;
/// Longest parameter, and longest word to be told back.
const MAX_PARAMETER: usize = 1024;
const MAX_ECHO: usize = 128;
/// How long a message is somebody's who has not said what came of it: the platform waits 5 s.
const UNDER_WAY: Duration = Duration::from_secs(8);
const PENDING: &[u8] = b"p";
const DONE: &[u8] = b"d";

impl Config {
    pub(crate) fn build(
        &self,
        at: &Place<'_>,
        _: &Owner,
        env: &mut Env<'_>,
    ) -> Option<MessagePush> {
        let apps = Arc::clone(&env.apps);
        let app = apps.named(&self.app, &at.field("app"), env);
        let mut whole = true;
        let mut wrong = |at: Place<'_>, message: &str| {
            whole = false;
            env.problems.error(&at, message);
        };
        let token = self.token.expose().trim_end_matches(['\n', '\r']);
        if !(3..=64).contains(&token.len()) || !token.bytes().all(|b| b.is_ascii_alphanumeric()) {
            wrong(at.field("token"), "the token has 3 to 64 letters and digits");
        }
        let key = match &self.aes_key {
            None => None,
            Some(key) => {
                let key = aes_key(key);
                if key.is_none() {
                    wrong(at.field("aes_key"), "an `EncodingAESKey` has 43 characters of Base64");
                }
                key
            }
        };
        let (second, day) = (Duration::from_secs(1), Duration::from_secs(86_400));
        if !(60 * second..=day).contains(&self.max_age.0) {
            wrong(at.field("max_age"), "`max_age` must lie between 1m and 1d");
        }
        if !(30 * second..=day).contains(&self.remember.0) {
            wrong(at.field("remember"), "`remember` must lie between 30s and 1d");
        }
        if !(1024..=1024 * 1024).contains(&self.body.0) {
            wrong(at.field("body"), "`body` must lie between 1KiB and 1MiB");
        }
        if key.is_none() && self.aes_key.is_none() {
            env.problems
                .warn(at, "in plain mode the signature says nothing of the message itself")
                .help("choose the secure mode in the platform's console, and write `aes_key`");
        }
        let app = apps.get(app?)?;
        whole.then(|| MessagePush {
            app: app.id.to_string(),
            appid: app.appid.to_str().unwrap_or_default().to_owned(),
            token: Secret::from(token.to_owned()),
            key,
            max_age: self.max_age.0.as_secs(),
            remember: self.remember.0,
            most: usize::try_from(self.body.0).unwrap_or(usize::MAX),
            reply: self.reply,
            redis: env.redis.clone(),
            shelf: env.retained.cell("shelf of message_push", Shelf::default),
        })
    }
}

/// The key behind 43 characters. The last of them may have bits that mean nothing.
fn aes_key(text: &Secret) -> Option<Zeroizing<Vec<u8>>> {
    let config = GeneralPurposeConfig::new()
        .with_decode_allow_trailing_bits(true)
        .with_decode_padding_mode(DecodePaddingMode::RequireNone);
    let text = text.expose().trim_end_matches(['\n', '\r']);
    let key = GeneralPurpose::new(&alphabet::STANDARD, config).decode(text).ok()?;
    let key = Zeroizing::new(key);
    (key.len() == KEY).then_some(key)
}

pub(crate) struct MessagePush {
    app: String,
    appid: String,
    token: Secret,
    key: Option<Zeroizing<Vec<u8>>>,
    /// Seconds.
    max_age: u64,
    remember: Duration,
    /// Bytes of a message.
    pub(crate) most: usize,
    reply: Reply,
    redis: Option<Arc<Target>>,
    shelf: Arc<Shelf>,
}

impl std::fmt::Debug for MessagePush {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("MessagePush").field(&self.app).finish()
    }
}

/// What the platform says in a query.
#[derive(Debug, Default)]
struct Said {
    signature: Option<String>,
    msg_signature: Option<String>,
    timestamp: String,
    nonce: String,
    echostr: Option<String>,
}

impl Said {
    /// `None` where a parameter stands twice, or is longer than any of the platform's.
    fn read(query: &str) -> Option<Self> {
        let mut said = Self::default();
        let (mut timestamp, mut nonce) = (None, None);
        for (name, value) in url::form_urlencoded::parse(query.as_bytes()) {
            let place = match &*name {
                "signature" => &mut said.signature,
                "msg_signature" => &mut said.msg_signature,
                "timestamp" => &mut timestamp,
                "nonce" => &mut nonce,
                "echostr" => &mut said.echostr,
                _ => continue,
            };
            if value.len() > MAX_PARAMETER || place.replace(value.into_owned()).is_some() {
                return None;
            }
        }
        (said.timestamp, said.nonce) = (timestamp?, nonce?);
        Some(said)
    }
}

/// The fields of a message, for who checks how they are read.
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) fn fields(text: &[u8]) -> Option<Vec<(String, String)>> {
    Fields::read(text).map(Fields::into_pairs)
}

/// A message that was opened.
pub(crate) struct Message {
    /// As the service gets it.
    pub(crate) body: Bytes,
    /// What it is known by.
    name: String,
    /// Its timestamp, seconds since 1970.
    at: u64,
}

/// What becomes of a message.
pub(crate) enum Claim {
    /// It is new.
    Ours,
    /// It was handled before.
    Done,
    /// Somebody has it.
    UnderWay,
}

impl Hooks for MessagePush {
    async fn on_request(&self, cx: &mut Cx, head: &mut Parts) -> Result<Flow, Fault> {
        let asks = head.method == Method::GET;
        if !asks && head.method != Method::POST {
            cx.allow = MethodSet::parse(["GET", "POST"]).ok();
            return Err(Fault::MethodNotAllowed);
        }
        let said = self.admit(head.uri.query(), clock::unix_seconds())?;
        if !asks {
            return Ok(Flow::Next);
        }
        let echo = self.echo(&said).ok_or(Fault::PushRefused)?;
        let mut answer = Response::new(Body::full(echo));
        let headers = answer.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
        headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        Ok(Flow::Answer(Box::new(answer)))
    }
}

impl MessagePush {
    /// Judges what stands in the query, before anything is read.
    fn admit(&self, query: Option<&str>, now: u64) -> Result<Said, Fault> {
        let said = query.and_then(Said::read).ok_or(Fault::PushRefused)?;
        let signed = match &said.signature {
            Some(shown) => self.signs(&[&said.timestamp, &said.nonce], shown),
            // What is encrypted has another signature, which covers the message.
            None => self.key.is_some() && said.msg_signature.is_some(),
        };
        if !signed {
            return Err(Fault::PushRefused);
        }
        let at: u64 = said.timestamp.parse().map_err(|_| Fault::PushRefused)?;
        if at.abs_diff(now) > self.max_age {
            return Err(Fault::PushOld);
        }
        Ok(said)
    }

    /// What the platform wants to have told back: a random word. A message is signed in the same way as the
    /// word, and nobody who has seen one sealed gets it opened by asking for it back.
    fn echo(&self, said: &Said) -> Option<Vec<u8>> {
        let echo = said.echostr.as_deref()?;
        let word = match (&said.msg_signature, &self.key) {
            (Some(shown), Some(key)) => {
                if !self.signs(&[&said.timestamp, &said.nonce, echo], shown) {
                    return None;
                }
                self.decrypt(key, echo)?.to_vec()
            }
            // There it was judged already, if it was signed at all.
            _ => said.signature.as_ref().map(|_| echo.as_bytes().to_vec())?,
        };
        let plain =
            |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'+' | b'/' | b'=');
        (word.len() <= MAX_ECHO && word.iter().all(plain)).then_some(word)
    }

    /// Opens a message that was pushed to this target.
    pub(crate) fn open(&self, query: Option<&str>, body: Bytes) -> Result<Message, Fault> {
        let said = query.and_then(Said::read).ok_or(Fault::PushRefused)?;
        let at = said.timestamp.parse().map_err(|_| Fault::PushRefused)?;
        let Some(key) = &self.key else {
            let fields = Fields::read(&body).ok_or(Fault::PushInvalid)?;
            let name = self.name(&fields, &body);
            return Ok(Message { body, name, at });
        };
        let fields = Fields::read(&body).ok_or(Fault::PushInvalid)?;
        let sealed = fields.get("Encrypt").ok_or(Fault::PushInvalid)?;
        let shown = said.msg_signature.as_deref().ok_or(Fault::PushRefused)?;
        if !self.signs(&[&said.timestamp, &said.nonce, sealed], shown) {
            return Err(Fault::PushRefused);
        }
        let message = self.decrypt(key, sealed).ok_or(Fault::PushRefused)?;
        let fields = Fields::read(&message).ok_or(Fault::PushInvalid)?;
        let name = self.name(&fields, &message);
        Ok(Message { body: message, name, at })
    }

    /// Whether `shown` is the SHA-1, in hex, of the token and these texts in their order.
    fn signs(&self, texts: &[&str], shown: &str) -> bool {
        let mut all: Vec<&str> = texts.iter().copied().chain([self.token.expose()]).collect();
        all.sort_unstable();
        let mut context = digest::Context::new(&digest::SHA1_FOR_LEGACY_USE_ONLY);
        all.iter().for_each(|text| context.update(text.as_bytes()));
        let mut hex = [0; 40];
        sluice_engine::trace::write_hex(context.finish().as_ref(), &mut hex);
        verify_slices_are_equal(&hex, shown.as_bytes()).is_ok()
    }

    /// Chance, the length, the message, and the app it is for.
    fn decrypt(&self, key: &[u8], sealed: &str) -> Option<Bytes> {
        let plain = cipher::open_text(key, key.get(..cipher::BLOCK)?, sealed, PADDING)?;
        let (length, rest) = plain.get(CHANCE..)?.split_at_checked(4)?;
        let length = usize::try_from(u32::from_be_bytes(length.try_into().ok()?)).ok()?;
        let (message, appid) = rest.split_at_checked(length)?;
        (appid == self.appid.as_bytes()).then(|| Bytes::copy_from_slice(message))
    }

    /// By what a message is known: its id; an event, which has none, by every byte of it. Who has caused it,
    /// when and of which kind is not enough: the pictures of one page are judged within one second.
    fn name(&self, fields: &Fields, body: &[u8]) -> String {
        let mut context = digest::Context::new(&digest::SHA256);
        context.update(self.app.as_bytes());
        match fields.get("MsgId") {
            Some(id) => {
                context.update(&[0]);
                context.update(id.as_bytes());
            }
            None => {
                context.update(&[1]);
                context.update(body);
            }
        }
        let mut hex = [0; 64];
        sluice_engine::trace::write_hex(context.finish().as_ref(), &mut hex);
        format!("sluice:push:{{{}}}", String::from_utf8_lossy(&hex))
    }

    // === Once each ===

    /// Takes a message, if nobody has it or had it.
    pub(crate) async fn claim(&self, message: &Message) -> Claim {
        // What was handled while Redis was away is known here alone.
        if self.shelf.get(&message.name, clock::now()).as_deref() == Some(DONE) {
            return Claim::Done;
        }
        let shared = match &self.redis {
            None => Err(Gone),
            Some(redis) => redis.put_new(&message.name, PENDING, UNDER_WAY).await,
        };
        let (new, known) = match (shared, &self.redis) {
            (Ok(true), _) => (true, None),
            (Ok(false), Some(redis)) => (false, redis.get(&message.name).await.ok().flatten()),
            // Without Redis each gateway knows its own.
            _ => {
                let now = clock::now();
                let pending = PENDING.to_vec();
                let new = self.shelf.put_new(&message.name, pending, now, UNDER_WAY);
                (new, self.shelf.get(&message.name, now))
            }
        };
        match (new, known.as_deref()) {
            (true, _) => Claim::Ours,
            (false, Some(DONE)) => Claim::Done,
            (false, _) => Claim::UnderWay,
        }
    }

    /// Notes what came of a message: it was handled, or somebody else may have it.
    pub(crate) async fn settle(&self, message: &Message, handled: bool) {
        let (name, now) = (message.name.as_str(), clock::now());
        let life = self.life(message, clock::unix_seconds());
        let shared = match (&self.redis, handled) {
            (None, _) => Err(Gone),
            (Some(redis), true) => redis.put(name, DONE, life).await,
            (Some(redis), false) => redis.remove(name).await,
        };
        match (shared, handled) {
            (Ok(()), _) => {}
            (Err(_), true) => self.shelf.put(name, DONE.to_vec(), now, life),
            (Err(_), false) => self.shelf.remove(name),
        }
    }

    /// How long a message is known that was handled: for as long as its timestamp would let it pass again, at
    /// least. A clock that is ahead makes that longer than `max_age`.
    fn life(&self, message: &Message, now: u64) -> Duration {
        let passes = message.at.saturating_add(self.max_age).saturating_add(1);
        self.remember.max(Duration::from_secs(passes.saturating_sub(now)))
    }

    /// Whether the platform is told `success` in place of what the service says.
    pub(crate) fn replies(&self) -> bool {
        self.reply == Reply::Success
    }
}

#[cfg(test)]
mod tests;
