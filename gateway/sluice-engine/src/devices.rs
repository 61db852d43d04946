//! On how many devices somebody may be logged in at a time, and who has to go when one more comes: the
//! newest always stays.

/// The rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    /// On one.
    Single,
    /// On one of each platform.
    PerPlatform,
    /// On so many.
    Max(usize),
}

/// A login that lasts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seat<'a> {
    /// The device, if the client has said which; empty otherwise.
    pub device: &'a str,
    /// The platform of the app.
    pub platform: &'a str,
}

impl Rule {
    /// Which of `seated`, the oldest first, have to go when `new` comes. A device that comes again always
    /// takes its own place.
    pub fn leaving(self, seated: &[Seat<'_>], new: Seat<'_>) -> Vec<usize> {
        let again = |seat: &Seat<'_>| !new.device.is_empty() && *seat == new;
        let goes = |seat: &Seat<'_>| {
            again(seat)
                || match self {
                    Self::Single => true,
                    Self::PerPlatform => seat.platform == new.platform,
                    Self::Max(_) => false,
                }
        };
        let mut leaving: Vec<usize> =
            seated.iter().enumerate().filter(|(_, seat)| goes(seat)).map(|(at, _)| at).collect();
        if let Self::Max(most) = self {
            let staying = seated.len() - leaving.len();
            let many = (staying + 1).saturating_sub(most.max(1));
            let oldest = (0..seated.len()).filter(|at| !leaving.contains(at)).take(many);
            let oldest: Vec<usize> = oldest.collect();
            leaving.extend(oldest);
        }
        leaving
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seat<'a>(device: &'a str, platform: &'a str) -> Seat<'a> {
        Seat { device, platform }
    }

    #[test]
    fn the_newest_stays_and_the_oldest_goes() {
        let seated = [seat("a", "wechat"), seat("", "qq"), seat("b", "wechat")];
        let leaving = |rule: Rule, new| rule.leaving(&seated, new);
        assert_eq!(leaving(Rule::Single, seat("c", "qq")), [0, 1, 2]);
        assert_eq!(leaving(Rule::PerPlatform, seat("c", "wechat")), [0, 2]);
        assert_eq!(leaving(Rule::PerPlatform, seat("c", "baidu")), [0_usize; 0]);
        assert_eq!(leaving(Rule::Max(4), seat("c", "qq")), [0_usize; 0]);
        assert_eq!(leaving(Rule::Max(2), seat("c", "qq")), [0, 1]);
        assert_eq!(leaving(Rule::Max(0), seat("c", "qq")), [0, 1, 2]);
    }

    #[test]
    fn a_device_that_comes_again_takes_its_own_place() {
        let seated = [seat("a", "wechat"), seat("b", "wechat"), seat("", "wechat")];
        assert_eq!(Rule::Max(3).leaving(&seated, seat("b", "wechat")), [1]);
        assert_eq!(Rule::Max(2).leaving(&seated, seat("b", "wechat")), [1, 0]);
        assert_eq!(Rule::Max(9).leaving(&seated, seat("", "wechat")), [0_usize; 0]);
        assert_eq!(Rule::Max(9).leaving(&seated, seat("b", "qq")), [0_usize; 0]);
    }
}
