//! Command line: clap types and printing, one file per subcommand.

pub mod init;
pub mod log;
