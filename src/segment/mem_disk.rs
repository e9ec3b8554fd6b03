//! A disk in memory that forgets what was not synced, refuses when told to, and ends the world at named points.
//!
//! For tests and the simulator: it shares no code with [`RealDisk`](super::RealDisk) but the trait.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Cursor};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

use super::disk::{Disk, DiskFile, DiskRead, LockRefused};

/// A disk in memory; clones share it.
#[derive(Clone, Debug, Default)]
pub struct MemDisk(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    inodes: Vec<Inode>,
    names: BTreeMap<PathBuf, usize>,
    durable: BTreeMap<PathBuf, usize>,
    locks: BTreeSet<PathBuf>,
    /// Writing operations so far.
    ops: u64,
    fault: Option<Fault>,
    /// Whether a failed sync loses what was not synced.
    forgets: bool,
    points: Vec<&'static str>,
    crash_at: Option<usize>,
    down: bool,
    epoch: u64,
}

#[derive(Debug, Default, Clone)]
struct Inode {
    data: Vec<u8>,
    synced: usize,
}

/// What a crash leaves of bytes and names that were not synced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unsynced {
    /// Nothing of them: a power cut.
    Lost,
    /// All of them: a kill, where the system lives on.
    Kept,
    /// Names as they are, bytes to about half: a torn write.
    Torn,
    /// Removals of names are kept, new names and bytes are lost: a directory whose changes were written out of order.
    Removed,
}

#[derive(Clone, Copy, Debug)]
struct Fault {
    /// The first operation that fails, and the first that does not any more.
    at_op: u64,
    until_op: u64,
    kind: io::ErrorKind,
}

impl MemDisk {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().expect("no test panics while holding the disk")
    }

    /// Lets the writing operation number `at_op` (from 1, counted from now) fail; half of a write is still done.
    pub fn fail_at(&self, at_op: u64, kind: io::ErrorKind, stays: bool) {
        let until_op = if stays { u64::MAX } else { 1 };
        self.fail_between(at_op, until_op, kind);
    }

    /// As [`fail_at`](Self::fail_at), for so many operations in a row.
    pub fn fail_between(&self, at_op: u64, many: u64, kind: io::ErrorKind) {
        let mut state = self.state();
        let at_op = state.ops + at_op;
        state.fault = Some(Fault { at_op, until_op: at_op.saturating_add(many), kind });
    }

    /// From now on a sync that fails loses what it was to save, as some systems do; else it stays readable.
    pub fn forget_what_fails(&self) {
        self.state().forgets = true;
    }

    /// Takes no fault from now on.
    pub fn heal(&self) {
        self.state().fault = None;
    }

    /// Ends the world at the named point that is passed `nth` (from 0, counted from now).
    pub fn crash_at(&self, nth: usize) {
        let mut state = self.state();
        state.crash_at = Some(state.points.len() + nth);
    }

    /// The named points passed so far, in order.
    pub fn points(&self) -> Vec<&'static str> {
        self.state().points.clone()
    }

    /// Whether the world has ended.
    pub fn is_down(&self) -> bool {
        self.state().down
    }

    /// Writing operations so far.
    pub fn ops(&self) -> u64 {
        self.state().ops
    }

    /// Comes up again with what survived; open files and locks are gone.
    pub fn restart(&self, unsynced: Unsynced) {
        let mut state = self.state();
        match unsynced {
            Unsynced::Lost => state.names = state.durable.clone(),
            Unsynced::Removed => {
                let State { names, durable, .. } = &mut *state;
                *names = durable
                    .iter()
                    .filter(|(path, _)| names.contains_key(*path))
                    .map(|(path, inode)| (path.clone(), *inode))
                    .collect();
            }
            Unsynced::Kept | Unsynced::Torn => {}
        }
        for inode in &mut state.inodes {
            let keep = match unsynced {
                Unsynced::Lost | Unsynced::Removed => inode.synced,
                Unsynced::Kept => inode.data.len(),
                Unsynced::Torn => inode.synced + (inode.data.len() - inode.synced) / 2,
            };
            inode.data.truncate(keep);
            inode.synced = keep;
        }
        state.durable = state.names.clone();
        state.locks.clear();
        (state.down, state.crash_at, state.fault) = (false, None, None);
        state.epoch += 1;
    }

    /// All files with their content.
    pub fn files(&self) -> Vec<(PathBuf, Vec<u8>)> {
        let state = self.state();
        state.names.iter().map(|(path, &inode)| (path.clone(), state.inodes[inode].data.clone())).collect()
    }

    /// Replaces a file's content, durably: damage.
    pub fn overwrite(&self, path: &Path, data: Vec<u8>) {
        let mut state = self.state();
        let inode = state.names[path];
        state.inodes[inode] = Inode { synced: data.len(), data };
    }
}

impl State {
    fn check(&self) -> io::Result<()> {
        if self.down { Err(io::Error::other("the world has ended")) } else { Ok(()) }
    }

    fn op(&mut self) -> io::Result<()> {
        self.check()?;
        self.ops += 1;
        match self.fault {
            Some(fault) if (fault.at_op..fault.until_op).contains(&self.ops) => Err(fault.kind.into()),
            _ => Ok(()),
        }
    }

    fn inode(&self, path: &Path) -> io::Result<usize> {
        self.names.get(path).copied().ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

struct MemFile {
    disk: MemDisk,
    inode: usize,
    epoch: u64,
    /// A sync failed: another one may succeed and lie, so nobody may ask for it.
    is_poisoned: bool,
}

impl MemFile {
    fn with(&self, write: impl FnOnce(&mut State, bool)) -> io::Result<()> {
        let mut state = self.disk.state();
        if state.epoch != self.epoch {
            return Err(io::Error::other("a file of an earlier world"));
        }
        let allowed = state.op();
        write(&mut state, allowed.is_ok());
        allowed
    }
}

impl DiskFile for MemFile {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        let inode = self.inode;
        self.with(|state, allowed| {
            let written = if allowed { bytes.len() } else { bytes.len() / 2 };
            if !state.down {
                state.inodes[inode].data.extend_from_slice(&bytes[..written]);
            }
        })
    }

    fn sync(&mut self) -> io::Result<()> {
        assert!(!self.is_poisoned, "a file that failed to sync is synced again");
        let inode = self.inode;
        let synced = self.with(|state, allowed| {
            let forgets = state.forgets;
            let inode = &mut state.inodes[inode];
            if allowed {
                inode.synced = inode.data.len();
            } else if forgets {
                inode.data.truncate(inode.synced);
            }
        });
        self.is_poisoned = synced.is_err();
        synced
    }
}

struct MemLock {
    disk: MemDisk,
    path: PathBuf,
    epoch: u64,
}

impl Drop for MemLock {
    fn drop(&mut self) {
        let mut state = self.disk.state();
        if state.epoch == self.epoch {
            state.locks.remove(&self.path);
        }
    }
}

impl Disk for MemDisk {
    fn create(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        let mut state = self.state();
        state.op()?;
        if state.names.contains_key(path) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let inode = state.inodes.len();
        state.inodes.push(Inode::default());
        state.names.insert(path.to_owned(), inode);
        Ok(Box::new(MemFile { disk: self.clone(), inode, epoch: state.epoch, is_poisoned: false }))
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn DiskRead>> {
        let state = self.state();
        state.check()?;
        let inode = state.inode(path)?;
        Ok(Box::new(Cursor::new(state.inodes[inode].data.clone())))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.state();
        state.op()?;
        let inode = state.inode(from)?;
        state.names.remove(from);
        state.names.insert(to.to_owned(), inode);
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state();
        state.op()?;
        state.inode(path)?;
        state.names.remove(path);
        Ok(())
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        let mut state = self.state();
        state.op()?;
        let inside = |path: &PathBuf| path.parent() == Some(dir);
        let now: Vec<_> = state.names.iter().filter(|(p, _)| inside(p)).map(|(p, i)| (p.clone(), *i)).collect();
        state.durable.retain(|path, _| !inside(path));
        state.durable.extend(now);
        Ok(())
    }

    fn create_dir(&self, _dir: &Path) -> io::Result<()> {
        self.state().op()
    }

    fn remove_empty_dir(&self, _dir: &Path) -> io::Result<()> {
        self.state().op()
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        let state = self.state();
        state.check()?;
        let mut names: BTreeSet<String> = BTreeSet::new();
        for path in state.names.keys() {
            if let Ok(inside) = path.strip_prefix(dir) {
                names.extend(inside.components().next().map(|c| c.as_os_str().to_string_lossy().into_owned()));
            }
        }
        Ok(names.into_iter().collect())
    }

    fn is_link(&self, _path: &Path) -> io::Result<bool> {
        self.state().check().map(|()| false)
    }

    fn len(&self, path: &Path) -> io::Result<Option<u64>> {
        let state = self.state();
        state.check()?;
        Ok(state.names.get(path).map(|&inode| state.inodes[inode].data.len() as u64))
    }

    fn lock(&self, path: &Path, holder: &str) -> Result<Box<dyn Send>, LockRefused> {
        let mut state = self.state();
        state.check().map_err(LockRefused::Io)?;
        if !state.locks.insert(path.to_owned()) {
            return Err(LockRefused::Held(holder.to_owned()));
        }
        Ok(Box::new(MemLock { disk: self.clone(), path: path.to_owned(), epoch: state.epoch }))
    }

    fn reached(&self, point: &'static str) -> io::Result<()> {
        let mut state = self.state();
        state.check()?;
        let nth = state.points.len();
        state.points.push(point);
        if state.crash_at == Some(nth) {
            state.down = true;
            return Err(io::Error::other("the world ends here"));
        }
        Ok(())
    }
}
