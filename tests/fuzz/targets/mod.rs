//! What is fuzzed: a function for each thing that takes bytes of strangers.
//!
//! A target stops with a panic when something is wrong, which is more than that the code under it panics: wherever another
//! reader of the same bytes, a model or the way back is to be had, it is compared with. It says whether the input was taken,
//! so that a corpus can be shown to reach both sides. The same functions run under libFuzzer (`scripts/fuzz`) and over the
//! committed corpus in the tests (`tests/it/fuzzed.rs`).

mod archive;
mod catalog;
mod json;
mod net;
mod provider;
mod segment;
mod text;
mod webhook;

use std::path::PathBuf;
use std::sync::OnceLock;

/// Something that takes bytes of strangers.
pub(crate) struct Target {
    /// Its name, and that of its corpus.
    pub(crate) name: &'static str,
    /// Takes an input; whether that was taken.
    pub(crate) run: fn(&[u8]) -> bool,
}

const fn target(name: &'static str, run: fn(&[u8]) -> bool) -> Target {
    Target { name, run }
}

/// All of them.
pub(crate) const ALL: [Target; 24] = [
    target("arguments", text::arguments),
    target("catalog", catalog::opened),
    target("client", net::client),
    target("config", text::config),
    target("dates", text::dates),
    target("faults", text::faults),
    target("history", provider::history),
    target("import", text::import),
    target("intervals", text::intervals),
    target("json", json::read),
    target("line", segment::line),
    target("open", segment::open),
    target("recovery", archive::recovery),
    target("redaction", provider::redaction),
    target("rows", text::rows),
    target("scrapebadger", provider::scrapebadger),
    target("sealed", segment::sealed),
    target("secrets", text::secrets),
    target("server", net::server),
    target("shown", text::shown),
    target("tweetstream", provider::tweetstream),
    target("twitterapi_io", provider::twitterapi_io),
    target("webhook", webhook::delivery),
    target("x_live", provider::x_live),
];

/// A directory of this process that costs no disk, where there is one.
fn scratch() -> tempfile::TempDir {
    let memory = std::path::Path::new("/dev/shm");
    if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() }.unwrap()
}

/// A file of that name, the same each time, with this content.
fn file(dir: &OnceLock<tempfile::TempDir>, name: &str, content: &[u8]) -> PathBuf {
    let path = dir.get_or_init(scratch).path().join(name);
    std::fs::write(&path, content).unwrap();
    path
}
