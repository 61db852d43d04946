//! Clients over HTTP/1: framing, clocks, and what they do to a connection.

use crate::Row;

pub(crate) const ROWS: &[Row] = &[
    ("H1-01", "a length and a transfer coding in one head", "400 `cl_te`, closed"),
    ("H1-02", "codings beside chunked, or chunked twice", "501 `te_unsupported`, closed"),
    ("H1-03", "codings that do not end in chunked; any coding in HTTP/1.0", "400 `te_bad`, closed"),
    (
        "H1-04",
        "a length with a sign, a list, another base, or out of range",
        "400 `length_invalid`, closed",
    ),
    ("H1-05", "two lengths", "equal: one is forwarded; else 400 `length_invalid`, closed"),
    (
        "H1-06",
        "folded lines; blanks before a colon or the first field",
        "400 `head_malformed`, closed",
    ),
    (
        "H1-07",
        "control bytes, bare CR, names that are none",
        "400 `head_malformed`, closed; never logged as they are",
    ),
    ("H1-08", "lines that end in a bare LF", "read; written with CR LF"),
    (
        "H1-09",
        "chunks that readers disagree about",
        "400 `body_broken`, or a cut; the service never sees a whole body",
    ),
    ("H1-10", "chunk extensions without end", "a bound on all of a body's extensions"),
    ("H1-11", "trailers that pose as fields", "dropped, but those of gRPC"),
    ("H1-12", "a trailer section that is a request", "400 `body_broken`, closed"),
    ("H1-13", "pipelined requests, one of them without a token", "each judged; answers in order"),
    (
        "H1-14",
        "a refusal while the body is still coming",
        "answered at once; the connection lingers for 1 s or 1 MiB, so that the answer arrives",
    ),
    ("H1-15", "`Expect: 100-continue` on a refused request", "the refusal alone"),
    ("H1-16", "`Expect` in other cases", "100 when the body is wanted; unknown ones 417"),
    ("H1-17", "a head byte by byte", "408 `head_timeout` after `timeouts.head`"),
    ("H1-18", "silence, or half a preface of HTTP/2", "closed after `timeouts.handshake`"),
    (
        "H1-19",
        "a body byte by byte",
        "408 after pauses of `timeouts.body` in all, and a second for each 128 bytes",
    ),
    (
        "H1-20",
        "a reader that reads nothing, or next to nothing",
        "cut when stuck for `timeouts.write` in all, and a second for each 128 bytes",
    ),
    (
        "H1-21",
        "connections that are idle, old, or used without end",
        "closed in good order: `timeouts.keepalive`, `requests_per_connection`, `timeouts.max_age`",
    ),
    ("H1-22", "TLS on a plain port, HTTP on a TLS port", "400 or an alert; nothing binary in logs"),
    ("H1-23", "other versions of HTTP", "505 `version_unsupported`, or 400"),
    ("H1-24", "CONNECT, TRACE, methods nobody knows", "405 `method_refused`, 501 `method_unknown`"),
    (
        "H1-25",
        "HTTP/1.0",
        "served, and closed unless it asks otherwise; towards services always 1.1",
    ),
    ("H1-26", "a client that closes its writing side after the request", "counts as gone"),
    (
        "H1-27",
        "a client that leaves amid its upload",
        "the service's connection is closed and not kept",
    ),
    ("H1-28", "a client that leaves with a pipelined byte behind", "bounded by the route's time"),
    (
        "H1-29",
        "large heads, long targets, many fields",
        "431 `head_too_large`, 414 `target_too_long`",
    ),
    (
        "H1-30",
        "clients that send writes and leave, without end",
        "`overload.unattended` are finished at a time, within their routes' time and 256 KiB of answer; more are cancelled",
    ),
];
