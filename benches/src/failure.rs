//! Why a measurement could not be made, as a sentence for the person who asked for it.

use std::fmt;
use std::io;
use std::path::Path;

/// A sentence; nothing here is handled by looking at its kind.
#[derive(Debug)]
pub(crate) struct Failure(pub(crate) String);

/// What every step that may fail gives back.
pub(crate) type Outcome<T> = Result<T, Failure>;

impl Failure {
    pub(crate) fn new(why: impl Into<String>) -> Self {
        Self(why.into())
    }

    /// Turns an error of the system at some place into a failure that names the place.
    pub(crate) fn at(place: &Path) -> impl FnOnce(io::Error) -> Self {
        move |error| Self(format!("{}: {error}", place.display()))
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        to.write_str(&self.0)
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self(error.to_string())
    }
}
