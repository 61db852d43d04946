//! Each nonce passes once: in Redis for all gateways, or in this process.

use std::sync::Arc;
use std::time::Duration;

use super::config::OnStoreError;
use crate::base::clock;
use crate::base::fault::Fault;
use crate::lasting::nonces::{Nonces, Taken};
use crate::lasting::redis::{Target, hidden};

#[derive(Debug)]
pub(super) struct Replay {
    pub(super) here: Here,
    pub(super) shared: Option<Arc<Target>>,
    pub(super) on_error: OnStoreError,
    /// How long a nonce is remembered.
    pub(super) time: Duration,
}

pub(super) struct Here(pub(super) Arc<Nonces>);

impl std::fmt::Debug for Here {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Here")
    }
}

impl Replay {
    /// Takes the nonce, or refuses.
    pub(super) async fn once(&self, key: &str, nonce: &str) -> Result<(), Fault> {
        let name = hidden("nonce", &[key.as_bytes(), nonce.as_bytes()]);
        let Some(shared) = &self.shared else { return self.once_here(key, &name) };
        let taken = Box::pin(shared.put_new(&name, b"1", self.time)).await;
        match (taken.ok(), self.on_error) {
            // Known here too: while Redis is gone only this process is asked, and what it has let pass
            // meanwhile is not known to Redis. Where there is no place here, Redis knows.
            (Some(true), OnStoreError::Local) => match self.once_here(key, &name) {
                Err(Fault::ReplayStoreDown) => Ok(()),
                known => known,
            },
            (Some(true), _) | (None, OnStoreError::Allow) => Ok(()),
            (Some(false), _) => Err(Fault::Replayed),
            (None, OnStoreError::Deny) => Err(Fault::ReplayStoreDown),
            (None, OnStoreError::Local) => self.once_here(key, &name),
        }
    }

    fn once_here(&self, key: &str, name: &str) -> Result<(), Fault> {
        match self.here.0.take(key.as_bytes(), name.as_bytes(), self.time, clock::now()) {
            Taken::First => Ok(()),
            Taken::Again => Err(Fault::Replayed),
            Taken::Full => Err(Fault::ReplayStoreDown),
        }
    }
}
