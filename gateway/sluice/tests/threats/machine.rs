//! What the machine runs out of, signals, disks and clocks.

use crate::Row;

pub(crate) const ROWS: &[Row] = &[
    (
        "E-01",
        "no descriptors left",
        "accepting pauses, without spinning; none are kept back for admin, logs and reloads yet",
    ),
    ("E-02", "no memory left", "the watch over memory keeps it below the limit"),
    (
        "E-03",
        "thousands of slow clients",
        "at most 10 KiB for a head in part, 24 KiB for a body in part; gone in their time; all others are served",
    ),
    (
        "E-04",
        "no local ports left",
        "an endpoint that cannot be connected to; no reason word of its own",
    ),
    (
        "E-05",
        "few threads allowed",
        "a fixed number is enough: 16 for two workers, reloads included",
    ),
    ("E-06", "memory that is kept after an attack", "given back by the allocator"),
    ("E-07", "hashes made to collide", "random seeds"),
    ("E-08", "a million requests", "nothing is left of them"),
    ("E-09", "very many time limits", "coarse clocks"),
    ("G-01", "SIGTERM under load", "not ready, then closed, then finished: none fails"),
    ("G-02", "a second SIGTERM", "at once"),
    ("G-03", "SIGHUP, SIGUSR1, SIGPIPE", "reload, reopen, nothing"),
    ("G-04", "kill -9 and a new start", "ready at once"),
    (
        "G-05",
        "a new binary under load",
        "`--takeover`: both serve, the old one drains, none fails; handshakes under way in the moment \
         it leaves move on where the kernel does that (`net.ipv4.tcp_migrate_req`)",
    ),
    ("G-06", "a client that never ends, amid a drain", "cut when the grace is over"),
    (
        "G-07",
        "the process stopped for a while",
        "a worker's time limits move by the time it lost; a health check that was late itself does not count",
    ),
    ("G-08", "a port in use or a bad certificate at the start", "a message and an exit code"),
    ("G-09", "being the first process of a container", "signals are handled"),
    ("G-10", "a panic in a request", "500; others go on"),
    ("F-01", "a log that nobody reads", "lines are dropped and counted, no request waits"),
    ("F-02", "a log that cannot be written", "tried again and counted; no panic, nobody waits"),
    ("F-03", "a full disk", "lines are dropped and counted; a torn line does not spoil the next"),
    ("F-04", "a log that was rotated", "opened anew on SIGUSR1"),
    ("F-05", "a trace collector that is down", "there is none to export to yet"),
    ("F-06", "a state folder that cannot be written", "a warning"),
    ("Z-01", "a wall clock that jumps", "time limits and counts do not mind; tokens follow it"),
    ("Z-02", "a clock before a certificate's time", "served; a metric and a warning tell"),
    ("Z-03", "a machine that was paused", "no panic, no storm of time limits"),
    ("Z-04", "a Redis with another clock", "its own clock counts for its limits"),
];
