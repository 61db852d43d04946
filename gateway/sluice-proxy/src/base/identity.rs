//! Names of header fields that tell who is calling. Services believe them, so only the gateway may say
//! them; what a client claims about itself (its build, its version) is told apart from that.

/// Fields of the `x-mp-` family that clients send, without that prefix: claims about themselves, and a
/// signature. Services get them as the gateway says.
const SPOKEN: [&str; 7] = ["app", "version", "build", "env", "lib", "device", "sign"];

/// What a name of the families `x-wx-`, `x-mp-` and `x-sluice-` is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Family {
    /// None of them.
    Other,
    /// A client may send it.
    Spoken,
    /// Only the gateway may say it. Other spellings of the families are among these: services fold what
    /// is neither letter nor digit into one sign.
    Identity,
}

/// Judges a name in lower case.
pub(crate) fn family(name: &str) -> Family {
    if name.strip_prefix("x-mp-").is_some_and(|word| SPOKEN.contains(&word)) {
        return Family::Spoken;
    }
    let folds = |byte: u8| !byte.is_ascii_alphanumeric();
    match name.as_bytes() {
        [b'x', one, b'm', b'p', two, ..]
        | [b'x', one, b'w', b'x', two, ..]
        | [b'x', one, b's', b'l', b'u', b'i', b'c', b'e', two, ..]
            if folds(*one) && folds(*two) =>
        {
            Family::Identity
        }
        _ => Family::Other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn families_are_known_in_every_spelling() {
        for name in [
            "x-wx-openid",
            "x-wx-x",
            "x_wx_openid",
            "x.wx.openid",
            "x-mp_user",
            "x~mp-app",
            "x-mp-user",
            "x-mp-roles",
            "x-mp-apps",
            "x-mp-gray",
            "x-sluice-signature",
            "x.sluice.signature",
        ] {
            assert_eq!(family(name), Family::Identity, "{name}");
        }
        for word in SPOKEN {
            assert_eq!(family(&format!("x-mp-{word}")), Family::Spoken);
        }
        for name in
            ["x", "x-", "x-wx", "x-mpuser", "xmp-user", "x-request-id", "x-wxopenid", "host", ""]
        {
            assert_eq!(family(name), Family::Other, "{name}");
        }
    }
}
