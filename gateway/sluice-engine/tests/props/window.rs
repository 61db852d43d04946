//! The sliding window under steady flows and under arbitrary ones.

use std::time::Duration;

use proptest::prelude::*;
use sluice_engine::moment::Moment;
use sluice_engine::window::{Counter, Rules};

const PER: u64 = 1_000_000_000;

fn rules(limit: u64) -> Rules {
    Rules { limit, per: Duration::from_nanos(PER) }
}

/// The instants at which a flow of `rate` hits per window is admitted over `windows` windows.
fn admitted(limit: u64, rate: u64, start: u64, windows: u64) -> Vec<u64> {
    let mut counter = Counter::default();
    let arrivals = (0..rate * windows).map(|number| start + number * PER / rate);
    arrivals.filter(|at| counter.hit(&rules(limit), Moment::from_nanos(*at), 1).admitted).collect()
}

/// The most that any window of `per` holds.
fn densest(hits: &[u64]) -> usize {
    let held = |start: &u64| {
        let from = hits.partition_point(|hit| hit < start);
        hits.partition_point(|hit| *hit < start + PER) - from
    };
    hits.iter().map(held).max().unwrap_or_default()
}

proptest! {
    /// Once a whole bucket has seen the flow, no window holds more than the limit and one in a
    /// hundred.
    #[test]
    fn a_steady_flow_stays_within_the_limit(
        limit in 1_u64..300,
        tenths in 1_u64..40,
        start in 0..10 * PER,
    ) {
        let rate = (limit * tenths / 10).max(1);
        let hits = admitted(limit, rate, start, 6);
        let settled = (start / PER + 2) * PER;
        let later: Vec<u64> = hits.into_iter().filter(|hit| *hit >= settled).collect();
        prop_assert!(densest(&later) as u64 * 100 <= limit * 101 + 100);
    }

    /// From a bucket's start the first windows are exact too.
    #[test]
    fn a_flow_from_a_buckets_start_is_within_the_limit(limit in 1_u64..300, factor in 1_u64..5) {
        let hits = admitted(limit, limit * factor, 7 * PER, 4);
        prop_assert!(densest(&hits) as u64 * 100 <= limit * 101 + 100);
    }

    #[test]
    fn twice_the_limit_gets_the_limit(limit in 100_u64..400, start in 0..10 * PER) {
        let hits = admitted(limit, 2 * limit, start, 13);
        let from = (start / PER + 2) * PER;
        let count = hits.iter().filter(|hit| (from..from + 10 * PER).contains(*hit)).count();
        prop_assert!((count as u64).abs_diff(10 * limit) * 100 <= 10 * limit, "{}", count);
    }

    /// Below the limit nobody is refused.
    #[test]
    fn a_flow_at_or_below_the_limit_is_never_refused(
        limit in 1_u64..200,
        less in 0_u64..200,
        start in 0..10 * PER,
    ) {
        let rate = limit.saturating_sub(less).max(1);
        // A flow that does not divide the bucket evenly puts one hit more into some buckets.
        let hits = admitted(limit + 1, rate, start, 5);
        prop_assert_eq!(hits.len() as u64, rate * 5);
    }

    /// Whatever comes: a bucket never admits more than the limit, refusals leave no trace, and
    /// `retry_after` is exact to the nanosecond.
    #[test]
    fn arbitrary_flows_keep_the_promises(
        limit in 0_u64..20,
        hits in proptest::collection::vec((0..PER, 0_u64..8), 1..120),
    ) {
        let rules = rules(limit);
        let mut counter = Counter::default();
        let mut now = 5 * PER;
        let mut buckets = std::collections::BTreeMap::<u64, u64>::new();
        for (step, cost) in hits {
            now += step / 4;
            let at = Moment::from_nanos(now);
            counter.hit(&rules, at, u64::MAX);
            let before = counter.clone();
            let verdict = counter.hit(&rules, at, cost);
            if verdict.admitted {
                *buckets.entry(now / PER).or_default() += cost;
                prop_assert_eq!(verdict.retry_after, Duration::ZERO);
                continue;
            }
            prop_assert_eq!(&counter, &before);
            if verdict.retry_after == Duration::MAX {
                prop_assert!(cost > limit || limit == 0);
                continue;
            }
            let due = at.after(verdict.retry_after);
            let early = Moment::from_nanos(due.nanos() - 1);
            prop_assert!(due > at);
            prop_assert!(!counter.clone().hit(&rules, early, cost).admitted);
            prop_assert!(counter.clone().hit(&rules, due, cost).admitted);
        }
        prop_assert!(buckets.values().all(|admitted| *admitted <= limit));
    }

    /// `remaining` is what a single further hit may cost.
    #[test]
    fn what_remains_is_admitted(
        limit in 1_u64..50,
        hits in proptest::collection::vec((0..PER, 1_u64..5), 1..40),
    ) {
        let rules = rules(limit);
        let mut counter = Counter::default();
        let mut now = 0;
        for (step, cost) in hits {
            now += step;
            let at = Moment::from_nanos(now);
            let left = counter.hit(&rules, at, cost).remaining;
            prop_assert!(counter.clone().hit(&rules, at, left).admitted);
            prop_assert!(!counter.clone().hit(&rules, at, left + 1).admitted);
        }
    }

    #[test]
    fn no_number_is_too_large(
        limit in any::<u64>(), per in any::<u64>(), previous in any::<u64>(),
        current in any::<u64>(), cost in any::<u64>(), now in any::<u64>(), near in -1_i64..2,
    ) {
        let rules = Rules { limit, per: Duration::from_nanos(per) };
        let index = (now / per.max(1)).wrapping_add_signed(near);
        let mut counter = Counter { index, previous, current };
        let verdict = counter.hit(&rules, Moment::from_nanos(now), cost);
        prop_assert!(verdict.remaining <= limit);
        prop_assert!(!verdict.admitted || cost <= limit);
    }
}
