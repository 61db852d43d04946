//! The admin address: who reaches it, and what they can do there.

use crate::Row;

pub(crate) const ROWS: &[Row] = &[
    ("A-01", "an admin address that others can reach", "refused: loopback only"),
    (
        "A-02",
        "no token, an empty one, a short one",
        "without one nothing can be changed; none is shipped, less than 32 bytes are refused",
    ),
    (
        "A-03",
        "pages in browsers that ask the admin address, by a name of their own too",
        "the Host has to be a loopback name; no CORS; what changes anything needs a bearer token and JSON, \
         and is refused if a browser says that a page sent it",
    ),
    (
        "A-04",
        "a route to the admin address",
        "refused as an endpoint where its text says so, by address or as localhost; a name that resolves \
         to it is not noticed",
    ),
    ("A-05", "secrets on the admin pages", "none are shown"),
    (
        "A-06",
        "guessing the token",
        "compared in constant time; five answers and audit entries a minute, then 429; the right token is \
         let in all the same",
    ),
    ("A-07", "operators while the data plane is busy", "a thread, runtime and socket of their own"),
];
