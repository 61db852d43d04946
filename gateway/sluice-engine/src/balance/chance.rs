//! Choosing by chance: any endpoint, each as likely as its weight says; and whether one that has just
//! come bears a request.
//!
//! Tiers are left to `balance`. The one rule: shares are exact among those that are ready, so a dead
//! endpoint's share falls to all others and not to its neighbour.

use super::{Endpoints, WARM, mixed};

/// Up to this many endpoints are all looked at.
const SCAN_LIMIT: usize = 16;
/// How often chance is asked for a ready one of a long list before the list is walked instead.
const DRAWS: u32 = 16;

/// The member to use, or `None` when none is ready. `members` all have a weight.
pub(super) fn pick(
    members: &[usize],
    endpoints: &impl Endpoints,
    ready: &impl Fn(usize) -> bool,
    random: u64,
) -> Option<usize> {
    let share =
        |index: usize| u64::from(endpoints.weight(index)) * u64::from(endpoints.warmth(index));
    if members.len() > SCAN_LIMIT {
        // A candidate is kept as often as its share of the largest possible one says.
        let largest = members.iter().map(|index| endpoints.weight(*index)).max()?;
        let largest = u64::from(largest) * u64::from(WARM);
        let mut bits = random;
        for _ in 0..DRAWS {
            bits = mixed(bits);
            let drawn = members.get(super::below(bits, members.len())).copied()?;
            if part(mixed(!bits), largest) < share(drawn) && ready(drawn) {
                return Some(drawn);
            }
        }
    }
    let shares =
        || members.iter().filter(|index| ready(**index)).map(|index| (*index, share(*index)));
    let total: u64 = shares().map(|(_, share)| share).fold(0, u64::saturating_add);
    let mut left = part(random, total);
    let mut last = None;
    // Somebody may have become ready, or not, since the sum was made.
    for (index, share) in shares() {
        if left < share {
            return Some(index);
        }
        left -= share;
        last = Some(index);
    }
    last
}

/// Whether an endpoint bears this request, as likely as its warmth says.
pub(super) fn bears(endpoints: &impl Endpoints, index: usize, random: u64) -> bool {
    let warmth = endpoints.warmth(index);
    warmth >= WARM || part(mixed(random ^ index as u64), u64::from(WARM)) < u64::from(warmth)
}

/// A number below `whole`, 0 if that is 0, out of the upper bits.
fn part(bits: u64, whole: u64) -> u64 {
    let scaled = (u128::from(bits) * u128::from(whole)) >> 64;
    u64::try_from(scaled).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::super::tests::Fake;
    use super::super::{Cell, Chooser, Draw, Policy, WARM, mixed};

    fn shares(list: &Vec<Fake>, policy: Policy) -> Vec<u32> {
        let (cell, chooser) = (Cell::default(), Chooser::new(policy, list, 0, None));
        let mut shares = vec![0; list.len()];
        for at in 0..20_000 {
            shares[chooser.pick(&cell, list, &Draw::new(mixed(at))).unwrap()] += 1;
        }
        shares
    }

    fn near(got: u32, wanted: u32) -> bool {
        got.abs_diff(wanted) < 400
    }

    #[test]
    fn shares_follow_weights_and_a_dead_ones_falls_to_all() {
        let mut list = Fake::list(&[1, 2, 1, 0]);
        let got = shares(&list, Policy::Random);
        assert!(near(got[0], 5_000) && near(got[1], 10_000) && got[3] == 0, "{got:?}");
        list[2].available = false;
        let got = shares(&list, Policy::Random);
        assert!(near(got[0], 6_667) && near(got[1], 13_333) && got[2] == 0, "{got:?}");
    }

    #[test]
    fn long_lists_have_the_same_shares() {
        let mut weights = vec![1; 40];
        weights[7] = 10;
        let mut list = Fake::list(&weights);
        let got = shares(&list, Policy::Random);
        assert!(near(got[7], 20_000 * 10 / 49) && near(got[8], 20_000 / 49), "{got:?}");
        list.iter_mut().for_each(|one| one.available = false);
        (list[3].available, list[30].available) = (true, true);
        let got = shares(&list, Policy::Random);
        assert!(near(got[3], 10_000) && near(got[30], 10_000), "{got:?}");
    }

    #[test]
    fn who_has_just_come_gets_a_part_of_its_share() {
        for policy in [Policy::Random, Policy::RoundRobin] {
            let mut list = Fake::list(&[1, 1, 1]);
            list[1].warmth = WARM / 4;
            let got = shares(&list, policy);
            // A quarter, of the two and a quarter that all bear together.
            assert!(
                near(got[1], 20_000 / 9) && got[0].abs_diff(got[2]) < 600,
                "{policy:?} {got:?}"
            );
            list.iter_mut().for_each(|one| one.warmth = 1);
            let got = shares(&list, policy);
            assert!(got.iter().all(|share| near(*share, 6_667)), "{policy:?} {got:?}");
        }
    }
}
