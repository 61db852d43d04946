//! Several calls in one request.

use super::Row;

pub(crate) const ROWS: &[Row] = &[
    (
        "BA-01",
        "a page of another origin that reads by a batch what its browser would keep from it, or uses methods \
         that a preflight forbids; cookies that no script may read",
        "403 `batch_refused` for each call whose own route has no `cors` for the page; `Set-Cookie` is not told \
         to pages",
    ),
    (
        "BA-02",
        "references that multiply answers; bodies and answers of very many small values",
        "measured before they are written or kept: 424 `batch_skipped`, 400 `batch_invalid`",
    ),
];
