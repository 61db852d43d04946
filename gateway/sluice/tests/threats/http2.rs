//! Clients over HTTP/2.

use crate::Row;

pub(crate) const ROWS: &[Row] = &[
    ("H2-01", "rapid reset: streams opened and reset at once", "GOAWAY"),
    (
        "H2-02",
        "made-you-reset: frames that make the gateway reset streams",
        "GOAWAY; work for services stays below the number of streams",
    ),
    ("H2-03", "CONTINUATION without end", "GOAWAY"),
    ("H2-04", "empty and tiny DATA", "GOAWAY; honest gRPC passes"),
    (
        "H2-05",
        "PING, SETTINGS, PRIORITY, unknown frames without end",
        "a bound on control frames without requests",
    ),
    (
        "H2-06",
        "the header bomb: many references to one field, bodies never finished",
        "at most 1 MiB held for a connection, given back after `timeouts.body`",
    ),
    ("H2-07", "header lists above the limit", "431, then GOAWAY"),
    ("H2-08", "many small fields", "431"),
    (
        "H2-09",
        "windows that are never opened",
        "at most 64 KiB held for a stream, 24 KiB in a crowd; the service is paused; the stream is reset after `timeouts.write`",
    ),
    ("H2-10", "thousands of idle connections", "pings; GOAWAY after `timeouts.keepalive`"),
    ("H2-11", "a preface and nothing else; half a frame", "closed after `timeouts.head`"),
    ("H2-12", "more streams than allowed", "refused, and counted"),
    ("H2-13", "pseudo-header fields missing, twice, late or unknown", "stream error"),
    (
        "H2-14",
        "line ends, NUL or capital letters in fields; a method with a line in it",
        "refused: nothing makes a new line over HTTP/1",
    ),
    ("H2-15", "fields of a connection", "stream error"),
    ("H2-16", "a length that is not the body's", "reset; the service's side is broken off"),
    (
        "H2-17",
        "no authority, or another than Host, or with user information",
        "400 `authority_mismatch`, `host_invalid` or `target_invalid`",
    ),
    ("H2-18", "`:path` that is none, `:scheme` that is not the listener's", "400 `target_invalid`"),
    ("H2-19", "values that begin or end in blanks", "trimmed, or refused"),
    ("H2-20", "cookies in several fields, towards HTTP/1", "joined before anybody reads them"),
    ("H2-21", "`te: trailers`", "made anew for services"),
    ("H2-22", "`expect: 100-continue`", "the body is read as it comes"),
    ("H2-23", "CONNECT", "405 `method_refused`"),
    ("H2-24", "a drain", "GOAWAY twice; open streams finish"),
    (
        "H2-25",
        "a service's GOAWAY that leaves a stream out",
        "sent once more, POST too, as long as its body is whole",
    ),
    ("H2-26", "a stream that the client resets", "the service's side is broken off"),
    ("H2-27", "trailers that pose as fields", "dropped, but those of gRPC"),
    ("H2-28", "a gRPC stream of 100,000 messages each way", "passes"),
    (
        "H2-29",
        "46 cases of RFC 9113: `cargo xtask conformance`, since h2spec is in no registry",
        "none fails",
    ),
    ("H2-30", "settings that change without end", "memory stays"),
];
