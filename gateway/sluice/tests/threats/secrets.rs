//! Secrets, and what logs tell of people.

use crate::Row;

pub(crate) const ROWS: &[Row] = &[
    (
        "S-01",
        "credentials in fields, queries, bodies, configs, errors and panics",
        "never written: header fields and bodies are not logged, parameters only by name, values of \
         known fields are masked",
    ),
    (
        "S-02",
        "phones, identity cards, bank cards, identities and addresses of mail in what is logged",
        "masked, through the escapes of URLs and JSON",
    ),
    ("S-03", "line ends, escape sequences, quotes, any byte", "one line of JSON for each request"),
    ("S-04", "very long fields", "1 KiB of each field, 8 KiB of a line, and `truncated`"),
    ("S-05", "a secret that others on the machine may read", "a warning"),
    (
        "S-06",
        "core dumps, debuggers",
        "no dumps; its memory and environment are closed to its own user; secrets are wiped where they \
         were read",
    ),
    ("S-07", "errors of libraries and addresses of services in answers", "a reason word only"),
    ("S-08", "a secret in what is printed for debugging", "a type that prints stars"),
    ("S-09", "labels of metrics that clients choose", "labels come from the config"),
    (
        "S-10",
        "a cache in between, or one that two people share, and an answer that says nothing of being kept",
        "`no-store` where a filter has found out who is calling, and on refusals; a service that finds it \
         out by itself needs `cache_control: no_store`",
    ),
];
