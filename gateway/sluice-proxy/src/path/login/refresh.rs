//! The next token for a refresh token. Each is good once; see `rotation` of the engine for what becomes of
//! one that comes again.

use http::Response;
use serde::Deserialize;
use sluice_engine::rotation::{Family, Verdict};

use super::session::{self, Opened, Session, Shown};
use super::{answer, grant, posted, user};
use crate::base::body::Body;
use crate::base::clock;
use crate::base::fault::Fault;
use crate::base::units::Secret;
use crate::lasting::revocations::{Told, Why};
use crate::lasting::vault::{Gone, Vault};
use crate::parts::login::Login;
use crate::parts::login::token::Subject;
use crate::path::builtin::read_body;
use crate::path::record::{Inbound, Record};

/// Bytes of a request.
const MAX_BODY: usize = 4 * 1024;
/// How often it is tried while others refresh the same session.
const TRIES: usize = 5;

#[derive(Deserialize)]
struct Asked {
    refresh_token: Secret,
}

impl From<Gone> for Fault {
    fn from(_: Gone) -> Self {
        Self::SessionStoreDown
    }
}

pub(in crate::path) async fn serve(
    record: &mut Record,
    inbound: &mut Inbound,
) -> Result<Response<Body>, Fault> {
    let login = posted(record, inbound)?;
    let body = read_body(record, inbound, MAX_BODY).await?;
    let asked: Asked = serde_json::from_slice(&body).map_err(|_| Fault::RefreshInvalid)?;
    let shown = Shown::read(asked.refresh_token.expose()).ok_or(Fault::RefreshInvalid)?;
    let vault = login.stores.lasting.as_ref().ok_or(Fault::RefreshInvalid)?;
    let session = rotate(&login, vault, &shown).await?;
    let opened = Opened {
        refresh_token: session.token(&shown.sid).ok_or(Fault::Internal)?,
        version: session.version,
        expires_in: session.ends.saturating_sub(clock::unix_seconds()),
        sid: shown.sid,
    };
    let subject = Subject {
        app: &session.app,
        platform: &session.platform,
        open_id: &session.open_id,
        uid: session.uid.as_deref(),
        session: Some((&opened.sid, opened.version)),
        more: &session.claims,
    };
    Ok(answer(grant::answer(&login, &subject, Some(&opened))?))
}

/// Judges a refresh token; the session as it is then.
async fn rotate(login: &Login, vault: &Vault, shown: &Shown) -> Result<Session, Fault> {
    for _ in 0..TRIES {
        let told = Told { sid: Some(&shown.sid), ..Told::default() };
        match login.sessions.revocations.judge(told, clock::unix_seconds()) {
            None => {}
            Some(Why::Kicked) => return Err(Fault::Kicked),
            Some(Why::Revoked) => return Err(Fault::RefreshInvalid),
        }
        let found = session::find(vault, &shown.sid).await?;
        let (mut session, read) = found.ok_or(Fault::RefreshInvalid)?;
        if session.ends <= clock::unix_seconds() || !session.has_given(shown) {
            return Err(Fault::RefreshInvalid);
        }
        if !session::has_seat(vault, &shown.sid, &session).await? {
            return Err(Fault::RefreshInvalid);
        }
        let mut family = Family { current: session.current, since: session.since };
        match family.show(shown.number, session::millis(), login.sessions.grace) {
            Verdict::Unknown => return Err(Fault::RefreshInvalid),
            Verdict::Again => return Ok(session),
            Verdict::Reused => {
                tracing::warn!(app = %session.app, "a used refresh token came again; its session ends");
                session::end(login, vault, &shown.sid, Why::Revoked).await?;
                return Err(Fault::RefreshReused);
            }
            Verdict::Rotated => {}
        }
        (session.current, session.since) = (family.current, family.since);
        if !learn(login, &mut session).await {
            tracing::info!(app = %session.app, "somebody has another id now and has to log in again");
            session::end(login, vault, &shown.sid, Why::Revoked).await?;
            return Err(Fault::RefreshInvalid);
        }
        if session::write(login, vault, &shown.sid, &session, &read).await? {
            return Ok(session);
        }
    }
    Err(Fault::SessionStoreDown)
}

/// Asks anew who somebody is; what was known stays where the service does not say. Says whether it is the
/// same id: the seats, and whoever ends them, know the session by that.
async fn learn(login: &Login, session: &mut Session) -> bool {
    if login.user.is_none() {
        return true;
    }
    let person = user::Person {
        app: &session.app,
        platform: &session.platform,
        open_id: &session.open_id,
        union_id: session.union_id.as_deref(),
    };
    match user::news(login, &person).await {
        None => true,
        Some(known) if known.uid != session.uid => false,
        Some(known) => {
            session.claims = known.claims;
            true
        }
    }
}
