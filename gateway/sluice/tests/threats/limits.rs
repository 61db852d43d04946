//! Limits, and a Redis that fails.

use crate::Row;

pub(crate) const ROWS: &[Row] = &[
    (
        "L-01",
        "many calls at once on several gateways",
        "one script for each decision, by Redis's own clock; never over the limit",
    ),
    (
        "L-02",
        "a burst over the edge of a window",
        "an `exact` window is never over; the ordinary one estimates, up to just under twice",
    ),
    (
        "L-03",
        "ever new names, or addresses of one /64",
        "`address_limit` beside names that callers choose; IPv6 counts by /64",
    ),
    ("L-04", "very many keys", "digests of 16 bytes; keys in Redis expire; 100,000 in the process"),
    ("L-05", "a limit of nothing, or beyond counting", "an error in the config"),
    (
        "L-06",
        "other numbers while calls come",
        "from the next call on; a refusal is believed for 1 s",
    ),
    ("L-07", "gateways with different clocks", "Redis's clock counts"),
    ("L-08", "what a refused caller is told", "429, `Retry-After`, `RateLimit-*`, before the body"),
    ("L-09", "a reload within a window", "counts stay"),
    (
        "L-10",
        "one key that calls very often",
        "refusals are believed here; calls are paid for in blocks; Redis is asked seldom",
    ),
    ("L-11", "keys that name people", "digests in Redis and in the process"),
    (
        "X-01",
        "a Redis, or a node of its cluster, that is gone",
        "this gateway's share of the limit; no error",
    ),
    ("X-02", "a Redis that hangs", "few requests wait 20 ms, all others decide at once"),
    ("X-03", "a slow or lossy way to Redis", "the same"),
    (
        "X-04",
        "a Redis restarted empty",
        "scripts are sent again; requests in progress are listed again",
    ),
    (
        "X-05",
        "a Redis that refuses: password, memory, replica, moved keys",
        "followed where it says so, else decided here; counted and logged by kind",
    ),
    ("X-06", "garbage from Redis", "the connection is dropped; no answer is taken for another"),
    ("X-07", "clients that leave while Redis is asked", "no answer is taken for another"),
    ("X-08", "a key of another type", "made anew"),
    ("X-09", "three gateways when Redis returns", "at most 1.5 s, at times that chance spreads"),
    ("X-10", "a failover that loses the last counts", "accepted: they are admitted again"),
    ("X-11", "a Redis that moves", "its name is looked up for each connection"),
    ("X-12", "more commands than Redis answers", "1,024 on their way for each connection"),
    (
        "X-13",
        "a value of 50 MB in Redis",
        "at most 64 KiB are read of it; else Redis could not say",
    ),
];
