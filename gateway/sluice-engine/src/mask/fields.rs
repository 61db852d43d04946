//! Fields whose values are masked for their names alone. `session_key`, `sessionKey` and
//! `Session-Key` are one name.

/// How a value is covered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cover {
    /// Nothing of it is shown.
    Whole,
    /// A number keeps the ends that its shape keeps; anything else is not shown.
    Shape,
    /// A fingerprint of it is shown.
    Print,
    /// Nothing is shown, up to the end of the text.
    Rest,
    /// A word that announces a credential: `Bearer`.
    NextWord,
}

/// Longest name.
const LONGEST: usize = 32;

/// What every log needs masked: credentials first, then what mini-programs know of people.
const KNOWN: [(Cover, &[&str]); 5] = [
    (
        Cover::Whole,
        &[
            "access_key",
            "access_token",
            "api_key",
            "app_secret",
            "appsecret",
            "auth",
            "auth_code",
            "authorization",
            "client_secret",
            "code_verifier",
            "credential",
            "credentials",
            "encrypted_data",
            "encoding_aes_key",
            "id_token",
            "iv",
            "js_code",
            "jwt",
            "otp",
            "passwd",
            "password",
            "pay_sign",
            "private_key",
            "proxy_authorization",
            "pwd",
            "refresh_token",
            "secret",
            "session",
            "session_id",
            "session_key",
            "sid",
            "sign",
            "signature",
            "sms_code",
            "ticket",
            "token",
            "verify_code",
            "x_api_key",
            "x_auth_token",
            "x_token",
            "home_address",
            "receiver_address",
            "id_name",
            "real_name",
            "true_name",
        ],
    ),
    (
        Cover::Shape,
        &[
            "bank_card",
            "bank_no",
            "card_no",
            "card_number",
            "cert_no",
            "contact_phone",
            "id_card",
            "id_card_no",
            "id_no",
            "id_number",
            "identity",
            "mobile",
            "mobile_no",
            "mobile_phone",
            "phone",
            "phone_no",
            "phone_number",
            "pure_phone_number",
            "tel",
            "telephone",
            "e_mail",
            "email",
        ],
    ),
    (Cover::Print, &["openid", "unionid", "from_openid", "sub_openid", "external_userid"]),
    (Cover::Rest, &["cookie", "set_cookie"]),
    (Cover::NextWord, &["bearer", "basic"]),
];

/// Names in their one form, sorted.
#[derive(Debug)]
pub(super) struct Fields(Vec<(Vec<u8>, Cover)>);

impl Fields {
    pub(super) fn new<'n>(more: impl IntoIterator<Item = &'n str>) -> Self {
        let more = more.into_iter().map(|name| (name, Cover::Shape));
        let known =
            KNOWN.iter().flat_map(|(cover, names)| names.iter().map(|name| (*name, *cover)));
        // A name that stands here twice keeps how it was covered first.
        let mut names: Vec<(Vec<u8>, Cover)> = known
            .chain(more)
            .map(|(name, cover)| (letters(name.bytes()).collect(), cover))
            .collect();
        names.sort_by(|a, b| a.0.cmp(&b.0));
        names.dedup_by(|a, b| a.0 == b.0);
        Self(names)
    }

    pub(super) fn find(&self, name: impl Iterator<Item = u8>) -> Option<Cover> {
        let mut word = [0; LONGEST];
        let mut len = 0;
        for byte in letters(name) {
            *word.get_mut(len)? = byte;
            len += 1;
        }
        let word = word.get(..len).filter(|word| !word.is_empty())?;
        let found = self.0.binary_search_by(|(name, _)| name.as_slice().cmp(word)).ok()?;
        self.0.get(found).map(|(_, cover)| *cover)
    }
}

fn letters(name: impl Iterator<Item = u8>) -> impl Iterator<Item = u8> {
    name.filter(|byte| !matches!(byte, b'_' | b'-')).map(|byte| byte.to_ascii_lowercase())
}
