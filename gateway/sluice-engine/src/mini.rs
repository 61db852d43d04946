//! Mini-programs as callers: which app, of which platform, in which version and environment, and how
//! far that can be believed.
//!
//! Reading header fields is left to the caller, who says how each word was learnt. The one rule: nothing
//! here grants anything; what only a Referer or a client says is a hint or a claim, whatever it says.

pub mod referer;
pub mod version;

use std::time::Duration;

use version::{Range, Version};

/// Who makes the app in which a mini-program runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Platform {
    /// WeChat.
    Wechat,
    /// QQ.
    Qq,
    /// Douyin and Toutiao.
    Douyin,
    /// Feishu.
    Feishu,
    /// Baidu.
    Baidu,
    /// Alipay.
    Alipay,
    /// Kuaishou.
    Kuaishou,
    /// Any other.
    Custom,
}

impl Platform {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::Wechat,
        Self::Qq,
        Self::Douyin,
        Self::Feishu,
        Self::Baidu,
        Self::Alipay,
        Self::Kuaishou,
        Self::Custom,
    ];

    /// Its word.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Wechat => "wechat",
            Self::Qq => "qq",
            Self::Douyin => "douyin",
            Self::Feishu => "feishu",
            Self::Baidu => "baidu",
            Self::Alipay => "alipay",
            Self::Kuaishou => "kuaishou",
            Self::Custom => "custom",
        }
    }

    /// How long its mini-programs wait for an answer, if their code says nothing else.
    #[must_use]
    pub fn patience(self) -> Duration {
        Duration::from_secs(match self {
            Self::Alipay => 30,
            _ => 60,
        })
    }

    /// The platform of this word.
    #[must_use]
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|platform| platform.as_str() == word)
    }
}

/// What kind of build runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Env {
    /// On a developer's phone or in the tools; also what WeChat's reviewers run.
    Develop,
    /// For testers.
    Trial,
    /// For everybody.
    Release,
}

impl Env {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Develop, Self::Trial, Self::Release];

    /// Its word, as WeChat has it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Develop => "develop",
            Self::Trial => "trial",
            Self::Release => "release",
        }
    }

    /// The environment that a client names, in WeChat's words or those of its siblings.
    #[must_use]
    pub fn parse(word: &str) -> Option<Self> {
        Some(match word {
            "develop" | "development" => Self::Develop,
            "trial" | "preview" => Self::Trial,
            "release" | "production" | "current" | "latest" | "gray" => Self::Release,
            _ => return None,
        })
    }
}

/// How far it can be believed which app is calling.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Trust {
    /// Nobody said.
    #[default]
    None,
    /// A Referer says so. Mini-programs cannot set it, but anything else can.
    Hint,
    /// The client says so itself.
    Claimed,
    /// A verified token says so.
    Proven,
}

impl Trust {
    /// Its word.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Hint => "hint",
            Self::Claimed => "claimed",
            Self::Proven => "proven",
        }
    }
}

/// A caller, as far as it is known.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Client {
    /// Index of the app among those that are declared.
    pub app: Option<u16>,
    /// Whose platform.
    pub platform: Option<Platform>,
    /// What kind of build. A build under review counts as [`Env::Release`].
    pub env: Option<Env>,
    /// The version compiled into it.
    pub version: Option<Version>,
    /// The commit it was made from.
    pub build: Option<Box<str>>,
    /// The version of the platform's base library.
    pub lib: Option<Box<str>>,
    /// A random id of the installation.
    pub device: Option<Box<str>>,
    /// How far `app` can be believed.
    pub trust: Trust,
    /// Whether it is the build that the platform reviews now.
    pub reviewed: bool,
}

/// What a route asks of a caller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Test {
    /// It is one of these apps.
    App(Vec<u16>),
    /// It runs on one of these platforms.
    Platform(Vec<Platform>),
    /// It is one of these kinds of builds.
    Env(Vec<Env>),
    /// Its version lies in this range.
    Version(Range),
}

impl Test {
    /// Whether a caller passes. Who does not say what is asked for does not.
    #[must_use]
    pub fn passes(&self, client: &Client) -> bool {
        match self {
            Self::App(apps) => client.app.is_some_and(|app| apps.contains(&app)),
            Self::Platform(platforms) => {
                client.platform.is_some_and(|platform| platforms.contains(&platform))
            }
            Self::Env(envs) => client.env.is_some_and(|env| envs.contains(&env)),
            Self::Version(range) => {
                client.version.as_ref().is_some_and(|version| range.contains(version))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_says_nothing_passes_no_test() {
        let silent = Client::default();
        let range = Range::parse(">=0").unwrap();
        for test in [
            Test::App(vec![0]),
            Test::Platform(Platform::ALL.to_vec()),
            Test::Env(Env::ALL.to_vec()),
            Test::Version(range),
        ] {
            assert!(!test.passes(&silent), "{test:?}");
        }
    }

    #[test]
    fn words_are_read_back() {
        for platform in Platform::ALL {
            assert_eq!(Platform::parse(platform.as_str()), Some(platform));
        }
        for env in Env::ALL {
            assert_eq!(Env::parse(env.as_str()), Some(env));
        }
        assert_eq!(Env::parse("preview"), Some(Env::Trial));
        assert_eq!((Env::parse("Release"), Platform::parse("")), (None, None));
        assert!(Trust::Proven > Trust::Claimed && Trust::Claimed > Trust::Hint);
    }
}
