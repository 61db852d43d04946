//! The command line.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

/// An API gateway for mini-program back ends.
#[derive(Debug, Parser)]
#[command(name = "sluice", version, arg_required_else_help = false)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Option<Command>,
    #[command(flatten)]
    pub(crate) run: Run,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Serve (what happens without a command, too).
    Run(Run),
    /// Check a config with the very code that serves it, and change nothing.
    Check(Check),
    /// List the routes in the order in which they are tried.
    Routes(Listing),
    /// Print the config's JSON Schema, for editors.
    Schema,
    /// Make a token that the config's jwt filters accept.
    Token(Token),
    /// Show the breakers of a running gateway, or the timeline of one.
    Breakers(Breakers),
    /// Hold a breaker of a running gateway open or closed, or let it go.
    Breaker {
        #[command(subcommand)]
        command: BreakerCommand,
    },
    /// Make a key for the filter api_key, and print it with its hash.
    Key(Key),
    /// Ask a running gateway whether it is ready; exit code 0 if so.
    Healthcheck(Healthcheck),
    /// Write a self-signed certificate for development.
    DevCert(DevCert),
    /// Print the version.
    Version,
    /// Print completions for a shell.
    Completions {
        /// The shell.
        shell: clap_complete::Shell,
    },
}

/// Where the config is.
#[derive(Debug, Clone, Args)]
pub(crate) struct Config {
    /// The route table; without it ./routes.yaml, /etc/sluice/routes.yaml, or embedded defaults.
    #[arg(short, long, env = "SLUICE_CONFIG", value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
}

#[derive(Debug, Clone, Args)]
pub(crate) struct Run {
    #[command(flatten)]
    pub(crate) config: Config,
    /// Worker threads; one per core if not given.
    #[arg(long, env = "SLUICE_WORKERS", value_name = "N")]
    pub(crate) workers: Option<usize>,
    /// Share the ports of a gateway that already runs, to take its place: stop that one when this one is
    /// ready.
    #[arg(long, env = "SLUICE_TAKEOVER")]
    pub(crate) takeover: bool,
    /// What to log, like `info` or `sluice_proxy=debug`.
    #[arg(long, env = "SLUICE_LOG", default_value = "info", value_name = "FILTER")]
    pub(crate) log: String,
}

#[derive(Debug, Args)]
pub(crate) struct Check {
    #[command(flatten)]
    pub(crate) config: Config,
    /// Exit with 3 if there are warnings.
    #[arg(long)]
    pub(crate) strict: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Key {
    /// Print the hash of the key on standard input, and make none.
    #[arg(long)]
    pub(crate) hash: bool,
    /// The file that the filter names as its `pepper_file`.
    #[arg(long, value_name = "FILE")]
    pub(crate) pepper_file: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct Listing {
    #[command(flatten)]
    pub(crate) config: Config,
    /// Print JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Token {
    #[command(flatten)]
    pub(crate) config: Config,
    /// The key to sign with; the first HMAC key if not given.
    #[arg(long)]
    pub(crate) kid: Option<String>,
    /// A claim: `openid=o-1`, `roles=["admin"]`; JSON values are taken as such.
    #[arg(long = "claim", value_name = "NAME=VALUE")]
    pub(crate) claims: Vec<String>,
    /// Say what this token holds, and which routes accept it, instead of making one; `-` reads it from
    /// standard input.
    #[arg(long, value_name = "TOKEN", conflicts_with_all = ["kid", "claims"])]
    pub(crate) inspect: Option<String>,
    /// Seconds until it expires; negative makes an expired one.
    #[arg(long, default_value_t = 7200, allow_negative_numbers = true)]
    pub(crate) lifetime: i64,
}

/// A running gateway.
#[derive(Debug, Args)]
pub(crate) struct Target {
    #[command(flatten)]
    pub(crate) config: Config,
    /// The admin address; the config's if not given.
    #[arg(long)]
    pub(crate) address: Option<SocketAddr>,
}

/// A running gateway, and the right to change something.
#[derive(Debug, Args)]
pub(crate) struct Access {
    #[command(flatten)]
    pub(crate) target: Target,
    /// The file that holds the admin token; the variable SLUICE_ADMIN_TOKEN holds it if not given.
    #[arg(long, value_name = "FILE")]
    pub(crate) token_file: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct Breakers {
    /// One of them, like `upstream:users`, `endpoint:users/10.0.0.11:8080` or `route:pay`.
    pub(crate) name: Option<String>,
    #[command(flatten)]
    pub(crate) target: Target,
    /// Print JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum BreakerCommand {
    /// Hold it, whatever it observes.
    Force {
        /// Like `upstream:users`; `sluice breakers` lists them.
        name: String,
        /// Refuse every call, or let every call through.
        state: Forced,
        /// For how long, like `10m`; 24h at most.
        #[arg(long = "for", value_name = "TIME")]
        long: String,
        /// Why, for the audit.
        #[arg(long, default_value = "")]
        note: String,
        #[command(flatten)]
        access: Access,
    },
    /// Let it go.
    Release {
        /// Like `upstream:users`.
        name: String,
        #[command(flatten)]
        access: Access,
    },
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
pub(crate) enum Forced {
    Open,
    Closed,
}

#[derive(Debug, Args)]
pub(crate) struct Healthcheck {
    #[command(flatten)]
    pub(crate) config: Config,
    /// The admin address; the config's if not given.
    #[arg(long)]
    pub(crate) address: Option<SocketAddr>,
}

#[derive(Debug, Args)]
pub(crate) struct DevCert {
    /// Names and addresses it is for.
    #[arg(default_values_t = ["localhost".to_owned(), "127.0.0.1".to_owned(), "::1".to_owned()])]
    pub(crate) names: Vec<String>,
    /// Where the certificate goes.
    #[arg(long, default_value = "certs/dev.pem")]
    pub(crate) cert: PathBuf,
    /// Where the key goes.
    #[arg(long, default_value = "certs/dev.key")]
    pub(crate) key: PathBuf,
}
