//! One direction of a connection under a fault.
//!
//! What both directions share, and what an end means for the sockets, is left to `faults`. The one
//! rule: every wait is also a wait for the fault to change, so that a switch takes effect at once.

use std::{
    collections::VecDeque,
    io,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::tcp::{OwnedReadHalf, OwnedWriteHalf},
    sync::watch,
    time::{Instant, sleep_until},
};

use super::{Direction, Fault};

/// Bytes read at once.
const PIECE: usize = 16 * 1024;
/// Pieces that are under way at most; then the sender has to wait.
const PIECES: usize = 256;
/// Writes in each second under a rate.
const TICKS: u64 = 100;

/// How a direction ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// The sender had no more to say, and all of it has arrived.
    Whole,
    /// In the middle, by an end of the stream.
    Cut,
    /// In the middle, by RST.
    Reset,
}

/// What carries the bytes of one direction.
pub(super) struct Pump<'a> {
    pub(super) direction: Direction,
    pub(super) fault: watch::Receiver<Arc<Fault>>,
    pub(super) chance: fastrand::Rng,
    /// Bytes that have arrived in this direction, over all connections.
    pub(super) count: &'a AtomicU64,
}

/// What was read and not yet written.
#[derive(Default)]
struct Flight {
    pieces: VecDeque<(Instant, Vec<u8>)>,
    /// When the piece read last is due, since none overtakes another.
    last: Option<Instant>,
    /// When the next write may be, under a rate.
    free: Option<Instant>,
    /// Written since the fault was set.
    written: u64,
    /// The sender has no more to say.
    whole: bool,
}

impl Pump<'_> {
    pub(super) async fn run(mut self, from: &mut OwnedReadHalf, to: &mut OwnedWriteHalf) -> End {
        let mut flight = Flight::default();
        loop {
            let fault = Arc::clone(&self.fault.borrow_and_update());
            let fault = if fault.concerns(self.direction) { fault } else { Arc::default() };
            flight.written = 0;
            if let Some(end) = self.carry(&fault, &mut flight, from, to).await {
                return end;
            }
        }
    }

    /// Carries bytes under one fault; `None` when another was set.
    async fn carry(
        &mut self,
        fault: &Fault,
        flight: &mut Flight,
        from: &mut OwnedReadHalf,
        to: &mut OwnedWriteHalf,
    ) -> Option<End> {
        loop {
            let left = match fault.end {
                Some((after, end)) if flight.written >= after => return Some(end),
                Some((after, _)) => after - flight.written,
                None => u64::MAX,
            };
            if flight.whole && flight.pieces.is_empty() {
                // The other side may have closed already.
                to.shutdown().await.ok();
                return Some(End::Whole);
            }
            let mut buffer = Vec::with_capacity(PIECE);
            let reads = !fault.hang && !flight.whole && flight.pieces.len() < PIECES;
            tokio::select! {
                changed = self.fault.changed() => {
                    changed.ok()?;
                    return None;
                }
                read = from.read_buf(&mut buffer), if reads => match read {
                    Ok(0) => flight.whole = true,
                    Ok(_) => self.take(fault, flight, buffer),
                    Err(_) => return Some(End::Reset),
                },
                wrote = flight.write(fault, left, to), if !fault.hang && !flight.pieces.is_empty() => {
                    let Ok(wrote) = wrote else { return Some(End::Reset) };
                    self.count.fetch_add(wrote as u64, Ordering::Relaxed);
                }
            }
        }
    }

    /// Puts a piece on its way.
    fn take(&mut self, fault: &Fault, flight: &mut Flight, mut piece: Vec<u8>) {
        if let Some(one_in) = fault.corrupt {
            for byte in &mut piece {
                if self.chance.u64(..one_in) == 0 {
                    *byte ^= 1 << self.chance.u8(..8);
                }
            }
        }
        let late = fault.jitter.mul_f64(self.chance.f64());
        let due = Instant::now() + fault.delay + late;
        let due = flight.last.map_or(due, |last| due.max(last));
        flight.last = Some(due);
        flight.pieces.push_back((due, piece));
    }
}

impl Flight {
    /// Writes some of the first piece when it is due. Giving up before the end loses nothing.
    async fn write(
        &mut self,
        fault: &Fault,
        left: u64,
        to: &mut OwnedWriteHalf,
    ) -> io::Result<usize> {
        let Some((due, piece)) = self.pieces.front_mut() else { return Ok(0) };
        sleep_until(self.free.map_or(*due, |free| free.max(*due))).await;
        let tick = fault.rate.map_or(u64::MAX, |rate| (rate / TICKS).max(1));
        let most = usize::try_from(left.min(tick)).unwrap_or(usize::MAX).min(piece.len());
        let wrote = to.write(&piece[..most]).await?;
        piece.drain(..wrote);
        if piece.is_empty() {
            self.pieces.pop_front();
        }
        self.written += wrote as u64;
        let pause = |rate| Duration::from_secs(1) * u32::try_from(wrote).unwrap_or(0) / rate;
        let rate = fault.rate.and_then(|rate| u32::try_from(rate).ok());
        self.free = rate.map(|rate| Instant::now() + pause(rate));
        Ok(wrote)
    }
}
