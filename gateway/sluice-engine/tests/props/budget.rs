//! The budget over long histories, against a model that keeps every attempt.

use proptest::prelude::*;
use sluice_engine::budget::{Cell, Rules, Seen, TRUSTED, WINDOW};
use sluice_engine::moment::Moment;

#[derive(Clone, Debug)]
struct Step {
    wait_millis: u64,
    requests: u64,
    asks: u32,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let wait = prop_oneof![4 => 0_u64..300, 1 => 0_u64..30_000];
    let step = (wait, 0_u64..400, 0_u32..100).prop_map(|(wait_millis, requests, asks)| Step {
        wait_millis,
        requests,
        asks,
    });
    proptest::collection::vec(step, 1..80)
}

proptest! {
    /// Never more than the share of all requests and the few of each started window, whatever the
    /// history; and within one window never more than the larger of the two. The few are fewer where
    /// nothing was answered well.
    #[test]
    fn attempts_stay_within_the_budget(
        steps in steps(),
        percent in 0_u8..=100,
        min_per_second in 0_u32..5,
        fails in any::<bool>(),
    ) {
        let (cell, rules) = (Cell::default(), Rules { percent, min_per_second });
        let (mut millis, mut requests) = (0, 0);
        let mut granted: Vec<u64> = Vec::new();
        for step in steps {
            millis += step.wait_millis;
            requests += step.requests;
            for _ in 0..step.asks {
                let seen = Seen { requests, well: if fails { 0 } else { requests } };
                if cell.admit(&rules, Moment::from_nanos(millis * 1_000_000), seen) {
                    granted.push(millis);
                }
            }
            let window = u64::try_from(WINDOW.as_millis()).unwrap();
            let few = u64::from(min_per_second) * WINDOW.as_secs();
            let few = few.min(if fails { TRUSTED } else { requests.max(TRUSTED) });
            let windows = if fails { 1 } else { millis / window + 1 };
            let share = requests * u64::from(percent) / 100;
            prop_assert!(granted.len() as u64 <= share + few * windows);
            if fails {
                prop_assert!(granted.len() as u64 <= share.max(few));
            }
            // Slots are a tenth of the window, so nine of them are surely in sight.
            let recent = granted.iter().filter(|at| millis - **at < window * 9 / 10).count();
            prop_assert!(recent as u64 <= share.max(few));
        }
        prop_assert_eq!(cell.tally().granted, granted.len() as u64);
    }

    /// A few are granted in every window, whatever came before.
    #[test]
    fn the_few_are_always_granted(steps in steps(), min_per_second in 1_u32..5) {
        let (cell, rules) = (Cell::default(), Rules { percent: 20, min_per_second });
        let (mut millis, mut requests) = (0, 0);
        for step in steps {
            millis += step.wait_millis;
            requests += step.requests;
            for _ in 0..step.asks {
                let seen = Seen { requests, well: requests };
                cell.admit(&rules, Moment::from_nanos(millis * 1_000_000), seen);
            }
        }
        millis += 11_000;
        let now = Moment::from_nanos(millis * 1_000_000);
        // Since then there were some, all answered well.
        let requests = requests + 100;
        let seen = Seen { requests, well: requests };
        let granted = (0..100).filter(|_| cell.admit(&rules, now, seen)).count();
        prop_assert!(granted as u64 >= u64::from(min_per_second) * 10);
    }
}
