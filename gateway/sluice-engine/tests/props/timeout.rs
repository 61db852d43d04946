//! Timeouts that callers state: what is told on can be read again, and is never longer.

use std::time::Duration;

use proptest::prelude::*;
use sluice_engine::timeout::Timeout;

proptest! {
    #[test]
    fn what_is_told_on_is_never_longer(
        number in 0_u64..99_999_999,
        unit in prop::sample::select(vec!["H", "M", "S", "m", "u", "n"]),
        plain in "[0-9]{1,9}(\\.[0-9]{1,5})?s?|[0-9]{1,9}ms",
        left_micros in 0_u64..200_000_000_000,
    ) {
        let left = Duration::from_micros(left_micros);
        let grpc = Timeout::grpc(&format!("{number}{unit}"));
        for (said, read) in [
            (grpc, Timeout::grpc as fn(&str) -> Option<Timeout>),
            (Timeout::plain(&plain), Timeout::plain),
        ] {
            let said = said.unwrap();
            let told = read(&said.shortened(left)).unwrap();
            let most = said.wait.min(left);
            // Down to a whole unit, which is a second beyond a day.
            let step = if most > Duration::from_secs(99_999) { 1000 } else { 1 };
            prop_assert!(told.wait <= most.max(Duration::from_millis(1)));
            prop_assert!(told.wait + Duration::from_millis(step) > most.min(Duration::from_secs(99_999_999)));
        }
    }

    #[test]
    fn nothing_makes_it_stumble(text in ".{0,20}") {
        for said in [Timeout::grpc(&text), Timeout::plain(&text)].into_iter().flatten() {
            prop_assert!(!said.shortened(Duration::from_secs(1)).is_empty());
        }
    }
}
