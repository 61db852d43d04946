//! Buckets, exact windows and quotas under arbitrary flows.

use std::time::Duration;

use proptest::prelude::*;
use sluice_engine::bucket::{self, Bucket};
use sluice_engine::moment::Moment;
use sluice_engine::quota::{self, Period, Used};
use sluice_engine::{exact, window};

const PER: u64 = 1_000_000_000;

/// Moments in order, with pauses of up to two spans.
fn flow() -> impl Strategy<Value = Vec<u64>> {
    let pause = prop_oneof![4 => 0..PER / 50, 1 => 0..2 * PER];
    proptest::collection::vec(pause, 1..400).prop_map(|pauses| {
        let step = |at: &mut u64, pause: u64| {
            *at += pause;
            Some(*at)
        };
        pauses.into_iter().scan(PER, step).collect()
    })
}

proptest! {
    /// Over any stretch no more passes than the burst and what drains meanwhile, and whoever comes when a
    /// refusal said so is admitted.
    #[test]
    fn a_bucket_is_never_over(limit in 1_u64..200, burst in 1_u64..50, flow in flow()) {
        let rules = bucket::Rules {
            limit,
            per: Duration::from_nanos(PER),
            burst,
            queue: 0,
            max_wait: Duration::ZERO,
        };
        let mut bucket = Bucket::default();
        let mut hits: Vec<u64> = Vec::new();
        for at in flow {
            let now = Moment::from_nanos(at);
            let verdict = bucket.hit(&rules, now, 1);
            if verdict.admitted {
                hits.push(at);
            } else {
                let mut later = bucket.clone();
                prop_assert!(later.hit(&rules, now.after(verdict.retry_after), 1).admitted);
            }
        }
        for (first, from) in hits.iter().enumerate() {
            for (last, to) in hits.iter().enumerate().skip(first) {
                let passed = (last - first + 1) as u128;
                let drained = u128::from(to - from) * u128::from(limit) / u128::from(PER);
                prop_assert!(passed <= u128::from(burst) + drained + 1, "{passed} in {}", to - from);
            }
        }
    }

    /// Turns in a queue are as far apart as the rate says, and nobody waits longer than allowed.
    #[test]
    fn a_queue_spaces_its_turns(limit in 1_u64..50, queue in 1_u64..20, flow in flow()) {
        let max_wait = Duration::from_nanos(PER / 2);
        let rules = bucket::Rules { limit, per: Duration::from_nanos(PER), burst: 1, queue, max_wait };
        let mut bucket = Bucket::default();
        let mut last: Option<u64> = None;
        for at in flow {
            let verdict = bucket.hit(&rules, Moment::from_nanos(at), 1);
            if !verdict.admitted {
                continue;
            }
            prop_assert!(verdict.wait <= max_wait + Duration::from_nanos(1));
            let turn = at + u64::try_from(verdict.wait.as_nanos()).unwrap();
            if let Some(last) = last {
                prop_assert!(turn - last + 1 >= PER / limit, "{} apart", turn - last);
            }
            last = Some(turn);
        }
    }

    #[test]
    fn an_exact_window_is_never_over(limit in 1_u64..60, flow in flow()) {
        let rules = window::Rules { limit, per: Duration::from_nanos(PER) };
        let mut log = exact::Log::default();
        let hits: Vec<u64> = flow
            .into_iter()
            .filter(|at| log.hit(&rules, Moment::from_nanos(*at)).admitted)
            .collect();
        for from in &hits {
            let inside = hits.iter().filter(|at| *at >= from && **at - from < PER).count();
            prop_assert!(inside as u64 <= limit, "{inside} of {limit}");
        }
    }

    #[test]
    fn a_quota_admits_its_limit_in_each_period(
        limit in 1_u64..20,
        month: bool,
        offset in -50_000_i64..50_000,
        steps in proptest::collection::vec(0_i64..200_000, 1..200),
    ) {
        let period = if month { Period::Month } else { Period::Day };
        let rules = quota::Rules { limit, period, offset };
        let mut used = Used::default();
        let mut by_period = std::collections::BTreeMap::<i64, u64>::new();
        let mut at = 1_700_000_000;
        for step in steps {
            at += step;
            let (number, left) = quota::span(period, at + offset);
            let verdict = used.hit(&rules, at, 1);
            let count = by_period.entry(number).or_default();
            prop_assert_eq!(verdict.admitted, *count < limit);
            *count += u64::from(verdict.admitted);
            let next = i64::try_from(left).unwrap();
            prop_assert_eq!(quota::span(period, at + offset + next).0, number + 1);
            prop_assert_eq!(quota::span(period, at + offset + next - 1).0, number);
        }
    }
}
