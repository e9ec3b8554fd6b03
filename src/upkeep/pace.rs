//! A disk that reads no faster than it may.

use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::archive::{Disk, DiskFile, DiskRead, LockRefused};
use crate::net;

/// Longest sleep without a look at whether to stop.
const NAP: Duration = Duration::from_millis(50);

/// What was not read in time is not made up for beyond this.
const ARREARS: Duration = Duration::from_secs(1);

/// A disk of which everything is read at a bounded rate; what is written is not held up.
#[derive(Clone)]
pub struct Paced {
    disk: Arc<dyn Disk>,
    pace: Arc<Pace>,
}

struct Pace {
    bytes_per_second: u64,
    /// When the next byte may be read.
    next: Mutex<Option<Instant>>,
    stop: AtomicBool,
}

impl std::fmt::Debug for Paced {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Paced").field("bytes_per_second", &self.pace.bytes_per_second).finish_non_exhaustive()
    }
}

impl Paced {
    /// A disk that reads so many bytes a second at most; 0 is without a bound.
    pub fn new(disk: Arc<dyn Disk>, bytes_per_second: u64) -> Self {
        Self { disk, pace: Arc::new(Pace { bytes_per_second, next: Mutex::new(None), stop: AtomicBool::new(false) }) }
    }

    /// Ends every read from now on with an error, at once.
    pub fn stop(&self) {
        self.pace.stop.store(true, Ordering::Relaxed);
    }

    /// Whether it was stopped.
    pub fn is_stopped(&self) -> bool {
        self.pace.stop.load(Ordering::Relaxed)
    }
}

impl Pace {
    /// Sleeps until so many bytes more may be taken.
    fn wait_for(&self, bytes: usize) -> io::Result<()> {
        let due = {
            let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
            let now = net::now();
            let due = next.map_or(now, |next| if next + ARREARS < now { now } else { next });
            if self.bytes_per_second > 0 {
                *next = Some(due + Duration::from_secs_f64(bytes as f64 / self.bytes_per_second as f64));
            }
            due
        };
        loop {
            if self.stop.load(Ordering::Relaxed) {
                return Err(io::Error::other("reading was stopped"));
            }
            let left = due.saturating_duration_since(net::now());
            if left.is_zero() {
                return Ok(());
            }
            std::thread::sleep(left.min(NAP));
        }
    }
}

struct PacedRead {
    file: Box<dyn DiskRead>,
    pace: Arc<Pace>,
}

impl Read for PacedRead {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let got = self.file.read(buffer)?;
        self.pace.wait_for(got)?;
        Ok(got)
    }
}

impl Seek for PacedRead {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.file.seek(to)
    }
}

impl Disk for Paced {
    fn create(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        self.disk.create(path)
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn DiskRead>> {
        Ok(Box::new(PacedRead { file: self.disk.open(path)?, pace: Arc::clone(&self.pace) }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.disk.rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.disk.remove(path)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.disk.sync_dir(dir)
    }

    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        self.disk.create_dir(dir)
    }

    fn remove_empty_dir(&self, dir: &Path) -> io::Result<()> {
        self.disk.remove_empty_dir(dir)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        self.disk.list(dir)
    }

    fn is_link(&self, path: &Path) -> io::Result<bool> {
        self.disk.is_link(path)
    }

    fn len(&self, path: &Path) -> io::Result<Option<u64>> {
        self.disk.len(path)
    }

    fn lock(&self, path: &Path, holder: &str) -> Result<Box<dyn Send>, LockRefused> {
        self.disk.lock(path, holder)
    }

    fn reached(&self, point: &'static str) -> io::Result<()> {
        self.disk.reached(point)
    }
}
