//! The replay server as a child process, and what a child says on stdout.

use std::io::{BufRead, BufReader};
use std::process::{Child, ChildStdout, Command, Stdio};

use serde_json::Value;

use crate::program::Desk;

/// A replay server as a child; it goes when this is dropped.
pub(crate) struct Replay {
    child: Child,
    pub(crate) base: String,
    /// The whole line that said so.
    pub(crate) ready: Value,
}

impl Replay {
    /// Starts it and waits until it says where it is.
    pub(crate) fn start(desk: &Desk, args: &[&str]) -> Self {
        let mut child = desk.command(["replay"]).args(args).stdout(Stdio::piped()).spawn().expect("the program starts");
        let stdout = child.stdout.take().expect("stdout is piped");
        let line = BufReader::new(stdout).lines().next().expect("a ready line").expect("text");
        let ready: Value = serde_json::from_str(&line).expect("one JSON line");
        let base = ready["base"].as_str().expect("base").to_owned();
        Self { child, base, ready }
    }
}

impl Drop for Replay {
    fn drop(&mut self) {
        // Gone already is as good.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// Lines of a child's stdout as JSON, until it ends.
pub(crate) fn events(stdout: ChildStdout) -> impl Iterator<Item = Value> {
    BufReader::new(stdout).lines().map_while(Result::ok).filter_map(|line| serde_json::from_str(&line).ok())
}

/// Whether a program can be run here; tests that need it say so and pass over it.
pub(crate) fn have(program: &str) -> bool {
    let there = Command::new(program).arg("--version").output().is_ok_and(|o| o.status.success());
    if !there {
        println!("skipped: {program} is not here");
    }
    there
}
