//! The end of a login: by who is logged in, or by somebody who may end those of others. Both are behind a
//! `jwt` filter, which has proven who calls.

use bytes::Bytes;
use http::Response;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{answer, grant, posted, session};
use crate::base::body::Body;
use crate::base::cx::Cx;
use crate::base::fault::Fault;
use crate::lasting::revocations::Why;
use crate::parts::login::Login;
use crate::path::builtin::read_body;
use crate::path::record::{Inbound, Record};

/// Bytes of a request.
const MAX_BODY: usize = 4 * 1024;
/// Longest id.
const MAX_ID: usize = 256;

#[derive(Default, Deserialize)]
struct Logout {
    /// On all devices.
    #[serde(default)]
    all: bool,
}

#[derive(Deserialize)]
struct Revoke {
    #[serde(default)]
    jti: Option<String>,
    #[serde(default)]
    sid: Option<String>,
    #[serde(default)]
    sub: Option<String>,
}

pub(in crate::path) async fn logout(
    record: &mut Record,
    inbound: &mut Inbound,
) -> Result<Response<Body>, Fault> {
    let login = posted(record, inbound)?;
    let body = read_body(record, inbound, MAX_BODY).await?;
    let asked: Logout = match body.is_empty() {
        true => Logout::default(),
        false => serde_json::from_slice(&body).map_err(|_| Fault::LoginInvalid)?,
    };
    let claim = |name: &str| text(&record.cx, name);
    let (jti, sid, sub) = (claim("jti")?, claim("sid")?, claim("sub")?);
    match (&login.stores.lasting, sid, sub, jti) {
        (Some(vault), Some(_), Some(sub), _) if asked.all => {
            session::end_all(&login, vault, &sub).await?;
        }
        (Some(vault), Some(sid), _, _) => {
            session::end(&login, vault, &sid, Why::Revoked).await?;
        }
        (_, _, _, Some(jti)) => session::end_token(&login, &jti).await?,
        // A token of somebody else's has nothing to be known by.
        _ => return Err(Fault::TokenInvalid),
    }
    Ok(answer(done(&login)))
}

pub(in crate::path) async fn revoke(
    record: &mut Record,
    inbound: &mut Inbound,
) -> Result<Response<Body>, Fault> {
    let login = posted(record, inbound)?;
    if record.cx.principal.is_none() {
        return Err(Fault::TokenMissing);
    }
    let body = read_body(record, inbound, MAX_BODY).await?;
    let asked: Revoke = serde_json::from_slice(&body).map_err(|_| Fault::LoginInvalid)?;
    let ids = [&asked.jti, &asked.sid, &asked.sub];
    if ids.iter().any(|id| id.as_ref().is_some_and(|id| id.is_empty() || id.len() > MAX_ID)) {
        return Err(Fault::LoginInvalid);
    }
    let vault = login.stores.lasting.as_ref();
    match (asked.jti, asked.sid, asked.sub, vault) {
        (Some(jti), None, None, _) => session::end_token(&login, &jti).await?,
        (None, Some(sid), None, Some(vault)) => {
            session::end(&login, vault, &sid, Why::Revoked).await?;
        }
        (None, None, Some(sub), Some(vault)) => session::end_all(&login, vault, &sub).await?,
        (None, _, _, None) => return Err(Fault::SessionStoreDown),
        _ => return Err(Fault::LoginInvalid),
    }
    Ok(answer(done(&login)))
}

/// A claim of the proven caller, if it is a text; an error if nobody was proven.
fn text(cx: &Cx, name: &str) -> Result<Option<String>, Fault> {
    let principal = cx.principal.as_ref().ok_or(Fault::TokenMissing)?;
    Ok(principal.claims.get(name).and_then(Value::as_str).map(str::to_owned))
}

fn done(login: &Login) -> Bytes {
    grant::body(login.shape, &json!({}))
}
