//! What services get from the gateway itself: the access token of an app, and what a user's data says.

use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt as _, Limited};
use hyper::body::Incoming;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::{Answer, Question, say};
use crate::base::clock;
use crate::base::fault::Fault;
use crate::base::units::Secret;
use crate::lasting::login::flights::Refused;
use crate::parts::login::Login;
use crate::parts::open_data;
use crate::path::login::open;

/// Bytes of what is asked here.
const MAX_BODY: usize = 64 * 1024;
/// Longest wait for a body.
const PATIENCE: Duration = Duration::from_secs(10);

/// A token that the platform refuses.
#[derive(Deserialize)]
struct Report {
    refused: Secret,
}

/// Data of a user, and whose session it belongs to.
#[derive(Deserialize)]
struct Data {
    session: String,
    #[serde(flatten)]
    asked: open_data::Asked,
}

/// `GET` tells the token; `POST {"refused": "..."}` tells another one than that.
pub(super) async fn access_token(
    question: &Question<'_>,
    request: Request<Incoming>,
) -> Result<Answer, Refused> {
    if !question.client.reads {
        return Err(Fault::CallRefused.into());
    }
    let app = &question.app;
    let kept = match *request.method() {
        Method::GET => app.token(question.deadline).await?,
        Method::POST => {
            let report: Report = read(request).await?;
            app.another(&report.refused, question.deadline).await?
        }
        _ => return Err(Fault::MethodNotAllowed.into()),
    };
    let left = kept.until.saturating_sub(clock::unix_seconds());
    let body = json!({ "access_token": kept.token.expose(), "expires_in": left });
    Ok(say(StatusCode::OK, &body))
}

/// What a user's data says, with everything in it: services may know whom they serve.
pub(super) async fn open_data(
    question: &Question<'_>,
    login: Option<&Login>,
    request: Request<Incoming>,
) -> Result<Answer, Refused> {
    if !question.client.sessions {
        return Err(Fault::CallRefused.into());
    }
    if *request.method() != Method::POST {
        return Err(Fault::MethodNotAllowed.into());
    }
    let data: Data = read(request).await?;
    let login = login.ok_or(Fault::NoSessionKey)?;
    let proven =
        open::prove_for_service(login, &data.session, &question.app.id, &data.asked).await?;
    let mut said = Map::new();
    for (name, value) in [("raw_data", proven.raw_data), ("data", proven.data)] {
        if let Some(value) = value {
            said.insert(name.to_owned(), Value::Object(value));
        }
    }
    Ok(say(StatusCode::OK, &Value::Object(said)))
}

async fn read<T: for<'de> Deserialize<'de>>(request: Request<Incoming>) -> Result<T, Fault> {
    let body = collect(request.into_body(), MAX_BODY).await?;
    serde_json::from_slice(&body).map_err(|_| Fault::CallInvalid)
}

/// A whole body of at most so many bytes, while its sender is patient.
pub(super) async fn collect(body: Incoming, most: usize) -> Result<Bytes, Fault> {
    let limit = clock::deadline(clock::now().after(PATIENCE));
    let body = tokio::time::timeout_at(limit, Limited::new(body, most).collect()).await;
    let body = body.map_err(|_| Fault::BodyTimeout)?.map_err(|error| {
        match error.is::<http_body_util::LengthLimitError>() {
            true => Fault::BodyTooLarge,
            false => Fault::BodyBroken,
        }
    })?;
    Ok(body.to_bytes())
}
