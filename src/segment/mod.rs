//! The format of a segment file, version 1: encode, decode, write, read, recover, seal.
//!
//! Owns the bytes on disk of one source's records and nothing else: no SQLite, no clock, no network, and no
//! idea what an envelope means. All I/O goes through [`Disk`], so that a test can take the disk away.
//!
//! # Layout
//!
//! A segment is a sequence of zstd frames ([RFC 8878]), called *blocks*. A block holds whole lines, has a
//! content checksum and needs no other block to be read. The name of a segment is the sequence number of its
//! first record as 20 digits, then `.jsonl.zst`, then `.open` while it is being written.
//!
//! | part | bytes | what |
//! | --- | --- | --- |
//! | block … | compressed | about 4 MiB of lines each (`block_size`), window at most 2^27 bytes |
//! | seek table | 17 + 8 a block | sealed only: skippable frame `0x184D2A5E` of the [zstd seekable format] |
//!
//! Every line is one JSON object that ends with `\n`. Key order is fixed; `n` and `at` stand first, the body
//! stands last, so a reader slices a line without parsing the body.
//!
//! | line | fields in order | unit |
//! | --- | --- | --- |
//! | header, first of a segment | `n` (one below the first record's), `at`, `kind":"segment`, `format` (1), `tape`, `source`, `provider` | |
//! | record | `n`, `at`, `kind`, `via`, `conn`, `info` (optional object), then one of `raw` `text` `b64` | `at`: RFC 3339 UTC, microseconds, 27 bytes |
//! | commit | `n` (last record's), `at`, `kind":"commit`, `bytes`, `hash` | `bytes`: uncompressed position of the line in the segment |
//!
//! - `raw` is the envelope verbatim: one JSON object or array, strictly valid, on one line, nothing around it.
//!   `text` is any other UTF-8, escaped as a JSON string. `b64` is anything else, base64 with padding; also text of which
//!   escapes would make more than base64 does. So a line is at most some third longer than its envelope.
//! - No reader unpacks a block of more than 64 MiB ([`MAX_BLOCK_BYTES`]), and no writer makes one while no envelope is longer
//!   than 32 MiB ([`MAX_BODY_BYTES`]).
//! - `hash` is XXH3-64 in 16 hex digits over the bytes from the start of the previous commit line (or of the
//!   segment) up to this one, seeded with the previous commit's hash (0 at first). Each commit thus vouches for
//!   all bytes before it. A zstd frame's own checksum comes only at its end: until then a flipped bit decodes
//!   silently, which is why nothing after the last commit line that holds is believed.
//! - Every block ends with a commit line, so a block can be checked when its neighbour is lost.
//!
//! # Why so
//!
//! - *An empty raw block behind each flush*: without it the `zstd` program may not print the last 128 KiB of a segment
//!   that is still open.
//! - *Flush, not a frame, per commit*: a flushed stream keeps everything up to the flush readable by the stock
//!   `zstd` and costs a few percent; a frame per commit costs a quarter of the ratio.
//! - *An open segment is only ever written by the process that created it.* After a crash it is sealed up to its
//!   last good commit, and recording goes on in a new one. There is one way to finish a segment, and it verifies.
//! - *The uncompressed bytes do not change when sealing*, nor when compacting: the commit lines stay, so anybody can check
//!   the chain, and the SHA-256 of what a file unpacks to stays what it was.
//!
//! | file | holds |
//! | --- | --- |
//! | `disk.rs` | [`Disk`], the seam to the file system, and [`RealDisk`] |
//! | `mem_disk.rs` | [`MemDisk`], a disk for tests that forgets, refuses and crashes |
//! | `line.rs` | [`Line`], [`RecordRef`], encoding and slicing of lines |
//! | `chain.rs` | the commit hash |
//! | `writer.rs` | [`Writer`], an open segment |
//! | `reader.rs` | [`Reader`], blocks and lines of open and sealed segments, damage and torn tails |
//! | `seal.rs` | [`seal`]: copy what is proven, pack anew what was flushed often, read back |
//! | `compact.rs` | [`compact`]: a sealed segment again, in larger blocks and packed harder |
//!
//! [RFC 8878]: https://www.rfc-editor.org/rfc/rfc8878
//! [zstd seekable format]: https://github.com/facebook/zstd/blob/dev/contrib/seekable_format/zstd_seekable_compression_format.md

mod chain;
mod compact;
mod disk;
mod line;
mod mem_disk;
mod reader;
mod seal;
#[cfg(test)]
mod tests;
mod writer;

use std::path::PathBuf;

pub use chain::Chain;
pub use compact::{Packing, compact, is_compact};
pub use disk::{Disk, DiskFile, DiskRead, LockRefused, RealDisk};
pub use line::{Commit, Header, Line, RecordRef, encode_commit, encode_header, encode_record};
pub use mem_disk::{MemDisk, Unsynced};
pub use reader::{
    Block, BlockEnd, BlockPlace, MAX_BLOCK_BYTES, MAX_BODY_BYTES, Owner, Proven, Reader, Trust, Walk, block_at, walk_lines,
};
pub use seal::{Content, Sealed, seal, seek_table, sha256_of};
pub use writer::{BlockSpan, Writer};

/// The format version this code writes, and the newest it reads.
pub const FORMAT: u32 = 1;

/// Version of the zstd that is linked.
pub fn zstd_version() -> &'static str {
    zstd::zstd_safe::version_string()
}

/// End of a sealed segment's name.
pub const SEALED_SUFFIX: &str = ".jsonl.zst";
/// End of an open segment's name.
pub const OPEN_SUFFIX: &str = ".jsonl.zst.open";
/// End of the name of a file being made by [`seal`]; left behind by a crash, it is worthless.
pub const PARTIAL_SUFFIX: &str = ".jsonl.zst.partial";

/// What can go wrong with a segment.
#[derive(Debug, thiserror::Error)]
pub enum SegmentError {
    /// The operating system refused.
    #[error("{what} {}", .path.display())]
    Io {
        /// The operation, as "cannot read".
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// The system's answer.
        source: std::io::Error,
    },
    /// The file is not a segment at all.
    #[error("{} is not a segment: {why}", .path.display())]
    NotASegment {
        /// The file.
        path: PathBuf,
        /// What was found.
        why: String,
    },
    /// Bytes that were whole are whole no longer.
    #[error("{} is damaged at byte {offset}: {why}", .path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Offset of the block in the file.
        offset: u64,
        /// What does not hold.
        why: String,
    },
    /// The writer refused after an earlier failure.
    #[error("segment {} takes no more records after a failed write", .path.display())]
    Poisoned {
        /// The file.
        path: PathBuf,
    },
    /// Made by a newer birdtape.
    #[error("{} has format {found}; this birdtape reads up to {FORMAT}", .path.display())]
    NewerFormat {
        /// The file.
        path: PathBuf,
        /// Its version.
        found: u32,
    },
}

impl SegmentError {
    pub(crate) fn io(what: &'static str, path: &std::path::Path, source: std::io::Error) -> Self {
        Self::Io { what, path: path.to_owned(), source }
    }

    /// The system's answer, if that is what failed.
    pub fn io_kind(&self) -> Option<std::io::ErrorKind> {
        match self {
            Self::Io { source, .. } => Some(source.kind()),
            _ => None,
        }
    }
}
