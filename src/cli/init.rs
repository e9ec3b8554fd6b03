//! `birdtape init`, and the configuration it writes: every key, explained, with its default.

use std::fs::OpenOptions;
use std::io::{ErrorKind, Write as _};
use std::path::PathBuf;

use anyhow::Context as _;

use super::exit::{Exit, Outcome, failed};
use super::out::say;

/// Write a commented configuration file
///
/// It holds every setting with its default, switched off. A file that is there is left alone unless --force is given.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  birdtape init                     write ./birdtape.toml
  birdtape init --force other.toml  write another file, replacing it if it is there")]
pub(super) struct Args {
    /// The file to write [default: --config, else ./birdtape.toml]
    file: Option<PathBuf>,
    /// Replace a file that is there
    #[arg(long)]
    force: bool,
}

pub(super) fn run(common: &super::Common, args: &Args) -> Outcome {
    let file = args.file.clone().unwrap_or_else(|| common.config_file());
    let mut options = OpenOptions::new();
    options.write(true).create(args.force).truncate(args.force).create_new(!args.force);
    let mut opened = match options.open(&file) {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {
            let what = format!("{} is there already", file.display());
            return Err(failed(what, "name another file, or replace it with --force"));
        }
        other => other.with_context(|| format!("cannot create {}", file.display()))?,
    };
    opened.write_all(TEMPLATE.as_bytes()).with_context(|| format!("cannot write {}", file.display()))?;
    say(&format!("wrote {}", file.display()));
    say("next: take the `# ` away before a [source.…] table, put its key into the environment, then `birdtape check`");
    Ok(Exit::Done)
}

/// The commented `birdtape.toml`. As it stands it says nothing that is not the default and configures no source.
///
/// A line of the form `# key = value` or `# [table]` is a setting to be switched on by taking the `#` away; every other
/// comment is prose. Tests hold on to both: all settings together make a valid file, and what is shown as a default is it.
pub const TEMPLATE: &str = r##"# birdtape's configuration. To switch a setting on, take away the `# ` before it.
#
# A flag beats an environment variable, a variable beats this file, this file beats the default. The values shown are
# the defaults, unless the text says "example". Durations: "250ms", "90s", "5m", "2h". Sizes: "64KiB", "16MiB", "1GiB".
# Relative paths count from the directory in which birdtape is started.
#
# API keys and cookies have no place in this file. They are read from the environment:
#   TWITTERAPI_IO_API_KEY, TWEETSTREAM_API_KEY, SCRAPEBADGER_API_KEY,
#   X_AUTH_TOKEN and X_CT0 (and X_BEARER_TOKEN, if you have one)
# or from a file that only you can read (`key_file` below).

# The directory of the tape. Also: --tape DIR, BIRDTAPE_TAPE.
# tape = "./tape"


# ---- how the tape is written ----

# [archive]

# The longest time that an envelope waits until it is safe on disk, "0s" to "1m". What was not yet written when the
# machine loses power is lost, and becomes a gap. "0s" makes every envelope safe before the next: slower, larger files.
# commit_every = "100ms"

# A segment is sealed when it holds that much before compression, and at midnight UTC.
# segment_size = "256MiB"

# Compressed at once when a segment is sealed: smaller blocks give quicker access, larger ones better compression.
# At most "128MiB", and not more than a segment.
# block_size = "4MiB"

# Level of zstd, 1 (quick) to 19 (small).
# level = 3


# ---- how much memory may be used ----

# [limits]

# The longest message taken whole, "1KiB" to "1GiB". A longer one ends its connection; its beginning is kept.
# max_message = "16MiB"

# Messages that wait for the disk. When they reach this, birdtape stops reading from the network until the disk has
# caught up. At least `max_message`.
# queue = "16MiB"


# ---- filling gaps from the providers' history ----

# [backfill]

# Whether `birdtape record` fills gaps as it goes. Also: --no-backfill.
# automatic = true

# How long a provider's history needs to know of what was published. A gap is filled so long (and the source's
# `lateness_horizon`) after its end.
# index_delay = "60s"

# What may be spent in a day (UTC) on each source: requests, items that come back, and US dollars by the provider's
# list. These are the defaults of what a recorder does by itself; `birdtape backfill` has no bound but those you set.
# max_requests_per_day = 1000
# max_usd_per_day = 1.0

# The same for items, and for all sources together (examples; there is no bound unless you set one).
# max_items_per_day = 50000
# total_requests_per_day = 5000
# total_items_per_day = 200000
# total_usd_per_day = 3.0

# The shortest time between two requests to a provider (example). Left out, it is what the provider documents.
# pace = "2s"

# Whether everything is asked a second time. Some histories leave a row out now and then; on a last page that leaves
# no other trace. Costs up to twice the requests. Also: --look-twice.
# look_twice = false


# ---- keeping the tape sound ----

# [upkeep]

# Whether `birdtape record` reads sealed segments again, slowly, to find damage. What is damaged becomes a gap, and is
# filled as any other. Also: --no-scrub.
# scrub = true

# How many bytes of files it reads in a second, at most.
# scrub_pace = "1MB/s"

# How long it rests, at least, from the beginning of one pass to that of the next, "1m" to "365d".
# scrub_every = "7d"


# ---- webhooks: a second way in ----

# [webhooks]

# Where `birdtape record` receives what TwitterAPI.io and ScrapeBadger deliver by webhook, as http://ADDRESS/SOURCE
# (example). Left out, it receives none. Providers want https: let a proxy with TLS stand before it. Also: --webhooks.
# listen = "127.0.0.1:8090"

# Whether it may be reached from beyond this machine without TLS, as by a proxy in another container.
# allow_plain = false


# ---- what is recorded: one table per source ----
#
# The name after the dot is yours: 1 to 64 of a-z, 0-9, _ and -. It becomes a directory on the tape, so keep it.
# The first table explains the keys that every source may have; the others add what is special to their provider.


# TwitterAPI.io: filter rules and monitored accounts, over WebSocket. One connection per key.
# [source.rules]
# provider = "twitterapi_io"

# Another address than the provider's own (example): http, https, ws or wss. `birdtape replay` prints such addresses.
# base_url = "http://127.0.0.1:8080"

# Whether an address without TLS is accepted when it is not on this machine. Your key would travel readable.
# allow_plain = false

# Certificates to trust besides the usual ones, as a PEM file (example).
# ca_file = "./ca.pem"

# The environment variable that holds the key (here, as an example, the provider's default one).
# key_env = "TWITTERAPI_IO_API_KEY"

# How the key travels: only "header" here.
# auth = "header"

# How many connections carry the same stream, so that one may break without a gap: 1 here.
# connections = 1

# Whether to dial again after a drop. With `false`, `birdtape record` ends then, with exit code 3.
# reconnect = true

# The shortest and the longest wait before dialling again. The provider asks for at least 90 s.
# reconnect_floor = "90s"
# reconnect_cap = "5m"

# How often birdtape asks the connection whether it is alive ("0s" is never), and how long an answer may take.
# ping_every = "40s"
# pong_within = "30s"

# How late an event may come after it was published. A gap is this much wider than the outage itself.
# lateness_horizon = "3m"

# How often birdtape reads which rules and accounts select the stream, besides at every opening ("0s" is never). What is
# read is kept as versions: a rule that is added, edited or removed becomes a gap, and holes are filled by the text that
# was in force. Reading is free and never touches the connection; a list that cannot be read is read again later.
# scopes_every = "10m"


# TweetStream: tracked accounts, with detections and OCR, over WebSocket.
# [source.accounts]
# provider = "tweetstream"

# How the key travels: "subprotocol", "bearer" or "query".
# auth = "subprotocol"

# 1 to 5; your plan says how many are allowed.
# connections = 1

# Whether to answer the provider's `auth_ping` messages. Its documents do not ask for it.
# answer_auth_ping = false


# ScrapeBadger: monitors and filter rules, over WebSocket.
# [source.monitors]
# provider = "scrapebadger"

# How the key travels: "header" or "query".
# auth = "header"

# 1 to 5. What comes twice is kept twice and counted once.
# connections = 1

# Instead of a variable: a file that holds nothing but the key (example). `chmod 600` it, or birdtape refuses it.
# key_file = "./scrapebadger.key"

# Whether its webhooks are taken, where there are some (for TwitterAPI.io, too, whose webhooks carry the API key).
# webhook = true

# The environment variable that holds the secret of the webhooks (here the default one). Instead, `webhook_secret_file`
# names a file that holds nothing else.
# webhook_secret_env = "SCRAPEBADGER_WEBHOOK_SECRET"


# X live pipeline: counters of posts and activity in conversations, as an endless HTTP response.
# Reads X_AUTH_TOKEN and X_CT0; a `key_file` holds them as lines of the form NAME=value.
# [source.counters]
# provider = "x_live"

# What to subscribe (example). Needed, unless `base_url` is set.
# topics = ["/tweet_engagement/1234567890"]

# Whether topics that begin with /dm_ are allowed. Other people write there too.
# direct_messages = false

# How messages are framed: "sse" or "lines".
# framing = "sse"
"##;

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::archive;
    use crate::config::{Backfill, Config, Limits};
    use crate::provider;
    use crate::upkeep::ScrubOptions;

    /// The setting in a commented line, if it is one.
    fn setting(line: &str) -> Option<&str> {
        let text = line.strip_prefix("# ")?;
        let key = text.split_once(" = ").map(|(key, _)| key);
        let is_key = key.is_some_and(|key| key.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'));
        (is_key || text.starts_with('[')).then_some(text)
    }

    fn load(text: &str) -> Config {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("birdtape.toml");
        for (name, there) in [("ca.pem", "-"), ("scrapebadger.key", "a-key")] {
            let path = dir.path().join(name);
            fs::write(&path, there).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        }
        fs::write(&file, text.replace("\"./ca.pem", &format!("\"{}/ca.pem", dir.path().display()))).unwrap();
        let text = fs::read_to_string(&file).unwrap();
        fs::write(&file, text.replace("\"./scrape", &format!("\"{}/scrape", dir.path().display()))).unwrap();
        let env = |name: &str| (!name.starts_with("BIRDTAPE_")).then(|| format!("value-of-{name}"));
        Config::load(&file, &env).unwrap_or_else(|error| panic!("{error}\n{text}"))
    }

    fn uncommented(wanted: impl Fn(&str) -> bool) -> String {
        let lines = TEMPLATE.lines().map(|line| setting(line).filter(|text| wanted(text)).unwrap_or(line));
        lines.collect::<Vec<_>>().join("\n")
    }

    #[test]
    fn as_written_it_is_all_defaults() {
        let config = load(TEMPLATE);
        assert!(config.require_sources().is_err());
        assert_eq!((config.limits, config.backfill), (Limits::default(), Backfill::default()));
        assert_eq!(config.scrub, ScrubOptions::default());
        assert!(TEMPLATE.lines().all(|line| line.is_empty() || line.starts_with('#')));
    }

    #[test]
    fn every_setting_can_be_switched_on() {
        let all = load(&uncommented(|_| true));
        let providers: Vec<_> = all.sources.iter().map(|source| source.settings.provider.name()).collect();
        assert_eq!(providers, ["tweetstream", "x_live", "scrapebadger", "twitterapi_io"], "in the order of their names");

        // Each alone, in its table and with what a source cannot do without.
        let needed = |text: &str| text.starts_with('[') || text.starts_with("provider") || text.starts_with("topics");
        let settings: Vec<&str> = TEMPLATE.lines().filter_map(setting).collect();
        assert!(settings.len() > 30, "{}", settings.len());
        for one in settings {
            load(&uncommented(|text| text == one || needed(text)));
        }
    }

    #[test]
    fn what_is_shown_as_a_default_is_the_default() {
        let all = load(&uncommented(|_| true));
        let default = archive::Options::default();
        let shown = &all.archive;
        assert_eq!((shown.commit_every, shown.level), (default.commit_every, default.level));
        assert_eq!((shown.segment_bytes, shown.block_bytes), (default.segment_bytes, default.block_bytes));
        assert_eq!((all.limits, all.scrub), (Limits::default(), ScrubOptions::default()));
        let (shown, default) = (all.backfill, Backfill::default());
        assert_eq!((shown.automatic, shown.index_delay), (default.automatic, default.index_delay));
        let (shown, default) = (shown.automatic_budgets().day, default.automatic_budgets().day);
        assert_eq!((shown.requests, shown.micro_usd), (default.requests, default.micro_usd));
        for source in &all.sources {
            let (shown, default) = (&source.settings, provider::default_settings(source.settings.provider));
            assert_eq!(shown.auth, default.auth);
            assert_eq!((shown.reconnect_floor, shown.reconnect_cap), (default.reconnect_floor, default.reconnect_cap));
            assert_eq!((shown.ping_every, shown.pong_within), (default.ping_every, default.pong_within));
            assert_eq!((shown.framing, shown.direct_messages), (default.framing, default.direct_messages));
            assert_eq!((shown.answer_auth_ping, shown.auto_reconnect), (default.answer_auth_ping, default.auto_reconnect));
            assert_eq!(shown.scopes_every, default.scopes_every);
            assert_eq!((source.connections, source.allow_plain), (1, false));
        }
        let rules = all.sources.iter().find(|source| source.name.as_str() == "rules").expect("the first table");
        assert_eq!(rules.lateness_horizon, provider::default_lateness_horizon(rules.settings.provider));
    }
}
