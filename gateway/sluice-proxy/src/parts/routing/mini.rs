//! What a route asks of the mini-program that calls. The one rule: it is asked of what the program says of
//! itself, so it chooses among services and never protects one.

use schemars::JsonSchema;
use serde::Deserialize;
use sluice_engine::mini::version::Range;
use sluice_engine::mini::{Env as MiniEnv, Platform, Test};

use super::Config;
use crate::base::yaml::Place;
use crate::parts::apps::Apps;
use crate::parts::env::Env;

/// One word, or a list of them.
#[derive(Debug, Clone, PartialEq, Eq, JsonSchema)]
#[schemars(untagged, title = "One or several")]
pub(crate) enum Words {
    /// Just this one.
    One(String),
    /// Any of these.
    Any(Vec<String>),
}

impl Default for Words {
    fn default() -> Self {
        Self::Any(Vec::new())
    }
}

impl<'de> Deserialize<'de> for Words {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;
        impl<'de> serde::de::Visitor<'de> for Either {
            type Value = Words;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a word, or a list of words")
            }

            fn visit_str<E: serde::de::Error>(self, word: &str) -> Result<Words, E> {
                Ok(Words::One(word.to_owned()))
            }

            fn visit_seq<A: serde::de::SeqAccess<'de>>(self, list: A) -> Result<Words, A::Error> {
                Vec::deserialize(serde::de::value::SeqAccessDeserializer::new(list)).map(Words::Any)
            }
        }
        deserializer.deserialize_any(Either)
    }
}

impl Words {
    fn list(&self) -> &[String] {
        match self {
            Self::One(word) => std::slice::from_ref(word),
            Self::Any(words) => words,
        }
    }

    /// These words, or others if there are none.
    pub(super) fn or(&self, others: &Self) -> Self {
        if self.list().is_empty() { others.clone() } else { self.clone() }
    }

    /// What each of them stands for; nothing if there are none, and inside nothing if one is unknown.
    fn read<T>(
        &self,
        at: &Place<'_>,
        mut find: impl FnMut(&str, &Place<'_>) -> Option<T>,
    ) -> Option<Option<Vec<T>>> {
        let mut all = Some(Vec::new());
        for (index, word) in self.list().iter().enumerate() {
            let at = match self {
                Self::One(_) => at.clone(),
                Self::Any(_) => at.index(index),
            };
            match (find(word, &at), &mut all) {
                (Some(found), Some(all)) => all.push(found),
                _ => all = None,
            }
        }
        (!self.list().is_empty()).then_some(all)
    }
}

impl Config {
    /// Platforms whose mini-programs may call: those that are named, or those of all apps. What is not known
    /// is passed over.
    pub(crate) fn platforms(&self, apps: &Apps) -> Vec<Platform> {
        let named = self.app.list().iter().filter_map(|id| apps.get(apps.find(id)?));
        let mut all: Vec<Platform> = named.map(|app| app.platform).collect();
        all.extend(self.platform.list().iter().filter_map(|word| Platform::parse(word)));
        if all.is_empty() {
            all.extend(apps.iter().map(|app| app.platform));
        }
        all
    }
}

/// The tests of a `match` section; nothing inside where one could not be read.
pub(super) fn tests(config: &Config, at: &Place<'_>, env: &mut Env<'_>) -> Vec<Option<Test>> {
    let declared = std::sync::Arc::clone(&env.apps);
    let asked = [&config.app, &config.platform, &config.env].iter().any(|w| !w.list().is_empty());
    if declared.is_empty() && (asked || config.version.is_some()) {
        env.problems.error(at, "mini-programs are known only where `apps` are declared").help(
            "write `apps: [{ id: shop, provider: wechat, appid: wx0123456789abcdef }]` at the top",
        );
        return vec![None];
    }
    let mut all = Vec::new();
    let apps = config.app.read(&at.field("app"), |id, at| declared.named(id, at, env));
    all.extend(apps.map(|found| found.map(Test::App)));
    let known = |words: Vec<&str>| format!("known are {}", words.join(", "));
    let platforms = config.platform.read(&at.field("platform"), |word, at| {
        let found = Platform::parse(word);
        if found.is_none() {
            let help = known(Platform::ALL.map(Platform::as_str).to_vec());
            env.problems.error(at, format!("`{word}` is no platform")).help(help);
        }
        found
    });
    all.extend(platforms.map(|found| found.map(Test::Platform)));
    let envs = config.env.read(&at.field("env"), |word, at| {
        let found = MiniEnv::ALL.into_iter().find(|env| env.as_str() == word);
        if found.is_none() {
            let help = known(MiniEnv::ALL.map(MiniEnv::as_str).to_vec());
            env.problems.error(at, format!("`{word}` is no kind of build")).help(help);
        }
        found
    });
    all.extend(envs.map(|found| found.map(Test::Env)));
    if let Some(text) = &config.version {
        all.push(match Range::parse(text) {
            Ok(range) => Some(Test::Version(range)),
            Err(message) => {
                env.problems
                    .error(&at.field("version"), message)
                    .help("write comparisons like `>=3.2.0 <4`; all have to hold");
                None
            }
        });
    }
    all
}
