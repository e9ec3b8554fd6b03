//! stub: the archive room is being written
use std::time::Duration;

/// How a tape is written.
#[derive(Clone, Debug)]
pub struct Options {
    /// Longest wait between an envelope and its commit; zero commits every envelope.
    pub commit_every: Duration,
    /// Uncompressed bytes in a block.
    pub block_bytes: u64,
    /// Uncompressed bytes after which a segment is sealed.
    pub segment_bytes: u64,
    /// zstd level.
    pub level: i32,
}

impl Default for Options {
    fn default() -> Self {
        Self { commit_every: Duration::from_millis(100), block_bytes: 4 << 20, segment_bytes: 256 << 20, level: 3 }
    }
}
