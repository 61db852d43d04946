//! Several calls in one request. Each goes the way of a request of its own, from admission to the log, with
//! the headers of the batch; what makes a batch cheaper is that the client asks once.
//!
//! The one rule: a call of a batch may do nothing that the client could not do by itself. So credentials and
//! addresses are those of the batch, and every call is matched, limited and authorised anew.

use std::rc::Rc;

use bytes::Bytes;
use futures_util::stream::{self, Stream};
use http::header::{ACCEPT, CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue, Response};
use tokio::sync::mpsc;

use super::builtin::read_body;
use super::login::only_post;
use super::record::{Inbound, Record};
use crate::base::body::Body;
use crate::base::fault::Fault;
use crate::lasting::tasks::{self, Kind, Owned};

mod answer;
mod item;
mod plan;
mod references;
mod run;
mod weight;

use item::Around;
use run::Run;

/// One answer on each line, as it comes.
const LINES: &str = "application/x-ndjson";

/// Answers a batch.
pub(super) async fn serve(
    record: &mut Record,
    inbound: &mut Inbound,
) -> Result<Response<Body>, Fault> {
    only_post(&mut record.cx, &inbound.head.method)?;
    let view = Rc::clone(&record.view);
    if !is_json(&inbound.head.headers) {
        record.cx.detail = Some(plan::NO_JSON.told().into());
        return Err(Fault::BatchInvalid);
    }
    let body = read_body(record, inbound, view.batch.max_body).await?;
    let plan = plan::read(&body, &view.batch).map_err(|wrong| {
        record.cx.detail = Some(wrong.told().into());
        Fault::BatchInvalid
    })?;
    drop(body);
    let fields = record.cx.said.take().unwrap_or_default();
    let by_line = wants_lines(&fields);
    let mut run = Run::new(plan, Around::of(record, *fields, inbound.head.version));
    if by_line {
        return Ok(answered(Body::made(lines(run)), LINES));
    }
    let mut answers: Vec<String> = vec![String::new(); run.len()];
    while let Some((at, done)) = run.next().await {
        if let Some(place) = answers.get_mut(at) {
            *place = answer::object(run.id(at), &done);
        }
    }
    let whole = format!("{{\"responses\":[{}]}}\n", answers.join(","));
    Ok(answered(Body::full(whole), "application/json; charset=utf-8"))
}

/// The answers as lines. Calls go on, and end in time, while nobody reads: what waits to be read has the room of
/// all answers together. They end with whoever reads.
fn lines(mut run: Run) -> impl Stream<Item = Bytes> {
    let (tell, told) = mpsc::channel(run.len());
    let work = tasks::local(Kind::Stream, async move {
        while let Some((at, done)) = run.next().await {
            let line = Bytes::from(answer::line(run.id(at), &done));
            if tell.send(line).await.is_err() {
                return;
            }
        }
    });
    stream::unfold((told, Owned::new(work)), |(mut told, work)| async move {
        told.recv().await.map(|line| (line, (told, work)))
    })
}

/// A page of another origin may send a POST of plain text without asking, and with cookies; it must not get by a
/// batch what it would have to ask for otherwise. For JSON it has to ask.
fn is_json(fields: &HeaderMap) -> bool {
    let mut kinds = fields.get_all(CONTENT_TYPE).iter();
    let (Some(kind), None) = (kinds.next(), kinds.next()) else { return false };
    let kind = kind.as_bytes().split(|byte| *byte == b';').next().unwrap_or_default();
    kind.trim_ascii().eq_ignore_ascii_case(b"application/json")
}

fn wants_lines(fields: &HeaderMap) -> bool {
    let kinds = |value: &HeaderValue| {
        let kind = |kind: &[u8]| {
            let name = kind.split(|byte| *byte == b';').next().unwrap_or_default();
            name.trim_ascii().eq_ignore_ascii_case(LINES.as_bytes())
        };
        value.as_bytes().split(|byte| *byte == b',').any(kind)
    };
    fields.get_all(ACCEPT).iter().any(kinds)
}

fn answered(body: Body, kind: &'static str) -> Response<Body> {
    let mut response = Response::new(body);
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
