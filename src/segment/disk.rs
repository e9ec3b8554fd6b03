//! The seam to the file system: small, so that a test can stand in for it and forget what was not synced.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::path::Path;

/// A file being written from its beginning.
pub trait DiskFile: Send {
    /// Appends all of it or fails.
    ///
    /// # Errors
    /// After any error the file must be taken for lost beyond its last sync.
    fn append(&mut self, bytes: &[u8]) -> io::Result<()>;

    /// Makes everything appended so far survive a power cut.
    ///
    /// # Errors
    /// After an error it must never be called again on the same file: the system may have dropped the data.
    fn sync(&mut self) -> io::Result<()>;
}

/// A file being read.
pub trait DiskRead: Read + Seek + Send {}
impl<T: Read + Seek + Send> DiskRead for T {}

/// Why a lock was not given.
#[derive(Debug)]
pub enum LockRefused {
    /// Somebody holds it; what they wrote into it.
    Held(String),
    /// The system refused.
    Io(io::Error),
}

/// The file operations a tape needs.
pub trait Disk: Send + Sync {
    /// Makes a new file; one that exists is an error.
    ///
    /// # Errors
    /// As the system says.
    fn create(&self, path: &Path) -> io::Result<Box<dyn DiskFile>>;
    /// Opens a file for reading.
    ///
    /// # Errors
    /// As the system says.
    fn open(&self, path: &Path) -> io::Result<Box<dyn DiskRead>>;
    /// Renames, replacing the target.
    ///
    /// # Errors
    /// As the system says.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Removes a file.
    ///
    /// # Errors
    /// As the system says.
    fn remove(&self, path: &Path) -> io::Result<()>;
    /// Makes the names in a directory survive a power cut.
    ///
    /// # Errors
    /// As the system says.
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;
    /// Makes a directory with its parents, and their names durable.
    ///
    /// # Errors
    /// As the system says.
    fn create_dir(&self, dir: &Path) -> io::Result<()>;
    /// Removes a directory if nothing is in it.
    ///
    /// # Errors
    /// As the system says; that something is in it is none.
    fn remove_empty_dir(&self, dir: &Path) -> io::Result<()>;
    /// Names in a directory, sorted; a directory that is not there is empty.
    ///
    /// # Errors
    /// As the system says.
    fn list(&self, dir: &Path) -> io::Result<Vec<String>>;
    /// Whether a symbolic link lies there.
    ///
    /// # Errors
    /// As the system says.
    fn is_link(&self, path: &Path) -> io::Result<bool>;
    /// Length of a file, `None` if there is none.
    ///
    /// # Errors
    /// As the system says.
    fn len(&self, path: &Path) -> io::Result<Option<u64>>;
    /// Takes the exclusive lock of a file, writing `holder` into it; it is held until the value is dropped.
    ///
    /// # Errors
    /// Names the holder, or says what the system said.
    fn lock(&self, path: &Path, holder: &str) -> Result<Box<dyn Send>, LockRefused>;
    /// A named point between two durable steps; a test may end the world here.
    ///
    /// # Errors
    /// Only in a test: the crash.
    fn reached(&self, _point: &'static str) -> io::Result<()> {
        Ok(())
    }
}

/// The operating system's disk.
#[derive(Clone, Copy, Debug, Default)]
pub struct RealDisk;

struct RealFile(File);

impl DiskFile for RealFile {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.0.write_all(bytes)
    }

    fn sync(&mut self) -> io::Result<()> {
        self.0.sync_data()
    }
}

/// Files of a tape may hold what people thought was private: only their owner reads them. And a tape may come from anywhere:
/// what is written goes through no link in it.
#[cfg(unix)]
fn private(options: &mut OpenOptions) -> &mut OpenOptions {
    use std::os::unix::fs::OpenOptionsExt;
    options.mode(0o600).custom_flags(rustix::fs::OFlags::NOFOLLOW.bits().cast_signed())
}

#[cfg(not(unix))]
fn private(options: &mut OpenOptions) -> &mut OpenOptions {
    options
}

/// Who holds a lock, by what they wrote into it. Best effort: it only makes the message kinder.
fn holder_of(file: &mut File) -> String {
    let mut text = String::new();
    // Whoever has just taken it may not have written yet.
    for _ in 0..20 {
        drop(file.rewind().and_then(|()| io::Read::by_ref(file).take(4_096).read_to_string(&mut text)));
        if !text.trim().is_empty() {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    text.trim().to_owned()
}

impl Disk for RealDisk {
    fn create(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        let file = private(OpenOptions::new().write(true).create_new(true)).open(path)?;
        Ok(Box::new(RealFile(file)))
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn DiskRead>> {
        Ok(Box::new(File::open(path)?))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        std::fs::rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        std::fs::remove_file(path)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        // Windows has no such call; there the rename itself is durable enough.
        if cfg!(unix) { File::open(dir)?.sync_all() } else { Ok(()) }
    }

    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        if dir.as_os_str().is_empty() || dir.is_dir() {
            return Ok(());
        }
        let parent = dir.parent().map(Path::to_owned).unwrap_or_default();
        self.create_dir(&parent)?;
        let mut builder = std::fs::DirBuilder::new();
        #[cfg(unix)]
        std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
        match builder.create(dir) {
            // Another process may make it at the same time; but a file in its place is no directory.
            Err(error) if !dir.is_dir() => return Err(error),
            _ => {}
        }
        self.sync_dir(if parent.as_os_str().is_empty() { Path::new(".") } else { &parent })
    }

    fn remove_empty_dir(&self, dir: &Path) -> io::Result<()> {
        match std::fs::remove_dir(dir) {
            Err(error) if !matches!(error.kind(), io::ErrorKind::DirectoryNotEmpty | io::ErrorKind::NotFound) => Err(error),
            _ => Ok(()),
        }
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        let entries = match std::fs::read_dir(dir) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            other => other?,
        };
        let mut names = Vec::new();
        for entry in entries {
            names.push(entry?.file_name().to_string_lossy().into_owned());
        }
        names.sort();
        Ok(names)
    }

    fn is_link(&self, path: &Path) -> io::Result<bool> {
        match std::fs::symlink_metadata(path) {
            Ok(meta) => Ok(meta.is_symlink()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn len(&self, path: &Path) -> io::Result<Option<u64>> {
        match std::fs::metadata(path) {
            Ok(meta) => Ok(Some(meta.len())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn lock(&self, path: &Path, holder: &str) -> Result<Box<dyn Send>, LockRefused> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false);
        let mut file = private(&mut options).open(path).map_err(LockRefused::Io)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(LockRefused::Held(holder_of(&mut file))),
            Err(TryLockError::Error(error)) => return Err(LockRefused::Io(error)),
        }
        file.set_len(0).and_then(|()| file.write_all(holder.as_bytes())).map_err(LockRefused::Io)?;
        Ok(Box::new(file))
    }
}
