//! Sets of keys: what is taken of one stands in it, is public, is meant for signatures in the algorithm it is
//! taken for, and is told from all others by its name. The order of keys, and how JSON is spaced, do not
//! matter.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::parts::filters::{are_same_keys, reading_of_keys};

pub(super) fn check(data: &[u8]) {
    for secrets in [false, true] {
        judge(data, secrets);
    }
}

fn judge(data: &[u8], secrets: bool) {
    let Some(read) = reading_of_keys(data, secrets) else { return };
    let (keys, flaws) = (read.keys, read.flaws);
    assert!(!keys.is_empty());
    // Deeper, or with greater numbers in what nobody looks at, than the other parser goes.
    let Ok(whole) = serde_json::from_slice::<Value>(data) else { return };
    let all = whole["keys"].as_array().unwrap();
    let names: BTreeSet<_> = keys.iter().map(|(kid, _)| kid).collect();
    assert_eq!(names.len(), keys.len(), "two of one name");
    assert!(keys.len() == 1 || !names.contains(&None), "one without a name among others");
    for (kid, alg) in &keys {
        let stands = |jwk: &&Value| jwk["kid"].as_str() == kid.as_deref() && is_for(jwk, alg);
        let standing = all.iter().filter(stands).count();
        // Another of its name may be broken, and is a flaw.
        assert!(standing == 1 || (standing > 1 && flaws > 0), "{kid:?} {alg} in {whole}");
        assert!(secrets || !alg.starts_with("HS"), "{kid:?} {alg}");
    }
    if flaws > 0 {
        return;
    }
    let mut turned = whole.clone();
    turned["keys"].as_array_mut().unwrap().reverse();
    for other in [whole.to_string(), format!(" {turned:#}\n")] {
        assert!(are_same_keys(data, other.as_bytes(), secrets), "{other}");
    }
}

/// Whether a key of the set may be taken for tokens that are signed in this way.
fn is_for(jwk: &Value, alg: &str) -> bool {
    let text = |name: &str| jwk[name].as_str().unwrap_or_default();
    let kind = match alg.get(..2) {
        Some("HS") => text("kty") == "oct" && text("alg") == alg && !text("k").is_empty(),
        Some("RS" | "PS") => text("kty") == "RSA" && !text("n").is_empty() && !text("e").is_empty(),
        Some("ES") => text("kty") == "EC" && text("crv") == format!("P-{}", &alg[2..]),
        Some("Ed") => text("kty") == "OKP" && text("crv") == "Ed25519",
        _ => false,
    };
    let said = match &jwk["alg"] {
        Value::Null => true,
        Value::String(said) if said == "Ed25519" => alg == "EdDSA",
        said => said == alg,
    };
    let ops = jwk["key_ops"].as_array();
    let verifies = ops.is_none_or(|ops| ops.iter().any(|op| op == "verify"));
    let meant = jwk["use"].is_null() || text("use") == "sig";
    // `null` is no private part, but who writes it had one in mind.
    kind && said && verifies && meant && jwk.get("d").is_none()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_for_what_it_says() {
        let jwk = serde_json::json!({ "kty": "EC", "crv": "P-256", "use": "sig" });
        assert!(is_for(&jwk, "ES256") && !is_for(&jwk, "ES384") && !is_for(&jwk, "RS256"));
        let private = serde_json::json!({ "kty": "EC", "crv": "P-256", "d": null });
        assert!(!is_for(&private, "ES256"));
    }
}
