//! What a login needs of an app: whom to ask, as whom, and with which proof. Secrets come from
//! `${file:...}` or `${NAME}` and are never shown.

use std::sync::Arc;

use crate::base::units::Secret;
use crate::base::yaml::Place;
use crate::parts::apps::{Config, Provider as Kind};
use crate::parts::env::Env;
use crate::parts::provider::signer::Signer;
use crate::parts::provider::{self, Provider};

/// A mini-program as compiled.
#[derive(Debug)]
pub(crate) struct App {
    pub(crate) id: Arc<str>,
    pub(crate) kind: Kind,
    pub(crate) appid: String,
    pub(crate) secret: Secret,
    pub(crate) params: Vec<(String, Secret)>,
    /// Whom to ask; nobody in development.
    pub(crate) platform: Option<Platform>,
}

/// A platform that is asked.
pub(crate) struct Platform {
    pub(crate) provider: Provider,
    pub(crate) signer: Option<Signer>,
    pub(crate) tls: Arc<rustls::ClientConfig>,
}

impl std::fmt::Debug for Platform {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Platform").field(&self.provider.host()).finish()
    }
}

/// The apps that people log in with; what is wrong with one is a problem. `loopback` says that only this
/// machine reaches the gateway.
pub(crate) fn build(
    configs: &[Config],
    loopback: bool,
    at: &Place<'_>,
    env: &mut Env<'_>,
) -> Vec<Arc<App>> {
    let login = |config: &Config| {
        let known = matches!(config.provider, Kind::Development | Kind::WechatComponent);
        known || config.secret.is_some() || config.exchange.is_some() || !config.api_base.is_empty()
    };
    let all = configs.iter().enumerate().filter(|(_, config)| login(config));
    all.filter_map(|(index, config)| {
        config.for_login(loopback, &at.index(index), env).map(Arc::new)
    })
    .collect()
}

impl Config {
    fn for_login(&self, loopback: bool, at: &Place<'_>, env: &mut Env<'_>) -> Option<App> {
        let app = |platform| App {
            id: self.id.as_str().into(),
            kind: self.provider,
            appid: self.appid.clone(),
            secret: self.secret.clone().unwrap_or_default(),
            params: self.params.iter().map(|(k, v)| (k.clone(), v.clone())).collect(),
            platform,
        };
        if self.provider == Kind::Development {
            self.development(loopback, at, env)?;
            return Some(app(None));
        }
        let needed = self.needed(at, env);
        if !needed && self.provider == Kind::WechatComponent {
            // That its description names what is missing was told.
            return None;
        }
        let description = self.description(at, env);
        let names: Vec<&str> = self.params.keys().map(String::as_str).collect();
        let provider = description?.build(&self.api_base, &names, at, env);
        let tls = self.tls.for_urls(&at.field("tls"), env);
        needed.then_some(())?;
        let provider = provider?;
        let signer = match provider.sign {
            None => None,
            Some(_) => Some(self.signer(at, env)?),
        };
        Some(app(Some(Platform { provider, signer, tls: tls? })))
    }

    /// A way in without a platform must not be reachable from outside.
    fn development(&self, loopback: bool, at: &Place<'_>, env: &mut Env<'_>) -> Option<()> {
        let at = at.field("provider");
        if !loopback {
            env.problems
                .error(
                    &at,
                    "anybody could log in as anybody: a listener is not on a loopback address",
                )
                .help("let every listener have an address like 127.0.0.1:8080, or name a platform");
            return None;
        }
        env.problems.warn(
            &at,
            format!("app `{}` lets anybody log in as anybody; for trying out only", self.id),
        );
        Some(())
    }

    /// Whether everything is there that the platform wants to know.
    fn needed(&self, at: &Place<'_>, env: &mut Env<'_>) -> bool {
        let mut whole = true;
        let mut lacks = |name: &str, help: &str| {
            whole = false;
            env.problems
                .error(at, format!("app `{}` needs `{name}`", self.id))
                .help(help.to_owned());
        };
        let provided = self.provider == Kind::WechatComponent;
        let secret = self.secret.as_ref().is_some_and(|secret| !secret.expose().is_empty());
        if !secret && !provided && self.provider != Kind::Custom {
            lacks("secret", "write `secret: \"${file:/run/secrets/NAME}\"`");
        }
        for name in ["component_appid", "component_access_token"] {
            if provided && !self.params.contains_key(name) {
                lacks(
                    &format!("params.{name}"),
                    "a service provider logs people in with its own token",
                );
            }
        }
        whole
    }

    fn description(&self, at: &Place<'_>, env: &mut Env<'_>) -> Option<provider::Config> {
        match (&self.exchange, self.provider) {
            (Some(config), Kind::Custom) => Some(config.as_ref().clone()),
            (None, Kind::Custom) => {
                env.problems
                    .error(at, "a custom provider needs an `exchange`")
                    .help("see docs/login.md; a shipped one is named by `provider: wechat`");
                None
            }
            (Some(_), kind) => {
                env.problems
                    .error(
                        &at.field("exchange"),
                        format!("`{}` is described already", kind.as_str()),
                    )
                    .help("write `provider: custom` to describe another platform");
                None
            }
            (None, kind) => {
                let shipped = provider::shipped(kind, env.problems);
                if shipped.is_none() {
                    env.problems
                        .error(&at.field("provider"), "how people log in there is not known")
                        .help(
                            "write `provider: custom` and an `exchange`, or take the secret away",
                        );
                }
                shipped
            }
        }
    }

    fn signer(&self, at: &Place<'_>, env: &mut Env<'_>) -> Option<Signer> {
        let signer = self.secret.as_ref().and_then(|secret| Signer::new(secret.expose()));
        if signer.is_none() {
            env.problems
                .error(&at.field("secret"), "this is not a private RSA key")
                .help("write the app's private key in PEM form, from a file: \"${file:PATH}\"");
        }
        signer
    }
}
