//! What a login leaves behind: values by name, sealed, in the Redis that gateways share or in this process.
//! Names say the kind and hold a digest or a random id, never an identity in clear.
//!
//! The one rule: nothing is stored that was not sealed for its very name, so that a value that somebody
//! moves to another name is no value.

use std::sync::Arc;
use std::time::Duration;

use zeroize::Zeroizing;

use super::redis::Target;
use crate::base::clock;

mod ring;
mod shelf;

pub(crate) use super::redis::Gone;
pub(crate) use ring::{KeyError, Ring};
pub(crate) use shelf::Shelf;

/// A store with the keys to it.
#[derive(Clone)]
pub(crate) struct Vault {
    ring: Arc<Ring>,
    store: Store,
}

#[derive(Clone)]
enum Store {
    Here(Arc<Shelf>),
    Redis(Arc<Target>),
}

/// A value as it was read, and as it is stored: needed to write over it.
pub(crate) struct Read {
    pub(crate) plain: Zeroizing<Vec<u8>>,
    sealed: Vec<u8>,
}

impl std::fmt::Debug for Vault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let store = match &self.store {
            Store::Here(_) => "here",
            Store::Redis(_) => "redis",
        };
        f.debug_struct("Vault").field("store", &store).finish_non_exhaustive()
    }
}

impl Vault {
    /// In this process; lost with it.
    pub(crate) fn here(shelf: Arc<Shelf>, ring: Arc<Ring>) -> Self {
        Self { ring, store: Store::Here(shelf) }
    }

    /// Shared by gateways.
    pub(crate) fn shared(redis: Arc<Target>, ring: Arc<Ring>) -> Self {
        Self { ring, store: Store::Redis(redis) }
    }

    pub(crate) fn redis(&self) -> Option<&Arc<Target>> {
        match &self.store {
            Store::Here(_) => None,
            Store::Redis(redis) => Some(redis),
        }
    }

    /// What stands under a name. What cannot be opened is not there.
    pub(crate) async fn get(&self, name: &str) -> Result<Option<Read>, Gone> {
        let sealed = match &self.store {
            Store::Here(shelf) => shelf.get(name, clock::now()),
            Store::Redis(redis) => Box::pin(redis.get(name)).await?,
        };
        Ok(self.open(name, sealed))
    }

    /// The same, but what cannot be opened is there, and empty: so it can be written over.
    pub(crate) async fn get_sealed(&self, name: &str) -> Result<Option<Read>, Gone> {
        let sealed = match &self.store {
            Store::Here(shelf) => shelf.get(name, clock::now()),
            Store::Redis(redis) => Box::pin(redis.get(name)).await?,
        };
        Ok(sealed.map(|sealed| {
            let plain = self.ring.open(name, &sealed).unwrap_or_default();
            Read { plain, sealed }
        }))
    }

    /// What stands under a name; it lives for so long from now.
    pub(crate) async fn touch(&self, name: &str, life: Duration) -> Result<Option<Read>, Gone> {
        let sealed = match &self.store {
            Store::Here(shelf) => shelf.touch(name, clock::now(), life),
            Store::Redis(redis) => Box::pin(redis.touch(name, life)).await?,
        };
        Ok(self.open(name, sealed))
    }

    pub(crate) async fn put(&self, name: &str, plain: &[u8], life: Duration) -> Result<(), Gone> {
        let sealed = self.ring.seal(name, plain).ok_or(Gone)?;
        match &self.store {
            Store::Here(shelf) => {
                shelf.put(name, sealed, clock::now(), life);
                Ok(())
            }
            Store::Redis(redis) => Box::pin(redis.put(name, &sealed, life)).await,
        }
    }

    /// Writes what is not there yet; says whether it did.
    pub(crate) async fn put_new(
        &self,
        name: &str,
        plain: &[u8],
        life: Duration,
    ) -> Result<bool, Gone> {
        let sealed = self.ring.seal(name, plain).ok_or(Gone)?;
        match &self.store {
            Store::Here(shelf) => Ok(shelf.put_new(name, sealed, clock::now(), life)),
            Store::Redis(redis) => Box::pin(redis.put_new(name, &sealed, life)).await,
        }
    }

    /// Writes over what was read, if that is what stands there still; says whether it was.
    pub(crate) async fn swap(
        &self,
        name: &str,
        read: &Read,
        plain: &[u8],
        life: Duration,
    ) -> Result<bool, Gone> {
        let sealed = self.ring.seal(name, plain).ok_or(Gone)?;
        match &self.store {
            Store::Here(shelf) => Ok(shelf.swap(name, &read.sealed, sealed, clock::now(), life)),
            Store::Redis(redis) => Box::pin(redis.swap(name, &read.sealed, &sealed, life)).await,
        }
    }

    pub(crate) async fn remove(&self, name: &str) -> Result<(), Gone> {
        match &self.store {
            Store::Here(shelf) => {
                shelf.remove(name);
                Ok(())
            }
            Store::Redis(redis) => Box::pin(redis.remove(name)).await,
        }
    }

    fn open(&self, name: &str, sealed: Option<Vec<u8>>) -> Option<Read> {
        let sealed = sealed?;
        let plain = self.ring.open(name, &sealed)?;
        Some(Read { plain, sealed })
    }
}
