//! Records that gateways share in Redis. What Redis said is believed for a second, also that there is
//! nothing, so a busy key costs one look-up per second and a removed one is soon refused.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use foldhash::fast::RandomState;

use super::{Files, Holder, Purpose, Record, Wrong};
use crate::base::clock::{self, Moment};
use crate::base::fault::Fault;
use crate::lasting::redis::Target;

/// How long an answer is believed.
const BELIEVED: Duration = Duration::from_secs(1);
/// Answers kept at most.
const MOST: usize = 10_000;

/// What Redis said of a name, and until when that is believed.
type Known = HashMap<String, (Moment, Option<Arc<Holder>>), RandomState>;

pub(crate) struct Shared {
    redis: Arc<Target>,
    /// `sluice:app:` and the like, before the name.
    prefix: &'static str,
    purpose: Purpose,
    /// Locked for a look-up; never over a call to Redis.
    known: Mutex<Known>,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Shared").field(&self.prefix).finish()
    }
}

impl Shared {
    pub(crate) fn new(redis: Arc<Target>, prefix: &'static str, purpose: Purpose) -> Self {
        Self { redis, prefix, purpose, known: Mutex::default() }
    }

    /// The holder that is kept under `name`, if there is one.
    pub(crate) async fn find(&self, name: &str) -> Result<Option<Arc<Holder>>, Fault> {
        let now = clock::now();
        if let Some((until, holder)) = self.known().get(name)
            && *until > now
        {
            return Ok(holder.clone());
        }
        let place = format!("{}{name}", self.prefix);
        let text = Box::pin(self.redis.get(&place)).await.map_err(|_| Fault::KeyStoreDown)?;
        let holder = text.and_then(|text| self.read(&text, &place));
        let mut known = self.known();
        if known.len() >= MOST && !known.contains_key(name) {
            known.retain(|_, (until, _)| *until > now);
            if known.len() >= MOST {
                known.clear();
            }
        }
        known.insert(name.to_owned(), (now.after(BELIEVED), holder.clone()));
        Ok(holder)
    }

    fn read(&self, text: &[u8], place: &str) -> Option<Arc<Holder>> {
        let read = serde_json::from_slice::<Record>(text).map_err(|error| {
            // Where it went wrong, not what stands there.
            format!("line {} column {}", error.line(), error.column())
        });
        let compiled = read.and_then(|record| {
            if record.secret_file.is_some() || record.previous_secret_file.is_some() {
                return Err("secret_file: there are no files in Redis".to_owned());
            }
            let told = |Wrong(field, why): Wrong| format!("{field}: {why}");
            record.holder(self.purpose, Files::default()).map_err(told)
        });
        match compiled {
            Ok(holder) => Some(Arc::new(holder)),
            Err(why) => {
                tracing::warn!(%place, %why, "a key in Redis is not understood, and counts as none");
                None
            }
        }
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
