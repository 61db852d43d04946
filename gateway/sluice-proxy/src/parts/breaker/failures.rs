//! What counts as a failure of the called side: the operator's list, and the kinds that timelines tell
//! apart. The one rule: what the client caused, and what this gateway's own limits caused, is on no list.

use std::fmt;
use std::str::FromStr;

use http::StatusCode;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer};
use sluice_engine::breaker::{KINDS, Outcome};

use crate::base::fault::Fault;

/// How an attempt ended, as far as a breaker is concerned.
#[derive(Debug, Clone, Copy)]
pub(crate) enum End {
    /// With the head of an answer; `unavailable` is gRPC's word for it, where the head tells.
    Answer { status: StatusCode, unavailable: bool },
    /// Without one.
    Fault(Fault),
}

/// One thing that counts as a failure: `connect`, `timeout`, `502`, `5xx`, ...
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sign {
    Connect,
    Timeout,
    Reset,
    Malformed,
    GrpcUnavailable,
    Status(u16),
    /// All statuses of the hundred.
    Class(u16),
}

/// Words of the list that are no statuses.
const WORDS: [(&str, Sign); 5] = [
    ("connect", Sign::Connect),
    ("timeout", Sign::Timeout),
    ("reset", Sign::Reset),
    ("malformed", Sign::Malformed),
    ("grpc_unavailable", Sign::GrpcUnavailable),
];

/// A compiled list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Failures {
    connect: bool,
    timeout: bool,
    reset: bool,
    malformed: bool,
    grpc_unavailable: bool,
    /// One bit for each status from 0 to 639.
    statuses: [u64; 10],
}

/// The kinds of failures by their number, in words.
const KIND_WORDS: [&str; KINDS] = [
    "connect_refused",
    "connect_failed",
    "connect_timeout",
    "upstream_tls",
    "upstream_timeout",
    "upstream_reset",
    "upstream_malformed",
    "grpc_unavailable",
    "status_429",
    "status_4xx",
    "status_500",
    "status_502",
    "status_503",
    "status_504",
    "status_5xx",
    "status_other",
];

/// The word for a kind of failure; a call that was only too slow has none.
pub(crate) fn word(kind: Option<u8>) -> &'static str {
    let Some(kind) = kind else { return "slow" };
    KIND_WORDS.get(usize::from(kind)).copied().unwrap_or("status_other")
}

impl Failures {
    /// What counts unless the operator says otherwise: the service was not there, or says that what it
    /// needs is not there.
    pub(crate) const USUAL: Self = Self {
        connect: true,
        timeout: true,
        reset: true,
        malformed: true,
        grpc_unavailable: true,
        statuses: [0, 0, 0, 0, 0, 0, 0, 0b111 << (502 - 448), 0, 0],
    };

    pub(super) fn of(signs: &[Sign]) -> Self {
        let mut all = Self {
            connect: false,
            timeout: false,
            reset: false,
            malformed: false,
            grpc_unavailable: false,
            statuses: [0; 10],
        };
        for sign in signs {
            match *sign {
                Sign::Connect => all.connect = true,
                Sign::Timeout => all.timeout = true,
                Sign::Reset => all.reset = true,
                Sign::Malformed => all.malformed = true,
                Sign::GrpcUnavailable => all.grpc_unavailable = true,
                Sign::Status(status) => all.add(status),
                Sign::Class(first) => (first..first + 100).for_each(|status| all.add(status)),
            }
        }
        all
    }

    fn add(&mut self, status: u16) {
        if let Some(word) = self.statuses.get_mut(usize::from(status / 64)) {
            *word |= 1 << (status % 64);
        }
    }

    fn has(&self, status: u16) -> bool {
        let word = self.statuses.get(usize::from(status / 64));
        word.is_some_and(|word| word >> (status % 64) & 1 == 1)
    }

    /// What the end of an attempt says about the called side.
    pub(crate) fn judge(&self, end: End) -> Outcome {
        match end {
            End::Answer { unavailable: true, .. } if self.grpc_unavailable => Outcome::Failure(7),
            End::Answer { status, .. } if self.has(status.as_u16()) => {
                Outcome::Failure(kind_of(status.as_u16()))
            }
            End::Answer { .. } => Outcome::Success,
            End::Fault(fault) => self.blame(fault),
        }
    }

    /// A failure that is on no list has to be told apart from one that nobody can help: the first says
    /// that the service is there, the second says nothing.
    fn blame(&self, fault: Fault) -> Outcome {
        let (counts, kind) = match fault {
            Fault::ConnectRefused => (self.connect, 0),
            Fault::ConnectFailed => (self.connect, 1),
            Fault::ConnectTimeout => (self.connect, 2),
            Fault::UpstreamTls => (self.connect, 3),
            Fault::UpstreamTimeout => (self.timeout, 4),
            Fault::UpstreamReset => (self.reset, 5),
            Fault::UpstreamMalformed | Fault::UnexpectedUpgrade => (self.malformed, 6),
            // The client's doing, our own limits, or that nobody was asked at all.
            _ => return Outcome::Ignored,
        };
        if counts { Outcome::Failure(kind) } else { Outcome::Ignored }
    }
}

fn kind_of(status: u16) -> u8 {
    match status {
        429 => 8,
        400..=428 | 430..=499 => 9,
        500 => 10,
        502 => 11,
        503 => 12,
        504 => 13,
        501 | 505..=599 => 14,
        _ => 15,
    }
}

// === Reading ===

impl FromStr for Sign {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Some((_, sign)) = WORDS.iter().find(|(word, _)| *word == text) {
            return Ok(*sign);
        }
        let class = text.strip_suffix("xx").and_then(|class| class.parse::<u16>().ok());
        if let Some(class) = class.filter(|class| (3..=5).contains(class)) {
            return Ok(Self::Class(class * 100));
        }
        let status = text.parse::<u16>().ok().filter(|status| (300..=599).contains(status));
        status.map(Self::Status).ok_or_else(|| {
            let words: Vec<&str> = WORDS.iter().map(|(word, _)| *word).collect();
            format!(
                "expected a status from 300 to 599, `5xx`, `4xx`, `3xx`, or one of {}, got `{text}`",
                words.join(", ")
            )
        })
    }
}

impl fmt::Display for Sign {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Status(status) => write!(f, "{status}"),
            Self::Class(first) => write!(f, "{}xx", first / 100),
            word => f.write_str(
                WORDS.iter().find(|(_, sign)| sign == word).map_or("", |(word, _)| *word),
            ),
        }
    }
}

impl<'de> Deserialize<'de> for Sign {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;
        impl serde::de::Visitor<'_> for Either {
            type Value = Sign;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a status, `5xx`, or a word like `connect`")
            }

            fn visit_u64<E: serde::de::Error>(self, status: u64) -> Result<Sign, E> {
                status.to_string().parse().map_err(E::custom)
            }

            fn visit_i64<E: serde::de::Error>(self, status: i64) -> Result<Sign, E> {
                status.to_string().parse().map_err(E::custom)
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Sign, E> {
                text.parse().map_err(E::custom)
            }
        }
        deserializer.deserialize_any(Either)
    }
}

impl serde::Serialize for Sign {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Status(status) => serializer.serialize_u16(*status),
            word => serializer.collect_str(word),
        }
    }
}

impl JsonSchema for Sign {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Failure".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let words: Vec<&str> = WORDS.iter().map(|(word, _)| *word).collect();
        json_schema!({
            "description": "A status, a class of them like `5xx`, or a word.",
            "anyOf": [
                { "type": "integer", "minimum": 300, "maximum": 599 },
                { "type": "string", "pattern": format!("^([345]xx|{})$", words.join("|")) },
            ],
            "examples": ["connect", "5xx", 429],
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(status: u16) -> End {
        End::Answer { status: StatusCode::from_u16(status).unwrap(), unavailable: false }
    }

    #[test]
    fn the_usual_list_is_what_it_says() {
        let words = ["connect", "timeout", "reset", "malformed", "grpc_unavailable"];
        let statuses = ["502", "503", "504"];
        let signs: Vec<Sign> =
            words.iter().chain(&statuses).map(|word| word.parse().unwrap()).collect();
        assert_eq!(Failures::of(&signs), Failures::USUAL);
        for status in 100..=999 {
            let failed = Failures::USUAL.judge(answer(status)) != Outcome::Success;
            assert_eq!(failed, (502..=504).contains(&status), "{status}");
        }
    }

    #[test]
    fn what_the_client_or_the_gateway_caused_counts_on_no_list() {
        let all: Vec<Sign> = WORDS.iter().map(|(_, sign)| *sign).collect();
        for fault in [
            Fault::ClientGone,
            Fault::DeadlineExceeded,
            Fault::BodyTimeout,
            Fault::BodyBroken,
            Fault::BodyTooLarge,
            Fault::PoolExhausted,
            Fault::BreakerOpen,
            Fault::BulkheadFull,
            Fault::Internal,
        ] {
            assert_eq!(Failures::of(&all).judge(End::Fault(fault)), Outcome::Ignored, "{fault}");
        }
    }

    #[test]
    fn lists_and_kinds() {
        let failures = Failures::of(&[Sign::Class(500), Sign::Status(429), Sign::Timeout]);
        for (status, kind) in [(500, 10), (502, 11), (503, 12), (504, 13), (599, 14), (429, 8)] {
            assert_eq!(failures.judge(answer(status)), Outcome::Failure(kind), "{status}");
        }
        assert_eq!(failures.judge(answer(404)), Outcome::Success);
        let blame = |fault| failures.judge(End::Fault(fault));
        assert_eq!(blame(Fault::UpstreamTimeout), Outcome::Failure(4));
        assert_eq!(blame(Fault::UpstreamReset), Outcome::Ignored);
        assert_eq!(
            (word(Some(4)), word(Some(8)), word(None)),
            ("upstream_timeout", "status_429", "slow")
        );
        let grpc = End::Answer { status: StatusCode::OK, unavailable: true };
        assert_eq!(failures.judge(grpc), Outcome::Success);
        assert_eq!(Failures::USUAL.judge(grpc), Outcome::Failure(7));
    }

    #[test]
    fn words_are_read_and_printed() {
        for text in ["connect", "grpc_unavailable", "5xx", "429"] {
            assert_eq!(text.parse::<Sign>().unwrap().to_string(), text);
        }
        for text in ["", "200", "600", "6xx", "5XX", "connects", "-1"] {
            assert!(text.parse::<Sign>().unwrap_err().contains("expected a status"), "{text}");
        }
        assert_eq!(serde_json::from_str::<Sign>("503").unwrap(), Sign::Status(503));
        assert_eq!(serde_json::from_str::<Sign>("\"5xx\"").unwrap(), Sign::Class(500));
    }
}
