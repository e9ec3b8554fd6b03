//! Where an export goes: whole files under names, put there at once or not at all.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use super::ExportError;
use crate::archive::{Disk as _, LockRefused, RealDisk};

/// Our own corner of a destination.
pub(super) const OURS: &str = "_birdtape";

/// A destination. Names are relative, with `/` between their parts.
pub trait Store: Send + Sync {
    /// How people know it.
    fn shown(&self) -> String;

    /// Takes it for one export at a time, until the value is dropped, and clears away what an interrupted one left.
    ///
    /// # Errors
    /// Names the other export, or says what the system said.
    fn lock(&self, holder: &str) -> Result<Box<dyn Send>, ExportError>;

    /// An empty local directory for temporary files, from which [`put`](Self::put) is cheap.
    ///
    /// # Errors
    /// When it cannot be made.
    fn scratch(&self) -> Result<PathBuf, ExportError>;

    /// Puts a local file there under a name, replacing what it named, whole or not at all; the local file is used up.
    ///
    /// # Errors
    /// When it cannot; the name is as it was then.
    fn put(&self, name: &str, file: &Path) -> Result<(), ExportError>;

    /// Bytes of a file; `None` when there is none.
    ///
    /// # Errors
    /// When it cannot be read.
    fn get(&self, name: &str) -> Result<Option<Vec<u8>>, ExportError>;

    /// Names and sizes of all files but [`put`](Self::put)'s temporaries, sorted.
    ///
    /// # Errors
    /// When it cannot be listed.
    fn list(&self) -> Result<Vec<(String, u64)>, ExportError>;

    /// Removes a file; one that is not there is fine.
    ///
    /// # Errors
    /// When it cannot.
    fn delete(&self, name: &str) -> Result<(), ExportError>;
}

/// A local directory.
#[derive(Debug)]
pub struct LocalStore {
    dir: PathBuf,
    scratch: PathBuf,
}

impl LocalStore {
    /// The directory is made when it is needed.
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        let dir = dir.into();
        let scratch = dir.join(OURS).join(format!("tmp-{}", std::process::id()));
        Self { dir, scratch }
    }

    fn io(&self, what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> ExportError + use<> {
        let path = path.to_owned();
        move |source| ExportError::Io { what, path: path.display().to_string(), source }
    }

    fn walk(&self, below: &Path, name: &str, out: &mut Vec<(String, u64)>) -> io::Result<()> {
        let entries = match fs::read_dir(below) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            entries => entries?,
        };
        for entry in entries {
            let entry = entry?;
            let own = entry.file_name().to_string_lossy().into_owned();
            let name = if name.is_empty() { own.clone() } else { format!("{name}/{own}") };
            let kind = entry.file_type()?;
            if kind.is_dir() {
                if !(name.starts_with(OURS) && own.starts_with("tmp-")) {
                    self.walk(&entry.path(), &name, out)?;
                }
            } else {
                out.push((name, entry.metadata()?.len()));
            }
        }
        Ok(())
    }
}

/// Gives the lock back and takes the temporaries away.
struct Held {
    _lock: Box<dyn Send>,
    scratch: PathBuf,
}

impl Drop for Held {
    fn drop(&mut self) {
        // What cannot be removed now is removed by the next export.
        fs::remove_dir_all(&self.scratch).ok();
    }
}

impl Store for LocalStore {
    fn shown(&self) -> String {
        self.dir.display().to_string()
    }

    fn lock(&self, holder: &str) -> Result<Box<dyn Send>, ExportError> {
        let ours = self.dir.join(OURS);
        RealDisk.create_dir(&ours).map_err(self.io("cannot create", &ours))?;
        let path = ours.join("lock");
        let lock = RealDisk.lock(&path, holder).map_err(|refused| match refused {
            LockRefused::Held(holder) => ExportError::Busy { place: self.shown(), holder },
            LockRefused::Io(source) => self.io("cannot lock", &path)(source),
        })?;
        for name in RealDisk.list(&ours).map_err(self.io("cannot read", &ours))? {
            if name.starts_with("tmp-") {
                let left = ours.join(name);
                fs::remove_dir_all(&left).map_err(self.io("cannot remove", &left))?;
            }
        }
        Ok(Box::new(Held { _lock: lock, scratch: self.scratch.clone() }))
    }

    fn scratch(&self) -> Result<PathBuf, ExportError> {
        RealDisk.create_dir(&self.scratch).map_err(self.io("cannot create", &self.scratch))?;
        Ok(self.scratch.clone())
    }

    fn put(&self, name: &str, file: &Path) -> Result<(), ExportError> {
        let target = self.dir.join(name);
        let dir = target.parent().unwrap_or(&self.dir);
        RealDisk.create_dir(dir).map_err(self.io("cannot create", dir))?;
        File::open(file).and_then(|file| file.sync_all()).map_err(self.io("cannot write", &target))?;
        fs::rename(file, &target).map_err(self.io("cannot write", &target))?;
        RealDisk.sync_dir(dir).map_err(self.io("cannot write", dir))
    }

    fn get(&self, name: &str) -> Result<Option<Vec<u8>>, ExportError> {
        let path = self.dir.join(name);
        match fs::read(&path) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(self.io("cannot read", &path)(error)),
        }
    }

    fn list(&self) -> Result<Vec<(String, u64)>, ExportError> {
        let mut out = Vec::new();
        self.walk(&self.dir, "", &mut out).map_err(self.io("cannot read", &self.dir))?;
        out.sort();
        Ok(out)
    }

    fn delete(&self, name: &str) -> Result<(), ExportError> {
        let path = self.dir.join(name);
        match fs::remove_file(&path) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(self.io("cannot remove", &path)(error)),
        }
        // Empty directories mean nothing; one that is not empty stays.
        let above = path.ancestors().skip(1).take_while(|dir| *dir != self.dir);
        above.map(fs::remove_dir).take_while(Result::is_ok).for_each(drop);
        Ok(())
    }
}

/// Writes a small file by way of the scratch directory.
pub(super) fn put_bytes(store: &dyn Store, name: &str, bytes: &[u8]) -> Result<(), ExportError> {
    let path = store.scratch()?.join("small");
    let written = File::create(&path).and_then(|mut file| file.write_all(bytes));
    written.map_err(|source| ExportError::Io { what: "cannot write", path: path.display().to_string(), source })?;
    store.put(name, &path)
}
