//! Ejection over long histories: how many are out, for how long, and that everybody comes back.

use std::time::Duration;

use proptest::prelude::*;
use sluice_engine::ejection::{Cell, Group, Member, Reason, Rules, SuccessRate, Verdict};
use sluice_engine::moment::Moment;

#[derive(Clone, Debug)]
enum Step {
    /// This endpoint fails, or does well.
    Call(usize, bool),
    Wait(u64),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        9 => (any::<usize>(), prop::bool::weighted(0.8)).prop_map(|(at, bad)| Step::Call(at, bad)),
        1 => (0_u64..40_000).prop_map(Step::Wait),
    ];
    proptest::collection::vec(step, 1..400)
}

fn rules() -> impl Strategy<Value = Rules> {
    (0_u32..6, 1_u64..20, 1_u64..120, 0_u8..=100).prop_map(
        |(consecutive_failures, base, longest, max_percent)| Rules {
            consecutive_failures,
            base: Duration::from_secs(base),
            longest: Duration::from_secs(longest),
            max_percent,
        },
    )
}

proptest! {
    /// The cap holds at every moment, one that is up is always left, nobody is ejected without as many
    /// failures in a row as the rules ask for, and no time is longer than the longest and its fifth.
    #[test]
    fn the_promises_hold_at_every_moment(
        steps in steps(),
        rules in rules(),
        up in proptest::collection::vec(any::<bool>(), 1..9),
        random in any::<u64>(),
    ) {
        let cells: Vec<Cell> = up.iter().map(|_| Cell::default()).collect();
        let members = || cells.iter().zip(&up).map(|(cell, up)| Member { cell, up: *up });
        let group = Group::default();
        let mut streaks = vec![0_u32; up.len()];
        let mut millis = 0;
        for step in steps {
            let now = Moment::from_nanos(millis * 1_000_000);
            match step {
                Step::Wait(wait) => millis += wait,
                Step::Call(at, false) => {
                    let at = at % up.len();
                    cells[at].succeeded();
                    streaks[at] = 0;
                }
                Step::Call(at, true) => {
                    let at = at % up.len();
                    streaks[at] += 1;
                    let due = cells[at].failed(&rules);
                    prop_assert_eq!(due, streaks[at] >= rules.consecutive_failures.max(1));
                    if !due {
                        continue;
                    }
                    let before = cells[at].ejections(Reason::SuccessRate);
                    if let Verdict::Ejected(long) = group.eject(&rules, &cells[at], members(), Reason::SuccessRate, (now, random)) {
                        let longest = rules.longest.max(rules.base);
                        prop_assert!(long <= longest * 6 / 5 && long >= rules.base.min(rules.longest) * 4 / 5);
                        prop_assert!(cells[at].is_ejected(now) && !cells[at].is_ejected(now.after(long)));
                        prop_assert_eq!(cells[at].ejections(Reason::SuccessRate), before + 1);
                        let out = cells.iter().filter(|cell| cell.is_ejected(now)).count();
                        prop_assert!(out * 100 <= up.len() * usize::from(rules.max_percent));
                        prop_assert!(members().any(|one| one.up && !one.cell.is_ejected(now)));
                        streaks[at] = 0;
                    }
                }
            }
        }
        let late = Moment::from_nanos(millis * 1_000_000).after(rules.longest * 2);
        prop_assert!(cells.iter().all(|cell| !cell.is_ejected(late)));
    }

    /// An outlier is below the bar, below what is spared, and has had enough requests; and the bar is
    /// what the textbook says.
    #[test]
    fn outliers_are_below_the_bar(
        counts in proptest::collection::vec((0_u32..300, 0_u32..300), 0..12),
        min_requests in 1_u32..150,
        min_endpoints in 2_u32..6,
        factor in 0.1_f32..3.0,
        spared_percent in 0_u8..=100,
    ) {
        let rules = SuccessRate {
            interval: Duration::from_secs(10),
            min_requests,
            min_endpoints,
            factor,
            spared_percent,
        };
        let cells: Vec<Cell> = counts.iter().map(|_| Cell::default()).collect();
        for (cell, (good, bad)) in cells.iter().zip(&counts) {
            (0..*good).for_each(|_| cell.tally(true));
            (0..*bad).for_each(|_| cell.tally(false));
        }
        let found = rules.outliers(cells.iter());
        let rate = |(good, bad): &(u32, u32)| f64::from(*good) / f64::from(good + bad);
        let judged: Vec<f64> =
            counts.iter().filter(|(good, bad)| good + bad >= min_requests).map(rate).collect();
        if judged.len() < min_endpoints as usize {
            prop_assert!(found.members.is_empty());
        } else {
            let count = judged.len() as f64;
            let mean = judged.iter().sum::<f64>() / count;
            let variance = judged.iter().map(|rate| (rate - mean).powi(2)).sum::<f64>() / count;
            prop_assert!((found.bar - (mean - f64::from(factor) * variance.sqrt())).abs() < 1e-6);
            for (at, pair) in counts.iter().enumerate() {
                let enough = pair.0 + pair.1 >= min_requests;
                let low = enough
                    && rate(pair) < found.bar
                    && rate(pair) * 100.0 < f64::from(spared_percent);
                prop_assert_eq!(found.members.iter().any(|(index, _)| *index == at), low);
            }
        }
        prop_assert!(rules.outliers(cells.iter()).members.is_empty(), "counts begin anew");
    }
}
