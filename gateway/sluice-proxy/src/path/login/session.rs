//! Sessions as they are kept: one value for each, and one for each user with all of theirs. Both are sealed;
//! what is written over was read before, so that two gateways never undo each other's work.
//!
//! The one rule: no refresh token is kept. A session has a random seed, and the seal of a token's number
//! under that seed is the token; so who reads the store can make none without the key of the store.
//! A session is one while its user's value has a seat for it; that its own value is there is not enough,
//! since removing it may have failed.

use std::time::Duration;

use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize, Serializer};
use serde_json::{Map, Value};
use sluice_engine::devices::Seat;
use sluice_engine::rotation::Family;

use crate::base::clock;
use crate::base::units::Secret;
use crate::lasting::revocations::{Revocations, What, Why};
use crate::lasting::vault::{Gone, Read, Vault};
use crate::parts::login::Login;
use crate::parts::login::sessions::name as session_name;
use crate::parts::login::token::{self, Subject};
use crate::parts::provider::exchange::Identity;

/// How often it is tried to write over what others write over, too.
const TRIES: usize = 8;
/// Sessions of one user at most, whatever the rule.
const MOST: usize = 100;
/// Clocks that drift, and the leeway of whoever verifies.
const SLACK: u64 = 600;

/// A session.
#[derive(Serialize, Deserialize)]
pub(super) struct Session {
    pub(super) app: String,
    pub(super) platform: String,
    pub(super) open_id: String,
    pub(super) union_id: Option<String>,
    /// The platform's key; never leaves the store but to be used here.
    #[serde(serialize_with = "told")]
    pub(super) session_key: Option<Secret>,
    pub(super) uid: Option<String>,
    pub(super) version: u64,
    pub(super) claims: Map<String, Value>,
    /// Seconds since 1970.
    pub(super) ends: u64,
    /// The current refresh token's number, and since when (milliseconds since 1970).
    pub(super) current: u32,
    pub(super) since: u64,
    #[serde(serialize_with = "told")]
    seed: Option<Secret>,
}

/// All sessions of a user with one app.
#[derive(Serialize, Deserialize)]
struct User {
    /// Tokens of lower versions are not good.
    version: u64,
    /// The oldest first.
    seats: Vec<Place>,
}

#[derive(Clone, Serialize, Deserialize)]
struct Place {
    sid: String,
    device: String,
    platform: String,
    /// Seconds since 1970.
    ends: u64,
}

/// A session that was begun or went on.
pub(super) struct Opened {
    pub(super) sid: String,
    pub(super) version: u64,
    pub(super) refresh_token: String,
    /// Seconds.
    pub(super) expires_in: u64,
}

/// Only sealed text holds it.
#[expect(clippy::ref_option, reason = "serde's signature")]
fn told<S: Serializer>(secret: &Option<Secret>, serializer: S) -> Result<S::Ok, S::Error> {
    secret.as_ref().map(Secret::expose).serialize(serializer)
}

impl Session {
    /// What the platform calls the user.
    pub(super) fn ids(&self) -> Vec<&str> {
        [Some(self.open_id.as_str()), self.union_id.as_deref()].into_iter().flatten().collect()
    }
}

impl User {
    /// Versions begin with the clock: if the store has lost a user, those that were ended do not come again.
    fn begin(now: u64) -> Self {
        Self { version: now, seats: Vec::new() }
    }
}

fn user_name(sub: &str) -> String {
    // An id of ours may be anything.
    format!("sluice:login:user:{{{}}}", token::pairwise("user", sub))
}

/// Begins a session. `None` when the store cannot say.
pub(super) async fn open(
    login: &Login,
    vault: &Vault,
    subject: &Subject<'_>,
    identity: &Identity,
    device: &str,
) -> Option<Opened> {
    let (sid, seed) = (token::random_id()?, seed()?);
    let now = clock::unix_seconds();
    let rules = &login.sessions;
    let ends = now + rules.lifetime.as_secs();
    let (sub, platform) = (subject.sub(), subject.platform.to_owned());
    let place = Place { sid: sid.clone(), device: device.to_owned(), platform, ends };
    let (version, leaving) = take_place(login, vault, &sub, place).await.ok()?;
    let family = Family::begin(millis());
    let session = Session {
        app: subject.app.to_owned(),
        platform: subject.platform.to_owned(),
        open_id: identity.open_id.clone(),
        union_id: identity.union_id.clone(),
        session_key: identity.session_key.clone(),
        uid: subject.uid.map(str::to_owned),
        version,
        claims: subject.more.clone(),
        ends,
        current: family.current,
        since: family.since,
        seed: Some(seed),
    };
    let refresh_token = session.token(&sid)?;
    let plain = zeroize::Zeroizing::new(serde_json::to_vec(&session).ok()?);
    vault.put(&session_name(&sid), &plain, life(login, ends, now)).await.ok()?;
    for old in leaving {
        // Who cannot be told now has no seat at its next refresh.
        let _ = close(login, vault, &old.sid, Why::Kicked).await;
    }
    Some(Opened { sid, version, refresh_token, expires_in: ends - now })
}

/// Adds a session to its user's; says the user's version, and which sessions have to go.
async fn take_place(
    login: &Login,
    vault: &Vault,
    sub: &str,
    place: Place,
) -> Result<(u64, Vec<Place>), Gone> {
    change_user(login, vault, sub, |user, now| {
        user.seats.retain(|seat| seat.ends > now);
        let seated: Vec<Seat<'_>> = user
            .seats
            .iter()
            .map(|seat| Seat { device: &seat.device, platform: &seat.platform })
            .collect();
        let new = Seat { device: &place.device, platform: &place.platform };
        let mut leaving = login.sessions.devices.leaving(&seated, new);
        let over = seated.len().saturating_sub(MOST - 1);
        let oldest: Vec<usize> = (0..over).filter(|at| !leaving.contains(at)).collect();
        leaving.extend(oldest);
        let mut at = 0..;
        let (gone, mut staying): (Vec<Place>, Vec<Place>) =
            user.seats.drain(..).partition(|_| at.next().is_some_and(|at| leaving.contains(&at)));
        staying.push(place.clone());
        user.seats = staying;
        (user.version, gone)
    })
    .await
}

/// Writes over a user's value until nobody has come between.
async fn change_user<T>(
    login: &Login,
    vault: &Vault,
    sub: &str,
    change: impl Fn(&mut User, u64) -> T,
) -> Result<T, Gone> {
    let name = user_name(sub);
    // As long as any token or session of the user may live, whatever the config was.
    let longest = login.sessions.lifetime.max(token::LONGEST);
    let life = longest + Duration::from_secs(SLACK);
    for _ in 0..TRIES {
        let read = vault.get_sealed(&name).await?;
        let now = clock::unix_seconds();
        let known: Option<User> =
            read.as_ref().and_then(|read| serde_json::from_slice(&read.plain).ok());
        let lost = read.is_some() && known.is_none();
        // Above what was lost, even if that has begun just now.
        let mut user = known.unwrap_or_else(|| User::begin(now + u64::from(lost)));
        let begun = user.version;
        let result = change(&mut user, now);
        let plain = serde_json::to_vec(&user).map_err(|_| Gone)?;
        let written = match &read {
            Some(read) => vault.swap(&name, read, &plain, life).await?,
            None => vault.put_new(&name, &plain, life).await?,
        };
        if written && lost {
            tracing::warn!("what was kept of a user's sessions cannot be opened; they have ended");
            // Nobody asked for it: who does not hear of it loses the sessions at their next refresh.
            let _ = tell(login, Some(vault), What::User(sub, begun), Why::Revoked).await;
        }
        if written {
            return Ok(result);
        }
    }
    Err(Gone)
}

/// Whether a session is one still, whatever became of its value.
pub(super) async fn has_seat(vault: &Vault, sid: &str, session: &Session) -> Result<bool, Gone> {
    let read = vault.get(&user_name(&session.sub())).await?;
    let user: Option<User> = read.and_then(|read| serde_json::from_slice(&read.plain).ok());
    Ok(user.is_some_and(|user| {
        session.version >= user.version && user.seats.iter().any(|seat| seat.sid == sid)
    }))
}

/// Ends one session, here and everywhere, and frees its seat.
pub(super) async fn end(login: &Login, vault: &Vault, sid: &str, why: Why) -> Result<(), Gone> {
    let left = leave(login, vault, sid).await;
    close(login, vault, sid, why).await.and(left)
}

async fn leave(login: &Login, vault: &Vault, sid: &str) -> Result<(), Gone> {
    let Some((session, _)) = find(vault, sid).await? else { return Ok(()) };
    let free = |user: &mut User, _| user.seats.retain(|seat| seat.sid != sid);
    change_user(login, vault, &session.sub(), free).await
}

/// Ends a session that has no seat any more.
async fn close(login: &Login, vault: &Vault, sid: &str, why: Why) -> Result<(), Gone> {
    let told = tell(login, Some(vault), What::Session(sid), why).await;
    let removed = vault.remove(&session_name(sid)).await;
    told.and(removed)
}

/// Ends all sessions of a user, and all tokens that were given out so far.
pub(super) async fn end_all(login: &Login, vault: &Vault, sub: &str) -> Result<(), Gone> {
    let (version, seats) = change_user(login, vault, sub, |user, _| {
        user.version += 1;
        (user.version, std::mem::take(&mut user.seats))
    })
    .await?;
    // Told first, and each is tried: without its seat a session that stays is worth nothing.
    let mut done = tell(login, Some(vault), What::User(sub, version), Why::Revoked).await;
    for seat in seats {
        done = done.and(vault.remove(&session_name(&seat.sid)).await);
    }
    done
}

/// Ends one token.
pub(super) async fn end_token(login: &Login, jti: &str) -> Result<(), Gone> {
    tell(login, login.stores.lasting.as_ref(), What::Token(jti), Why::Revoked).await
}

/// Notes what is not good any more, and tells the other gateways.
async fn tell(login: &Login, vault: Option<&Vault>, what: What<'_>, why: Why) -> Result<(), Gone> {
    // Tokens of now may live for less than those of the config before.
    let until = clock::unix_seconds() + token::LONGEST.as_secs() + SLACK;
    login.sessions.revocations.note(what, why, until);
    match vault.and_then(Vault::redis) {
        None => Ok(()),
        Some(redis) => Revocations::announce(redis, what, why, until, token::LONGEST).await,
    }
}

/// A session as it stands.
pub(super) async fn find(vault: &Vault, sid: &str) -> Result<Option<(Session, Read)>, Gone> {
    let read = vault.get(&session_name(sid)).await?;
    Ok(read.and_then(|read| Some((serde_json::from_slice(&read.plain).ok()?, read))))
}

/// Writes a session over what was read of it; says whether nobody has come between.
pub(super) async fn write(
    login: &Login,
    vault: &Vault,
    sid: &str,
    session: &Session,
    read: &Read,
) -> Result<bool, Gone> {
    let plain = zeroize::Zeroizing::new(serde_json::to_vec(session).map_err(|_| Gone)?);
    let life = life(login, session.ends, clock::unix_seconds());
    vault.swap(&session_name(sid), read, &plain, life).await
}

/// How long a session is kept if nobody comes.
fn life(login: &Login, ends: u64, now: u64) -> Duration {
    let left = Duration::from_secs(ends.saturating_sub(now).max(1));
    if login.sessions.stateful { left.min(login.sessions.ttl) } else { left }
}

pub(super) fn millis() -> u64 {
    let since = clock::wall().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

fn seed() -> Option<Secret> {
    let mut bytes = zeroize::Zeroizing::new([0_u8; 32]);
    aws_lc_rs::rand::fill(&mut *bytes).ok()?;
    Some(Secret::from(URL_SAFE_NO_PAD.encode(*bytes)))
}

// === Refresh tokens ===

/// Bytes of a session's id, of a token's number, and of the seal.
const ID: usize = 16;
const NUMBER: usize = 4;
const SEAL: usize = 32;

/// What a refresh token says: its session, its number, and the seal.
pub(super) struct Shown {
    pub(super) sid: String,
    pub(super) number: u32,
    seal: [u8; SEAL],
}

impl Shown {
    pub(super) fn read(token: &str) -> Option<Self> {
        if token.len() > 128 {
            return None;
        }
        let bytes = URL_SAFE_NO_PAD.decode(token).ok()?;
        let (id, rest) = bytes.split_at_checked(ID)?;
        let (number, seal) = rest.split_at_checked(NUMBER)?;
        Some(Self {
            sid: URL_SAFE_NO_PAD.encode(id),
            number: u32::from_be_bytes(number.try_into().ok()?),
            seal: seal.try_into().ok()?,
        })
    }
}

impl Session {
    /// Whose it is, as tokens say.
    fn sub(&self) -> String {
        let digest = || token::pairwise(&self.app, &self.open_id);
        self.uid.clone().unwrap_or_else(digest)
    }

    /// The current refresh token.
    pub(super) fn token(&self, sid: &str) -> Option<String> {
        let id = URL_SAFE_NO_PAD.decode(sid).ok()?;
        let signed = [&id[..], &self.current.to_be_bytes()].concat();
        let seal = hmac::sign(&self.key()?, &signed);
        Some(URL_SAFE_NO_PAD.encode([&signed[..], seal.as_ref()].concat()))
    }

    /// Whether this session has given it out.
    pub(super) fn has_given(&self, shown: &Shown) -> bool {
        let (Ok(id), Some(key)) = (URL_SAFE_NO_PAD.decode(&shown.sid), self.key()) else {
            return false;
        };
        let signed = [&id[..], &shown.number.to_be_bytes()].concat();
        hmac::verify(&key, &signed, &shown.seal).is_ok()
    }

    fn key(&self) -> Option<hmac::Key> {
        let seed = URL_SAFE_NO_PAD.decode(self.seed.as_ref()?.expose()).ok()?;
        Some(hmac::Key::new(hmac::HMAC_SHA256, &zeroize::Zeroizing::new(seed)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn session(current: u32) -> Session {
        Session {
            app: "shop".to_owned(),
            platform: "wechat".to_owned(),
            open_id: "o".to_owned(),
            union_id: None,
            session_key: Some(Secret::new("key")),
            uid: None,
            version: 0,
            claims: Map::new(),
            ends: 0,
            current,
            since: 0,
            seed: Some(Secret::new(URL_SAFE_NO_PAD.encode([7; 32]))),
        }
    }

    #[test]
    fn only_a_session_s_own_tokens_are_genuine() {
        let sid = token::random_id().unwrap();
        let text = session(3).token(&sid).unwrap();
        let shown = Shown::read(&text).unwrap();
        assert_eq!((shown.sid.as_str(), shown.number), (sid.as_str(), 3));
        assert!(session(9).has_given(&shown), "of any number");
        let mut other = session(3);
        other.seed = Some(Secret::new(URL_SAFE_NO_PAD.encode([8; 32])));
        assert!(!other.has_given(&shown));
        let bytes = URL_SAFE_NO_PAD.decode(&text).unwrap();
        for at in 0..bytes.len() {
            let mut changed = bytes.clone();
            changed[at] ^= 1;
            let shown = Shown::read(&URL_SAFE_NO_PAD.encode(&changed)).unwrap();
            assert!(!session(3).has_given(&shown), "byte {at}");
        }
        for text in ["", "x", "====", &text[1..], &"a".repeat(200)] {
            assert!(Shown::read(text).is_none(), "{text}");
        }
    }

    #[test]
    fn a_session_comes_back_from_its_store_as_it_was() {
        let text = serde_json::to_vec(&session(1)).unwrap();
        let back: Session = serde_json::from_slice(&text).unwrap();
        assert_eq!(back.session_key.as_ref().unwrap().expose(), "key");
        assert_eq!(
            back.token("AAAAAAAAAAAAAAAAAAAAAA"),
            session(1).token("AAAAAAAAAAAAAAAAAAAAAA")
        );
    }
}
