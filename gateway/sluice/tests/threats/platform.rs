//! What comes from the platform, or pretends to; and services that call it.

use super::Row;

pub(crate) const ROWS: &[Row] = &[
    (
        "O-01",
        "open data that somebody made up, of another app, of another user, or that is old; padding that is \
         tried out",
        "401 `session_key_stale`, whatever is wrong with what was not encrypted by the session's key, and where \
         an identity stands under another name; 403 for what is not meant for here",
    ),
    (
        "O-02",
        "many who want an access token at once, on several gateways; somebody without the right to read it",
        "one call for all, sealed in Redis; 401 without a token of the config, 403 without `read_token`; pages \
         of browsers are nobody",
    ),
    (
        "O-03",
        "services that call the platform: with paths that lead elsewhere, tokens of their own, too much; a \
         platform that refuses its token, or fails",
        "plain paths only, never those that tell secrets; a refused token is replaced and the call made once \
         more; force once in 30 s and 19 times a day; a breaker, which no service can open by asking for too \
         much or by being slow; answers that are packed or hold the token are not handed on",
    ),
    (
        "O-04",
        "a service that wants a user's session key",
        "calls are signed and data is opened for it; the key stays in the gateway",
    ),
    (
        "O-05",
        "the code of a button for phone numbers: asked for twice, by somebody else, on several gateways; a \
         platform that breaks off",
        "sent once, and again only where the platform has refused the access token; remembered for 5 minutes \
         for its user",
    ),
    (
        "O-06",
        "pushed messages that somebody made up, changed, repeats, or means for another app; XML that means \
         something else; a service that fails",
        "refused before anything is decrypted; nothing but a word is told back; no document types, no entities; \
         each is passed on until the service has taken it, and not again while its timestamp is good",
    ),
    (
        "O-07",
        "somebody who stands where the platform should, without its certificate",
        "503 `provider_busy`; it is told nothing, least of all the app's secret",
    ),
];
