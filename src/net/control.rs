//! A door for the operator's own commands: one line in, one line out, over a socket in the file system.

use std::io;
use std::path::Path;
use std::time::Duration;

use tokio::time::timeout;

/// For a question or an answer to come whole.
const LINE_TIMEOUT: Duration = Duration::from_secs(5);

/// Bytes of a question or an answer.
const LINE_BYTES_MAX: u64 = 256 << 10;

#[cfg(unix)]
mod unix {
    use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
    use std::path::PathBuf;

    use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
    use tokio::net::{UnixListener, UnixStream};

    use super::*;

    /// Takes questions from processes of the same user; the socket is removed when this is dropped.
    #[derive(Debug)]
    pub struct ControlListener {
        listener: UnixListener,
        path: PathBuf,
    }

    impl ControlListener {
        /// Listens, for this user only. A socket that is there is replaced: the caller knows that nobody else listens.
        ///
        /// # Errors
        ///
        /// As the system says; a file that is no socket stays where it is.
        pub fn bind(path: &Path) -> io::Result<Self> {
            match std::fs::symlink_metadata(path) {
                Ok(there) if there.file_type().is_socket() => std::fs::remove_file(path)?,
                _ => {}
            }
            let listener = UnixListener::bind(path)?;
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
            Ok(Self { listener, path: path.to_owned() })
        }

        /// The next one who asks. Others than this user and root are turned away.
        ///
        /// # Errors
        ///
        /// As the system says.
        pub async fn accept(&self) -> io::Result<ControlStream> {
            loop {
                let (stream, _) = self.listener.accept().await?;
                let uid = stream.peer_cred()?.uid();
                if uid == 0 || uid == std::fs::metadata(&self.path)?.uid() {
                    return Ok(ControlStream(BufReader::new(stream)));
                }
            }
        }
    }

    impl Drop for ControlListener {
        fn drop(&mut self) {
            // Best effort: the next recorder replaces what is left.
            drop(std::fs::remove_file(&self.path));
        }
    }

    /// One who asks.
    #[derive(Debug)]
    pub struct ControlStream(BufReader<UnixStream>);

    impl ControlStream {
        /// Reads the question or the answer, without the line end.
        ///
        /// # Errors
        ///
        /// It did not come whole, in time, under the limit and as UTF-8.
        pub async fn read_line(&mut self) -> io::Result<String> {
            let mut line = String::new();
            let mut limited = (&mut self.0).take(LINE_BYTES_MAX);
            timeout(LINE_TIMEOUT, limited.read_line(&mut line)).await??;
            match line.strip_suffix('\n') {
                Some(line) => Ok(line.to_owned()),
                None => Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the line has no end")),
            }
        }

        /// Writes the answer or the question.
        ///
        /// # Errors
        ///
        /// The other side does not take it in time.
        pub async fn write_line(&mut self, line: &str) -> io::Result<()> {
            let line = format!("{line}\n");
            timeout(LINE_TIMEOUT, self.0.get_mut().write_all(line.as_bytes())).await?
        }
    }

    /// Asks whoever listens at `path`, who must be the owner of `owner`.
    ///
    /// # Errors
    ///
    /// Nobody listens, or no answer came.
    pub async fn control_call(path: &Path, owner: &Path, question: &str) -> io::Result<String> {
        let (socket, owner) = (std::fs::symlink_metadata(path)?, std::fs::metadata(owner)?);
        if socket.uid() != owner.uid() && socket.uid() != 0 {
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, "the socket belongs to somebody else"));
        }
        let mut stream = ControlStream(BufReader::new(timeout(LINE_TIMEOUT, UnixStream::connect(path)).await??));
        stream.write_line(question).await?;
        stream.read_line().await
    }
}

#[cfg(not(unix))]
mod elsewhere {
    use super::*;

    fn unsupported() -> io::Error {
        io::Error::new(io::ErrorKind::Unsupported, "control sockets need a Unix system")
    }

    /// Never made on this system.
    #[derive(Debug)]
    pub struct ControlListener(std::convert::Infallible);

    impl ControlListener {
        /// Refuses.
        ///
        /// # Errors
        ///
        /// Always.
        pub fn bind(_: &Path) -> io::Result<Self> {
            Err(unsupported())
        }

        /// Never called.
        ///
        /// # Errors
        ///
        /// Never.
        pub async fn accept(&self) -> io::Result<ControlStream> {
            match self.0 {}
        }
    }

    /// Never made on this system.
    #[derive(Debug)]
    pub struct ControlStream(std::convert::Infallible);

    impl ControlStream {
        /// Never called.
        ///
        /// # Errors
        ///
        /// Never.
        pub async fn read_line(&mut self) -> io::Result<String> {
            match self.0 {}
        }

        /// Never called.
        ///
        /// # Errors
        ///
        /// Never.
        pub async fn write_line(&mut self, _: &str) -> io::Result<()> {
            match self.0 {}
        }
    }

    /// Refuses.
    ///
    /// # Errors
    ///
    /// Always.
    pub async fn control_call(_: &Path, _: &Path, _: &str) -> io::Result<String> {
        Err(unsupported())
    }
}

#[cfg(not(unix))]
pub use elsewhere::{ControlListener, ControlStream, control_call};
#[cfg(unix)]
pub use unix::{ControlListener, ControlStream, control_call};
