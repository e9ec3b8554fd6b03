//! Command line: clap types and printing, one file per subcommand.
//!
//! Owns what a person or a script meets: arguments, exit codes ([`Exit`]), what stdout and stderr say. stdout is data,
//! stderr is talk, and nothing from outside reaches a terminal with its control characters. Does the work of no job: it
//! reads arguments, opens what a job needs, and prints what comes of it.
//!
//! | file | holds |
//! | --- | --- |
//! | `args.rs` | arguments that several commands share, and how times and ids are read |
//! | `exit.rs` | exit codes, and how an error is told |
//! | `out.rs` | stdout, stderr, tables, progress |
//! | `log.rs` | the log, without keys |
//! | `signal.rs` | Ctrl-C |
//! | `command.rs` | the program that `replay` runs |
//! | `destination.rs` | where an export goes |
//! | `summary.rs` | a record in one line |
//! | `synthetic.rs` | what shapes a made-up world |
//! | the others | one subcommand each |

mod args;
mod audit;
mod backfill;
mod cat;
mod certify;
mod check;
mod command;
mod compact;
mod control;
mod demo;
mod destination;
mod exit;
mod export;
mod fixture;
mod gaps;
mod get;
mod import;
pub mod init;
pub mod log;
mod merge;
mod out;
mod prune;
mod rebuild;
mod record;
mod recover;
mod repair;
mod replay;
mod scrub;
mod signal;
mod status;
mod summary;
mod synthetic;
mod tail;
mod timeline;
mod topics;
mod verify;
mod version;

use std::ffi::OsString;

use clap::Parser as _;

use args::Common;
#[doc(hidden)]
pub use args::read_all as read_arguments;
pub use exit::Exit;
use exit::Outcome;

/// Keep a tape of real-time tweet streams that can be trusted
///
/// Records what TwitterAPI.io, TweetStream, ScrapeBadger and X's live pipeline send, byte for byte, keeps a ledger of every
/// hole, proves the tape whole, and plays it back as a server that the providers' own clients cannot tell from the real one.
#[derive(Debug, clap::Parser)]
#[command(name = "birdtape", max_term_width = 110, arg_required_else_help = true, after_help = EXIT_CODES, after_long_help = LONG)]
struct Cli {
    #[command(flatten)]
    common: Common,
    /// Print version
    #[arg(short = 'V', long)]
    version: bool,
    /// With --version: what is built in, too
    #[arg(long, requires = "version")]
    verbose: bool,
    #[command(subcommand)]
    command: Option<Command>,
}

const EXIT_CODES: &str = "Exit codes: 0 done, 1 failed, 2 wrong usage, 3 done with known loss.";

const LONG: &str = "\
Examples:
  birdtape init                                  write a commented birdtape.toml
  birdtape record                                record every source it configures
  birdtape status                                what is on the tape, and what is missing
  birdtape verify                                prove every byte of it

Exit codes: 0 done, 1 failed, 2 wrong usage, 3 done with known loss.
Environment: BIRDTAPE_TAPE, BIRDTAPE_CONFIG, BIRDTAPE_CA_FILE, BIRDTAPE_LOG (error, warn, info, debug, trace, off).
Keys come from the environment or from files, never by flag:
TWITTERAPI_IO_API_KEY, TWEETSTREAM_API_KEY, SCRAPEBADGER_API_KEY, X_AUTH_TOKEN and X_CT0.";

#[derive(Debug, clap::Subcommand)]
enum Command {
    Demo(demo::Args),
    Init(init::Args),
    Check(check::Args),
    Record(record::Args),
    Topics(topics::Args),
    Import(import::Args),
    Replay(Box<replay::Args>),
    Control(control::Args),
    Fixture(fixture::Args),
    Cat(cat::Args),
    Tail(tail::Args),
    Get(get::Args),
    Status(status::Args),
    Gaps(gaps::Args),
    Backfill(backfill::Args),
    Merge(merge::Args),
    Audit(audit::Args),
    Certify(certify::Args),
    Export(export::Args),
    Verify(verify::Args),
    Scrub(scrub::Args),
    Repair(repair::Args),
    Recover(recover::Args),
    Rebuild(rebuild::Args),
    Compact(compact::Args),
    Prune(prune::Args),
}

/// Runs the program with these arguments, the first of which is its name, and tells how it ended.
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> Exit {
    log::start(Vec::new());
    let cli = match Cli::try_parse_from(arguments) {
        Ok(cli) => cli,
        Err(error) => {
            // Help asked for is data, everything else is talk; a reader who left has seen enough.
            error.print().ok();
            return if error.use_stderr() { Exit::Usage } else { Exit::Done };
        }
    };
    cli.run().unwrap_or_else(|error| exit::report(&error))
}

impl Cli {
    fn run(self) -> Outcome {
        let names = std::env::vars_os().map(|(name, _)| name.to_string_lossy().into_owned());
        crate::config::check_environment(names)?;
        let common = &self.common;
        if self.version {
            return version::run(common, self.verbose);
        }
        let Some(command) = self.command else {
            return Err(exit::usage("no command is given", "`birdtape --help` lists them"));
        };
        match command {
            Command::Demo(args) => demo::run(common, &args),
            Command::Init(args) => init::run(common, &args),
            Command::Check(args) => check::run(common, &args),
            Command::Record(args) => record::run(common, &args),
            Command::Topics(args) => topics::run(common, &args),
            Command::Import(args) => import::run(common, &args),
            Command::Replay(args) => replay::run(common, &args),
            Command::Control(args) => control::run(common, &args),
            Command::Fixture(args) => fixture::run(common, &args),
            Command::Cat(args) => cat::run(common, &args),
            Command::Tail(args) => tail::run(common, &args),
            Command::Get(args) => get::run(common, &args),
            Command::Status(args) => status::run(common, &args),
            Command::Gaps(args) => gaps::run(common, &args),
            Command::Backfill(args) => backfill::run(common, &args),
            Command::Merge(args) => merge::run(common, &args),
            Command::Audit(args) => audit::run(common, &args),
            Command::Certify(args) => certify::run(common, &args),
            Command::Export(args) => export::run(common, &args),
            Command::Verify(args) => verify::run(common, &args),
            Command::Scrub(args) => scrub::run(common, &args),
            Command::Repair(args) => repair::run(common, &args),
            Command::Recover(args) => recover::run(common, &args),
            Command::Rebuild(args) => rebuild::run(common, &args),
            Command::Compact(args) => compact::run(common, &args),
            Command::Prune(args) => prune::run(common, &args),
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_arguments_are_well_formed() {
        Cli::command().debug_assert();
    }

    #[test]
    fn keys_never_come_by_flag() {
        let command = Cli::command();
        for sub in command.get_subcommands() {
            for argument in sub.get_arguments() {
                let name = argument.get_long().unwrap_or_default();
                let speaks_of_keys = ["key", "token", "secret", "password", "cookie"].iter().any(|word| name.contains(word));
                // The replay's own key is no provider's.
                let is_the_fakes = sub.get_name() == "replay" && name == "key";
                assert!(!speaks_of_keys || is_the_fakes, "{} --{name}", sub.get_name());
            }
        }
    }
}
