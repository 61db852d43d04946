//! The gateway's own tokens, as `login` makes them: with which keys they verify, and whether they are good
//! still. What was revoked is known in this process; only a stateful session is looked up, once a second at
//! most. The one rule: who cannot know says so, and the config says what follows.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use http::Method;
use serde_json::Value;

use super::key::{Alg, Key};
use super::keys::Keys;
use crate::base::clock;
use crate::base::cx::{Cx, Principal};
use crate::base::fault::Fault;
use crate::lasting::revocations::{Told, Why};
use crate::parts::login::sessions::OnStoreError;
use crate::parts::login::{Login, keys, sessions};

/// How long the first requests wait for what was revoked before this process began.
const FIRST: Duration = Duration::from_secs(1);
const LOOK: Duration = Duration::from_millis(10);

pub(super) struct Own(Arc<Login>);

impl std::fmt::Debug for Own {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Own")
    }
}

/// What a look into this process says of a token.
pub(super) enum Standing {
    Good,
    /// More has to be asked for.
    Unclear,
}

impl Own {
    pub(super) fn new(login: Arc<Login>) -> Self {
        Self(login)
    }

    /// The keys that may have signed.
    pub(super) fn keys(&self) -> Result<Keys, String> {
        let mut by_kid = HashMap::new();
        for key in self.0.signing.accepted(clock::unix_seconds()) {
            let alg = match key.alg {
                keys::Alg::HS256 => Alg::HS256,
                keys::Alg::ES256 => Alg::ES256,
                keys::Alg::EdDSA => Alg::EdDSA,
            };
            let made = Key::new(&key.kid, vec![alg], key.decoding.clone())?;
            by_kid.insert(key.kid.clone(), Box::new(made));
        }
        Ok(Keys::new(by_kid))
    }

    /// Until when tokens of a key are accepted, in seconds since 1970.
    pub(super) fn until(&self, kid: Option<&str>) -> u64 {
        self.0.signing.until(kid).unwrap_or(u64::MAX)
    }

    /// Whether a verified token is good still, as far as this process knows.
    pub(super) fn judge(
        &self,
        cx: &Cx,
        method: &Method,
        principal: &Principal,
    ) -> Result<Standing, Fault> {
        let claim = |name: &str| principal.claims.get(name).and_then(Value::as_str);
        let told = Told {
            jti: claim("jti"),
            sid: claim("sid"),
            sub: claim("sub"),
            sv: principal.claims.get("sv").and_then(Value::as_u64).unwrap_or(0),
        };
        let rules = &self.0.sessions;
        match rules.revocations.judge(told, clock::unix_seconds()) {
            Some(Why::Revoked) => return Err(Fault::TokenRevoked),
            Some(Why::Kicked) => return Err(Fault::Kicked),
            None => {}
        }
        let now = clock::now();
        if self.0.stores.shared.is_some() && !rules.revocations.is_fresh(now) {
            if !rules.revocations.was_read() {
                return Ok(Standing::Unclear);
            }
            self.unsure(cx, method, Fault::RevocationUnknown)?;
        }
        if rules.stateful && !told.sid.is_some_and(|sid| rules.seen.is_fresh(sid, now)) {
            return Ok(Standing::Unclear);
        }
        Ok(Standing::Good)
    }

    /// Finds out what this process does not know.
    pub(super) async fn ask(
        &self,
        cx: &Cx,
        method: &Method,
        principal: &Principal,
    ) -> Result<(), Fault> {
        let rules = &self.0.sessions;
        let until = clock::now().after(FIRST);
        while self.0.stores.shared.is_some() && !rules.revocations.was_read() {
            if clock::now() >= until {
                self.unsure(cx, method, Fault::RevocationUnknown)?;
                break;
            }
            tokio::time::sleep(LOOK).await;
        }
        // What was read meanwhile may be about this token.
        if let Standing::Good = self.judge(cx, method, principal)? {
            return Ok(());
        }
        if !rules.stateful {
            return Ok(());
        }
        let Some(sid) = principal.claims.get("sid").and_then(Value::as_str) else {
            return Err(Fault::SessionEnded);
        };
        let Some(vault) = &self.0.stores.lasting else { return Err(Fault::SessionStoreDown) };
        match vault.touch(&sessions::name(sid), rules.ttl).await {
            Ok(Some(_)) => {
                rules.seen.note(sid, clock::now());
                Ok(())
            }
            Ok(None) => Err(Fault::SessionEnded),
            Err(_) => self.unsure(cx, method, Fault::SessionStoreDown),
        }
    }

    /// What follows when nobody can say.
    fn unsure(&self, cx: &Cx, method: &Method, fault: Fault) -> Result<(), Fault> {
        let allowed = match self.0.sessions.on_store_error {
            _ if cx.sensitive => false,
            Some(OnStoreError::Allow) => true,
            Some(OnStoreError::Deny) => false,
            None => method.is_safe(),
        };
        allowed.then_some(()).ok_or(fault)
    }
}
