//! The phone number behind the code of a button, for the caller who pressed it. Like the code of a login it is
//! sent once; only where the platform says that it has not looked at it, since it did not like the access
//! token, it is sent with another one.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue, Method, Response};
use serde::Deserialize;
use serde_json::{Value, json};
use zeroize::Zeroizing;

use super::once::{self, Tried};
use super::{MAX_CODE, MINUTE, answer, grant, key, landing_of, open, posted};
use crate::base::body::Body;
use crate::base::clock::{self, Moment};
use crate::base::fault::Fault;
use crate::base::units::Secret;
use crate::lasting::login::By;
use crate::lasting::login::flights::{Key, Refused, Settled};
use crate::lasting::tasks::{self, Kind};
use crate::parts::broker::call::{Call, busy};
use crate::parts::broker::{App, Named};
use crate::parts::login::Login;
use crate::parts::open_data::Watermark;
use crate::parts::provider::exchange::push_encoded;
use crate::path::builtin::read_body;
use crate::path::record::{Inbound, Record};

/// Bytes of a request, and of the platform's answer.
const MAX_BODY: usize = 4 * 1024;
const MAX_ANSWER: usize = 64 * 1024;

#[derive(Deserialize)]
struct Asked {
    code: Secret,
}

/// A code to be exchanged.
struct Job {
    login: Arc<Login>,
    app: Arc<App>,
    code: Secret,
    open_id: String,
    key: Key,
    deadline: Moment,
}

/// A number, as the platform tells it.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Number {
    phone_number: String,
    pure_phone_number: String,
    country_code: String,
    watermark: Watermark,
}

pub(in crate::path) async fn serve(
    record: &mut Record,
    inbound: &mut Inbound,
) -> Result<Response<Body>, Fault> {
    let login = posted(record, inbound)?;
    let (sid, app) = open::caller(&record.cx)?;
    let broker = record.view.broker.as_ref().ok_or(Fault::Internal)?;
    let Named::App(app) = broker.app(&app) else { return Err(Fault::NoAccessToken) };
    let body = read_body(record, inbound, MAX_BODY).await?;
    let asked: Asked = serde_json::from_slice(&body).map_err(|_| Fault::InvalidCode)?;
    let code = asked.code.expose();
    if !(1..=MAX_CODE).contains(&code.len()) || code.chars().any(char::is_control) {
        return Err(Fault::InvalidCode);
    }
    let session = open::find(&login, &sid, &app.id).await?;
    let verdict = app.cell.desk.count(
        By::User(&format!("phone {sid}")),
        login.share(login.limits.per_user_minute),
        MINUTE,
    );
    if !verdict.admitted {
        record.cx.retry_after = Some(verdict.retry_after);
        return Err(Fault::RateLimited);
    }
    let ours = record.cx.started.after(login.timeout);
    let job = Job {
        key: key("phone", &app.id, code),
        code: asked.code.clone(),
        open_id: session.open_id,
        deadline: record.cx.deadline.map_or(ours, |theirs| theirs.min(ours)),
        login: Arc::clone(&login),
        app,
    };
    let open_id = job.open_id.clone();
    match wait(job).await {
        Ok(kept) => {
            // The code was somebody else's, who had his number by it.
            let own =
                kept.strip_prefix(open_id.as_bytes()).and_then(|rest| rest.strip_prefix(b"\n"));
            let told: Value =
                own.and_then(|told| serde_json::from_slice(told).ok()).ok_or(Fault::CodeUsed)?;
            Ok(answer(grant::body(login.shape, &told)))
        }
        Err(refused) => {
            record.cx.retry_after = refused.retry_after;
            Err(refused.fault)
        }
    }
}

/// Waits for the exchange, which is begun if nobody has begun it.
async fn wait(job: Job) -> Settled {
    let (deadline, joined) = (job.deadline, job.login.flights.join(job.key));
    let Some((mut landing, flight)) = joined else { return Err(busy(Duration::from_secs(1))) };
    if let Some(flight) = flight {
        // A client that goes away must not take the code with it.
        drop(tasks::local(Kind::Upstream, async move {
            let name = once::name("phone", &job.key);
            let attempt = async || exchange(&job).await;
            let stores = &job.login.stores;
            let (settled, _) = once::settle(stores, &name, job.deadline, attempt).await;
            flight.land(settled);
        }));
    }
    let landed = landing_of(&mut landing);
    let settled = tokio::time::timeout_at(clock::deadline(deadline), landed).await;
    settled.unwrap_or_else(|_| Err(Fault::ProviderTimeout.into()))
}

async fn exchange(job: &Job) -> Tried {
    let mut token = match job.app.token(job.deadline).await {
        Ok(kept) => kept.token,
        Err(refused) => return Tried::Unsent(refused),
    };
    let body = Bytes::from(json!({ "code": job.code.expose(), "openid": job.open_id }).to_string());
    let json = HeaderValue::from_static("application/json");
    let headers: HeaderMap = [(CONTENT_TYPE, json.clone()), (ACCEPT, json)].into_iter().collect();
    for last in [false, true] {
        let target = "/wxa/business/getuserphonenumber?access_token=".to_owned();
        let mut target = Zeroizing::new(target);
        push_encoded(&mut target, token.expose());
        let call = Call {
            method: Method::POST,
            target,
            headers: headers.clone(),
            body: body.clone(),
            again: false,
            most: MAX_ANSWER,
            deadline: job.deadline,
        };
        let answer = match job.app.call(&call).await {
            Ok(answer) => answer,
            Err(unanswered) if unanswered.sent => return Tried::Sent(Err(unanswered.refused)),
            Err(unanswered) => return Tried::Unsent(unanswered.refused),
        };
        match judge(job, answer.status().as_u16(), answer.body()) {
            Judged::Told(settled) => return Tried::Sent(settled),
            Judged::TokenRefused if last => {
                return Tried::Unsent(busy(Duration::from_secs(1)));
            }
            Judged::TokenRefused => match job.app.another(&token, job.deadline).await {
                Ok(kept) => token = kept.token,
                Err(refused) => return Tried::Unsent(refused),
            },
        }
    }
    Tried::Unsent(busy(Duration::from_secs(1)))
}

enum Judged {
    Told(Settled),
    /// The code was not looked at.
    TokenRefused,
}

fn judge(job: &Job, status: u16, body: &[u8]) -> Judged {
    #[derive(Deserialize)]
    struct Said {
        #[serde(default)]
        errcode: i64,
        phone_info: Option<Number>,
    }
    let failed = |fault: Fault, retry_after| Judged::Told(Err(Refused { fault, retry_after }));
    let second = Some(Duration::from_secs(1));
    let said = serde_json::from_slice::<Said>(body).ok().filter(|_| status < 500);
    let Some(said) = said else { return failed(Fault::ProviderBusy, second) };
    match (said.errcode, said.phone_info) {
        (0, Some(number)) if number.watermark.appid != job.app.appid => {
            failed(Fault::OpenDataForeign, None)
        }
        (0, Some(number)) => {
            let told = json!({
                "phone_number": number.phone_number,
                "pure_phone_number": number.pure_phone_number,
                "country_code": number.country_code,
            });
            Judged::Told(Ok(Bytes::from(format!("{}\n{told}", job.open_id))))
        }
        (40001 | 40014 | 42001, _) => Judged::TokenRefused,
        // Also where the code is another app's, or another user's.
        (40029 | 40013 | 40003, _) => failed(Fault::InvalidCode, None),
        (40163, _) => failed(Fault::CodeUsed, None),
        (45009 | 45011, _) => failed(Fault::RateLimited, Some(MINUTE)),
        (code, _) => {
            tracing::error!(app = %job.app.id, errcode = code, "the platform tells no phone number");
            failed(Fault::ProviderBusy, second)
        }
    }
}
