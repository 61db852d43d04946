//! Signed requests, replays, and keys of apps.

use crate::Row;

pub(crate) const ROWS: &[Row] = &[
    (
        "K-01",
        "a moment of signing 301 s ago or ahead, negative, of 20 digits, no number",
        "`signature_expired` beyond the window of 5m, with the gateway's own time; 10 digits are seconds, 13 \
         are milliseconds, all else is `signature_invalid`",
    ),
    (
        "K-02",
        "the same nonce again, at once, on another gateway",
        "one passes, the others get `replayed`: `SET NX` in Redis for twice the window and a minute, or a table of \
         this process. `hmac` has nonces only where `nonce_header` names one; `check` warns without",
    ),
    (
        "K-03",
        "no answer from Redis about a nonce",
        "503 `replay_store_down`, unless the config says `on_store_error: local` or `allow`",
    ),
    (
        "K-04",
        "parameters in another order, `+` and `%20`, empty values, a parameter twice",
        "one text for each request: what is signed is the canonical path that is routed by; `x-ca` refuses \
         what it could not tell apart",
    ),
    (
        "K-05",
        "a signed body of 1 GiB, announced or in chunks",
        "413 beyond 1 MiB, before the service hears of it; all bodies that are held share 128 MiB",
    ),
    (
        "K-06",
        "a signature that is off by one byte",
        "refused wherever the byte is; comparisons are the library's, in constant time. That no time leaks \
         is not measured",
    ),
    (
        "K-07",
        "signatures that cover neither method nor target",
        "the config is refused, and so is the request. Tencent's pairs of keys cover header fields only, by \
         their nature; `check` warns",
    ),
    (
        "K-08",
        "guessing of AppIDs",
        "the same answer as for a wrong signature, after the same work; throttling is a limit by address in \
         the guard stage",
    ),
    ("K-09", "a nonce of 10 KB, with line ends or braces", "16 to 64 letters, digits, `-` and `_`"),
    ("K-10", "a secret is replaced", "two are accepted; the older one until `previous_until`"),
];
