//! Every way a request can fail, one row each: the reason word is at once the metric label, the log
//! field, the row in `docs/faults.md` and what the client reads. Nobody else chooses a status.

/// Who has to change something for the request to succeed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Blame {
    /// The caller sent something that cannot be served.
    Client,
    /// The gateway itself refused or failed.
    Gateway,
    /// The service behind the gateway failed.
    Upstream,
}

impl Blame {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Gateway => "gateway",
            Self::Upstream => "upstream",
        }
    }
}

/// What is fixed about one kind of failure.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Row {
    /// Stable lower-case word.
    pub(crate) reason: &'static str,
    /// HTTP status.
    pub(crate) status: u16,
    /// gRPC status code for gRPC callers.
    pub(crate) grpc: u8,
    pub(crate) blame: Blame,
    /// Whether an HTTP/1 connection is closed after the answer, because its framing is in doubt.
    pub(crate) close: bool,
    /// The RFC 9209 error type for `Proxy-Status`, for failures towards the upstream.
    pub(crate) proxy_error: Option<&'static str>,
    /// One sentence for people.
    pub(crate) message: &'static str,
}

macro_rules! faults {
    ($( $(#[$doc:meta])* $name:ident = $reason:literal, $status:literal, grpc $grpc:literal,
        $blame:ident $($close:ident)? $([$proxy:literal])?, $message:literal; )*) => {
        /// A request's failure.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub(crate) enum Fault { $( $(#[$doc])* $name, )* }

        impl Fault {
            /// All faults, in table order.
            pub(crate) const ALL: &'static [Self] = &[$( Self::$name, )*];

            /// The row of this fault.
            pub(crate) const fn row(self) -> Row {
                match self {
                    $( Self::$name => Row {
                        reason: $reason,
                        status: $status,
                        grpc: $grpc,
                        blame: Blame::$blame,
                        close: faults!(@close $($close)?),
                        proxy_error: faults!(@proxy $($proxy)?),
                        message: $message,
                    }, )*
                }
            }
        }
    };
    (@close close) => { true };
    (@close) => { false };
    (@proxy $proxy:literal) => { Some($proxy) };
    (@proxy) => { None };
}

faults! {
    // The bytes of an HTTP/1 head.
    HeadMalformed = "head_malformed", 400, grpc 3, Client close,
        "The request head is not well-formed.";
    HeadTimeout = "head_timeout", 408, grpc 4, Client close,
        "The request head did not arrive in time.";
    VersionUnsupported = "version_unsupported", 505, grpc 12, Client close,
        "This version of HTTP is not spoken here.";
    LengthInvalid = "length_invalid", 400, grpc 3, Client close,
        "The length of the request body is not one number.";
    LengthAndCoding = "cl_te", 400, grpc 3, Client close,
        "The request body has both a length and a transfer coding.";
    TransferCodingInvalid = "te_bad", 400, grpc 3, Client close,
        "The transfer coding leaves open where the request body ends.";
    // The request itself.
    HostInvalid = "host_invalid", 400, grpc 3, Client close,
        "The request must name exactly one valid host.";
    AuthorityMismatch = "authority_mismatch", 400, grpc 3, Client close,
        "The request target and the Host field name different hosts.";
    Misdirected = "misdirected", 421, grpc 14, Client,
        "This connection was made for another host; ask for this one on a connection of its own.";
    TargetInvalid = "target_invalid", 400, grpc 3, Client close,
        "The request target has a form that cannot be served here.";
    PathInvalid = "path_invalid", 400, grpc 3, Client,
        "The path cannot be brought into one canonical form.";
    TargetTooLong = "target_too_long", 414, grpc 3, Client close,
        "The request target is longer than allowed.";
    HeadTooLarge = "head_too_large", 431, grpc 8, Client close,
        "The request head has more or larger fields than allowed.";
    MethodRefused = "method_refused", 405, grpc 12, Client,
        "This method is never served here.";
    MethodUnknown = "method_unknown", 501, grpc 12, Client,
        "This method is not known.";
    MethodOverrideRefused = "method_override_refused", 400, grpc 3, Client,
        "The request names another method, and may not stand for it.";
    TransferCodingUnsupported = "te_unsupported", 501, grpc 12, Client close,
        "Only the chunked transfer coding is understood.";
    ExpectationFailed = "expectation_failed", 417, grpc 3, Client,
        "Only the expectation 100-continue is understood.";
    ProxyLoop = "proxy_loop", 508, grpc 13, Gateway ["proxy_loop_detected"],
        "The request has passed through this gateway before.";
    UpgradeInvalid = "upgrade_invalid", 400, grpc 3, Client close,
        "The upgrade request is not well-formed.";
    // Routing.
    NoRoute = "no_route", 404, grpc 12, Client,
        "No route matches this request.";
    MethodNotAllowed = "method_not_allowed", 405, grpc 12, Client,
        "The resource exists, but not for this method.";
    // Filters.
    AddressRefused = "address_refused", 403, grpc 7, Client,
        "Calls from this address are not allowed.";
    OriginRefused = "origin_refused", 403, grpc 7, Client,
        "WebSockets from pages of this origin are not allowed.";
    RefererRefused = "referer_refused", 403, grpc 7, Client,
        "This is for the mini-programs that are listed.";
    UpgradeRequired = "upgrade_required", 426, grpc 9, Client,
        "This version is no longer served.";
    PrefetchRefused = "prefetch_refused", 403, grpc 7, Client,
        "This is for pre-fetches of the mini-programs that are listed.";
    ContractMismatch = "contract_mismatch", 409, grpc 9, Client,
        "No build of the service fits the build of this client.";
    BodyTooLarge = "body_too_large", 413, grpc 8, Client close,
        "The request body is larger than allowed.";
    TokenMissing = "token_missing", 401, grpc 16, Client,
        "A token is needed.";
    TokenAmbiguous = "token_ambiguous", 401, grpc 16, Client,
        "The request carries more than one credential.";
    TokenInvalid = "token_invalid", 401, grpc 16, Client,
        "The token is not valid.";
    TokenExpired = "token_expired", 401, grpc 16, Client,
        "The token has expired.";
    TokenNotYetValid = "token_not_yet_valid", 401, grpc 16, Client,
        "The token is not valid yet.";
    KeysUnavailable = "keys_unavailable", 503, grpc 14, Gateway,
        "The token cannot be checked now; try again later.";
    ClaimRefused = "claim_refused", 403, grpc 7, Client,
        "The token does not permit this call.";
    SignatureMissing = "signature_missing", 401, grpc 16, Client,
        "The request must be signed.";
    SignatureInvalid = "signature_invalid", 401, grpc 16, Client,
        "The signature is not valid.";
    SignatureExpired = "signature_expired", 401, grpc 16, Client,
        "The request was signed too long ago, or by a clock that is wrong.";
    BodyUnsigned = "body_unsigned", 401, grpc 16, Client,
        "The signature does not cover the body.";
    Replayed = "replayed", 401, grpc 16, Client,
        "This very request was made before.";
    ReplayStoreDown = "replay_store_down", 503, grpc 14, Gateway,
        "Whether this request was made before cannot be checked now.";
    ApiKeyMissing = "api_key_missing", 401, grpc 16, Client,
        "A key is needed.";
    ApiKeyInvalid = "api_key_invalid", 401, grpc 16, Client,
        "The key is not valid.";
    KeyExpired = "key_expired", 401, grpc 16, Client,
        "The key has expired.";
    KeyStoreDown = "key_store_down", 503, grpc 14, Gateway,
        "Keys cannot be looked up now.";
    IdentityMissing = "identity_missing", 401, grpc 16, Client,
        "It is not known who is calling.";
    AccessDenied = "access_denied", 403, grpc 7, Client,
        "The caller may not do this.";
    AuthzDown = "authz_down", 503, grpc 14, Gateway,
        "Whether the caller may do this cannot be found out now.";
    BatchInvalid = "batch_invalid", 400, grpc 3, Client,
        "This is no batch, or one of its calls is wrong.";
    BatchRefused = "batch_refused", 403, grpc 7, Client,
        "This call cannot be part of a batch.";
    BatchSkipped = "batch_skipped", 424, grpc 9, Client,
        "This call was not made: the answer that it needs has nothing for it.";
    AnswerTooLarge = "answer_too_large", 502, grpc 8, Gateway,
        "The answer is larger than there is room for.";
    RateLimited = "rate_limited", 429, grpc 8, Client,
        "Too many requests; try again later.";
    LimitStoreDown = "limit_store_down", 503, grpc 14, Gateway,
        "The limit of this call cannot be checked now.";
    // Logging in.
    LoginInvalid = "login_invalid", 400, grpc 3, Client,
        "A login is a JSON object with a `code`, and with an `app` where there is more than one.";
    InvalidCode = "invalid_code", 401, grpc 16, Client,
        "The platform does not know this code; get a new one.";
    CodeUsed = "code_used", 401, grpc 16, Client,
        "This code was used before; get a new one.";
    RefreshInvalid = "refresh_invalid", 401, grpc 16, Client,
        "This refresh token is not good; log in again.";
    RefreshReused = "refresh_reused", 401, grpc 16, Client,
        "This refresh token was used before, so its session has ended; log in again.";
    TokenRevoked = "token_revoked", 401, grpc 16, Client,
        "This token was revoked; log in again.";
    Kicked = "kicked", 401, grpc 16, Client,
        "A newer login has taken the place of this one.";
    SessionEnded = "session_ended", 401, grpc 16, Client,
        "The session is over; log in again.";
    PushRefused = "push_refused", 403, grpc 7, Client,
        "This is not what the platform pushes.";
    PushOld = "push_old", 403, grpc 7, Client,
        "The message is too old, or a clock is wrong.";
    PushInvalid = "push_invalid", 400, grpc 3, Client,
        "The message cannot be read.";
    PushUnderWay = "push_under_way", 503, grpc 14, Gateway,
        "The service has this message and has not answered yet.";
    OpenDataInvalid = "open_data_invalid", 400, grpc 3, Client,
        "This takes `raw_data` with `signature`, or `encrypted_data` with `iv`, of a platform that has them.";
    SessionKeyStale = "session_key_stale", 401, grpc 16, Client,
        "The data does not fit the session at the platform; log in again, then get it anew.";
    NoSessionKey = "no_session_key", 401, grpc 16, Client,
        "Nothing is known of a session at the platform; log in again.";
    OpenDataForeign = "open_data_foreign", 403, grpc 7, Client,
        "The data is another app's, or another user's.";
    OpenDataOld = "open_data_old", 403, grpc 7, Client,
        "The data is too old; get it anew.";
    SessionStoreDown = "session_store_down", 503, grpc 14, Gateway,
        "Sessions cannot be looked up now; try again later.";
    RevocationUnknown = "revocation_unknown", 503, grpc 14, Gateway,
        "Whether this token was revoked cannot be said now; try again later.";
    NoAccessToken = "no_access_token", 404, grpc 5, Client,
        "This app has no access token: its platform gives none, or the gateway has no secret of it.";
    CallRefused = "call_refused", 403, grpc 7, Client,
        "This call is not made for services, or not for this one.";
    CallInvalid = "call_invalid", 400, grpc 3, Client,
        "The call cannot be passed on as it is.";
    UserBlocked = "user_blocked", 403, grpc 7, Client,
        "The platform does not let this user log in.";
    Misconfigured = "misconfigured", 500, grpc 13, Gateway,
        "The platform refuses the app itself; its operator has to look at it.";
    ProviderBusy = "provider_busy", 503, grpc 14, Upstream,
        "The platform cannot answer now; try again later, with a new code where there was one.";
    ProviderTimeout = "provider_timeout", 504, grpc 4, Upstream,
        "The platform did not answer in time; try again, with a new code where there was one.";
    // Overload.
    Overloaded = "overloaded", 503, grpc 14, Gateway,
        "The gateway has more requests in progress than it may; try again later.";
    BulkheadFull = "bulkhead_full", 503, grpc 14, Gateway,
        "This part of the service has more requests in progress than it may; try again later.";
    MemoryShort = "memory_short", 503, grpc 14, Gateway,
        "The gateway is short of memory; try again later.";
    Shed = "shed", 503, grpc 14, Gateway close,
        "The gateway was short of memory and gave this connection up.";
    // The client's connection.
    BodyTimeout = "body_timeout", 408, grpc 4, Client close,
        "The request body did not arrive in time.";
    BodyBroken = "body_broken", 400, grpc 3, Client close,
        "The request body is not well-formed.";
    ClientGone = "client_gone", 499, grpc 1, Client close,
        "The client went away.";
    DeadlineExceeded = "deadline_exceeded", 504, grpc 4, Client,
        "The time for an answer is over, or too short for the service to be asked.";
    // The upstream.
    NoEndpoint = "no_endpoint", 503, grpc 14, Upstream ["destination_unavailable"],
        "No endpoint of the service is available.";
    BreakerOpen = "breaker_open", 503, grpc 14, Upstream ["destination_unavailable"],
        "The service is failing and is given time to recover.";
    PoolExhausted = "pool_exhausted", 503, grpc 14, Gateway ["connection_limit_reached"],
        "All connections to the service are in use.";
    ConnectRefused = "connect_refused", 502, grpc 14, Upstream ["connection_refused"],
        "The service refused the connection.";
    ConnectFailed = "connect_failed", 502, grpc 14, Upstream ["destination_ip_unroutable"],
        "The service could not be reached.";
    ConnectTimeout = "connect_timeout", 504, grpc 14, Upstream ["connection_timeout"],
        "The service did not accept the connection in time.";
    UpstreamTls = "upstream_tls", 502, grpc 14, Upstream ["tls_certificate_error"],
        "A secure connection to the service could not be made.";
    UpstreamReset = "upstream_reset", 502, grpc 14, Upstream ["connection_terminated"],
        "The service closed the connection before it answered.";
    UpstreamMalformed = "upstream_malformed", 502, grpc 14, Upstream ["http_protocol_error"],
        "The service sent an answer that is not well-formed.";
    UnexpectedUpgrade = "unexpected_upgrade", 502, grpc 14, Upstream ["http_upgrade_failed"],
        "The service switched protocols without being asked.";
    PrefetchUnfit = "prefetch_unfit", 502, grpc 13, Upstream ["http_response_body_size"],
        "The answer is no text, or is larger than a pre-fetch may be.";
    UpstreamTimeout = "upstream_timeout", 504, grpc 4, Upstream ["http_response_timeout"],
        "The service did not answer in time.";
    // The gateway.
    Draining = "draining", 503, grpc 14, Gateway,
        "The gateway is shutting down.";
    Internal = "internal", 500, grpc 13, Gateway close,
        "The gateway failed to handle this request.";
}

impl Fault {
    /// Position in [`Fault::ALL`], for counters.
    pub(crate) const fn index(self) -> usize {
        self as usize
    }

    /// Whether the client should compare its clock with ours: the refusal says what time it is here.
    pub(crate) const fn tells_time(self) -> bool {
        matches!(
            self,
            Self::SignatureMissing
                | Self::SignatureInvalid
                | Self::SignatureExpired
                | Self::BodyUnsigned
                | Self::Replayed
        )
    }

    /// The stable reason word.
    pub(crate) const fn reason(self) -> &'static str {
        self.row().reason
    }
}

impl std::fmt::Display for Fault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.reason())
    }
}

impl std::error::Error for Fault {}

/// The table as Markdown, for `docs/faults.md`.
pub fn faults_markdown() -> String {
    use std::fmt::Write as _;
    let mut out = String::from(
        "# Refusals and failures\n\nGenerated from the fault table; a test keeps it in step. The \
         reason is what the client reads in `reason`,\nthe log in `reason`, and the metric \
         `sluice_rejected_total{reason}`.\n\n| reason | HTTP | gRPC | whose | closes HTTP/1 | \
         meaning |\n|---|---|---|---|---|---|\n",
    );
    for fault in Fault::ALL {
        let row = fault.row();
        let _ = writeln!(
            out,
            "| `{}` | {} | {} | {} | {} | {} |",
            row.reason,
            row.status,
            row.grpc,
            row.blame.as_str(),
            if row.close { "yes" } else { "no" },
            row.message
        );
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reason_words_are_unique_and_lower_case() {
        let mut seen = std::collections::BTreeSet::new();
        for fault in Fault::ALL {
            let reason = fault.reason();
            assert!(seen.insert(reason), "{reason} stands twice");
            assert!(reason.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'), "{reason}");
        }
    }

    #[test]
    fn index_is_the_position_in_the_table() {
        for (at, fault) in Fault::ALL.iter().enumerate() {
            assert_eq!(fault.index(), at);
        }
    }
}
