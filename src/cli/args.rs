//! Arguments that several commands share, and how they are read.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result};

use super::exit::usage;
use crate::archive::Tape;
use crate::config::{self, Config, ProviderFlags};
use crate::model::{Provider, RecordKind, SourceName, TweetId, UnixMicros};
use crate::net::{Clock, SystemClock};
use crate::segment::RealDisk;

/// Options of every command.
#[derive(Debug, clap::Args)]
pub(super) struct Common {
    /// Directory of the tape
    ///
    /// Without it: what the configuration file says, else ./tape.
    #[arg(long, global = true, value_name = "DIR", env = "BIRDTAPE_TAPE", hide_env_values = true, help_heading = "Everywhere")]
    pub(super) tape: Option<PathBuf>,
    /// Configuration file [default: ./birdtape.toml]
    #[arg(
        long,
        global = true,
        value_name = "FILE",
        env = "BIRDTAPE_CONFIG",
        hide_env_values = true,
        help_heading = "Everywhere"
    )]
    pub(super) config: Option<PathBuf>,
    /// Print JSON on stdout, one value a line
    #[arg(long, global = true, help_heading = "Everywhere")]
    pub(super) json: bool,
}

impl Common {
    /// The configuration file.
    pub(super) fn config_file(&self) -> PathBuf {
        self.config.clone().unwrap_or_else(|| PathBuf::from(config::DEFAULT_FILE))
    }

    /// Where the tape lies: flag, environment, file, default.
    pub(super) fn tape_dir(&self) -> Result<PathBuf> {
        if let Some(dir) = &self.tape {
            return Ok(dir.clone());
        }
        let file = self.config_file();
        if self.config.is_some() && !file.exists() {
            return Err(config::ConfigError::NoFile { file }.into());
        }
        Ok(Config::tape_of(&file, &env)?)
    }

    /// How long a recorder with this configuration gives history to know a post. Mistakes in a file are no obstacle where
    /// the tape is named without it.
    pub(super) fn index_delay(&self) -> Result<Duration> {
        match Config::index_delay_of(&self.config_file()) {
            Err(_) if self.tape.is_some() => Ok(config::Backfill::default().index_delay),
            found => Ok(found?),
        }
    }

    /// The tape, for reading.
    pub(super) fn open_tape(&self) -> Result<Tape> {
        Ok(Tape::open(&self.tape_dir()?, std::sync::Arc::new(RealDisk))?)
    }
}

/// The process environment, for [`Config`].
pub(super) fn env(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

/// The present.
pub(super) fn now() -> UnixMicros {
    SystemClock::new().wall()
}

/// What another recorder is told about us.
pub(super) fn holder(command: &str) -> String {
    format!("birdtape {command}, process {}, since {}", std::process::id(), super::out::stamp(now()))
}

/// Which sources to speak with, and how: those of the file, or of flags alone when providers are named.
pub(super) fn configuration(common: &Common, names: &[String], providers: &[Provider], flags: &ProviderFlags) -> Result<Config> {
    if providers.is_empty() {
        let mut config = Config::load_only(&common.config_file(), &env, names)?;
        if let Some(dir) = &common.tape {
            config.tape.clone_from(dir);
        }
        return Ok(config);
    }
    if !flags.topics.is_empty() && !providers.contains(&Provider::XLive) {
        return Err(usage("--topic goes with --provider x_live", "the other providers have no topics"));
    }
    let mut providers = providers.to_vec();
    providers.sort_unstable();
    providers.dedup();
    let mut configs = providers.into_iter().map(|provider| Config::for_provider(provider, flags, &env));
    let mut config = configs.next().context("no provider is named")??;
    for other in configs {
        config.sources.extend(other?.sources);
    }
    config.tape = common.tape_dir()?;
    Ok(config)
}

/// Whose history is asked, and where.
#[derive(Debug, clap::Args)]
pub(super) struct Histories {
    /// Only this source of the configuration (repeatable)
    #[arg(long, value_name = "NAME", conflicts_with = "provider")]
    pub(super) source: Vec<String>,
    /// Ask this provider without a configuration (repeatable): twitterapi_io, tweetstream, scrapebadger, x_live
    #[arg(long, value_name = "PROVIDER")]
    provider: Vec<Provider>,
    /// Another address than the provider's own, as `birdtape replay` prints it
    #[arg(long, value_name = "URL", requires = "provider")]
    base_url: Option<String>,
    /// Accept an address without TLS that is not on this machine: your key travels readable
    #[arg(long, requires = "provider")]
    allow_plain: bool,
}

impl Histories {
    /// The sources, at least one; the log hides their keys from now on.
    pub(super) fn configuration(&self, common: &Common) -> Result<Config> {
        let flags = ProviderFlags { base_url: self.base_url.clone(), topics: Vec::new(), allow_plain: self.allow_plain };
        let config = configuration(common, &self.source, &self.provider, &flags)?;
        super::log::start(config.secrets());
        config.require_sources()?;
        Ok(config)
    }
}

/// The sources a command looks at: those named, which must be there, or all of the tape.
pub(super) fn sources(tape: &Tape, named: &[String]) -> Result<Vec<String>> {
    if named.is_empty() {
        return Ok(tape.sources()?.into_iter().map(|source| source.name).collect());
    }
    named.iter().map(|name| Ok(tape.source(name)?.name)).collect()
}

/// A point in time as people write it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum When {
    /// Exactly then.
    At(UnixMicros),
    /// So long before the present.
    Ago(Duration),
}

impl When {
    /// The instant it means.
    pub(super) fn instant(self, now: UnixMicros) -> UnixMicros {
        match self {
            Self::At(at) => at,
            Self::Ago(by) => now.minus(by),
        }
    }
}

/// Reads `2026-11-20`, `2026-11-20T23:18:00Z`, `-1h` or `now`.
pub(super) fn when(text: &str) -> Result<When, String> {
    if text == "now" {
        return Ok(When::Ago(Duration::ZERO));
    }
    if let Some(ago) = text.strip_prefix('-') {
        return duration(ago).map(When::Ago);
    }
    let day = || UnixMicros::parse_rfc3339(&format!("{text}T00:00:00Z"));
    let at = UnixMicros::parse_rfc3339(text).or_else(day);
    let known = "a time is written as 2026-11-20, 2026-11-20T23:18:00Z, -1h (an hour ago) or now";
    at.map(When::At).ok_or_else(|| known.to_owned())
}

/// Reads seconds (`90`, `1.5`) or a length with its unit (`250ms`, `5m`).
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    let seconds = text.parse::<f64>().ok().and_then(|secs| Duration::try_from_secs_f64(secs).ok());
    let known = "a length of time is written in seconds (90, 1.5) or with its unit (250ms, 5m, 2h)";
    seconds.or_else(|| humantime::parse_duration(text).ok()).ok_or_else(|| known.to_owned())
}

/// Reads an address with its port.
pub(super) fn address(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| "an address is written with its port, as 127.0.0.1:8090 or [::1]:8090".to_owned())
}

/// Reads bytes in a second (`20MB/s`); 0 is without a bound (`max`).
pub(super) fn rate(text: &str) -> Result<u64, String> {
    if text == "max" {
        return Ok(0);
    }
    let size = text.strip_suffix("/s").unwrap_or(text).parse::<bytesize::ByteSize>().ok().map(|size| size.as_u64());
    size.filter(|size| *size > 0).ok_or_else(|| "a rate is written as 500KB/s, 20MB/s, or max".to_owned())
}

/// Reads a number of things.
pub(super) fn number(text: &str) -> Result<u64, String> {
    text.parse().map_err(|_| "a whole number is wanted, 1 or more".to_owned())
}

/// Reads the name of a source.
pub(super) fn source_name(text: &str) -> Result<SourceName, String> {
    SourceName::new(text).map_err(|error| error.to_string())
}

/// Reads the kind of a record.
pub(super) fn kind(text: &str) -> Result<RecordKind, String> {
    text.parse()
}

/// Reads a post's id.
pub(super) fn tweet_id(text: &str) -> Result<TweetId, String> {
    TweetId::parse(text).ok_or_else(|| "a post's id is a number of up to 20 digits, as in its address".to_owned())
}

/// Splits `alpha-17` into source and number.
pub(super) fn gap_id(text: &str) -> Result<(SourceName, u64)> {
    let parts = text.rsplit_once('-').and_then(|(source, n)| Some((SourceName::new(source).ok()?, n.parse().ok()?)));
    parts.ok_or_else(|| usage(format!("`{text}` is no gap's id"), "ids look like alpha-17; `birdtape gaps` lists them"))
}

/// Has a text read as each sort of argument, and what was read printed: for fuzzing, which has no other way here. Gives how
/// many took it.
pub fn read_all(text: &str, now: UnixMicros) -> usize {
    let at = when(text).map(|when| super::out::stamp(when.instant(now)));
    let long = duration(text).map(|long| super::out::length(i64::try_from(long.as_micros()).unwrap_or(i64::MAX)));
    let size = rate(text).or_else(|_| number(text)).map(super::out::size);
    let names = [source_name(text).is_ok(), kind(text).is_ok(), tweet_id(text).is_ok(), gap_id(text).is_ok()];
    let printed = [at, long, size].into_iter().flatten().filter(|text| !text.is_empty());
    printed.count() + names.into_iter().filter(|taken| *taken).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_times_as_people_write_them() {
        let noon = UnixMicros(1_767_614_400_000_000);
        let read = |text| when(text).unwrap().instant(noon);
        assert_eq!(read("2026-01-05T12:00:00Z"), noon);
        assert_eq!(read("2026-01-05T13:00:00+01:00"), noon);
        assert_eq!(read("2026-01-05"), noon.minus(Duration::from_secs(12 * 3_600)));
        assert_eq!(read("-1h"), noon.minus(Duration::from_secs(3_600)));
        assert_eq!(read("-90"), noon.minus(Duration::from_secs(90)));
        assert_eq!(read("now"), noon);
        for bad in ["", "-", "yesterday", "2026-13-01", "2026-01-05T12:00:00"] {
            assert!(when(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn reads_lengths_of_time() {
        let lengths = ["2", "1.5", "250ms", "1m 30s"].map(|text| duration(text).unwrap().as_millis());
        assert_eq!(lengths, [2_000, 1_500, 250, 90_000]);
        for bad in ["", "-1", "soon", "inf", "NaN", "1e300"] {
            assert!(duration(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn reads_rates() {
        assert_eq!(["20MB/s", "1MiB", "500KB/s", "max"].map(|text| rate(text).unwrap()), [20_000_000, 1 << 20, 500_000, 0]);
        for bad in ["", "fast", "0MB/s", "-1MB/s", "20MB/h"] {
            assert!(rate(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn reads_gap_ids() {
        assert_eq!(gap_id("my-src-17").unwrap(), (SourceName::new("my-src").unwrap(), 17));
        for bad in ["17", "alpha", "alpha-", "-3", "Alpha-3"] {
            assert!(gap_id(bad).is_err(), "{bad}");
        }
    }
}
