//! What operators can change: hold a breaker open or closed for a while, and let it go. Nothing without
//! the token of the config, nothing that a page in a browser could have sent, and nothing unaudited.

use std::net::SocketAddr;
use std::sync::PoisonError;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE, ORIGIN, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode};
use http_body_util::{BodyExt as _, Limited};
use hyper::body::Incoming;
use serde::Deserialize;

use super::audit::Attempt;
use super::{Admin, Answer, BREAKER, not_allowed, show, text};
use crate::base::clock;
use crate::base::units::Span;
use crate::parts::breaker::tell;

/// Largest body, bytes.
const MOST: usize = 4096;
/// Longest wait for it.
const PATIENCE: Duration = Duration::from_secs(5);
/// Nobody holds a breaker for longer: what is forgotten must come to an end.
const LONGEST: Duration = Duration::from_secs(24 * 3600);
const SHORTEST: Duration = Duration::from_secs(1);
/// Characters of a note.
const NOTE: usize = 200;

/// What is asked for.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Force {
    state: Forced,
    #[serde(rename = "for")]
    long: Span,
    /// Why, for the audit.
    #[serde(default)]
    note: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Forced {
    Open,
    Closed,
}

impl Admin {
    /// Answers what is no `GET`.
    pub(super) async fn write(&self, request: Request<Incoming>, peer: SocketAddr) -> Answer {
        let path = request.uri().path().to_owned();
        let name = path.strip_prefix(BREAKER).and_then(|path| path.strip_suffix("/force"));
        let Some(name) = name else {
            return not_allowed("GET, HEAD", "this page only shows\n");
        };
        let action = match *request.method() {
            Method::POST => "force",
            Method::DELETE => "release",
            _ => return not_allowed("POST, DELETE", "POST forces a breaker, DELETE lets it go\n"),
        };
        let snapshot = self.shared.live.snapshot();
        let token = snapshot.settings.admin_token.as_ref();
        let mut attempt = Attempt { peer, token: None, action, target: name, asked: None };
        let Some(token) = token else {
            let why = "writes are off: the config has no `admin: { token: ... }`\n";
            return self.deny(&attempt, StatusCode::FORBIDDEN, why);
        };
        if is_from_a_page(request.headers()) {
            let why = "pages in browsers change nothing here\n";
            return self.deny(&attempt, StatusCode::FORBIDDEN, why);
        }
        if !bearer(request.headers()).is_some_and(|shown| token.is(shown)) {
            let why = "this needs `Authorization: Bearer` with the token of the config\n";
            return self.deny(&attempt, StatusCode::UNAUTHORIZED, why);
        }
        attempt.token = Some(&token.fingerprint);
        let answer = match action {
            "force" => self.force(&mut attempt, request).await,
            _ => self.release(name),
        };
        let (answer, outcome) = match answer {
            Ok((answer, outcome)) => (answer, outcome),
            Err((status, why)) => (text(status, &format!("{why}\n")), why),
        };
        let done = answer.status() == StatusCode::OK;
        let counted =
            if done { &self.shared.status.writes } else { &self.shared.status.writes_refused };
        counted.fetch_add(1, Ordering::Relaxed);
        self.audit.lock().unwrap_or_else(PoisonError::into_inner).note(&attempt, &outcome);
        answer
    }

    async fn force(
        &self,
        attempt: &mut Attempt<'_>,
        request: Request<Incoming>,
    ) -> Result<(Answer, String), (StatusCode, String)> {
        let bytes = body(request).await?;
        let force: Force = serde_json::from_slice(&bytes)
            .map_err(|error| (StatusCode::BAD_REQUEST, format!("not understood: {error}")))?;
        let note: String = force.note.chars().take(NOTE).collect();
        attempt.asked = Some(format!("{:?} for {}; {note}", force.state, force.long));
        if !(SHORTEST..=LONGEST).contains(&force.long.0) {
            let why = format!("`for` must lie between {} and {}", Span(SHORTEST), Span(LONGEST));
            return Err((StatusCode::BAD_REQUEST, why));
        }
        let breaker = self.find(attempt.target).ok_or_else(unknown)?;
        let now = clock::now();
        let until = now.after(force.long.0);
        let transition = breaker.cell().force(force.state == Forced::Open, until, now);
        tell(&breaker.name, breaker.cell(), transition);
        Ok((show(&breaker.timeline(now)), "done".to_owned()))
    }

    fn release(&self, name: &str) -> Result<(Answer, String), (StatusCode, String)> {
        let breaker = self.find(name).ok_or_else(unknown)?;
        let now = clock::now();
        let transition = breaker.cell().release(now);
        if let Some(transition) = transition {
            tell(&breaker.name, breaker.cell(), transition);
        }
        let outcome = if transition.is_some() { "done" } else { "nobody held it" };
        Ok((show(&breaker.timeline(now)), outcome.to_owned()))
    }

    fn deny(&self, attempt: &Attempt<'_>, status: StatusCode, why: &'static str) -> Answer {
        self.shared.status.writes_denied.fetch_add(1, Ordering::Relaxed);
        let (now, mut audit) =
            (clock::now(), self.audit.lock().unwrap_or_else(PoisonError::into_inner));
        if audit.deny(attempt, why.trim_end(), now) {
            let mut answer = text(status, why);
            if status == StatusCode::UNAUTHORIZED {
                answer.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
            }
            return answer;
        }
        let mut answer =
            text(StatusCode::TOO_MANY_REQUESTS, "too many attempts without the token\n");
        let seconds = audit.patience(now).as_secs() + 1;
        answer.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds));
        answer
    }
}

async fn body(request: Request<Incoming>) -> Result<Bytes, (StatusCode, String)> {
    let json = HeaderValue::from_static("application/json");
    if request.headers().get(CONTENT_TYPE) != Some(&json) {
        let why = "this needs `Content-Type: application/json`".to_owned();
        return Err((StatusCode::UNSUPPORTED_MEDIA_TYPE, why));
    }
    let body = Limited::new(request.into_body(), MOST).collect();
    match tokio::time::timeout(PATIENCE, body).await {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(_)) => {
            Err((StatusCode::PAYLOAD_TOO_LARGE, format!("the body is broken or over {MOST} bytes")))
        }
        Err(_) => Err((StatusCode::REQUEST_TIMEOUT, "the body did not come".to_owned())),
    }
}

fn unknown() -> (StatusCode, String) {
    (StatusCode::NOT_FOUND, "no such breaker; see /breakers".to_owned())
}

/// What browsers say of every request that a page makes, and nobody else.
pub(in crate::doors) fn is_from_a_page(headers: &HeaderMap) -> bool {
    headers.contains_key(ORIGIN) || headers.contains_key("sec-fetch-site")
}

pub(in crate::doors) fn bearer(headers: &HeaderMap) -> Option<&[u8]> {
    let mut shown = headers.get_all(AUTHORIZATION).iter();
    let only = shown.next().filter(|_| shown.next().is_none())?;
    only.as_bytes().strip_prefix(b"Bearer ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_force_has_a_state_and_a_time() {
        let read = |text: &str| serde_json::from_str::<Force>(text);
        let force = read(r#"{ "state": "open", "for": "10m" }"#).unwrap();
        assert_eq!((force.state, force.long.0.as_secs()), (Forced::Open, 600));
        for bad in [
            "",
            "{}",
            r#"{ "state": "open" }"#,
            r#"{ "for": "1m" }"#,
            r#"{ "state": "half_open", "for": "1m" }"#,
            r#"{ "state": "open", "for": 60 }"#,
            r#"{ "state": "open", "for": "1m", "ever": true }"#,
        ] {
            assert!(read(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_token_is_shown_once_and_by_its_scheme() {
        let shown = |values: &[&'static str]| {
            let mut headers = HeaderMap::new();
            values.iter().for_each(|it| {
                headers.append(AUTHORIZATION, HeaderValue::from_static(it));
            });
            bearer(&headers).map(<[u8]>::to_vec)
        };
        assert_eq!(shown(&["Bearer abc"]), Some(b"abc".to_vec()));
        for bad in [&[][..], &["abc"], &["Basic abc"], &["Bearer abc", "Bearer abc"]] {
            assert_eq!(shown(bad), None, "{bad:?}");
        }
    }
}
