//! Asking the service that knows more of somebody.

use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, CONTENT_TYPE};
use http::{HeaderValue, Request};
use serde_json::{Map, Value, json};

use crate::base::fault::Fault;
use crate::lasting::fetch::{Client, Limits};
use crate::lasting::login::flights::Refused;
use crate::parts::login::Login;
use crate::parts::login::user::{OnError, Service};

/// Whom it is asked about.
pub(super) struct Person<'a> {
    pub(super) app: &'a str,
    pub(super) platform: &'a str,
    pub(super) open_id: &'a str,
    pub(super) union_id: Option<&'a str>,
}

/// What it knows.
#[derive(Default)]
pub(super) struct Known {
    pub(super) uid: Option<String>,
    pub(super) claims: Map<String, Value>,
}

/// Bytes of its answer, and of the claims that are taken from it: a token travels with every request.
const MAX_ANSWER: usize = 64 * 1024;
const MAX_CLAIMS: usize = 2 * 1024;
/// Longest id.
const MAX_UID: usize = 128;

pub(super) async fn look_up(login: &Login, person: &Person<'_>) -> Result<Known, Refused> {
    let Some(service) = &login.user else { return Ok(Known::default()) };
    match ask(login, service, person).await {
        Ok(known) => Ok(known),
        Err(why) => {
            tracing::warn!(url = %service.url, why, "the user service does not say who somebody is");
            match service.on_error {
                OnError::Guest => Ok(Known::default()),
                OnError::Deny => Err(Refused {
                    fault: Fault::ProviderBusy,
                    retry_after: Some(Duration::from_secs(1)),
                }),
            }
        }
    }
}

/// What it says now, if it says anything.
pub(super) async fn news(login: &Login, person: &Person<'_>) -> Option<Known> {
    ask(login, login.user.as_ref()?, person).await.ok()
}

async fn ask(login: &Login, service: &Service, person: &Person<'_>) -> Result<Known, String> {
    let body = json!({
        "app": person.app, "platform": person.platform,
        "openid": person.open_id, "unionid": person.union_id,
    });
    let mut request = Request::new(Bytes::from(body.to_string()));
    *request.method_mut() = http::Method::POST;
    let headers = request.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
    let limits = Limits { connect: service.timeout, total: service.timeout, body: MAX_ANSWER };
    let client = Client::of(&service.url, &login.names, service.tls.as_ref(), limits);
    let answer = client.ask(&service.url, request).await.map_err(|failure| failure.to_string())?;
    if !answer.status().is_success() {
        return Err(format!("status {}", answer.status().as_u16()));
    }
    read(service, answer.body()).ok_or_else(|| "no JSON object, or too large a one".to_owned())
}

fn read(service: &Service, body: &[u8]) -> Option<Known> {
    let Ok(Value::Object(said)) = serde_json::from_slice(body) else { return None };
    let uid = said.get("uid").and_then(|uid| match uid {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    });
    let known = said.into_iter().filter(|(name, value)| {
        service.claims.iter().any(|claim| claim == name) && !value.is_null()
    });
    let claims: Map<String, Value> = known.collect();
    let small = serde_json::to_string(&claims).is_ok_and(|text| text.len() <= MAX_CLAIMS);
    let uid = uid.filter(|uid| !uid.is_empty());
    (small && uid.as_ref().is_none_or(|uid| uid.len() <= MAX_UID)).then_some(Known { uid, claims })
}
