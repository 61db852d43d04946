//! Tokens, and the keys that they are checked with.

use crate::Row;

pub(crate) const ROWS: &[Row] = &[
    (
        "J-01",
        "`alg: none` in any case, no signature, one that is too short, too long or padded",
        "401: a key has its algorithms and the length of its signatures, and a token has exactly three \
         parts",
    ),
    (
        "J-02",
        "a public key used as an HMAC secret; another algorithm's name",
        "401: the algorithm comes from the key",
    ),
    (
        "J-03",
        "`exp` missing, as text, negative, infinite, null",
        "401: a token has to say when it ends",
    ),
    (
        "J-04",
        "`nbf` or `iat` ahead; `aud` or `iss` missing or another one",
        "401; audience and issuer have to be there where the config names some",
    ),
    (
        "J-05",
        "tokens with names of keys that nobody has, as fast as they can be sent",
        "401; the issuer is asked once in 30 s for all of them, by one task, and not at all for tokens that \
         no key could be for",
    ),
    (
        "J-06",
        "an issuer that fails, hangs, redirects, sends 5 MB, nonsense, nothing, or two keys of one name",
        "the last good keys stay for up to 24 h; 256 KiB and 5 s at most; a key that is not known is 503 \
         `keys_unavailable` until the issuer answers again",
    ),
    ("J-07", "`jku`, `x5u`, `jwk`, `x5c` in a token", "not even read: nobody is asked"),
    (
        "J-08",
        "very long, very deep or many-dotted tokens",
        "8 KiB before anything is decoded, 128 levels of JSON",
    ),
    (
        "J-09",
        "two credentials: a field twice, or a field and a cookie or a query",
        "401 `token_ambiguous`",
    ),
    ("J-10", "a claim or a member of the header that stands twice; `crit`", "401"),
    ("J-11", "line ends or any script in a claim that is copied to a field", "401, or as UTF-8"),
    (
        "J-12",
        "keys that turn over under load",
        "no valid token is refused, and a withdrawn key's tokens are, the \
         verified ones too",
    ),
    ("J-13", "tokens and keys in answers and logs", "a reason word only"),
];
