//! A call of a service to the platform, with the app's access token put into it, and for a user's session
//! with its signature. The one rule: a token is put in, and never comes out; an answer that holds it stays
//! here.

use bytes::Bytes;
use http::header::{ACCEPT, CONTENT_DISPOSITION, CONTENT_ENCODING, CONTENT_TYPE};
use http::{HeaderMap, HeaderName, Method, Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use serde::Deserialize;
use zeroize::Zeroizing;

use super::calls::collect;
use super::{Answer, Question};
use crate::base::clock;
use crate::base::fault::Fault;
use crate::base::units::Secret;
use crate::lasting::login::flights::Refused;
use crate::parts::broker::call::Call;
use crate::parts::login::Login;
use crate::parts::provider::exchange::push_encoded;
use crate::path::login::open;

/// Names the session that a call is signed for.
static SESSION: HeaderName = HeaderName::from_static("x-sluice-session");
/// Bytes of a query.
const MAX_QUERY: usize = 4 * 1024;
/// Bytes of an answer that may be a refusal of the token.
const SHORT: usize = 4 * 1024;
/// Calls that tell a secret, or are the gateway's own business.
const NEVER: [&str; 5] = [
    "cgi-bin/token",
    "cgi-bin/stable_token",
    "sns/jscode2session",
    "wxa/resetusersessionkey",
    "sns/component/jscode2session",
];

/// Passes a call on, and its answer back.
pub(super) async fn pass(
    question: &Question<'_>,
    login: Option<&Login>,
    request: Request<Incoming>,
) -> Result<Answer, Refused> {
    let path = path(question)?;
    let query = query(question)?;
    let (head, body) = request.into_parts();
    let method = method(&head.method)?;
    let most = |size: u64| usize::try_from(size).unwrap_or(usize::MAX);
    let limits = question.broker.limits;
    let body = collect(body, most(limits.body.0)).await?;
    // From here on: how long a service takes to say what it wants is not the platform's time.
    let deadline = clock::now().after(question.broker.timeout);
    let signed = match head.headers.get(&SESSION) {
        None => String::new(),
        Some(session) => {
            let session = session.to_str().map_err(|_| Fault::CallInvalid)?;
            let login = login.filter(|_| question.client.sessions).ok_or(Fault::CallRefused)?;
            open::signed_query(login, session, &question.app.id, &body).await?
        }
    };
    let mut headers = HeaderMap::new();
    for name in [CONTENT_TYPE, ACCEPT] {
        if let Some(value) = head.headers.get(&name) {
            headers.insert(name, value.clone());
        }
    }
    let app = &question.app;
    let mut token = app.token(deadline).await?.token;
    let mut first = true;
    loop {
        let mut target = Zeroizing::new(format!("{path}?access_token="));
        push_encoded(&mut target, token.expose());
        target.push_str(&query);
        target.push_str(&signed);
        let call = Call {
            method: method.clone(),
            target,
            headers: headers.clone(),
            body: body.clone(),
            again: method == Method::GET || method == Method::HEAD,
            most: most(limits.answer.0),
            deadline,
        };
        let answer = app.call(&call).await.map_err(|unanswered| unanswered.refused)?;
        // The platform has looked at the token first, so the call had no effect.
        if first && refuses_token(answer.body()) {
            first = false;
            if let Ok(another) = app.another(&token, deadline).await {
                token = another.token;
                continue;
            }
        }
        return hand_back(answer, &token);
    }
}

/// The platform's path, as it was written.
fn path(question: &Question<'_>) -> Result<String, Fault> {
    let rest = question.rest.as_str();
    let plain = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'/' | b'_' | b'-' | b'.');
    // Escapes and dots could lead to another path than the one that was looked at.
    let fine = !rest.is_empty()
        && rest.bytes().all(plain)
        && rest.split('/').all(|part| !part.is_empty() && part != "." && part != "..");
    if !fine {
        return Err(Fault::CallInvalid);
    }
    let lower = rest.to_ascii_lowercase();
    let path = format!("/{rest}");
    if NEVER.contains(&lower.as_str()) || !question.client.may_call(&path) {
        return Err(Fault::CallRefused);
    }
    Ok(path)
}

/// What stands behind the token.
fn query(question: &Question<'_>) -> Result<String, Fault> {
    let Some(query) = question.query.as_deref().filter(|query| !query.is_empty()) else {
        return Ok(String::new());
    };
    let names = url::form_urlencoded::parse(query.as_bytes());
    let mut said = names.map(|(name, _)| name.to_ascii_lowercase());
    // Of two tokens nobody knows which counts.
    if query.len() > MAX_QUERY || said.any(|name| name == "access_token") {
        return Err(Fault::CallInvalid);
    }
    Ok(format!("&{query}"))
}

fn method(method: &Method) -> Result<Method, Fault> {
    let known =
        [Method::GET, Method::HEAD, Method::POST, Method::PUT, Method::PATCH, Method::DELETE];
    known.contains(method).then(|| method.clone()).ok_or(Fault::MethodNotAllowed)
}

/// Whether the platform says that the token is wrong, expired or not the newest.
fn refuses_token(body: &[u8]) -> bool {
    #[derive(Deserialize)]
    struct Said {
        errcode: i64,
    }
    let said = (body.len() <= SHORT).then(|| serde_json::from_slice::<Said>(body).ok()).flatten();
    said.is_some_and(|said| matches!(said.errcode, 40001 | 40014 | 42001))
}

fn hand_back(answer: Response<Bytes>, token: &Secret) -> Result<Answer, Refused> {
    let (head, body) = answer.into_parts();
    let coded = head.headers.get(CONTENT_ENCODING).is_some_and(|coding| coding != "identity");
    if coded || !(200..600).contains(&head.status.as_u16()) {
        // Nobody has asked for a coding, and nobody could find a token within one.
        tracing::error!(status = head.status.as_u16(), coded, "the platform's answer is none");
        return Err(Fault::ProviderBusy.into());
    }
    let mut fields = HeaderMap::new();
    for name in [CONTENT_TYPE, CONTENT_DISPOSITION] {
        if let Some(value) = head.headers.get(&name) {
            fields.insert(name, value.clone());
        }
    }
    let holds = |text: &[u8]| memchr::memmem::find(text, token.expose().as_bytes()).is_some();
    if holds(&body) || fields.values().any(|value| holds(value.as_bytes())) {
        tracing::error!("the platform's answer holds the access token; it is not handed on");
        return Err(Fault::CallRefused.into());
    }
    let mut answer = Response::new(Full::new(body));
    *answer.status_mut() = head.status;
    *answer.headers_mut() = fields;
    Ok(answer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refused_token_is_known_by_its_number() {
        for code in [40001, 40014, 42001] {
            assert!(refuses_token(format!("{{\"errcode\":{code},\"errmsg\":\"x\"}}").as_bytes()));
        }
        for body in
            [&b"{\"errcode\":40029}"[..], b"{\"errcode\":0}", b"{}", b"", b"40001", b"\x89PNG"]
        {
            assert!(!refuses_token(body));
        }
    }

    #[test]
    fn a_token_does_not_come_out() {
        let token = Secret::new("tok-en");
        let answer = |body: &'static str| Response::new(Bytes::from_static(body.as_bytes()));
        assert!(hand_back(answer("{\"errcode\":0}"), &token).is_ok());
        assert_eq!(
            hand_back(answer("{\"url\":\"?access_token=tok-en\"}"), &token).unwrap_err().fault,
            Fault::CallRefused
        );
        let with = |status: u16, name: HeaderName, value: &'static str| {
            let mut answer = answer("x");
            *answer.status_mut() = http::StatusCode::from_u16(status).unwrap();
            answer.headers_mut().insert(name, http::HeaderValue::from_static(value));
            hand_back(answer, &token).map_err(|refused| refused.fault)
        };
        for (name, value, meant) in [
            (CONTENT_DISPOSITION, "attachment; filename=tok-en", Some(Fault::CallRefused)),
            (CONTENT_TYPE, "tok-en", Some(Fault::CallRefused)),
            // What is packed could hold it.
            (CONTENT_ENCODING, "gzip", Some(Fault::ProviderBusy)),
            (CONTENT_ENCODING, "identity", None),
            (http::header::SET_COOKIE, "tok-en", None),
        ] {
            assert_eq!(with(200, name.clone(), value).err(), meant, "{name}");
        }
        assert_eq!(with(101, CONTENT_TYPE, "a").unwrap_err(), Fault::ProviderBusy);
        assert!(with(200, http::header::SET_COOKIE, "a").unwrap().headers().is_empty());
    }
}
