//! Verifies that a request was signed by the holder of a key: the caller's session, an app, a partner.
//! What was signed the engine knows (`sluice_engine::signature`); here are keys, clocks, bodies and
//! nonces.
//!
//! The one rule: nothing is forwarded that was not covered. A body that the signature does not cover is
//! refused, unless the config says `unsigned_payload: true`.

use std::sync::Arc;

use http::request::Parts;
use http::{HeaderMap, Version};
use sluice_engine::signature::{
    self as engine, Body, Covers, Fields, Proof, Request, Time, hmac, rfc9421, session, x_ca,
};

use super::{Flow, Hooks};
use crate::base::clock;
use crate::base::cx::Cx;
use crate::base::fault::Fault;
use crate::base::inlet;
use crate::parts::key_records::{Holder, Shared};
use crate::parts::masters::Masters;

mod config;
mod replay;
mod verify;

pub(crate) use config::Config;
use config::Scheme;
use replay::Replay;
use verify::{Hasher, Key};

#[derive(Debug)]
pub(crate) struct Signature {
    scheme: Scheme,
    keys: Keys,
    algorithms: Vec<engine::Algorithm>,
    /// What must be covered.
    required: Vec<String>,
    /// The covered field that is the nonce, for dialects without one.
    nonce_header: Option<String>,
    /// Milliseconds.
    window: u64,
    replay: Replay,
    body_limit: u64,
    unsigned_payload: bool,
}

/// Where keys come from.
#[derive(Debug)]
enum Keys {
    /// They are derived for each session, named by the first of the claims that there is.
    Derived { masters: Arc<Masters>, claims: Vec<String> },
    /// Each has a holder.
    Held { here: std::collections::HashMap<String, Arc<Holder>>, shared: Option<Shared> },
}

impl Hooks for Signature {
    async fn on_request(&self, cx: &mut Cx, head: &mut Parts) -> Result<Flow, Fault> {
        // Large, and requests of other routes should not carry it.
        Box::pin(self.check(cx, head)).await?;
        Ok(Flow::Next)
    }
}

impl Signature {
    async fn check(&self, cx: &mut Cx, head: &Parts) -> Result<(), Fault> {
        let facts = Facts::of(cx, head);
        let proof = self.read(&facts).map_err(|_| Fault::SignatureInvalid)?;
        let proof = proof.ok_or(Fault::SignatureMissing)?;
        self.in_time(&proof)?;
        if proof.algorithm.is_some_and(|algorithm| !self.algorithms.contains(&algorithm)) {
            return Err(Fault::SignatureInvalid);
        }
        let caller = self.caller(&proof, cx).await?;
        let matched = self.verify(&proof, &caller, cx, &facts).await?;
        if let Some(holder) = &caller.holder {
            holder.judge(matched, clock::unix_seconds(), cx.client)?;
        }
        // Its body may have taken a while: what is too old by now, its nonce may be forgotten.
        self.in_time(&proof)?;
        if let Some(nonce) = proof.nonce {
            self.replay.once(&caller.name, nonce).await?;
        }
        if let Some(holder) = &caller.holder {
            cx.join(&holder.principal);
            cx.key_name = Some(Arc::clone(&holder.id));
        }
        Ok(())
    }
}

/// Who says to have signed.
struct Caller {
    /// What its nonces are kept by.
    name: String,
    keys: Vec<Key>,
    holder: Option<Arc<Holder>>,
}

impl Signature {
    /// Whether it reads bodies before they are sent.
    pub(crate) fn reads_body(&self) -> bool {
        !self.unsigned_payload
    }

    /// Whether another filter has to say first who is calling.
    pub(crate) fn needs_identity(&self) -> bool {
        matches!(self.keys, Keys::Derived { .. })
    }

    fn read<'a>(&self, facts: &'a Facts<'_>) -> engine::Read<'a> {
        let nonce = self.nonce_header.as_deref();
        match self.scheme {
            Scheme::Session => session::read(facts),
            Scheme::XCa => x_ca::read(facts),
            Scheme::Hmac(dialect) => {
                hmac::read(facts, &hmac::Rules { dialect, required: &self.required, nonce })
            }
            Scheme::Rfc9421 => {
                rfc9421::read(facts, &rfc9421::Rules { required: &self.required, nonce: true })
            }
        }
    }

    /// Looked at before keys are, so a wrong clock is told to everybody alike.
    fn in_time(&self, proof: &Proof<'_>) -> Result<(), Fault> {
        let now = clock::unix_millis();
        let signed = match proof.time {
            Time::Unix(millis) => millis,
            Time::Date(text) => verify::date(text).ok_or(Fault::SignatureInvalid)?,
        };
        let over = proof.expires.is_some_and(|at| at.saturating_mul(1000) <= now);
        if over || now.abs_diff(signed) > self.window {
            return Err(Fault::SignatureExpired);
        }
        Ok(())
    }

    /// The keys to try, none for a name that nobody has: that is refused like a wrong signature.
    async fn caller(&self, proof: &Proof<'_>, cx: &Cx) -> Result<Caller, Fault> {
        match &self.keys {
            Keys::Derived { masters, claims } => {
                let session = claims.iter().find_map(|claim| cx.claim(claim)?.as_str());
                let session = session.ok_or(Fault::IdentityMissing)?;
                let keys = masters.keys(session).map(|key| Some(Key::Secret(key?.to_vec().into())));
                let keys = keys.collect::<Option<Vec<_>>>().ok_or(Fault::Internal)?;
                Ok(Caller { name: session.to_owned(), keys, holder: None })
            }
            Keys::Held { here, shared } => {
                let holder = match (here.get(&*proof.id), shared) {
                    (Some(holder), _) => Some(Arc::clone(holder)),
                    (None, Some(shared)) => shared.find(&proof.id).await?,
                    (None, None) => None,
                };
                let keys = match &holder {
                    Some(holder) => holder.proofs.iter().filter_map(Key::of).collect(),
                    None => Vec::new(),
                };
                Ok(Caller { name: proof.id.clone().into_owned(), keys, holder })
            }
        }
    }

    /// Reads the body, if it is covered, and tells which of the caller's keys has signed.
    async fn verify(
        &self,
        proof: &Proof<'_>,
        caller: &Caller,
        cx: &mut Cx,
        facts: &Facts<'_>,
    ) -> Result<usize, Fault> {
        let authority = facts.authority.as_str();
        let request = facts.request(authority);
        let session = caller.name.as_str();
        let signed = |body: Body<'_>| {
            let text = match self.scheme {
                Scheme::Session => session::text(&request, proof, body, session),
                Scheme::XCa => x_ca::text(&request, proof, body),
                Scheme::Hmac(dialect) => hmac::text(&request, proof, dialect, body),
                Scheme::Rfc9421 => rfc9421::text(&request, proof),
            };
            text.ok().and_then(|text| verify::matched(proof, &caller.keys, &self.algorithms, &text))
        };
        if self.unsigned_payload {
            let matched = match proof.body {
                Covers::Sum => signed(Body::Sum(None)),
                Covers::Form => signed(Body::Form(b"")),
                Covers::Nothing => signed(Body::Apart),
            };
            return matched.ok_or(Fault::SignatureInvalid);
        }
        // What is covered by its digest in a field can wait until the field is known to be signed.
        let early = match proof.body {
            Covers::Nothing => Some(signed(Body::Apart).ok_or(Fault::SignatureInvalid)?),
            Covers::Sum | Covers::Form => None,
        };
        let mut form = (proof.body == Covers::Form).then(Vec::new);
        let mut hasher = match (proof.body, proof.digest) {
            (Covers::Sum, _) => Some(Hasher::new(engine::DigestKind::Sha256)),
            (_, Some(digest)) => Some(Hasher::new(digest.kind)),
            (Covers::Form, None) => None,
            (Covers::Nothing, None) if inlet::has_body(cx) => return Err(Fault::BodyUnsigned),
            (Covers::Nothing, None) => return early.ok_or(Fault::SignatureInvalid),
        };
        let mut each = |piece: &[u8]| {
            form.iter_mut().for_each(|form| form.extend_from_slice(piece));
            hasher.iter_mut().for_each(|hasher| hasher.update(piece));
        };
        Box::pin(inlet::read(cx, self.body_limit, &mut each)).await?;
        let matched = match (early, &form, hasher) {
            (None, None, Some(hasher)) => signed(Body::Sum(hasher.sum())),
            (early, form, hasher) => {
                let told = proof.digest.map_or("", |digest| digest.text);
                let agrees = hasher.is_none_or(|hasher| hasher.agrees(told));
                let body = Body::Form(form.as_deref().unwrap_or(&[]));
                early.or_else(|| signed(body)).filter(|_| agrees)
            }
        };
        matched.ok_or(Fault::SignatureInvalid)
    }
}

/// The request as it was signed. Its body is not among these, so it can be read meanwhile.
struct Facts<'a> {
    head: &'a Parts,
    authority: String,
    https: bool,
}

impl<'a> Facts<'a> {
    fn of(cx: &Cx, head: &'a Parts) -> Self {
        let authority = cx.host.as_ref().and_then(|host| host.value().to_str().ok());
        let told = head.headers.get("x-forwarded-proto").map(http::HeaderValue::as_bytes);
        // A proxy in front that is trusted knows what the client spoke.
        let https = match told.filter(|_| cx.peer_trusted) {
            Some(scheme) => scheme.eq_ignore_ascii_case(b"https"),
            None => cx.peer.secure,
        };
        Self { head, authority: authority.unwrap_or("").to_owned(), https }
    }

    fn request<'r>(&'r self, authority: &'r str) -> Request<'r> {
        Request {
            method: self.head.method.as_str(),
            version: match self.head.version {
                Version::HTTP_2 => "HTTP/2.0",
                Version::HTTP_10 => "HTTP/1.0",
                _ => "HTTP/1.1",
            },
            scheme: if self.https { "https" } else { "http" },
            authority,
            path: self.head.uri.path(),
            query: self.head.uri.query(),
            fields: self,
        }
    }
}

impl Fields for Facts<'_> {
    fn each<'a>(&'a self, name: &str, f: &mut dyn FnMut(&'a [u8])) {
        let fields: &HeaderMap = &self.head.headers;
        fields.get_all(name).iter().for_each(|value| f(value.as_bytes()));
    }
}
