//! Open data of a platform, proven with the key of the caller's session there, which stays in the store.

use http::Response;
use serde_json::{Map, Value, json};

use super::session::{self, Session};
use super::{answer, grant, posted};
use crate::base::body::Body;
use crate::base::clock;
use crate::base::cx::Cx;
use crate::base::fault::Fault;
use crate::parts::login::Login;
use crate::parts::open_data::{Asked, Owner, Proven, state_signature};
use crate::parts::provider::exchange::push_encoded;
use crate::path::builtin::read_body;
use crate::path::record::{Inbound, Record};

/// Bytes of a request: a month of somebody's steps has a few.
const MAX_BODY: usize = 64 * 1024;

/// Proves what the caller sends, and tells it what it may know.
pub(in crate::path) async fn serve(
    record: &mut Record,
    inbound: &mut Inbound,
) -> Result<Response<Body>, Fault> {
    let login = posted(record, inbound)?;
    let (sid, app) = caller(&record.cx)?;
    let body = read_body(record, inbound, MAX_BODY).await?;
    let asked: Asked = serde_json::from_slice(&body).map_err(|_| Fault::OpenDataInvalid)?;
    let (mut proven, session) = prove(&login, &sid, &app, &asked).await?;
    if !login.expose_openid {
        // What a client does not learn at its login it does not learn here.
        proven.conceal(&session.ids())?;
    }
    let mut data = Map::new();
    if let Some(raw) = proven.raw_data {
        data.insert("raw_data".to_owned(), raw.into());
    }
    if let Some(opened) = proven.data {
        data.insert("data".to_owned(), opened.into());
    }
    Ok(answer(grant::body(login.shape, &json!(data))))
}

/// The session and the app of the proven caller.
pub(in crate::path) fn caller(cx: &Cx) -> Result<(String, String), Fault> {
    let principal = cx.principal.as_ref().ok_or(Fault::TokenMissing)?;
    let text = |name: &str| principal.claims.get(name).and_then(Value::as_str).map(str::to_owned);
    text("sid").zip(text("app")).ok_or(Fault::NoSessionKey)
}

/// Proves data with the key of this app's session, for a service.
pub(crate) async fn prove_for_service(
    login: &Login,
    sid: &str,
    app: &str,
    asked: &Asked,
) -> Result<Proven, Fault> {
    prove(login, sid, app, asked).await.map(|(proven, _)| proven)
}

async fn prove(
    login: &Login,
    sid: &str,
    app: &str,
    asked: &Asked,
) -> Result<(Proven, Session), Fault> {
    let session = find(login, sid, app).await?;
    let counter = login.apps.iter().find(|counter| *counter.app.id == *session.app);
    let app = &counter.ok_or(Fault::NoSessionKey)?.app;
    let session_key = session.session_key.as_ref().ok_or(Fault::NoSessionKey)?;
    let owner =
        Owner { provider: app.kind, appid: &app.appid, open_id: &session.open_id, session_key };
    let proven = login.open_data.prove(asked, &owner, clock::unix_seconds())?;
    Ok((proven, session))
}

/// What the platform wants to see in a query for a call that is about a user's session (WeChat's
/// `checksession`, `getuserencryptkey`): who it is, and the body signed with his key.
pub(crate) async fn signed_query(
    login: &Login,
    sid: &str,
    app: &str,
    body: &[u8],
) -> Result<String, Fault> {
    let session = find(login, sid, app).await?;
    let session_key = session.session_key.as_ref().ok_or(Fault::NoSessionKey)?;
    let mut query = "&openid=".to_owned();
    push_encoded(&mut query, &session.open_id);
    let signature = state_signature(session_key, body);
    query.push_str("&sig_method=hmac_sha256&signature=");
    query.push_str(&signature);
    Ok(query)
}

/// A session that has not ended, of this app.
pub(super) async fn find(login: &Login, sid: &str, app: &str) -> Result<Session, Fault> {
    let vault = login.stores.lasting.as_ref().ok_or(Fault::NoSessionKey)?;
    let found = session::find(vault, sid).await?.map(|(session, _)| session);
    let session = found.filter(|session| session.ends > clock::unix_seconds());
    session.filter(|session| session.app == app).ok_or(Fault::SessionEnded)
}
