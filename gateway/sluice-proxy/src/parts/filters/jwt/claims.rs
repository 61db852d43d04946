//! Reads and judges a token's claims. Times must be whole or fractional numbers, `exp` must be there,
//! and a member that stands twice makes the token invalid: two readers could believe two callers.

use serde::de::{Deserialize, Deserializer, Error, MapAccess, Visitor};
use serde_json::{Map, Value};

use crate::base::fault::Fault;

/// Claims as they were signed.
pub(super) struct Claims(pub(super) Map<String, Value>);

impl<'de> Deserialize<'de> for Claims {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Members;
        impl<'de> Visitor<'de> for Members {
            type Value = Claims;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a JSON object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Claims, A::Error> {
                let mut claims = Map::new();
                while let Some((name, value)) = map.next_entry::<String, Value>()? {
                    if claims.insert(name, value).is_some() {
                        return Err(A::Error::custom("a claim stands twice"));
                    }
                }
                Ok(Claims(claims))
            }
        }
        deserializer.deserialize_map(Members)
    }
}

/// What claims have to fulfil.
#[derive(Debug)]
pub(super) struct Checks {
    pub(super) issuers: Vec<String>,
    pub(super) audiences: Vec<String>,
    pub(super) required: Vec<String>,
    /// Seconds.
    pub(super) leeway: u64,
}

impl Checks {
    /// Judges the claims at `now` (seconds since 1970); returns when the token expires, leeway
    /// included.
    pub(super) fn check(&self, claims: &Map<String, Value>, now: u64) -> Result<u64, Fault> {
        let expires = time(claims, "exp")?.ok_or(Fault::TokenInvalid)?.saturating_add(self.leeway);
        if expires <= now {
            return Err(Fault::TokenExpired);
        }
        let horizon = now.saturating_add(self.leeway);
        if time(claims, "nbf")?.is_some_and(|nbf| nbf > horizon) {
            return Err(Fault::TokenNotYetValid);
        }
        if time(claims, "iat")?.is_some_and(|iat| iat > horizon) {
            return Err(Fault::TokenNotYetValid);
        }
        let issued_by = claims.get("iss").and_then(Value::as_str);
        if !self.issuers.is_empty()
            && !issued_by.is_some_and(|iss| self.issuers.iter().any(|known| known == iss))
        {
            return Err(Fault::TokenInvalid);
        }
        if !self.audiences.is_empty() && !self.is_meant(claims.get("aud")) {
            return Err(Fault::TokenInvalid);
        }
        let missing = |name: &String| claims.get(name).is_none_or(Value::is_null);
        if self.required.iter().any(missing) {
            return Err(Fault::TokenInvalid);
        }
        Ok(expires)
    }

    fn is_meant(&self, audience: Option<&Value>) -> bool {
        let known = |value: &Value| self.audiences.iter().any(|ours| value == ours.as_str());
        match audience {
            Some(Value::Array(list)) => list.iter().any(known),
            Some(value) => known(value),
            None => false,
        }
    }
}

/// A NumericDate (RFC 7519 section 2): missing is fine, anything but a sensible number is not.
fn time(claims: &Map<String, Value>, name: &str) -> Result<Option<u64>, Fault> {
    let Some(value) = claims.get(name) else { return Ok(None) };
    if let Some(seconds) = value.as_u64() {
        return Ok(Some(seconds));
    }
    match value.as_f64() {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "the range is checked; fractions of a second do not matter"
        )]
        Some(seconds) if (0.0..1e15).contains(&seconds) => Ok(Some(seconds as u64)),
        _ => Err(Fault::TokenInvalid),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_000_000;

    fn judge(claims: &str) -> Result<u64, Fault> {
        let checks = Checks {
            issuers: vec!["me".to_owned()],
            audiences: vec!["app".to_owned()],
            required: vec!["openid".to_owned()],
            leeway: 60,
        };
        let claims: Claims = serde_json::from_str(claims).map_err(|_| Fault::TokenInvalid)?;
        checks.check(&claims.0, NOW)
    }

    #[test]
    fn claims_are_judged_strictly() {
        let good = r#"{"exp":1000100,"iss":"me","aud":["x","app"],"openid":"o"}"#;
        assert_eq!(judge(good), Ok(1_000_160));
        let cases = [
            (r#""exp":1000100,"iss":"me","aud":"app""#, Fault::TokenInvalid),
            (r#""iss":"me","aud":"app","openid":"o""#, Fault::TokenInvalid),
            (r#""exp":"1000100","iss":"me","aud":"app","openid":"o""#, Fault::TokenInvalid),
            (r#""exp":-1,"iss":"me","aud":"app","openid":"o""#, Fault::TokenInvalid),
            (r#""exp":1e308,"iss":"me","aud":"app","openid":"o""#, Fault::TokenInvalid),
            (r#""exp":null,"iss":"me","aud":"app","openid":"o""#, Fault::TokenInvalid),
            (r#""exp":999900,"iss":"me","aud":"app","openid":"o""#, Fault::TokenExpired),
            (
                r#""exp":1000100,"nbf":1000090,"iss":"me","aud":"app","openid":"o""#,
                Fault::TokenNotYetValid,
            ),
            (r#""exp":1000100,"nbf":"x","iss":"me","aud":"app","openid":"o""#, Fault::TokenInvalid),
            (r#""exp":1000100,"iss":"you","aud":"app","openid":"o""#, Fault::TokenInvalid),
            (r#""exp":1000100,"aud":"app","openid":"o""#, Fault::TokenInvalid),
            (r#""exp":1000100,"iss":"me","aud":"b","openid":"o""#, Fault::TokenInvalid),
            (r#""exp":1000100,"iss":"me","openid":"o""#, Fault::TokenInvalid),
            (r#""exp":1,"exp":1000100,"iss":"me","aud":"app","openid":"o""#, Fault::TokenInvalid),
        ];
        for (members, fault) in cases {
            assert_eq!(judge(&format!("{{{members}}}")), Err(fault), "{members}");
        }
    }

    #[test]
    fn leeway_covers_a_drifting_clock() {
        let late = r#"{"exp":999950,"iss":"me","aud":"app","openid":"o"}"#;
        assert_eq!(judge(late), Ok(1_000_010));
    }
}
