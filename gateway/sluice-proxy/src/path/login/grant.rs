//! What somebody gets who was let in: a token, with a session a way to the next one, and where requests are
//! signed a key to sign with.

use bytes::Bytes;
use serde_json::{Map, Value, json};
use sluice_engine::trace::write_hex;
use zeroize::Zeroizing;

use super::session::Opened;
use super::{Job, session, user};
use crate::base::clock;
use crate::base::fault::Fault;
use crate::base::session_key::LENGTH;
use crate::lasting::login::flights::{Refused, Settled};
use crate::parts::login::token::{self, Subject};
use crate::parts::login::{Login, Shape};
use crate::parts::provider::exchange::Identity;

/// A token for somebody whom the platform knows.
pub(super) async fn new(job: &Job, identity: &Identity) -> Settled {
    let (login, app) = (&job.login, &job.counter.app);
    let person = user::Person {
        app: &app.id,
        platform: app.kind.as_str(),
        open_id: &identity.open_id,
        union_id: identity.union_id.as_deref(),
    };
    let known = user::look_up(login, &person).await?;
    let mut subject = Subject {
        app: &app.id,
        platform: app.kind.as_str(),
        open_id: &identity.open_id,
        uid: known.uid.as_deref(),
        session: None,
        more: &known.claims,
    };
    let opened = match &login.stores.lasting {
        None => None,
        Some(vault) => {
            let opened = session::open(login, vault, &subject, identity, &job.device).await;
            if opened.is_none() && login.sessions.stateful {
                return Err(Refused::from(Fault::SessionStoreDown));
            }
            if opened.is_none() {
                tracing::warn!(app = %app.id, "no session: Redis cannot be asked; the token stands alone");
            }
            opened
        }
    };
    if let Some(opened) = &opened {
        subject.session = Some((&opened.sid, opened.version));
    }
    Ok(answer(login, &subject, opened.as_ref())?)
}

/// The answer to a login, or to a refresh.
pub(super) fn answer(
    login: &Login,
    subject: &Subject<'_>,
    opened: Option<&Opened>,
) -> Result<Bytes, Fault> {
    let now = clock::unix_seconds();
    let jti = token::random_id().ok_or(Fault::Internal)?;
    let claims = login.token.claims(subject, &jti, now);
    let signed = login.signing.sign(&claims).ok_or(Fault::Internal)?;
    let mut data = Map::new();
    let mut say = |name: &str, value: Value| data.insert(name.to_owned(), value);
    say("token", signed.into());
    say("token_type", "Bearer".into());
    say("expires_in", login.token.lifetime.as_secs().into());
    if let Some(opened) = opened {
        say("refresh_token", opened.refresh_token.as_str().into());
        say("refresh_expires_in", opened.expires_in.into());
    }
    if let Some(masters) = &login.sign_key {
        // Without a session the key is the token's own and ends with it.
        let session = subject.session.map_or(jti.as_str(), |(sid, _)| sid);
        let key = masters.key(session).ok_or(Fault::Internal)?;
        let mut hex = Zeroizing::new([0; 2 * LENGTH]);
        write_hex(key.as_slice(), hex.as_mut_slice());
        say("sign_key", String::from_utf8_lossy(hex.as_slice()).into());
        say("sign_id", session.into());
    }
    if login.expose_openid {
        say("openid", subject.open_id.into());
    }
    Ok(body(login.shape, &Value::Object(data)))
}

pub(super) fn body(shape: Shape, data: &Value) -> Bytes {
    let whole = match shape {
        Shape::Flat => data.clone(),
        Shape::Envelope => json!({ "code": 0, "msg": "ok", "data": data }),
    };
    Bytes::from(format!("{whole}\n"))
}
