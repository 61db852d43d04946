//! `sluice key`: keys for the filter `api_key`, and their hashes. Keys are printed once and kept nowhere.

use crate::parts::filters;

/// A new key and the hash that a record has of it, or `None` if the system has no randomness.
#[must_use]
pub fn api_key(pepper: Option<&[u8]>) -> Option<(String, String)> {
    let key = filters::mint()?;
    let hash = filters::hash_text(&key, pepper);
    Some((key, hash))
}

/// The hash that a record has of a key.
#[must_use]
pub fn api_key_hash(key: &str, pepper: Option<&[u8]>) -> String {
    filters::hash_text(key, pepper)
}
