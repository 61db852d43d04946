//! Looks through everything a gateway said for what it was told in confidence. Every gateway that a
//! test starts is watched, so the whole suite is the test: secrets in files and in the environment,
//! signed tokens of any request, and the canaries that `secrets` plants.

use super::Setup;

/// Stands in every secret that a test plants.
pub(crate) const CANARY: &str = "c4n4ry";

/// Shortest text that is looked for: shorter ones stand in a log by chance.
const SHORTEST: usize = 12;

pub(super) struct Leaks(Vec<String>);

impl Leaks {
    pub(super) fn new(setup: &Setup) -> Self {
        let secret = |name: &str| ["key", "secret", "pass"].iter().any(|word| name.contains(word));
        let files = setup.files.iter().filter(|(name, _)| secret(name));
        let lines = files.flat_map(|(_, text)| text.lines()).filter(|line| !line.contains("---"));
        let values = setup.env.iter().filter(|(name, _)| !name.starts_with("SLUICE_"));
        let all = lines.chain(values.map(|(_, value)| value.as_str()));
        let secrets = all.filter(|text| text.len() >= SHORTEST).map(str::to_owned);
        Self(secrets.chain([CANARY.to_owned()]).collect())
    }

    /// Fails the test if `text` tells a secret.
    pub(super) fn check(&self, what: &str, text: &str) {
        let told = self.0.iter().find(|secret| text.contains(secret.as_str()));
        assert!(told.is_none(), "{what} tells the secret {told:?}: {text}");
        let token = text.match_indices("eyJ").find(|(at, _)| is_token(&text[*at..]));
        assert!(token.is_none(), "{what} tells a token: {text}");
    }
}

/// A signed token begins with two encoded objects.
fn is_token(text: &str) -> bool {
    let part = |text: &str| {
        text.bytes().take_while(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_')).count()
    };
    let head = part(text);
    head >= 16 && text[head..].starts_with(".eyJ")
}

#[test]
fn what_leaks_is_noticed() {
    let setup = Setup {
        env: vec![("PASSWORD", "correct horse battery".to_owned())],
        files: vec![("jwt.key", "0123456789abcdef".to_owned()), ("cert.pem", "x".repeat(40))],
        ..Setup::default()
    };
    let leaks = Leaks::new(&setup);
    let tells = |text: &str| {
        let check = std::panic::AssertUnwindSafe(|| leaks.check("a test", text));
        std::panic::catch_unwind(check).is_err()
    };
    assert!(tells("x c4n4ry x") && tells("=correct horse battery") && tells("0123456789abcdef\n"));
    assert!(tells("Bearer eyJhbGciOiJIUzI1NiJ9.eyJhIjoxfQ.c2ln"));
    assert!(!tells("eyJ xxx") && !tells(&"x".repeat(40)) && !tells("0123456789abcde"));
}
