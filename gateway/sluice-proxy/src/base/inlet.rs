//! Where a request's body comes from: the client, or memory, once a filter has read it ahead. What was
//! read is bounded for each request, for each client and for all of them together, and is sent on as it came.

use std::collections::VecDeque;
use std::hash::BuildHasher as _;
use std::net::IpAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use foldhash::fast::RandomState;
use http::HeaderMap;
use http_body::{Body as _, Frame, SizeHint};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;

use super::body::{Meter, Upload};
use super::clock::{self, Moment};
use super::cx::Cx;
use super::fault::Fault;

/// Bytes of bodies that all requests of this process may hold together.
const MOST_HELD: u64 = 128 * 1024 * 1024;
/// And of that those of one client's address, once half of it is held.
const MOST_OF_ONE: u64 = MOST_HELD / 8;
/// Addresses are counted in so many groups by chance.
const GROUPS: usize = 1024;
/// Pieces of what is held: small ones of a client do not cost more than their bytes.
const PIECE: usize = 16 * 1024;

static HELD: AtomicU64 = AtomicU64::new(0);
static HELD_OF: [AtomicU64; GROUPS] = [const { AtomicU64::new(0) }; GROUPS];
static SEED: LazyLock<RandomState> = LazyLock::new(RandomState::default);

/// A request body.
pub(crate) enum Inlet {
    Incoming(Incoming),
    Held(Box<Held>),
}

/// A body that a filter may read before it is sent, and until when.
pub(crate) struct Ahead {
    pub(crate) inlet: Inlet,
    pub(crate) until: Moment,
}

impl std::fmt::Debug for Ahead {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ahead").field("until", &self.until).finish_non_exhaustive()
    }
}

/// A whole body in memory.
#[derive(Default)]
pub(crate) struct Held {
    pieces: VecDeque<Bytes>,
    /// Bytes that are left.
    left: u64,
    trailers: Option<HeaderMap>,
    share: Share,
}

/// Part of what all requests hold, given back when dropped.
#[derive(Default)]
struct Share {
    bytes: u64,
    /// What those of the same client hold.
    of: Option<&'static AtomicU64>,
}

impl Share {
    /// IPv6 clients are counted by /64, which one of them has whole.
    fn of(client: IpAddr) -> Self {
        let hash = match client {
            IpAddr::V4(v4) => SEED.hash_one(v4.octets()),
            IpAddr::V6(v6) => SEED.hash_one(v6.octets().get(..8)),
        };
        let group = usize::try_from(hash % GROUPS as u64).unwrap_or(0);
        Self { bytes: 0, of: HELD_OF.get(group) }
    }

    fn grow(&mut self, bytes: u64) -> Result<(), Fault> {
        let before = HELD.fetch_add(bytes, Ordering::Relaxed);
        let own = self.of.map_or(0, |of| of.fetch_add(bytes, Ordering::Relaxed) + bytes);
        self.bytes += bytes;
        fits(before.saturating_add(bytes), own).then_some(()).ok_or(Fault::MemoryShort)
    }
}

/// Whether so much may be held, of which so much is one client's.
fn fits(all: u64, own: u64) -> bool {
    all <= MOST_HELD / 2 || (all <= MOST_HELD && own <= MOST_OF_ONE)
}

impl Drop for Share {
    fn drop(&mut self) {
        HELD.fetch_sub(self.bytes, Ordering::Relaxed);
        if let Some(of) = self.of {
            of.fetch_sub(self.bytes, Ordering::Relaxed);
        }
    }
}

/// Bytes of bodies that are held now.
pub(crate) fn held() -> u64 {
    HELD.load(Ordering::Relaxed)
}

impl Inlet {
    /// A body that is there already.
    pub(crate) fn holding(bytes: Bytes) -> Result<Self, Fault> {
        let mut held = Box::<Held>::default();
        held.share.grow(bytes.len() as u64)?;
        held.left = bytes.len() as u64;
        if !bytes.is_empty() {
            held.pieces.push_back(bytes);
        }
        Ok(Self::Held(held))
    }
}

impl Held {
    /// Its pieces, one behind the other.
    pub(crate) fn pieces(&self) -> impl Iterator<Item = &Bytes> {
        self.pieces.iter()
    }
}

/// Whether this request has a body that could be read ahead.
pub(crate) fn has_body(cx: &Cx) -> bool {
    cx.ahead.as_ref().is_some_and(|ahead| !ahead.inlet.is_end_stream())
}

/// Reads the whole body, of at most `limit` bytes, and hands every piece of it to `each` as it comes. It
/// stays where it was, to be sent on. The client has to keep the same pace as without reading ahead.
pub(crate) async fn read(
    cx: &mut Cx,
    limit: u64,
    each: &mut dyn FnMut(&[u8]),
) -> Result<(), Fault> {
    let Some(Ahead { inlet, until }) = cx.ahead.take() else { return Ok(()) };
    let held = match inlet {
        Inlet::Held(held) if held.left > limit => return Err(Fault::BodyTooLarge),
        Inlet::Held(held) => {
            held.pieces().for_each(|piece| each(piece));
            held
        }
        Inlet::Incoming(incoming) if incoming.is_end_stream() => {
            cx.ahead = Some(Ahead { inlet: Inlet::Incoming(incoming), until });
            return Ok(());
        }
        Inlet::Incoming(incoming) => {
            if incoming.size_hint().lower() > limit {
                return Err(Fault::BodyTooLarge);
            }
            let meter = Rc::new(Meter::default());
            cx.upload = Some(Rc::clone(&meter));
            let inlet = Inlet::Incoming(incoming);
            let upload = Upload::stream(inlet, limit, cx.peer.body_idle, true, Rc::clone(&meter));
            let gathering = gather(Share::of(cx.client), upload, &meter, each);
            let late = clock::deadline(until);
            let gathered = tokio::time::timeout_at(late, gathering).await;
            gathered.map_err(|_| Fault::BodyTimeout)??
        }
    };
    cx.ahead = Some(Ahead { inlet: Inlet::Held(held), until });
    Ok(())
}

async fn gather(
    share: Share,
    mut upload: Upload,
    meter: &Meter,
    each: &mut dyn FnMut(&[u8]),
) -> Result<Box<Held>, Fault> {
    let mut held = Box::new(Held { share, ..Held::default() });
    let mut piece = BytesMut::new();
    while let Some(frame) = upload.frame().await {
        let frame = frame.map_err(|_| meter.fault.get().unwrap_or(Fault::BodyBroken))?;
        match frame.into_data() {
            Ok(data) => {
                held.share.grow(data.len() as u64)?;
                held.left += data.len() as u64;
                each(&data);
                for part in data.chunks(PIECE) {
                    if piece.len() + part.len() > PIECE {
                        held.pieces.push_back(std::mem::take(&mut piece).freeze());
                    }
                    piece.extend_from_slice(part);
                }
            }
            Err(frame) => held.trailers = frame.into_trailers().ok(),
        }
    }
    if !piece.is_empty() {
        held.pieces.push_back(piece.freeze());
    }
    Ok(held)
}

impl http_body::Body for Inlet {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        match self.get_mut() {
            Self::Incoming(incoming) => Pin::new(incoming).poll_frame(cx),
            Self::Held(held) => Poll::Ready(held.next().map(Ok)),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Incoming(incoming) => incoming.is_end_stream(),
            Self::Held(held) => held.pieces.is_empty() && held.trailers.is_none(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Incoming(incoming) => incoming.size_hint(),
            Self::Held(held) => SizeHint::with_exact(held.left),
        }
    }
}

impl Held {
    fn next(&mut self) -> Option<Frame<Bytes>> {
        match self.pieces.pop_front() {
            Some(piece) => {
                self.left = self.left.saturating_sub(piece.len() as u64);
                Some(Frame::data(piece))
            }
            None => self.trailers.take().map(Frame::trailers),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bodies_of_one_client_leave_room_for_those_of_others() {
        assert!(fits(MOST_HELD / 2, MOST_HELD / 2), "one alone may have half");
        assert!(!fits(MOST_HELD / 2 + 1, MOST_OF_ONE + 1));
        assert!(fits(MOST_HELD, MOST_OF_ONE));
        assert!(!fits(MOST_HELD + 1, 1));
        let address = |text: &str| text.parse::<IpAddr>().unwrap();
        let mut share = Share::of(address("2001:db8::1"));
        let same = Share::of(address("2001:db8::ffff:2")).of.unwrap();
        share.grow(1000).unwrap();
        assert_eq!((share.bytes, same.load(Ordering::Relaxed)), (1000, 1000), "one /64");
        drop(share);
        assert_eq!(same.load(Ordering::Relaxed), 0, "given back");
    }
}
