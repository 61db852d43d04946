//! Secrets that the keys of sessions are derived from: the one in use, and the one before while sessions of
//! it live. Login hands such keys out and the filter `signature` verifies with them, so both read them here.

use schemars::JsonSchema;
use serde::Deserialize;
use zeroize::Zeroizing;

use super::env::Env;
use super::key_records::trimmed;
use crate::base::session_key;
use crate::base::units::Secret;
use crate::base::yaml::Place;

/// Bytes of a secret.
const MIN: usize = 32;

/// What keys of sessions are derived from.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "SignKey")]
pub(crate) struct Config {
    /// A file with the secret that the keys of sessions are derived from, at least 32 bytes.
    #[serde(default)]
    master_secret_file: Option<String>,
    /// The same as text; better a file.
    #[serde(default)]
    master_secret: Option<Secret>,
    /// A file with the secret before: keys that were derived from it are accepted too.
    #[serde(default)]
    previous_master_secret_file: Option<String>,
    /// The secret before as text.
    #[serde(default)]
    previous_master_secret: Option<Secret>,
}

/// A secret of the config: a file or a text, under these names.
pub(crate) struct Given<'a> {
    pub(crate) file: (&'static str, Option<&'a String>),
    pub(crate) text: (&'static str, Option<&'a Secret>),
}

/// The secrets, that in use first.
pub(crate) struct Masters(Vec<Zeroizing<Vec<u8>>>);

impl std::fmt::Debug for Masters {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("***")
    }
}

impl Config {
    pub(crate) fn build(&self, at: &Place<'_>, env: &mut Env<'_>) -> Option<Masters> {
        let current = given(self.master_secret_file.as_ref(), self.master_secret.as_ref());
        let previous = previous(
            self.previous_master_secret_file.as_ref(),
            self.previous_master_secret.as_ref(),
        );
        build(&current, &previous, at, env)
    }
}

/// The secret in use, by the names it has everywhere.
pub(crate) fn given<'a>(file: Option<&'a String>, text: Option<&'a Secret>) -> Given<'a> {
    Given { file: ("master_secret_file", file), text: ("master_secret", text) }
}

/// The secret before.
pub(crate) fn previous<'a>(file: Option<&'a String>, text: Option<&'a Secret>) -> Given<'a> {
    Given { file: ("previous_master_secret_file", file), text: ("previous_master_secret", text) }
}

impl Given<'_> {
    pub(crate) fn is_none(&self) -> bool {
        self.file.1.is_none() && self.text.1.is_none()
    }

    /// `Some(None)` if it is not given.
    #[expect(clippy::option_option, reason = "the outer one tells of a problem")]
    fn read(&self, at: &Place<'_>, env: &mut Env<'_>) -> Option<Option<Zeroizing<Vec<u8>>>> {
        let (secret, place) = match (self.file, self.text) {
            ((_, None), (_, None)) => return Some(None),
            ((name, Some(path)), (_, None)) => {
                let place = at.field(name);
                (trimmed(env.secret_file(&place, path)?), place)
            }
            ((_, None), (name, Some(text))) => {
                (Zeroizing::new(text.expose().as_bytes().to_vec()), at.field(name))
            }
            ((file, Some(_)), (text, Some(_))) => {
                let message = format!("write one of `{file}` and `{text}`");
                env.problems.error(&at.field(text), message);
                return None;
            }
        };
        if secret.len() < MIN {
            let length = secret.len();
            env.problems
                .error(&place, format!("the secret has {length} bytes; {MIN} are needed"))
                .help("make one with `openssl rand -base64 48`");
            return None;
        }
        Some(Some(secret))
    }
}

/// Compiles them, or records what is wrong.
pub(crate) fn build(
    current: &Given<'_>,
    previous: &Given<'_>,
    at: &Place<'_>,
    env: &mut Env<'_>,
) -> Option<Masters> {
    let (current, previous) = (current.read(at, env), previous.read(at, env));
    let (current, previous) = (current?, previous?);
    let Some(current) = current else {
        env.problems.error(at, "there is no secret to derive keys from").help(
            "make one with `openssl rand -base64 48`, and name its file in `master_secret_file`",
        );
        return None;
    };
    Some(Masters(std::iter::once(current).chain(previous).collect()))
}

impl Masters {
    /// The key of a session, to be handed out. `None` only if the library fails.
    pub(crate) fn key(&self, session: &str) -> Option<Zeroizing<[u8; session_key::LENGTH]>> {
        session_key::derive(self.0.first()?, session)
    }

    /// The keys that a session may sign with.
    pub(crate) fn keys(
        &self,
        session: &str,
    ) -> impl Iterator<Item = Option<Zeroizing<[u8; session_key::LENGTH]>>> {
        self.0.iter().map(move |master| session_key::derive(master, session))
    }
}
