//! Why connections end before there is a request that a fault could be for, and what becomes of calls that
//! are part of another: labels of counters.

/// Why a TLS handshake failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Handshake {
    /// It took longer than `timeouts.handshake`.
    Timeout,
    /// More than `limits.handshakes` were under way.
    Shed,
    /// No certificate is for the name that was asked for.
    Name,
    /// The client's certificate is missing, or not believed.
    ClientCertificate,
    /// The client does not believe ours, or gave up with an alert.
    Alert,
    /// What was sent is no TLS that is spoken here.
    Protocol,
    /// The connection ended before hands were shaken.
    Closed,
}

impl Handshake {
    pub(crate) const ALL: [Self; 7] = [
        Self::Timeout,
        Self::Shed,
        Self::Name,
        Self::ClientCertificate,
        Self::Alert,
        Self::Protocol,
        Self::Closed,
    ];

    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Timeout => "timeout",
            Self::Shed => "shed",
            Self::Name => "name",
            Self::ClientCertificate => "client_certificate",
            Self::Alert => "alert",
            Self::Protocol => "protocol",
            Self::Closed => "closed",
        }
    }
}

/// What became of a call of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BatchItem {
    /// A status below 400.
    Ok,
    /// One of 4xx.
    ClientError,
    /// One of 5xx, or no whole answer.
    ServerError,
    /// Not made: an answer that it needs has nothing for it.
    Skipped,
    /// Not there when the time of the batch was over.
    Timeout,
    /// Larger than there was room for.
    TooLarge,
}

impl BatchItem {
    pub(crate) const ALL: [Self; 6] = [
        Self::Ok,
        Self::ClientError,
        Self::ServerError,
        Self::Skipped,
        Self::Timeout,
        Self::TooLarge,
    ];

    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::ClientError => "client_error",
            Self::ServerError => "server_error",
            Self::Skipped => "skipped",
            Self::Timeout => "timeout",
            Self::TooLarge => "too_large",
        }
    }
}

/// What became of a write whose client left before the answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unattended {
    /// The service has answered.
    Answered,
    /// It has not, or its answer broke off.
    Failed,
    /// It was cut: its answer was too long, or came too late, or the gateway stopped.
    Cut,
    /// It was cancelled with its client, since there were too many already, or memory was short.
    Refused,
}

impl Unattended {
    pub(crate) const ALL: [Self; 4] = [Self::Answered, Self::Failed, Self::Cut, Self::Refused];

    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Answered => "answered",
            Self::Failed => "failed",
            Self::Cut => "cut",
            Self::Refused => "refused",
        }
    }
}

/// Why a connection was not served on a listener that expects a PROXY header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Introduction {
    /// It comes from somebody who may not say whose it is.
    Untrusted,
    /// Something else was sent.
    Missing,
    /// The header breaks the rules.
    Malformed,
    /// It was not whole in time.
    Timeout,
    /// The connection ended before it was.
    Closed,
}

impl Introduction {
    pub(crate) const ALL: [Self; 5] =
        [Self::Untrusted, Self::Missing, Self::Malformed, Self::Timeout, Self::Closed];

    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Untrusted => "untrusted",
            Self::Missing => "missing",
            Self::Malformed => "malformed",
            Self::Timeout => "timeout",
            Self::Closed => "closed",
        }
    }
}
