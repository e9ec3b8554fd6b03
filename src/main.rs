//! The birdtape program.

use std::process::ExitCode;

fn main() -> ExitCode {
    birdtape::cli::log::harden_process();
    birdtape::cli::run(std::env::args_os()).into()
}
