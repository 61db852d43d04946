//! What is known here of a key that Redis counts, so that Redis need not be asked for each call: a refusal,
//! which holds for a while, and calls that were paid for in advance.
//!
//! A key that calls often takes calls in blocks, one command for each block. A block was counted before any
//! call of it is made, so gateways together never admit more than Redis has granted. It lasts for [`LEASE`]
//! and never beyond the bucket or period it was counted in; what is left goes back with the key's next
//! command.
//! It is a small share of what is left, so that other gateways find theirs.

use std::time::Duration;

use sluice_engine::window::Verdict;

use crate::base::clock::Moment;
use crate::lasting::limits::Kept;
use crate::lasting::redis::{Granted, Order};

/// How long a refusal is believed without asking again: a limit that was raised elsewhere must show.
const BELIEVED: Duration = Duration::from_secs(1);
/// How long calls that were paid for in advance may be made.
const LEASE: Duration = Duration::from_millis(50);
/// Calls are counted over so long a time to see how often a key calls; twice [`LEASE`].
const TICK: Duration = Duration::from_millis(100);
/// Calls in a tick from which on a key takes blocks.
const OFTEN: u64 = 8;
/// Parts of what is left, and of the limit, that a block may be, for each gateway.
const OF_REST: u64 = 4;
const OF_LIMIT: u64 = 10;
/// Blocks smaller than this are not worth their while: each may lose a call.
const LEAST: u64 = 8;
/// How long all of this may matter.
pub(super) const HORIZON: Duration = BELIEVED;

/// What is known of a key.
#[derive(Debug, Default)]
pub(super) struct Near {
    refusal: Refusal,
    block: Block,
    /// When the current tick began, the calls in it, and those in the one before.
    tick: Moment,
    calls: u64,
    pace: u64,
    /// Somebody is buying a block.
    buying: bool,
}

/// Until when a key is refused, as Redis said.
#[derive(Debug, Default)]
struct Refusal {
    believed_until: Moment,
    admits_at: Moment,
    whole_at: Moment,
}

/// Calls that were paid for.
#[derive(Debug, Default)]
struct Block {
    left: u64,
    until: Moment,
    /// When the bucket or period they were counted in ends, and its number.
    ends: Moment,
    lot: u64,
    /// What Redis had left when it granted them, and when it will be whole.
    rest: u64,
    whole_at: Moment,
}

/// What a call has to do.
#[derive(Debug, Clone, Copy)]
pub(super) enum Step {
    /// Redis has refused lately.
    Refused(Verdict),
    /// It is paid for.
    Paid(Verdict),
    /// Redis has to be asked.
    Ask(Order),
}

impl Kept for Near {}

impl Near {
    /// Takes one call of a key that `limit` admits on all `gateways` together; `blocks` if it may be paid
    /// for in advance.
    pub(super) fn step(&mut self, limit: u64, gateways: u64, blocks: bool, now: Moment) -> Step {
        if let Some(verdict) = self.refusal.verdict(now) {
            return Step::Refused(verdict);
        }
        if !blocks {
            return Step::Ask(Order { calls: 1, ..Order::default() });
        }
        self.beat(now);
        let want = self.want(limit, gateways);
        let paid = self.block.left > 0 && now < self.block.until && now < self.block.ends;
        // The next block is bought while the last calls of this one are made.
        let buys = want >= LEAST && !self.buying && (!paid || self.block.left <= want / 4);
        if paid && !buys {
            return Step::Paid(self.block.spend(now));
        }
        self.buying |= buys;
        let calls = if buys { want } else { 1 };
        if paid {
            return Step::Ask(Order { calls, ..Order::default() });
        }
        let (back, lot) = (std::mem::take(&mut self.block.left), self.block.lot);
        Step::Ask(Order { calls, back, lot })
    }

    /// Learns what Redis has granted; the first call is made at once. `asked` is when it was asked.
    pub(super) fn granted(&mut self, granted: &Granted, asked: Moment, now: Moment) {
        let verdict = &granted.verdict;
        if !verdict.admitted {
            self.refusal = Refusal {
                believed_until: now.after(verdict.retry_after.min(BELIEVED)),
                admits_at: now.after(verdict.retry_after),
                whole_at: now.after(verdict.reset_after),
            };
            return;
        }
        let block = &mut self.block;
        block.rest = verdict.remaining;
        block.whole_at = now.after(verdict.reset_after);
        if granted.calls > 1 {
            // What is left of another bucket is not worth a command of its own.
            let left = if block.lot == granted.lot && now < block.ends { block.left } else { 0 };
            block.left = left.saturating_add(granted.calls - 1);
            block.lot = granted.lot;
            block.until = asked.after(LEASE);
            block.ends = asked.after(granted.fresh);
        }
    }

    /// Nobody is buying any more.
    pub(super) fn bought(&mut self) {
        self.buying = false;
    }

    fn beat(&mut self, now: Moment) {
        let since = now.saturating_since(self.tick);
        if since >= TICK {
            self.pace = if since < TICK * 2 { self.calls } else { 0 };
            self.calls = 0;
            self.tick = now;
        }
        self.calls += 1;
    }

    /// The size of a block: what the key calls in a lease, bounded so that others find something.
    fn want(&self, limit: u64, gateways: u64) -> u64 {
        let pace = self.pace.max(self.calls);
        if pace < OFTEN {
            return 0;
        }
        let gateways = gateways.max(1);
        let rest = self.block.rest / OF_REST.saturating_mul(gateways);
        (pace / 2).max(LEAST).min(limit / OF_LIMIT.saturating_mul(gateways)).min(rest)
    }
}

impl Refusal {
    fn verdict(&self, now: Moment) -> Option<Verdict> {
        (now < self.believed_until).then(|| Verdict {
            admitted: false,
            remaining: 0,
            reset_after: self.whole_at.saturating_since(now),
            wait: Duration::ZERO,
            retry_after: self.admits_at.saturating_since(now),
        })
    }
}

impl Block {
    fn spend(&mut self, now: Moment) -> Verdict {
        self.left = self.left.saturating_sub(1);
        Verdict {
            admitted: true,
            remaining: self.rest.saturating_add(self.left),
            reset_after: self.whole_at.saturating_since(now),
            wait: Duration::ZERO,
            retry_after: Duration::ZERO,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Moment {
        Moment::from_nanos(1_000_000_000 + millis * 1_000_000)
    }

    fn grant(calls: u64, remaining: u64, fresh: u64, lot: u64) -> Granted {
        let verdict = Verdict {
            admitted: calls > 0,
            remaining,
            reset_after: Duration::from_millis(fresh),
            wait: Duration::ZERO,
            retry_after: Duration::from_millis(if calls > 0 { 0 } else { 5_000 }),
        };
        Granted { verdict, calls, fresh: Duration::from_millis(fresh), lot }
    }

    /// Calls of a key, in so many of which Redis is asked and grants all; returns the orders.
    fn orders(near: &mut Near, calls: u64, every: u64, limit: u64, gateways: u64) -> Vec<Order> {
        let mut orders = Vec::new();
        for call in 0..calls {
            let now = at(call * every);
            match near.step(limit, gateways, true, now) {
                Step::Ask(order) => {
                    near.granted(&grant(order.calls, limit / 2, 100_000, 1), now, now);
                    near.bought();
                    orders.push(order);
                }
                Step::Paid(verdict) => assert!(verdict.admitted),
                Step::Refused(_) => panic!("nothing was refused"),
            }
        }
        orders
    }

    #[test]
    fn a_key_that_calls_often_asks_seldom_and_pays_for_each_call() {
        let mut near = Near::default();
        let orders = orders(&mut near, 1_000, 1, 1_000_000, 1);
        let granted: u64 = orders.iter().map(|order| order.calls - order.back).sum();
        assert!(orders.len() < 60, "{} commands for 1000 calls", orders.len());
        assert_eq!(granted, 1_000 + near.block.left);
    }

    #[test]
    fn a_key_that_calls_seldom_asks_for_each_call() {
        let mut near = Near::default();
        assert_eq!(orders(&mut near, 100, 20, 1_000_000, 1).len(), 100);
    }

    #[test]
    fn blocks_are_a_small_share_of_a_limit_and_of_what_is_left() {
        let most = |limit, gateways| {
            let orders = orders(&mut Near::default(), 1_000, 1, limit, gateways);
            orders.iter().map(|order| order.calls).max().unwrap()
        };
        assert_eq!(most(1_000_000, 1), 50, "what a key calls in 50 ms");
        assert_eq!(most(400, 1), 40);
        assert_eq!(most(400, 4), 10);
        assert_eq!(most(400, 10), 1, "four calls for each gateway are not worth a block");
        let mut near = Near::default();
        near.granted(&grant(1, 40, 60_000, 1), at(0), at(0));
        (near.tick, near.pace) = (at(1), 1_000);
        let steps = (0..50).map(|_| near.step(1_000_000, 1, true, at(1)));
        let most =
            steps.map(|step| if let Step::Ask(order) = step { order.calls } else { 0 }).max();
        assert_eq!(most, Some(10), "a quarter of what is left");
    }

    #[test]
    fn what_is_left_of_a_block_goes_back_and_is_not_spent() {
        let mut near = Near::default();
        near.granted(&grant(20, 10_000, 60_000, 7), at(0), at(0));
        assert!(matches!(near.step(100_000, 1, true, at(10)), Step::Paid(_)));
        let Step::Ask(order) = near.step(100_000, 1, true, at(50)) else { panic!("it has lapsed") };
        assert_eq!((order.calls, order.back, order.lot), (1, 18, 7));
        let Step::Ask(order) = near.step(100_000, 1, true, at(50)) else { panic!("nothing left") };
        assert_eq!(order.back, 0, "it goes back once");
    }

    #[test]
    fn a_block_ends_with_the_bucket_it_was_counted_in() {
        let mut near = Near::default();
        near.granted(&grant(20, 10_000, 5, 7), at(0), at(2));
        assert!(matches!(near.step(100_000, 1, true, at(4)), Step::Paid(_)));
        assert!(matches!(near.step(100_000, 1, true, at(5)), Step::Ask(_)));
    }

    #[test]
    fn a_refusal_is_believed_for_a_second_and_whoever_may_not_pay_ahead_asks() {
        let mut near = Near::default();
        near.granted(&grant(0, 0, 9_000, 1), at(0), at(0));
        let Step::Refused(verdict) = near.step(10, 1, true, at(999)) else { panic!("forgotten") };
        assert_eq!(verdict.retry_after, Duration::from_millis(4_001));
        for _ in 0..100 {
            let step = near.step(100_000, 1, false, at(1_000));
            assert!(matches!(step, Step::Ask(Order { calls: 1, back: 0, .. })));
        }
    }

    #[test]
    fn one_buys_at_a_time() {
        let mut near = Near::default();
        near.granted(&grant(1, 10_000, 60_000, 1), at(0), at(0));
        let steps = (0..30).map(|_| near.step(100_000, 1, true, at(1)));
        let blocks = steps.filter(|step| matches!(step, Step::Ask(order) if order.calls > 1));
        assert_eq!(blocks.count(), 1);
        near.bought();
        let step = near.step(100_000, 1, true, at(1));
        assert!(matches!(step, Step::Ask(order) if order.calls > 1));
    }
}
