//! Names of a tape's files, its identity, its lock.

use std::io::Read;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::{ArchiveError, Result};
use crate::model::{Seq, UnixMicros};
use crate::segment::{Disk, FORMAT, LockRefused, OPEN_SUFFIX, PARTIAL_SUFFIX, SEALED_SUFFIX};

/// Name of what is kept of pruned segments.
const REMAINS: &str = "pruned";

/// What `tape.json` says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TapeInfo {
    /// Format version of tape and segments.
    pub format: u32,
    /// Names the tape for ever: 32 hex digits.
    pub tape: String,
    /// When it was made, RFC 3339.
    pub created: String,
}

/// Where the files of a tape lie.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    dir: PathBuf,
}

/// A segment file as found on disk.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Found {
    pub(super) first_n: Seq,
    pub(super) day: String,
    pub(super) open: bool,
}

impl Layout {
    /// The tape in that directory.
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self { dir: dir.into() }
    }

    /// The directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The catalog.
    pub fn catalog(&self) -> PathBuf {
        self.dir.join("catalog.sqlite")
    }

    /// All segments of all sources.
    pub fn segments(&self) -> PathBuf {
        self.dir.join("segments")
    }

    /// Segments of a source of one day.
    pub fn day(&self, source: &str, day: &str) -> PathBuf {
        self.segments().join(source).join(day)
    }

    /// A sealed segment.
    pub fn sealed(&self, source: &str, day: &str, first_n: Seq) -> PathBuf {
        self.day(source, day).join(format!("{:020}{SEALED_SUFFIX}", first_n.0))
    }

    /// A segment being written.
    pub fn open(&self, source: &str, day: &str, first_n: Seq) -> PathBuf {
        self.day(source, day).join(format!("{:020}{OPEN_SUFFIX}", first_n.0))
    }

    /// What is kept of a source's segments that were removed on purpose. It stands beside the days, so that nobody takes
    /// it for records.
    pub fn remains(&self, source: &str) -> PathBuf {
        self.segments().join(source).join(format!("{REMAINS}{SEALED_SUFFIX}"))
    }

    /// The same while it is written: open, then partial.
    pub(super) fn remains_aside(&self, source: &str) -> [PathBuf; 2] {
        [OPEN_SUFFIX, PARTIAL_SUFFIX].map(|suffix| self.segments().join(source).join(format!("{REMAINS}{suffix}")))
    }

    pub(super) fn partial(&self, source: &str, day: &str, first_n: Seq) -> PathBuf {
        self.day(source, day).join(format!("{:020}{PARTIAL_SUFFIX}", first_n.0))
    }

    pub(super) fn reserve(&self) -> PathBuf {
        self.dir.join("reserve")
    }

    /// There for an instant, to see whether there is room.
    pub(super) fn probe(&self) -> PathBuf {
        self.dir.join("probe")
    }

    pub(super) fn scrub(&self) -> PathBuf {
        self.dir.join("scrub.json")
    }

    pub(super) fn farewell(&self) -> PathBuf {
        self.dir.join("farewell.json")
    }

    fn info_path(&self) -> PathBuf {
        self.dir.join("tape.json")
    }

    /// Reads `tape.json`; `None` when there is none.
    ///
    /// # Errors
    /// When it cannot be read, is not ours, or is of a newer format.
    pub fn info(&self, disk: &dyn Disk) -> Result<Option<TapeInfo>> {
        let path = self.info_path();
        let io = |source| ArchiveError::Io { what: "cannot read", path: path.clone(), source };
        match disk.len(&path) {
            Ok(Some(_)) => {}
            Ok(None) => return Ok(None),
            Err(error) if error.kind() == std::io::ErrorKind::NotADirectory => {
                return Err(ArchiveError::NotATape { path: self.dir.clone(), why: "it is a file".to_owned() });
            }
            Err(error) => return Err(io(error)),
        }
        let mut text = String::new();
        let read = disk.open(&path).and_then(|file| file.take(64 << 10).read_to_string(&mut text));
        read.map_err(io)?;
        let info: TapeInfo = serde_json::from_str(&text)
            .map_err(|e| ArchiveError::NotATape { path: self.dir.clone(), why: format!("its tape.json cannot be read ({e})") })?;
        if info.format > FORMAT {
            return Err(ArchiveError::NewerFormat { path: self.dir.clone(), found: info.format, known: FORMAT });
        }
        Ok(Some(info))
    }

    /// Reads `tape.json`, which must be there.
    ///
    /// # Errors
    /// As [`info`](Self::info); [`ArchiveError::NotATape`] when there is none.
    pub fn require_info(&self, disk: &dyn Disk) -> Result<TapeInfo> {
        let why = || "it has no tape.json".to_owned();
        self.info(disk)?.ok_or_else(|| ArchiveError::NotATape { path: self.dir.clone(), why: why() })
    }

    /// Makes the directory a tape, unless it is one.
    pub(super) fn create(&self, disk: &dyn Disk, id: &str, at: UnixMicros) -> Result<TapeInfo> {
        let io = |what, path: PathBuf| move |source| ArchiveError::Io { what, path, source };
        disk.create_dir(&self.dir).map_err(io("cannot create", self.dir.clone()))?;
        if let Some(info) = self.info(disk)? {
            return Ok(info);
        }
        let strangers = disk.list(&self.dir).map_err(io("cannot read", self.dir.clone()))?;
        if let Some(stranger) = strangers.iter().find(|name| *name != "lock" && !name.ends_with(".new")) {
            let why = format!("it has no tape.json, and other files such as `{stranger}`");
            return Err(ArchiveError::NotATape { path: self.dir.clone(), why });
        }
        let info = TapeInfo { format: FORMAT, tape: id.to_owned(), created: at.to_string() };
        let text = serde_json::to_string(&info).expect("three plain fields") + "\n";
        self.write_whole(disk, &self.info_path(), text.as_bytes())?;
        Ok(info)
    }

    /// Writes a small file whole or not at all.
    pub(super) fn write_whole(&self, disk: &dyn Disk, path: &Path, content: &[u8]) -> Result<()> {
        let io = |source| ArchiveError::Io { what: "cannot write", path: path.to_owned(), source };
        let mut aside = path.as_os_str().to_owned();
        aside.push(".new");
        let aside = PathBuf::from(aside);
        if disk.len(&aside).map_err(io)?.is_some() {
            disk.remove(&aside).map_err(io)?;
        }
        let mut file = disk.create(&aside).map_err(io)?;
        file.append(content).and_then(|()| file.sync()).map_err(io)?;
        disk.rename(&aside, path).and_then(|()| disk.sync_dir(&self.dir)).map_err(io)
    }

    pub(super) fn lock(&self, disk: &dyn Disk, holder: &str) -> Result<Box<dyn Send>> {
        let path = self.dir.join("lock");
        disk.lock(&path, holder).map_err(|refused| match refused {
            LockRefused::Held(holder) => ArchiveError::Locked { path: self.dir.clone(), holder },
            LockRefused::Io(source) => ArchiveError::Io { what: "cannot lock", path, source },
        })
    }

    /// Names of the sources that have segments.
    pub(super) fn sources(&self, disk: &dyn Disk) -> Result<Vec<String>> {
        self.list(disk, &self.segments())
    }

    /// Segment files of a source, ascending; a sealed one comes before an open one of the same number.
    /// Files of an interrupted sealing are listed apart.
    pub(super) fn found(&self, disk: &dyn Disk, source: &str) -> Result<(Vec<Found>, Vec<PathBuf>)> {
        let (mut found, mut partial) = (Vec::new(), Vec::new());
        let dir = self.segments().join(source);
        for day in self.list(disk, &dir)?.into_iter().filter(|name| !name.starts_with(REMAINS)) {
            for name in self.list(disk, &dir.join(&day))? {
                let number =
                    |suffix: &str| name.strip_suffix(suffix).filter(|n| n.len() == 20).and_then(|n| n.parse().ok()).map(Seq);
                if let Some(first_n) = number(SEALED_SUFFIX) {
                    found.push(Found { first_n, day: day.clone(), open: false });
                } else if let Some(first_n) = number(OPEN_SUFFIX) {
                    found.push(Found { first_n, day: day.clone(), open: true });
                } else if name.ends_with(PARTIAL_SUFFIX) {
                    partial.push(dir.join(&day).join(name));
                }
            }
        }
        found.sort_by(|a, b| (a.first_n, a.open, &a.day).cmp(&(b.first_n, b.open, &b.day)));
        Ok((found, partial))
    }

    /// Names in a directory of ours. A tape may come from anywhere, and files are made and removed in what is listed here: so
    /// a link is not followed.
    fn list(&self, disk: &dyn Disk, dir: &Path) -> Result<Vec<String>> {
        let listed = disk.is_link(dir).and_then(|is_link| {
            let why = "it is a symbolic link, and those are not followed; put the directory itself in its place";
            if is_link { Err(std::io::Error::other(why)) } else { disk.list(dir) }
        });
        listed.map_err(|source| ArchiveError::Io { what: "cannot read", path: dir.to_owned(), source })
    }
}
