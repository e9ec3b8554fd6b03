//! Configuration: file, environment and flags in; each job's checked options out.
//!
//! What was typed (the `Typed…` structs, one per table of the file) and what it means ([`Config`]) are two types, and
//! only the second is passed on. A flag beats the environment, the environment the file, the file the default; flags
//! are laid over a [`Config`] by the command line. Whatever cannot work is refused here, with the file, the line, the
//! key and what is allowed, before a socket or a tape is touched.
//!
//! Keys of providers come from the environment or from a file that only its owner can read. In `birdtape.toml` they
//! have no place, so a copied or committed config gives nothing away; and no message made here repeats a value that
//! might be a key.
//!
//! Paths in the file count from the working directory, like those given by flag. Does not know the clock, the network
//! or the command line. Everything here may be used from many threads at once.

mod webhooks;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytesize::ByteSize;
use serde::Deserialize;
use toml::de::{DeTable, DeValue};

use crate::archive;
use crate::backfill::{self, Budget, Budgets};
use crate::model::{Framing, Provider, Secret, SourceName};
use crate::provider::{self, Auth, Base, Credentials, Settings};
use crate::upkeep::ScrubOptions;

pub use self::webhooks::WebhookSecret;

/// Where the configuration is looked for when nothing else is said.
pub const DEFAULT_FILE: &str = "birdtape.toml";

/// Where the tape lies when nothing else is said.
pub const DEFAULT_TAPE: &str = "./tape";

/// Stands in for a key that is not set when the source's address is on this machine.
///
/// Demos and tests against `birdtape replay` need no key; a loopback address cannot be a provider's. It is no secret.
pub const LOCAL_KEY: &str = "local";

/// Names a part of the recorder that is to panic.
pub const PANIC_VARIABLE: &str = "BIRDTAPE_PANIC";

/// Our own environment variables, with what they do; any other `BIRDTAPE_…` is a mistake.
pub const VARIABLES: [(&str, &str); 10] = [
    ("BIRDTAPE_BASE_URL", "set by `replay -- COMMAND`: where the fake providers are"),
    (
        "BIRDTAPE_CA_FILE",
        "certificates to trust beside the usual ones (PEM), for every source; `replay --tls -- COMMAND` sets it",
    ),
    ("BIRDTAPE_CONFIG", "the configuration file"),
    ("BIRDTAPE_CORPUS", "tests only: a folder of real envelopes"),
    ("BIRDTAPE_FIXTURE", "set for the command of `fixture shrink`: the file to look at"),
    ("BIRDTAPE_LOG", "the log level: error, warn, info, debug, trace"),
    (PANIC_VARIABLE, "tests only: a part of the recorder that panics, see `model::PARTS`"),
    ("BIRDTAPE_REDACT_KEY", "the secret of the stand-ins that `fixture cut --redact` makes"),
    ("BIRDTAPE_TAPE", "the directory of the tape"),
    ("BIRDTAPE_TEST_PYTHON", "tests only: a Python that has DuckDB and moto"),
];

/// Looks a variable up; handed in, so that tests need no process environment.
pub type Env<'a> = &'a dyn Fn(&str) -> Option<String>;

/// What the jobs are to do, checked.
#[derive(Clone, Debug)]
pub struct Config {
    /// Directory of the tape.
    pub tape: PathBuf,
    /// How the tape is written.
    pub archive: archive::Options,
    /// Bounds on memory.
    pub limits: Limits,
    /// How gaps are filled.
    pub backfill: Backfill,
    /// How a recorder looks at what it has sealed.
    pub scrub: ScrubOptions,
    /// Where webhooks are received, if they are.
    pub webhooks: Option<SocketAddr>,
    /// Whether they may be received without TLS from beyond this machine.
    plain_webhooks: bool,
    /// What to record, by name; may be empty, see [`require_sources`](Self::require_sources).
    pub sources: Vec<Source>,
    /// For messages: where all this was read.
    origin: String,
}

/// What flags say about a source that no file configures.
#[derive(Clone, Debug, Default)]
pub struct ProviderFlags {
    /// Another address than the provider's own.
    pub base_url: Option<String>,
    /// X live pipeline: topics to subscribe; other providers have none.
    pub topics: Vec<String>,
    /// Whether an address without TLS is accepted outside this machine.
    pub allow_plain: bool,
}

/// Bounds on memory, so that no peer can make us grow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Longest message taken whole; a longer one is kept in part, with the cause.
    pub max_message: usize,
    /// Bytes that may wait for the disk; when they are reached, reading from sockets stops.
    pub queue_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { max_message: 16 << 20, queue_bytes: 16 << 20 }
    }
}

/// How gaps are filled from the providers' history.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backfill {
    /// Whether a recorder fills as it goes.
    pub automatic: bool,
    /// How long history needs to know of what was published.
    pub index_delay: Duration,
    /// What each source may spend in a day (UTC), as far as somebody said.
    pub day: Budget,
    /// What all sources together may spend in a day (UTC).
    pub day_in_all: Budget,
    /// Shortest time between two requests; without it what the provider documents.
    pub pace: Option<Duration>,
    /// Whether everything is asked a second time, whatever the first answers were.
    pub look_twice: bool,
}

impl Backfill {
    /// What may be spent when somebody asks for it: what was said, and no more.
    pub fn budgets(&self, run: Budget) -> Budgets {
        Budgets { run, day: self.day, day_in_all: self.day_in_all }
    }

    /// What may be spent when nobody asks: where nothing was said, little.
    pub fn automatic_budgets(&self) -> Budgets {
        Budgets { day: self.day.or(backfill::AUTOMATIC_DAY), ..self.budgets(Budget::default()) }
    }
}

impl Default for Backfill {
    fn default() -> Self {
        let (day, day_in_all) = (Budget::default(), Budget::default());
        Self { automatic: true, index_delay: backfill::INDEX_DELAY, day, day_in_all, pace: None, look_twice: false }
    }
}

/// A provider connection to record.
#[derive(Clone, Debug)]
pub struct Source {
    /// Its name, which is also its directory on the tape.
    pub name: SourceName,
    /// What the protocol machine needs.
    pub settings: Settings,
    /// How many connections carry the same stream, for redundancy.
    pub connections: u32,
    /// How late this source's events may come.
    pub lateness_horizon: Duration,
    /// Certificates to trust beside the usual ones (PEM).
    pub ca_file: Option<PathBuf>,
    /// Whether an address without TLS is accepted outside this machine.
    pub allow_plain: bool,
    /// For messages: where the key was found, as in `environment variable X`.
    pub key_source: String,
    /// What tells its webhooks from others'.
    pub webhook: WebhookSecret,
}

impl Config {
    /// Reads a configuration file, with all its sources.
    ///
    /// A file without sources is fine here (most commands need only the tape); a job that needs one calls
    /// [`require_sources`](Self::require_sources).
    ///
    /// # Errors
    /// Anything that cannot work; the person has to change the file or the environment.
    pub fn load(path: &Path, env: Env<'_>) -> Result<Self, ConfigError> {
        Self::load_only(path, env, &[])
    }

    /// Reads a configuration file but checks and returns only the wanted sources; none wanted is all of them.
    ///
    /// So a missing key of one source does not keep another one from being recorded.
    ///
    /// # Errors
    /// As [`load`](Self::load), and a wanted source that is not in the file.
    pub fn load_only(path: &Path, env: Env<'_>, wanted: &[String]) -> Result<Self, ConfigError> {
        let origin = path.display().to_string();
        let text = read_file(path)?;
        let page = Page::parse(&origin, &text)?;
        let mut typed = page.typed()?;
        if !wanted.is_empty() {
            let known = || typed.source.keys().map(|name| shown(name)).collect::<Vec<_>>().join(", ");
            if let Some(missing) = wanted.iter().find(|name| !typed.source.contains_key(*name)) {
                return Err(ConfigError::NoSuchSource { place: page.place(&[]), name: missing.clone(), known: known() });
            }
            typed.source.retain(|name, _| wanted.contains(name));
        }

        let archive = archive_options(&page.table(&["archive"]), &typed.archive)?;
        let limits = limits(&page.table(&["limits"]), &typed.limits)?;
        let backfill = filling(&page.table(&["backfill"]), &typed.backfill)?;
        let scrub = scrubbing(&page.table(&["upkeep"]), &typed.upkeep)?;
        let mut sources = Vec::with_capacity(typed.source.len());
        for (name, typed) in &typed.source {
            let table = page.table(&["source", name]);
            let name = SourceName::new(name.as_str())
                .map_err(|_| ConfigError::SourceName { place: table.place(None), name: shown(name) })?;
            sources.push(source(&table, name, typed, env)?);
        }
        refuse_rivals(&page, &sources)?;
        let webhooks = webhooks::listen(&page.table(&["webhooks"]), &typed.webhooks)?;
        let plain_webhooks = typed.webhooks.allow_plain.unwrap_or(false);
        Ok(Self { tape: tape(env, typed.tape), archive, limits, backfill, scrub, webhooks, plain_webhooks, sources, origin })
    }

    /// Finds the tape's directory for a command that needs nothing else: no key is looked for, no source checked.
    ///
    /// Without a file it is `BIRDTAPE_TAPE` or the default.
    ///
    /// # Errors
    /// A file that is there but cannot be read or has mistakes in its form.
    pub fn tape_of(path: &Path, env: Env<'_>) -> Result<PathBuf, ConfigError> {
        match read_file(path) {
            Err(ConfigError::NoFile { .. }) => Ok(tape(env, None)),
            Err(other) => Err(other),
            Ok(text) => Ok(tape(env, Page::parse(&path.display().to_string(), &text)?.typed()?.tape)),
        }
    }

    /// How long history needs by the file, for a command that needs no source: no key is looked for.
    ///
    /// Without a file it is the default.
    ///
    /// # Errors
    /// A file that is there but cannot be read or has mistakes in its form.
    pub fn index_delay_of(path: &Path) -> Result<Duration, ConfigError> {
        match read_file(path) {
            Err(ConfigError::NoFile { .. }) => Ok(Backfill::default().index_delay),
            Err(other) => Err(other),
            Ok(text) => {
                let origin = path.display().to_string();
                let page = Page::parse(&origin, &text)?;
                Ok(filling(&page.table(&["backfill"]), &page.typed()?.backfill)?.index_delay)
            }
        }
    }

    /// Makes the configuration of `record --provider P [--base-url URL]`: one source, named after its provider.
    ///
    /// On a loopback address a missing key is replaced by [`LOCAL_KEY`].
    ///
    /// # Errors
    /// A missing key, named by its variable; an address that cannot be used; X on its own address, which needs topics.
    pub fn for_provider(provider: Provider, flags: &ProviderFlags, env: Env<'_>) -> Result<Self, ConfigError> {
        let origin = format!("--provider {provider}");
        let topics = (provider == Provider::XLive && !flags.topics.is_empty()).then(|| flags.topics.clone());
        let typed = TypedSource {
            provider: Some(provider.name().to_owned()),
            base_url: flags.base_url.clone(),
            topics,
            allow_plain: Some(flags.allow_plain),
            ..TypedSource::default()
        };
        let table = Table { page: None, origin: &origin, path: Vec::new() };
        let sources = vec![source(&table, SourceName::from(provider), &typed, env)?];
        let tape = tape(env, None);
        Ok(Self {
            tape,
            archive: archive::Options::default(),
            limits: Limits::default(),
            backfill: Backfill::default(),
            scrub: ScrubOptions::default(),
            webhooks: None,
            plain_webhooks: flags.allow_plain,
            sources,
            origin,
        })
    }

    /// Refuses a configuration that gives a recorder nothing to do.
    ///
    /// # Errors
    /// No source; the hint says how to add one.
    pub fn require_sources(&self) -> Result<(), ConfigError> {
        if self.sources.is_empty() { Err(ConfigError::NoSources { origin: self.origin.clone() }) } else { Ok(()) }
    }

    /// Every key and cookie in here, for the log's redactor.
    pub fn secrets(&self) -> Vec<Secret> {
        let hooks = self.sources.iter().filter_map(|source| match &source.webhook {
            WebhookSecret::Known(secret) => Some(secret),
            WebhookSecret::None | WebhookSecret::Missing(_) => None,
        });
        let all = self.sources.iter().flat_map(|source| source.settings.credentials.secrets()).chain(hooks);
        // Hiding the placeholder would only cut holes into words such as `localhost`.
        all.filter(|secret| secret.expose() != LOCAL_KEY).cloned().collect()
    }
}

/// Refuses variables that have our prefix but no meaning: a typing mistake would otherwise be silent.
///
/// # Errors
/// The first such name, with the nearest known one.
pub fn check_environment(names: impl IntoIterator<Item = String>) -> Result<(), ConfigError> {
    let known = VARIABLES.map(|(name, _)| name);
    let ours = |name: &String| name.starts_with("BIRDTAPE_");
    match names.into_iter().find(|name| ours(name) && !known.contains(&name.as_str())) {
        Some(name) => {
            let nearest = nearest(&name, &known);
            Err(ConfigError::UnknownVariable { name: shown(&name), nearest, known: known.join(", ") })
        }
        None => Ok(()),
    }
}

/// A place in what was typed: file, line and table, or a flag.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The file's path, or the flag.
    pub origin: String,
    /// Line, from 1.
    pub line: Option<usize>,
    /// The table, as in `[source.alpha]`; empty at the top.
    pub table: String,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.origin)?;
        if let Some(line) = self.line {
            write!(f, " line {line}")?;
        }
        if !self.table.is_empty() {
            write!(f, ", {}", self.table)?;
        }
        Ok(())
    }
}

/// A configuration that cannot work. The process ends with the exit code for wrong usage.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// There is no such file.
    #[error("configuration file {} does not exist", file.display())]
    NoFile {
        /// The file.
        file: PathBuf,
    },
    /// The file is there but cannot be read.
    #[error("configuration file {} cannot be read", file.display())]
    Unreadable {
        /// The file.
        file: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file is not TOML.
    #[error("{place}: not valid TOML: {why}")]
    Syntax {
        /// Where.
        place: Box<Place>,
        /// What the parser says.
        why: String,
    },
    /// A key nobody knows.
    #[error("{place}: unknown key `{key}`; known here are {known}")]
    UnknownKey {
        /// Where.
        place: Box<Place>,
        /// The key.
        key: String,
        /// A known key that looks like it.
        nearest: Option<String>,
        /// All known keys of the table.
        known: String,
    },
    /// An API key or a cookie stands in the file.
    #[error("{place}: `{key}` is not allowed: keys and cookies do not belong into this file")]
    KeyInFile {
        /// Where.
        place: Box<Place>,
        /// The key's name, never its value.
        key: String,
    },
    /// A value that is not allowed.
    #[error("{place}: `{key}` {why}")]
    Value {
        /// Where.
        place: Box<Place>,
        /// The key.
        key: &'static str,
        /// What is wrong and what is allowed.
        why: String,
        /// What to do, when `why` does not say it.
        cure: Option<&'static str>,
    },
    /// A value of the wrong sort: a number where text is expected.
    #[error("{place}: `{key}` is {found}, expected {expected}")]
    Sort {
        /// Where.
        place: Box<Place>,
        /// The key.
        key: String,
        /// What was found.
        found: &'static str,
        /// What is allowed.
        expected: String,
    },
    /// A source's name cannot be a directory.
    #[error("{place}: source name `{name}` is not 1 to 64 of a-z, 0-9, _ and -, beginning with a letter or digit")]
    SourceName {
        /// Where.
        place: Box<Place>,
        /// The name.
        name: String,
    },
    /// A source says nothing about its provider.
    #[error("{place}: `provider` is missing; known are {}", Provider::ALL.map(Provider::name).join(", "))]
    NoProvider {
        /// Where.
        place: Box<Place>,
    },
    /// A provider nobody knows.
    #[error("{place}: unknown provider `{name}`; known are {}", Provider::ALL.map(Provider::name).join(", "))]
    UnknownProvider {
        /// Where.
        place: Box<Place>,
        /// What was written.
        name: String,
        /// A known one that looks like it.
        nearest: Option<String>,
    },
    /// The variable that should hold the key does not.
    #[error("source `{name}` has no key: environment variable {variable} is not set")]
    NoKey {
        /// The source.
        name: SourceName,
        /// The variable.
        variable: String,
    },
    /// Webhooks are to be received, and nothing tells the provider's from others'.
    #[error("source `{name}` has no secret for its webhooks: environment variable {variable} is not set")]
    NoWebhookSecret {
        /// The source.
        name: SourceName,
        /// The variable.
        variable: String,
    },
    /// Webhooks are to be received, and no source has any.
    #[error("no source takes webhooks: TwitterAPI.io and ScrapeBadger have them, unless `webhook = false`")]
    NoWebhooks,
    /// The key is there but cannot be one.
    #[error("source `{name}`: the key from {key_source} {why}")]
    BadKey {
        /// The source.
        name: SourceName,
        /// Where it came from.
        key_source: String,
        /// What is wrong with it, without repeating it.
        why: &'static str,
    },
    /// A key file cannot be read.
    #[error("{place}: key file {} cannot be read", file.display())]
    KeyFile {
        /// Where it is named.
        place: Box<Place>,
        /// The file.
        file: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A key file can be read by others.
    #[error("{place}: key file {} has mode {mode:04o}: others than its owner may use it", file.display())]
    KeyFileMode {
        /// Where it is named.
        place: Box<Place>,
        /// The file.
        file: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// Two sources would throw each other out.
    #[error("{place}: sources `{first}` and `{second}` use the same key, and {provider} allows one connection per key")]
    Rivals {
        /// Where the second one stands.
        place: Box<Place>,
        /// The first source.
        first: SourceName,
        /// The second source.
        second: SourceName,
        /// Their provider.
        provider: Provider,
    },
    /// A source that was asked for is not in the file.
    #[error("{place}: there is no source `{name}`; configured are {}", if known.is_empty() { "none" } else { known })]
    NoSuchSource {
        /// The file.
        place: Box<Place>,
        /// What was asked for.
        name: String,
        /// The names in the file.
        known: String,
    },
    /// There is nothing to record.
    #[error("{origin} configures no source to record")]
    NoSources {
        /// The file.
        origin: String,
    },
    /// A variable with our prefix that means nothing.
    #[error("unknown environment variable {name}; known are {known}")]
    UnknownVariable {
        /// The variable.
        name: String,
        /// A known one that looks like it.
        nearest: Option<String>,
        /// All known ones.
        known: String,
    },
}

impl ConfigError {
    /// What the person can do, as one line; `None` where the message already says it.
    pub fn hint(&self) -> Option<String> {
        let did_you_mean = |nearest: &Option<String>| nearest.as_ref().map(|name| format!("did you mean `{name}`?"));
        match self {
            Self::NoFile { .. } => Some("`birdtape init` writes a commented one; `--config FILE` names another".to_owned()),
            Self::UnknownKey { nearest, .. } | Self::UnknownProvider { nearest, .. } => did_you_mean(nearest),
            Self::UnknownVariable { nearest, name, .. } => {
                Some(did_you_mean(nearest).unwrap_or_else(|| format!("unset it: `unset {name}`")))
            }
            Self::KeyInFile { .. } => Some(
                "put it into the environment (`key_env` names the variable) or into a file of mode 0600 (`key_file`), \
                 and replace the key if this file was ever shared"
                    .to_owned(),
            ),
            Self::Value { cure, .. } => cure.map(str::to_owned),
            Self::Sort { found: "a whole number" | "a fraction", expected, .. } if expected == "a string" => {
                Some(r#"durations and sizes are written in quotes, with their unit: "90s", "16MiB""#.to_owned())
            }
            Self::NoProvider { .. } => Some(r#"add a line such as `provider = "tweetstream"`"#.to_owned()),
            Self::NoWebhookSecret { variable, .. } => Some(format!(
                "`export {variable}=…` with the secret that the provider showed when the webhook was made, or set `webhook = false`"
            )),
            Self::NoKey { variable, .. } => Some(format!("`export {variable}=…`, or name a file with `key_file`")),
            Self::KeyFileMode { file, .. } => Some(format!("`chmod 600 {}`", file.display())),
            Self::Rivals { .. } => Some("give them different keys, or keep one of them".to_owned()),
            Self::NoSources { .. } => {
                Some("take the `#` away before one of its `[source.…]` tables, or use `--provider`".to_owned())
            }
            Self::Unreadable { .. }
            | Self::Syntax { .. }
            | Self::Sort { .. }
            | Self::SourceName { .. }
            | Self::BadKey { .. }
            | Self::NoWebhooks
            | Self::KeyFile { .. }
            | Self::NoSuchSource { .. } => None,
        }
    }
}

// ---- what was typed ----

/// A table of the file as it was typed, with the list of its keys.
macro_rules! typed {
    ($(#[$doc:meta])* $name:ident { $($field:ident: $type:ty),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Debug, Default, Deserialize)]
        #[serde(default, deny_unknown_fields)]
        struct $name { $($field: $type),+ }

        impl $name {
            const KEYS: &[&str] = &[$(stringify!($field)),+];
        }
    };
}

typed! {
    /// The whole file.
    TypedFile {
        tape: Option<PathBuf>,
        archive: TypedArchive,
        limits: TypedLimits,
        backfill: TypedBackfill,
        upkeep: TypedUpkeep,
        webhooks: TypedWebhooks,
        source: BTreeMap<String, TypedSource>,
    }
}

typed! {
    /// `[archive]`
    TypedArchive {
        commit_every: Option<String>,
        segment_size: Option<String>,
        block_size: Option<String>,
        level: Option<i64>,
    }
}

typed! {
    /// `[limits]`
    TypedLimits {
        max_message: Option<String>,
        queue: Option<String>,
    }
}

typed! {
    /// `[backfill]`
    TypedBackfill {
        automatic: Option<bool>,
        index_delay: Option<String>,
        max_requests_per_day: Option<i64>,
        max_items_per_day: Option<i64>,
        max_usd_per_day: Option<f64>,
        total_requests_per_day: Option<i64>,
        total_items_per_day: Option<i64>,
        total_usd_per_day: Option<f64>,
        pace: Option<String>,
        look_twice: Option<bool>,
    }
}

typed! {
    /// `[upkeep]`
    TypedUpkeep {
        scrub: Option<bool>,
        scrub_pace: Option<String>,
        scrub_every: Option<String>,
    }
}

typed! {
    /// `[webhooks]`
    TypedWebhooks {
        listen: Option<String>,
        allow_plain: Option<bool>,
    }
}

typed! {
    /// `[source.NAME]`
    TypedSource {
        provider: Option<String>,
        base_url: Option<String>,
        auth: Option<String>,
        connections: Option<i64>,
        key_env: Option<String>,
        key_file: Option<PathBuf>,
        reconnect: Option<bool>,
        reconnect_floor: Option<String>,
        reconnect_cap: Option<String>,
        ping_every: Option<String>,
        pong_within: Option<String>,
        lateness_horizon: Option<String>,
        scopes_every: Option<String>,
        topics: Option<Vec<String>>,
        direct_messages: Option<bool>,
        framing: Option<String>,
        answer_auth_ping: Option<bool>,
        ca_file: Option<PathBuf>,
        allow_plain: Option<bool>,
        webhook: Option<bool>,
        webhook_secret_env: Option<String>,
        webhook_secret_file: Option<PathBuf>,
    }
}

/// The file's text with its positions, so that every message can name a line.
///
/// The parser's own `Display` is never used: it quotes the line, and the line may hold a key.
struct Page<'a> {
    origin: &'a str,
    text: &'a str,
    tree: DeTable<'a>,
}

impl<'a> Page<'a> {
    fn parse(origin: &'a str, text: &'a str) -> Result<Self, ConfigError> {
        let tree = DeTable::parse(text).map_err(|error| {
            let line = error.span().map(|span| line_at(text, span.start));
            let place = Box::new(Place { origin: origin.to_owned(), line, table: String::new() });
            ConfigError::Syntax { place, why: shown(error.message()) }
        })?;
        Ok(Self { origin, text, tree: tree.into_inner() })
    }

    /// Checks the keys' names, then their sorts of value.
    fn typed(&self) -> Result<TypedFile, ConfigError> {
        self.check_keys(&self.tree, &[], TypedFile::KEYS)?;
        let tables = [
            ("archive", TypedArchive::KEYS),
            ("limits", TypedLimits::KEYS),
            ("backfill", TypedBackfill::KEYS),
            ("upkeep", TypedUpkeep::KEYS),
            ("webhooks", TypedWebhooks::KEYS),
        ];
        for (name, keys) in tables {
            if let Some(table) = find(&self.tree, name).and_then(|(_, value)| value.as_table()) {
                self.check_keys(table, &[name], keys)?;
            }
        }
        if let Some(sources) = find(&self.tree, "source").and_then(|(_, value)| value.as_table()) {
            for (name, value) in sources.iter() {
                if let Some(table) = value.get_ref().as_table() {
                    self.check_keys(table, &["source", name.get_ref()], TypedSource::KEYS)?;
                }
            }
        }
        toml::from_str(self.text).map_err(|error| self.wrong_sort(&error))
    }

    fn check_keys(&self, table: &DeTable<'_>, path: &[&str], known: &[&str]) -> Result<(), ConfigError> {
        let unknown = table.keys().filter(|key| !known.contains(&key.get_ref().as_ref()));
        let Some(key) = unknown.min_by_key(|key| key.span().start) else { return Ok(()) };
        let line = Some(line_at(self.text, key.span().start));
        let place = Box::new(Place { origin: self.origin.to_owned(), line, table: title(path) });
        let key = shown(key.get_ref());
        if holds_a_key(&key) {
            return Err(ConfigError::KeyInFile { place, key });
        }
        let nearest = nearest(&key, known);
        Err(ConfigError::UnknownKey { place, key, nearest, known: known.join(", ") })
    }

    /// Turns serde's complaint about a value into ours, which names the key and does not repeat the value.
    fn wrong_sort(&self, error: &toml::de::Error) -> ConfigError {
        let offset = error.span().map_or(0, |span| span.start);
        let line = error.span().map(|span| line_at(self.text, span.start));
        let mut path = Vec::new();
        let Some(found) = value_at(&self.tree, offset, &mut path) else {
            let place = Box::new(Place { origin: self.origin.to_owned(), line, table: String::new() });
            return ConfigError::Syntax { place, why: shown(error.message()) };
        };
        let key = path.pop().unwrap_or_default();
        let path: Vec<&str> = path.iter().map(String::as_str).collect();
        let place = Box::new(Place { origin: self.origin.to_owned(), line, table: title(&path) });
        let found = match found {
            "integer" => "a whole number",
            "float" => "a fraction",
            "boolean" => "true or false",
            "string" => "a string",
            "array" => "a list",
            "table" => "a table",
            _ => "a date",
        };
        let expected = match error.message().rsplit_once("expected ").map_or("another sort", |(_, what)| what) {
            "i64" => "a whole number".to_owned(),
            "f64" => "a number".to_owned(),
            "a sequence" => "a list of strings".to_owned(),
            "path string" => "a string".to_owned(),
            "a boolean" => "true or false".to_owned(),
            other if other.starts_with("struct ") || other == "a map" => "a table".to_owned(),
            other => other.to_owned(),
        };
        ConfigError::Sort { place, key, found, expected }
    }

    fn place(&self, path: &[&str]) -> Box<Place> {
        self.table(path).place(None)
    }

    fn table<'t>(&'t self, path: &[&'t str]) -> Table<'t> {
        Table { page: Some(self), origin: self.origin, path: path.to_vec() }
    }

    /// Line of a key, or of a table's first mention.
    fn line(&self, path: &[&str]) -> Option<usize> {
        let (last, above) = path.split_last()?;
        let mut table = &self.tree;
        for name in above {
            table = find(table, name)?.1.as_table()?;
        }
        find(table, last).map(|(at, _)| line_at(self.text, at))
    }
}

/// A table of the file, or the flags that stand for one: makes errors that name their place.
struct Table<'a> {
    page: Option<&'a Page<'a>>,
    origin: &'a str,
    path: Vec<&'a str>,
}

impl Table<'_> {
    fn place(&self, key: Option<&str>) -> Box<Place> {
        let mut path = self.path.clone();
        path.extend(key);
        let line = self.page.and_then(|page| page.line(&path).or_else(|| page.line(&self.path)));
        Box::new(Place { origin: self.origin.to_owned(), line, table: title(&self.path) })
    }

    fn bad(&self, key: &'static str, why: impl Into<String>) -> ConfigError {
        ConfigError::Value { place: self.place(Some(key)), key, why: why.into(), cure: None }
    }

    fn bad_with_cure(&self, key: &'static str, why: impl Into<String>, cure: &'static str) -> ConfigError {
        ConfigError::Value { place: self.place(Some(key)), key, why: why.into(), cure: Some(cure) }
    }

    fn duration(
        &self,
        key: &'static str,
        typed: Option<&String>,
        default: Duration,
        allowed: RangeInclusive<Duration>,
    ) -> Result<Duration, ConfigError> {
        let Some(text) = typed else { return Ok(default) };
        let Ok(value) = humantime::parse_duration(text) else {
            return Err(self.bad(key, format!(r#"is {text:?}, which is no duration such as "250ms", "90s" or "5m""#)));
        };
        if allowed.contains(&value) {
            return Ok(value);
        }
        let (low, high) = (humantime::format_duration(*allowed.start()), humantime::format_duration(*allowed.end()));
        Err(self.bad(key, format!("is {text:?}; allowed are {low} to {high}")))
    }

    fn size(
        &self,
        key: &'static str,
        typed: Option<&String>,
        default: u64,
        allowed: RangeInclusive<u64>,
    ) -> Result<u64, ConfigError> {
        let Some(text) = typed else { return Ok(default) };
        let Ok(ByteSize(value)) = text.parse::<ByteSize>() else {
            return Err(self.bad(key, format!(r#"is {text:?}, which is no size such as "64KiB" or "16MiB""#)));
        };
        if allowed.contains(&value) {
            return Ok(value);
        }
        let (low, high) = (ByteSize(*allowed.start()), ByteSize(*allowed.end()));
        Err(self.bad(key, format!("is {text:?}; allowed are {low} to {high}")))
    }

    fn number(
        &self,
        key: &'static str,
        typed: Option<i64>,
        default: i64,
        allowed: RangeInclusive<i64>,
    ) -> Result<i64, ConfigError> {
        let value = typed.unwrap_or(default);
        if allowed.contains(&value) {
            return Ok(value);
        }
        Err(self.bad(key, format!("is {value}; allowed are {} to {}", allowed.start(), allowed.end())))
    }
}

// ---- what it means ----

const ZERO: Duration = Duration::ZERO;
/// Also keeps `Instant + Duration` far from its end.
const DAY: Duration = Duration::from_secs(86_400);
const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;
/// Redundant connections of one source beyond this bring nothing.
const MAX_CONNECTIONS: i64 = 5;
/// A configuration or key file longer than this is something else.
const MAX_FILE: u64 = MIB;

fn tape(env: Env<'_>, typed: Option<PathBuf>) -> PathBuf {
    let variable = env("BIRDTAPE_TAPE").filter(|text| !text.is_empty()).map(PathBuf::from);
    variable.or(typed).unwrap_or_else(|| PathBuf::from(DEFAULT_TAPE))
}

fn archive_options(table: &Table<'_>, typed: &TypedArchive) -> Result<archive::Options, ConfigError> {
    let default = archive::Options::default();
    let commit_every =
        table.duration("commit_every", typed.commit_every.as_ref(), default.commit_every, ZERO..=Duration::from_secs(60))?;
    let blocks = 256..=archive::Packing::BLOCK_BYTES_MAX;
    let block_bytes = table.size("block_size", typed.block_size.as_ref(), default.block_bytes, blocks)?;
    let segment_bytes = table.size("segment_size", typed.segment_size.as_ref(), default.segment_bytes, 256..=64 * GIB)?;
    let level = table.number("level", typed.level, i64::from(default.level), 1..=19)? as i32;
    // A small segment alone is clear enough; only two typed sizes can contradict each other.
    let block_bytes = match typed.block_size {
        None => block_bytes.min(segment_bytes),
        Some(_) if block_bytes > segment_bytes => {
            let why = format!("is larger than `segment_size` ({} > {})", ByteSize(block_bytes), ByteSize(segment_bytes));
            return Err(table.bad("block_size", why));
        }
        Some(_) => block_bytes,
    };
    #[allow(clippy::needless_update, reason = "options that no file sets keep their default")]
    let options = archive::Options { commit_every, block_bytes, segment_bytes, level, ..default };
    Ok(options)
}

fn limits(table: &Table<'_>, typed: &TypedLimits) -> Result<Limits, ConfigError> {
    let default = Limits::default();
    let messages = KIB..=archive::MAX_BODY_BYTES as u64;
    let max_message = table.size("max_message", typed.max_message.as_ref(), default.max_message as u64, messages)?;
    // A queue that cannot hold the longest message would never let it through.
    let queue = table.size("queue", typed.queue.as_ref(), max_message.max(default.queue_bytes as u64), KIB..=4 * GIB)?;
    if queue < max_message {
        let why = format!("is smaller than `max_message` ({} < {})", ByteSize(queue), ByteSize(max_message));
        return Err(table.bad("queue", why));
    }
    Ok(Limits { max_message: max_message as usize, queue_bytes: queue as usize })
}

fn filling(table: &Table<'_>, typed: &TypedBackfill) -> Result<Backfill, ConfigError> {
    let default = Backfill::default();
    let amount = |key, typed: Option<i64>| {
        let checked = typed.map(|typed| table.number(key, Some(typed), 1, 1..=i64::MAX).map(|n| n as u64));
        checked.transpose()
    };
    let usd = |key, typed: Option<f64>| match typed {
        None => Ok(None),
        Some(usd) if (1e-6..1e9).contains(&usd) => Ok(Some((usd * 1e6).round() as u64)),
        Some(usd) => {
            let why = format!("is {usd}; allowed are 0.000001 to 1000000000");
            Err(table.bad_with_cure(key, why, "to spend nothing, set `automatic = false`"))
        }
    };
    let day = Budget {
        requests: amount("max_requests_per_day", typed.max_requests_per_day)?,
        rows: amount("max_items_per_day", typed.max_items_per_day)?,
        micro_usd: usd("max_usd_per_day", typed.max_usd_per_day)?,
    };
    let day_in_all = Budget {
        requests: amount("total_requests_per_day", typed.total_requests_per_day)?,
        rows: amount("total_items_per_day", typed.total_items_per_day)?,
        micro_usd: usd("total_usd_per_day", typed.total_usd_per_day)?,
    };
    let pace = typed.pace.as_ref().map(|text| table.duration("pace", Some(text), ZERO, ZERO..=DAY)).transpose()?;
    let index_delay = table.duration("index_delay", typed.index_delay.as_ref(), default.index_delay, ZERO..=7 * DAY)?;
    let look_twice = typed.look_twice.unwrap_or(default.look_twice);
    Ok(Backfill { automatic: typed.automatic.unwrap_or(default.automatic), index_delay, day, day_in_all, pace, look_twice })
}

fn scrubbing(table: &Table<'_>, typed: &TypedUpkeep) -> Result<ScrubOptions, ConfigError> {
    let default = ScrubOptions::default();
    let pace = typed.scrub_pace.as_ref().map(|text| text.strip_suffix("/s").unwrap_or(text).to_owned());
    let bytes_per_second = table.size("scrub_pace", pace.as_ref(), default.bytes_per_second, KIB..=GIB)?;
    let every = table.duration("scrub_every", typed.scrub_every.as_ref(), default.every, Duration::from_secs(60)..=365 * DAY)?;
    Ok(ScrubOptions { automatic: typed.scrub.unwrap_or(default.automatic), bytes_per_second, every })
}

fn source(table: &Table<'_>, name: SourceName, typed: &TypedSource, env: Env<'_>) -> Result<Source, ConfigError> {
    let provider = named_provider(table, typed.provider.as_deref())?;
    let allow_plain = typed.allow_plain.unwrap_or(false);
    let mut settings = provider::default_settings(provider);
    settings.base = base(table, typed.base_url.as_deref(), allow_plain)?;
    settings.auth = auth(table, typed.auth.as_deref(), provider, settings.auth)?;
    settings.auto_reconnect = typed.reconnect.unwrap_or(settings.auto_reconnect);
    timing(table, typed, &mut settings)?;
    specialities(table, typed, provider, &mut settings)?;

    let loopback = settings.base.as_ref().is_some_and(|base| is_loopback(&base.endpoint.host));
    let (credentials, key_source) = credentials(table, &name, typed, provider, loopback, env)?;
    settings.credentials = credentials;
    let horizon = provider::default_lateness_horizon(provider);
    let lateness_horizon = table.duration("lateness_horizon", typed.lateness_horizon.as_ref(), horizon, ZERO..=7 * DAY)?;
    let connections = connections(table, typed.connections, provider)?;
    let variable = env("BIRDTAPE_CA_FILE").filter(|text| !text.is_empty()).map(PathBuf::from);
    let ca_file = variable.or_else(|| typed.ca_file.clone());
    if let Some(file) = ca_file.as_ref().filter(|file| !file.is_file()) {
        return Err(table.bad("ca_file", format!("names {}, which is not a file", file.display())));
    }
    let webhook = webhooks::secret(table, typed, (provider, settings.credentials.key.as_ref()), env)?;
    Ok(Source { name, settings, connections, lateness_horizon, ca_file, allow_plain, key_source, webhook })
}

fn named_provider(table: &Table<'_>, typed: Option<&str>) -> Result<Provider, ConfigError> {
    let Some(word) = typed else { return Err(ConfigError::NoProvider { place: table.place(None) }) };
    word.parse().map_err(|_| ConfigError::UnknownProvider {
        place: table.place(Some("provider")),
        name: shown(word),
        nearest: nearest(word, &Provider::ALL.map(Provider::name)),
    })
}

fn base(table: &Table<'_>, typed: Option<&str>, allow_plain: bool) -> Result<Option<Base>, ConfigError> {
    let Some(address) = typed else { return Ok(None) };
    let base = Base::parse(address).map_err(|error| {
        // The error shows the address without user, password and query.
        table.bad("base_url", format!("is {:?}: {}", error.given, error.why))
    })?;
    let host = &base.endpoint.host;
    if !base.endpoint.tls && !allow_plain && !is_loopback(host) {
        let why = format!("would send the key to {host} without TLS");
        return Err(table.bad_with_cure(
            "base_url",
            why,
            "use https:// or wss://; or, on a network you trust, set `allow_plain = true` for the source in birdtape.toml",
        ));
    }
    Ok(Some(base))
}

/// Whether a host is this machine, whatever a name server says.
fn is_loopback(host: &str) -> bool {
    host.eq_ignore_ascii_case("localhost") || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

const fn auth_word(auth: Auth) -> &'static str {
    match auth {
        Auth::Header => "header",
        Auth::Query => "query",
        Auth::Subprotocol => "subprotocol",
        Auth::Bearer => "bearer",
        Auth::Cookies => "cookies",
    }
}

const fn auth_ways(provider: Provider) -> &'static [Auth] {
    match provider {
        Provider::TwitterapiIo => &[Auth::Header],
        Provider::Tweetstream => &[Auth::Subprotocol, Auth::Bearer, Auth::Query],
        Provider::Scrapebadger => &[Auth::Header, Auth::Query],
        Provider::XLive => &[Auth::Cookies],
    }
}

fn auth(table: &Table<'_>, typed: Option<&str>, provider: Provider, default: Auth) -> Result<Auth, ConfigError> {
    let Some(word) = typed else { return Ok(default) };
    let ways = auth_ways(provider);
    ways.iter().copied().find(|way| auth_word(*way) == word).ok_or_else(|| {
        let known = ways.iter().map(|way| format!("{:?}", auth_word(*way))).collect::<Vec<_>>().join(", ");
        table.bad("auth", format!("is {word:?}; {provider} knows {known}"))
    })
}

fn connections(table: &Table<'_>, typed: Option<i64>, provider: Provider) -> Result<u32, ConfigError> {
    let many = matches!(provider, Provider::Tweetstream | Provider::Scrapebadger);
    if let Some(n) = typed.filter(|n| !many && *n != 1) {
        return Err(table.bad("connections", format!("is {n}; {provider} allows 1 per source")));
    }
    Ok(table.number("connections", typed, 1, 1..=MAX_CONNECTIONS)? as u32)
}

fn timing(table: &Table<'_>, typed: &TypedSource, settings: &mut Settings) -> Result<(), ConfigError> {
    let floor = table.duration("reconnect_floor", typed.reconnect_floor.as_ref(), settings.reconnect_floor, ZERO..=DAY)?;
    let shortest = Duration::from_millis(1);
    let cap = table.duration("reconnect_cap", typed.reconnect_cap.as_ref(), settings.reconnect_cap, shortest..=DAY)?;
    settings.reconnect_floor = floor;
    settings.reconnect_cap = match (&typed.reconnect_floor, &typed.reconnect_cap) {
        // One of them moved past the other's default: the one that was typed decides.
        (Some(_), None) => cap.max(floor),
        (None, Some(text)) if cap < floor => {
            let floor = humantime::format_duration(floor);
            let why = format!("is {text:?}, shorter than `reconnect_floor` ({floor}); set both");
            return Err(table.bad("reconnect_cap", why));
        }
        (Some(_), Some(text)) if cap < floor => {
            return Err(table.bad("reconnect_cap", format!("is {text:?}, shorter than `reconnect_floor`")));
        }
        _ => cap,
    };
    let every = settings.scopes_every;
    settings.scopes_every = table.duration("scopes_every", typed.scopes_every.as_ref(), every, ZERO..=7 * DAY)?;
    settings.ping_every = table.duration("ping_every", typed.ping_every.as_ref(), settings.ping_every, ZERO..=DAY)?;
    settings.pong_within = table.duration("pong_within", typed.pong_within.as_ref(), settings.pong_within, shortest..=DAY)?;
    Ok(())
}

/// Keys that only one provider knows.
fn specialities(table: &Table<'_>, typed: &TypedSource, provider: Provider, settings: &mut Settings) -> Result<(), ConfigError> {
    let only = |key, wanted: Provider, given: bool| {
        let wrong = given && provider != wanted;
        if wrong { Err(table.bad(key, format!("is for {wanted} only; this source is {provider}"))) } else { Ok(()) }
    };
    only("topics", Provider::XLive, typed.topics.is_some())?;
    only("direct_messages", Provider::XLive, typed.direct_messages.is_some())?;
    only("framing", Provider::XLive, typed.framing.is_some())?;
    if provider == Provider::XLive && typed.scopes_every.is_some() {
        return Err(table.bad("scopes_every", "is not for x_live: its topics are configured".to_owned()));
    }
    only("answer_auth_ping", Provider::Tweetstream, typed.answer_auth_ping.is_some())?;

    settings.answer_auth_ping = typed.answer_auth_ping.unwrap_or(settings.answer_auth_ping);
    settings.direct_messages = typed.direct_messages.unwrap_or(settings.direct_messages);
    settings.framing = match typed.framing.as_deref() {
        None => settings.framing,
        Some("sse") => Framing::Sse,
        Some("lines") => Framing::Lines,
        Some(other) => return Err(table.bad("framing", format!(r#"is {other:?}; allowed are "sse" and "lines""#))),
    };
    if let Some(topics) = &typed.topics {
        check_topics(table, topics, settings.direct_messages)?;
        settings.topics.clone_from(topics);
    }
    if provider == Provider::XLive && settings.topics.is_empty() && settings.base.is_none() {
        return Err(table.bad_with_cure(
            "topics",
            "is missing or empty: X sends nothing that was not asked for",
            r#"in birdtape.toml give the source a line such as `topics = ["/tweet_engagement/1234567890"]`"#,
        ));
    }
    Ok(())
}

fn check_topics(table: &Table<'_>, topics: &[String], direct_messages: bool) -> Result<(), ConfigError> {
    let mut seen = BTreeSet::new();
    for topic in topics {
        let plain = topic.bytes().all(|b| b.is_ascii_graphic() && b != b',');
        if !plain || !topic.starts_with('/') || topic.len() < 2 {
            let why = format!(r#"holds {topic:?}, which is no topic such as "/tweet_engagement/1234567890""#);
            return Err(table.bad("topics", why));
        }
        if !seen.insert(topic) {
            return Err(table.bad("topics", format!("holds {topic:?} twice")));
        }
        if topic.starts_with("/dm_") && !direct_messages {
            return Err(table.bad_with_cure(
                "topics",
                format!("holds {topic:?}, and direct messages are not switched on"),
                "other people write there too: if you may record them, set `direct_messages = true`",
            ));
        }
    }
    Ok(())
}

// ---- keys ----

const fn key_variable(provider: Provider) -> &'static str {
    match provider {
        Provider::TwitterapiIo => "TWITTERAPI_IO_API_KEY",
        Provider::Tweetstream => "TWEETSTREAM_API_KEY",
        Provider::Scrapebadger => "SCRAPEBADGER_API_KEY",
        Provider::XLive => "X_AUTH_TOKEN",
    }
}

/// Finds a source's keys and says where they were found.
fn credentials(
    table: &Table<'_>,
    name: &SourceName,
    typed: &TypedSource,
    provider: Provider,
    loopback: bool,
    env: Env<'_>,
) -> Result<(Credentials, String), ConfigError> {
    if typed.key_env.is_some() && typed.key_file.is_some() {
        return Err(table.bad("key_file", "stands beside `key_env`; give one of them"));
    }
    if typed.key_env.is_some() && provider == Provider::XLive {
        return Err(table.bad("key_env", "is not for x_live, which reads X_AUTH_TOKEN and X_CT0; or use `key_file`"));
    }
    let variable = variable_of(table, "key_env", typed.key_env.as_deref())?.unwrap_or(key_variable(provider));
    let found = match (&typed.key_file, provider) {
        (Some(file), Provider::XLive) => {
            let text = read_key_file(table, "key_file", file)?;
            cookies(&|wanted| assigned(&text, wanted), &format!("file {}", file.display()))
        }
        (Some(file), _) => api_key(Secret::new(read_key_file(table, "key_file", file)?), format!("file {}", file.display())),
        (None, Provider::XLive) => cookies(env, "environment variables X_AUTH_TOKEN and X_CT0"),
        (None, _) => api_key(env(variable).and_then(Secret::new), format!("environment variable {variable}")),
    };
    let any = found.credentials.key.is_some() || found.credentials.auth_token.is_some() || found.credentials.ct0.is_some();
    let typed_where = typed.key_env.is_some() || typed.key_file.is_some();
    if !any && loopback && !typed_where {
        return Ok((placeholder(provider), "the placeholder for loopback addresses".to_owned()));
    }
    if let Some(missing) = found.missing {
        return Err(match &typed.key_file {
            Some(file) if provider == Provider::XLive => table.bad_with_cure(
                "key_file",
                format!("names {}, which does not give {missing}", file.display()),
                "it holds the lines `X_AUTH_TOKEN=…` and `X_CT0=…`",
            ),
            Some(file) => table.bad("key_file", format!("names {}, which is empty", file.display())),
            None if provider == Provider::XLive => ConfigError::NoKey { name: name.clone(), variable: missing.to_owned() },
            None => ConfigError::NoKey { name: name.clone(), variable: variable.to_owned() },
        });
    }
    for secret in [&found.credentials.key, &found.credentials.auth_token, &found.credentials.ct0].into_iter().flatten() {
        // Anything else could smuggle a header line or a second cookie into the handshake.
        if !secret.expose().bytes().all(|b| b.is_ascii_graphic() && b != b';' && b != b',') {
            let why = "holds a space, a comma, a semicolon, a control character or something that is not ASCII";
            return Err(ConfigError::BadKey { name: name.clone(), key_source: found.key_source, why });
        }
    }
    Ok((found.credentials, found.key_source))
}

/// The variable that holds a key, checked to be a variable's name and not the key itself.
fn variable_of<'t>(table: &Table<'_>, key: &'static str, typed: Option<&'t str>) -> Result<Option<&'t str>, ConfigError> {
    let Some(name) = typed else { return Ok(None) };
    let allowed = |b: u8| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b'_';
    let good = (1..=64).contains(&name.len()) && name.bytes().all(allowed) && !name.starts_with(|c: char| c.is_ascii_digit());
    if good {
        return Ok(Some(name));
    }
    Err(table.bad_with_cure(
        key,
        "is no variable's name of A-Z, 0-9 and _ (it is not repeated here, in case it is the key itself)",
        "it names the variable; the key itself goes into that variable",
    ))
}

struct Found {
    credentials: Credentials,
    key_source: String,
    missing: Option<&'static str>,
}

fn api_key(key: Option<Secret>, key_source: String) -> Found {
    let missing = key.is_none().then_some("the key");
    Found { credentials: Credentials { key, ..Credentials::default() }, key_source, missing }
}

fn cookies(value: Env<'_>, key_source: &str) -> Found {
    let read = |name| value(name).and_then(Secret::new);
    let credentials = Credentials { key: read("X_BEARER_TOKEN"), auth_token: read("X_AUTH_TOKEN"), ct0: read("X_CT0") };
    let missing = match (&credentials.auth_token, &credentials.ct0) {
        (None, _) => Some("X_AUTH_TOKEN"),
        (_, None) => Some("X_CT0"),
        _ => None,
    };
    Found { credentials, key_source: key_source.to_owned(), missing }
}

fn placeholder(provider: Provider) -> Credentials {
    let local = || Secret::new(LOCAL_KEY);
    match provider {
        Provider::XLive => Credentials { key: None, auth_token: local(), ct0: local() },
        _ => Credentials { key: local(), ..Credentials::default() },
    }
}

/// The value of `NAME=value` among the lines of a key file.
fn assigned(text: &str, wanted: &str) -> Option<String> {
    let mut pairs = text.lines().filter_map(|line| line.split_once('='));
    pairs.find(|(name, _)| name.trim() == wanted).map(|(_, value)| value.trim().to_owned())
}

fn read_key_file(table: &Table<'_>, key: &str, file: &Path) -> Result<String, ConfigError> {
    use std::os::unix::fs::PermissionsExt;

    let place = || table.place(Some(key));
    let fail = |source| ConfigError::KeyFile { place: place(), file: file.to_owned(), source };
    let opened = File::open(file).map_err(fail)?;
    // Asked of the open file, so that nobody can swap it between the question and the reading.
    let mode = opened.metadata().map_err(fail)?.permissions().mode() & 0o7777;
    if mode & 0o077 != 0 {
        return Err(ConfigError::KeyFileMode { place: place(), file: file.to_owned(), mode });
    }
    read_bounded(opened).map_err(fail)
}

/// Refuses two sources whose connections the provider would close in turn.
fn refuse_rivals(page: &Page<'_>, sources: &[Source]) -> Result<(), ConfigError> {
    // Only its real address: a fake peer may well be told to allow more.
    let single: Vec<&Source> = sources
        .iter()
        .filter(|source| source.settings.provider == Provider::TwitterapiIo && source.settings.base.is_none())
        .collect();
    for (at, second) in single.iter().enumerate() {
        let same = |first: &&&Source| first.settings.credentials.key == second.settings.credentials.key;
        if let Some(first) = single[..at].iter().find(same) {
            return Err(ConfigError::Rivals {
                place: page.place(&["source", second.name.as_str()]),
                first: first.name.clone(),
                second: second.name.clone(),
                provider: Provider::TwitterapiIo,
            });
        }
    }
    Ok(())
}

// ---- small things ----

fn read_file(path: &Path) -> Result<String, ConfigError> {
    let file = path.to_owned();
    match File::open(path).and_then(read_bounded) {
        Ok(text) => Ok(text),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Err(ConfigError::NoFile { file }),
        Err(source) => Err(ConfigError::Unreadable { file, source }),
    }
}

fn read_bounded(file: File) -> io::Result<String> {
    let mut text = String::new();
    let n = file.take(MAX_FILE + 1).read_to_string(&mut text)?;
    if n as u64 > MAX_FILE {
        return Err(io::Error::other(format!("it is longer than {}", ByteSize(MAX_FILE))));
    }
    Ok(text)
}

/// Whether a key's name says that its value would be a secret.
fn holds_a_key(name: &str) -> bool {
    let plain = name.to_ascii_lowercase().replace('-', "_");
    let secret = ["api_key", "apikey", "token", "secret", "password", "cookie", "bearer", "ct0", "credential"];
    plain == "key" || plain.ends_with("_key") || secret.iter().any(|word| plain.contains(word))
}

/// The known name nearest to what was typed, if it is near enough to be meant.
fn nearest(typed: &str, known: &[&str]) -> Option<String> {
    let best = known.iter().map(|name| (edits(typed, name), *name)).min()?;
    let near = best.0 <= 2 || best.0 * 3 <= typed.chars().count();
    (near && best.0 < typed.chars().count()).then(|| best.1.to_owned())
}

/// Insertions, deletions and substitutions that lead from `a` to `b`.
fn edits(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.chars().take(64).enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, to) in b.iter().enumerate() {
            let substituted = diagonal + usize::from(from != *to);
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

/// Text from outside with its control characters made visible.
fn shown(text: &str) -> String {
    text.chars().flat_map(|c| if c.is_control() { c.escape_default().collect() } else { vec![c] }).collect()
}

fn title(path: &[&str]) -> String {
    if path.is_empty() { String::new() } else { format!("[{}]", shown(&path.join("."))) }
}

fn line_at(text: &str, offset: usize) -> usize {
    1 + text.bytes().take(offset).filter(|b| *b == b'\n').count()
}

fn find<'t, 'i>(table: &'t DeTable<'i>, name: &str) -> Option<(usize, &'t DeValue<'i>)> {
    let (key, value) = table.iter().find(|(key, _)| key.get_ref() == name)?;
    Some((key.span().start, value.get_ref()))
}

/// The deepest value at an offset: its path into `path`, and its sort.
fn value_at(table: &DeTable<'_>, offset: usize, path: &mut Vec<String>) -> Option<&'static str> {
    for (key, value) in table.iter() {
        path.push(shown(key.get_ref()));
        let inner = value.get_ref().as_table().and_then(|inner| value_at(inner, offset, path));
        let here = || value.span().contains(&offset).then(|| value.get_ref().type_str());
        if let Some(sort) = inner.or_else(here) {
            return Some(sort);
        }
        path.pop();
    }
    None
}

#[cfg(test)]
mod tests;
