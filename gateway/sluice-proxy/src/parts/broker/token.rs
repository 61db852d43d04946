//! The access token of an app: who needs it gets the one that is good, and whoever finds it to be good no
//! more gets another one. The platform is asked by one at a time, over all gateways of a Redis.
//!
//! The one rule: another token is forced only when the platform itself still gives out the one that it
//! refuses, and as seldom as it allows; a forced token takes the old one from everybody who has it.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue, Method};
use serde_json::{Value, json};
use tokio::sync::oneshot;
use zeroize::Zeroizing;

use super::App;
use super::call::{Call, busy};
use crate::base::clock::{self, Moment};
use crate::base::fault::Fault;
use crate::base::units::Secret;
use crate::lasting::broker::{EARLY, Kept, LONGEST, MARGIN, Refresh, Standing};
use crate::lasting::login::flights::Refused;
use crate::lasting::tasks::{self, Kind};
use crate::lasting::vault::{Gone, Vault};

/// Longest time that asking for a token takes.
const ASKING: Duration = Duration::from_secs(5);
/// How long one gateway keeps the others from asking, should it not come back.
const LEASE: Duration = Duration::from_secs(20);
/// How often it is looked whether another gateway has a token.
const LOOK: Duration = Duration::from_millis(50);
/// How long Redis keeps what is known: as long as it matters when a token was forced.
const KEPT: Duration = Duration::from_secs(86_400);
/// Bytes of the platform's answer, and of a token.
const MAX_ANSWER: usize = 64 * 1024;
const MAX_TOKEN: usize = 2048;
/// How long it is waited for another gateway that is asking; it may be gone.
const TURN: Duration = Duration::from_millis(2500);

/// What is wrong with the token there is.
#[derive(Clone)]
enum Want {
    /// Nothing; there may be none.
    Any,
    /// It will end soon.
    Next,
    /// The platform refuses it.
    Other(Secret),
}

impl Want {
    fn is_met_by(&self, kept: &Kept, now: u64) -> bool {
        kept.is_good(now)
            && match self {
                Self::Any => true,
                Self::Next => kept.until > now.saturating_add(EARLY),
                Self::Other(bad) => kept.token != *bad,
            }
    }
}

impl App {
    /// A token that is good, as far as anybody knows.
    pub(crate) async fn token(self: &Arc<Self>, until: Moment) -> Result<Kept, Refused> {
        match self.cell.look(clock::unix_seconds(), clock::now()) {
            Standing::Good(kept) => Ok(kept),
            Standing::Ending(kept) => {
                if let Ok(turn) = Arc::clone(&self.cell.turn).try_lock_owned() {
                    let app = Arc::clone(self);
                    drop(tasks::local(Kind::Upstream, async move {
                        // The old one is good for a while; the next who asks tries again.
                        let _ = app.refresh(&Want::Next).await;
                        drop(turn);
                    }));
                }
                Ok(kept)
            }
            Standing::None(Some(refused)) => Err(refused),
            Standing::None(None) => self.wait(Want::Any, until).await,
        }
    }

    /// Another token than this one, which the platform refuses.
    pub(crate) async fn another(
        self: &Arc<Self>,
        bad: &Secret,
        until: Moment,
    ) -> Result<Kept, Refused> {
        self.wait(Want::Other(bad.clone()), until).await
    }

    /// Waits for its turn, and for what came of it. Who goes away does not stop what was begun.
    async fn wait(self: &Arc<Self>, want: Want, until: Moment) -> Result<Kept, Refused> {
        let work = async {
            let turn = Arc::clone(&self.cell.turn).lock_owned().await;
            // Whoever had the turn before may have done it, or failed to.
            let kept = self.cell.kept();
            if want.is_met_by(&kept, clock::unix_seconds()) {
                return Ok(kept);
            }
            if let Some(refused) = self.cell.failed(clock::now()) {
                return Err(refused);
            }
            let (told, tell) = oneshot::channel();
            let app = Arc::clone(self);
            drop(tasks::local(Kind::Upstream, async move {
                let settled = app.refresh(&want).await;
                drop(turn);
                // Nobody may wait any longer.
                let _ = told.send(settled);
            }));
            tell.await.unwrap_or_else(|_| Err(Fault::Internal.into()))
        };
        let waited = tokio::time::timeout_at(clock::deadline(until), work).await;
        waited.unwrap_or_else(|_| Err(Fault::ProviderTimeout.into()))
    }

    async fn refresh(&self, want: &Want) -> Result<Kept, Refused> {
        let deadline = clock::now().after(ASKING);
        let settled = match &self.vault {
            None => self.ask_platform(want, None, deadline).await,
            Some(vault) => self.share(want, vault, deadline).await,
        };
        match &settled {
            Ok(kept) => self.cell.keep(kept.clone()),
            Err(refused) => self.cell.fail(*refused, clock::now()),
        }
        settled
    }

    /// Takes the token that another gateway has, or asks for all of them.
    async fn share(&self, want: &Want, vault: &Vault, deadline: Moment) -> Result<Kept, Refused> {
        let (name, lock) = self.names_in_redis();
        let patience = clock::now().after(TURN);
        loop {
            match self.shared(want, vault, &name).await {
                Ok(Some(kept)) => return Ok(kept),
                Ok(None) => {}
                // Without Redis each gateway asks for itself; the platform gives all the same token.
                Err(Gone) => return self.ask_platform(want, None, deadline).await,
            }
            match vault.put_new(&lock, b"held", LEASE).await {
                Ok(true) => {
                    // Whoever held it before may have done it just now.
                    let settled = match self.shared(want, vault, &name).await {
                        Ok(Some(kept)) => Ok(kept),
                        _ => self.ask_platform(want, Some((vault, &name)), deadline).await,
                    };
                    // Where this fails the lease runs out.
                    let _ = vault.remove(&lock).await;
                    return settled;
                }
                Ok(false) => {}
                Err(Gone) => return self.ask_platform(want, None, deadline).await,
            }
            if clock::now() >= patience {
                return self.out_of_turn(want, deadline).await;
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Asks although it is somebody else's turn, who may be gone: the platform gives all of them the same token.
    /// Only force waits for its turn.
    async fn out_of_turn(&self, want: &Want, deadline: Moment) -> Result<Kept, Refused> {
        let mut kept = self.cell.kept();
        (kept.token, kept.until) = self.stable_token(false, deadline).await?;
        self.cell.note(Refresh::Asked);
        let met = want.is_met_by(&kept, clock::unix_seconds());
        met.then_some(kept).ok_or_else(|| busy(Duration::from_secs(1)))
    }

    /// The token in Redis, if it is what is wanted; when one was forced is learnt in any case.
    async fn shared(&self, want: &Want, vault: &Vault, name: &str) -> Result<Option<Kept>, Gone> {
        let read = vault.get(name).await?;
        let kept: Option<Kept> = read.and_then(|read| serde_json::from_slice(&read.plain).ok());
        let Some(kept) = kept else { return Ok(None) };
        if want.is_met_by(&kept, clock::unix_seconds()) {
            self.cell.note(Refresh::Shared);
            return Ok(Some(kept));
        }
        self.cell.learn(&kept);
        Ok(None)
    }

    /// Asks the platform, and makes it give another one where it gives the one that it refuses.
    async fn ask_platform(
        &self,
        want: &Want,
        shared: Option<(&Vault, &str)>,
        deadline: Moment,
    ) -> Result<Kept, Refused> {
        let mut kept = self.cell.kept();
        let (token, until) = self.stable_token(false, deadline).await?;
        self.cell.note(Refresh::Asked);
        (kept.token, kept.until) = (token, until);
        if let Want::Other(bad) = want
            && kept.token == *bad
        {
            let now = clock::unix_seconds();
            kept.may_force(now)
                .map_err(|wait| Refused { fault: Fault::RateLimited, retry_after: Some(wait) })?;
            kept.force(now);
            // Counted before it is done, and whatever comes of it.
            self.cell.learn(&kept);
            write(shared, &kept).await;
            tracing::warn!(app = %self.id, "the platform refuses the token that it gives; another one is forced");
            (kept.token, kept.until) = self.stable_token(true, deadline).await?;
            self.cell.note(Refresh::Forced);
        }
        write(shared, &kept).await;
        Ok(kept)
    }

    async fn stable_token(&self, force: bool, deadline: Moment) -> Result<(Secret, u64), Refused> {
        let body = json!({
            "grant_type": "client_credential", "appid": self.appid,
            "secret": self.secret.expose(), "force_refresh": force,
        });
        let json = HeaderValue::from_static("application/json");
        let headers: HeaderMap =
            [(CONTENT_TYPE, json.clone()), (ACCEPT, json)].into_iter().collect();
        let call = Call {
            method: Method::POST,
            target: Zeroizing::new("/cgi-bin/stable_token".to_owned()),
            headers,
            body: Bytes::from(body.to_string()),
            again: !force,
            most: MAX_ANSWER,
            deadline,
        };
        let answer = self.call(&call).await.map_err(|unanswered| unanswered.refused)?;
        self.judge(answer.body(), clock::unix_seconds())
    }

    /// What an answer says: the token and until when it is good.
    fn judge(&self, body: &[u8], now: u64) -> Result<(Secret, u64), Refused> {
        if let Some(read) = read(body, now) {
            return Ok(read);
        }
        let said: Value = serde_json::from_slice(body).unwrap_or_default();
        let code = said.get("errcode").and_then(Value::as_i64);
        let second = Some(Duration::from_secs(1));
        let (fault, retry_after) = match code {
            // The minute's limit, and the day's.
            Some(45009 | 45011) => (Fault::RateLimited, Some(Duration::from_secs(60))),
            // Not this app, not its secret, not from this address, or not any longer.
            Some(40002 | 40013 | 40125 | 40164 | 40243 | 41002 | 41004 | 50004 | 50007) => {
                (Fault::Misconfigured, None)
            }
            _ => (Fault::ProviderBusy, second),
        };
        tracing::error!(app = %self.id, errcode = code, "the platform gives no access token");
        Err(Refused { fault, retry_after })
    }

    /// Of an app nothing is told but a digest.
    fn names_in_redis(&self) -> (String, String) {
        let mark = crate::parts::login::token::pairwise("access_token", &self.appid);
        (format!("sluice:wx:token:{{{mark}}}"), format!("sluice:wx:turn:{{{mark}}}"))
    }
}

/// The token in an answer, and until when it is good.
fn read(body: &[u8], now: u64) -> Option<(Secret, u64)> {
    let said: Value = serde_json::from_slice(body).ok()?;
    let token = said.get("access_token").and_then(Value::as_str).filter(|token| {
        (1..=MAX_TOKEN).contains(&token.len()) && token.bytes().all(|b| b.is_ascii_graphic())
    })?;
    let life = said.get("expires_in").and_then(Value::as_u64);
    // One that ends at once would be asked for at every call; of a long life a day is believed.
    let life = life.filter(|life| *life > MARGIN)?.min(LONGEST);
    Some((Secret::from(token.to_owned()), now.saturating_add(life)))
}

/// Tells the other gateways; one that is not told asks for itself.
async fn write(shared: Option<(&Vault, &str)>, kept: &Kept) {
    let Some((vault, name)) = shared else { return };
    let Ok(plain) = serde_json::to_vec(kept).map(Zeroizing::new) else { return };
    let _ = vault.put(name, &plain, KEPT).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_what_a_platform_says_a_token_and_its_life_are_believed() {
        let life = |said: &str| read(said.as_bytes(), 1000).map(|(_, until)| until - 1000);
        let says = |life: &str| format!(r#"{{"access_token":"t","expires_in":{life}}}"#);
        for (said, believed) in [
            ("7200", Some(7200)),
            ("11", Some(11)),
            ("604800", Some(86_400)),
            ("18446744073709551615", Some(86_400)),
            // Asked for again at every call.
            ("10", None),
            ("0", None),
            ("-1", None),
            ("1e400", None),
            ("7200.5", None),
            ("\"7200\"", None),
            ("null", None),
            ("18446744073709551616", None),
        ] {
            assert_eq!(life(&says(said)), believed, "{said}");
        }
        let long =
            format!(r#"{{"access_token":"{}","expires_in":7200}}"#, "x".repeat(MAX_TOKEN + 1));
        for said in [
            r#"{"access_token":"","expires_in":7200}"#,
            r#"{"access_token":"a b","expires_in":7200}"#,
            r#"{"access_token":"a\r\nb","expires_in":7200}"#,
            r#"{"access_token":7,"expires_in":7200}"#,
            r#"{"expires_in":7200}"#,
            "[]",
            "",
            "<h1>",
            &long,
        ] {
            assert_eq!(life(said), None, "{said}");
        }
    }
}
