//! Logging in.

use crate::Row;

pub(crate) const ROWS: &[Row] = &[
    (
        "J-16",
        "a code replayed; a platform that is slow, busy, or says what is no answer",
        "the same answer for 5 minutes; one meaning for each error, 503 or 504 with the code spent; \
         `session_key` stays in the gateway",
    ),
    (
        "J-17",
        "a thousand logins at once, many of them with one code",
        "one exchange for each code, over all gateways of a Redis; `limits.at_once` exchanges of an app, \
         others get 503 and `Retry-After`",
    ),
    (
        "J-18",
        "a code that may have been sent, and a client that is gone",
        "never sent again, to no other host; the exchange is finished for whoever asks next",
    ),
    (
        "J-19",
        "clients that try wrong codes, to have everybody locked out",
        "not a failure of the platform; limits by address and by user",
    ),
    (
        "J-15",
        "a store of revocations that is silent",
        "methods that change nothing are allowed, others and routes with `sensitive: true` get 503 \
         `revocation_unknown`, after 2 s of silence",
    ),
    (
        "J-20",
        "a refresh token that was stolen, or whose answer was lost",
        "the same answer for 30 s; after that, and for older ones, the session ends for both",
    ),
    (
        "J-21",
        "a token that was verified before it was revoked",
        "every request is held against what was revoked, of which all gateways know within a second",
    ),
    ("J-22", "private halves of keys in what is published", "only the public members are written"),
];
