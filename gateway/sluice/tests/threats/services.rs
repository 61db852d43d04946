//! Services that fail, and more load than can be served.

use crate::Row;

pub(crate) const ROWS: &[Row] = &[
    ("U-01", "a refused connection", "another endpoint, any method; else 502 `connect_refused`"),
    ("U-02", "a connection that is never made", "`timeouts.connect`, then another endpoint"),
    ("U-03", "a service that accepts and says nothing", "504 `upstream_timeout`"),
    (
        "U-04",
        "a kept connection reset before any byte of an answer",
        "once more on a new connection, where that is safe",
    ),
    ("U-05", "the race with a service that closes idle connections", "no GET fails"),
    ("U-06", "an answer cut in the middle", "never looks whole"),
    ("U-07", "bytes behind an answer", "dropped with their connection"),
    (
        "U-08",
        "an answer with a length and chunks",
        "the length is dropped, the connection not kept",
    ),
    ("U-09", "answers that make no sense", "502 `upstream_malformed`"),
    (
        "U-10",
        "interim answers without end",
        "dropped and counted; more than 16 are 502 `upstream_malformed`",
    ),
    ("U-11", "HTTP/1.0 answers", "served; the connection is not kept"),
    ("U-12", "a body where there can be none", "not passed on; the connection is closed"),
    ("U-13", "bytes on an idle connection", "closed before it is used again"),
    ("U-14", "an answer byte by byte", "`timeouts.head`, then `timeouts.idle`"),
    ("U-15", "a large answer to a slow client", "the service is paused; memory stays"),
    ("U-16", "an answer while the upload runs", "passed on; the upload is stopped"),
    (
        "U-17",
        "services restarted in turn, or killed",
        "in good order no 5xx; killed no GET fails, a POST only if it was under way; none is doubled",
    ),
    (
        "U-18",
        "few endpoints are healthy, or none",
        "under `panic_threshold` all are asked; with 0 % 503 `no_endpoint`",
    ),
    (
        "U-19",
        "an endpoint that is healthy by its checks only",
        "ejected after 5 failures in a row, or failing more than its peers; for longer each time, half of them at most",
    ),
    (
        "U-20",
        "a service that always fails",
        "at most 1.2 times what it is offered, or 10 more of less than 50",
    ),
    (
        "U-21",
        "a second attempt that needs the body",
        "of bodies up to 64 KiB that may be sent twice; larger ones are sent once",
    ),
    (
        "U-22",
        "a client's own time limit",
        "shortens ours, is passed on with what is left, queues and attempts counted; 504 `deadline_exceeded`, early where too little is left",
    ),
    ("U-23", "all connections in use", "a bounded queue, then 503 `pool_exhausted`"),
    ("U-24", "a service that does not read", "the client is paused; a time limit"),
    (
        "U-25",
        "HTTP/2 services that allow one stream, or none, or say goodbye at once",
        "requests wait until `timeouts.head`, or fail; connections are made for requests only",
    ),
    ("U-26", "a GET with a body", "kept, framed as it came"),
    ("U-27", "a shadow that is slow or dead", "shadows are not built"),
    ("U-28", "a half-open breaker and a crowd", "as many trials as configured"),
    (
        "U-29",
        "a connection that dies without a word",
        "given up after 10 s (`TCP_USER_TIMEOUT`); a GET is sent once more",
    ),
    ("U-30", "certificates or addresses of a service that change", "`max_age` of connections"),
    ("U-31", "gRPC without a status, or reset", "a status of the gateway's"),
    (
        "V-01",
        "ten times the load",
        "a bound on requests in progress with a short queue; 503 `overloaded`",
    ),
    (
        "V-02",
        "work that blocks a worker",
        "tables are compiled on threads of their own; a worker that did not run for half a second counts",
    ),
    ("V-03", "more connects than are accepted", "the kernel's queue; accepting never blocks"),
    ("V-04", "one route that floods", "a `bulkhead` of the route or upstream; 503 `bulkhead_full`"),
    (
        "V-05",
        "memory near its limit",
        "in stages: idle connections closed, 503 `memory_short`, the largest cut",
    ),
    ("V-06", "less important work first", "priorities are not built: who comes first is served"),
    ("V-07", "work whose caller has left", "leaves the queue and is not sent"),
    ("V-08", "the end of an overload", "back within 2 s"),
    ("V-09", "health checks amid an overload", "always answered"),
    (
        "V-10",
        "a storm of log lines",
        "100 a second of each place of the code, 1,000 in all; what is left out is counted",
    ),
];
