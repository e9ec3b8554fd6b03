//! The one integration binary: a module per theme.
#![allow(
    clippy::disallowed_methods,
    clippy::print_stderr,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "tests may look at the clock, say why they skip, and stop where they stand"
)]

mod audit;
mod backfill;
mod bad_input;
mod bitrot;
mod catalog_damage;
mod cli;
mod command;
mod controls;
mod crash_states;
mod export;
mod export_s3;
mod export_text;
mod faults;
mod filling;
mod fixture;
mod fuzzed;
mod kill;
mod lies;
mod live;
mod made;
mod merge;
mod program;
mod rooms;
mod round_trip;
#[cfg(unix)]
mod security;
mod server;
mod simulate;
mod stock;
mod timelines;
mod upkeep;
