//! Job: lines of raw envelopes in, a sealed tape out.
//!
//! Owns the reading of files that others recorded: unpacking, splitting, finding the provider of each line. Each line
//! becomes one `frame` record with `via` = `import` and no connection, byte for byte but for its line end (`\n` or
//! `\r\n`) and a byte order mark at the very beginning, which belong to the file. Lines of nothing are counted and
//! passed over. Importing a file again appends it again.
//!
//! An import is no evidence of life: it covers nothing and closes no gap. Knows no command line; the caller
//! opens the archive and is asked to do so only when there is something to write, so a mistaken file leaves no tape.
//!
//! | file | holds |
//! | --- | --- |
//! | `lines.rs` | [`Lines`]: plain, gzip and zstd to lines, with the place where a torn file breaks off |

mod lines;

use std::io;

use bytes::Bytes;

pub use lines::{Cut, Lines, MAX_LINE, Next, Packing};

use crate::archive::{Archive, ArchiveError};
use crate::model::{Body, ConnId, Decoded, Draft, Provider, RecordKind, SourceName, UnixMicros, Via};
use crate::net::Clock;
use crate::provider;
use crate::provider::synthetic::Envelope;

/// Uncompressed bytes after which a commit is made; larger than a recorder's, since the file is still there to import again.
const COMMIT_BYTES: usize = 4 << 20;

/// Lines at the beginning are held until one is recognised and one is stamped; where no line of these is recognised, it is
/// another sort of file.
const MAX_HELD_BYTES: usize = 4 << 20;

/// Numbers of unrecognised lines that are told.
const MAX_TOLD: usize = 5;

/// What to import as.
#[derive(Clone, Debug)]
pub struct Options {
    /// Whose envelopes these are; `None` asks each line.
    pub provider: Option<Provider>,
    /// The source they go to; `None` names it after the provider.
    pub source: Option<SourceName>,
    /// received_at where no line near the beginning carries its provider's stamp.
    pub first_at: UnixMicros,
}

/// What was done.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Lines kept, by source.
    pub sources: Vec<(SourceName, Provider, u64)>,
    /// Bytes of the envelopes kept.
    pub body_bytes: u64,
    /// Lines with nothing in them.
    pub n_empty: u64,
    /// Lines of no provider's shape, kept in the source of the line before.
    pub n_unrecognised: u64,
    /// Lines at the beginning that have the shape of another provider than the one that was named.
    pub n_foreign: u64,
    /// Where the first of them stand, from 1.
    pub unrecognised: Vec<u64>,
    /// Lines longer than [`MAX_LINE`], not kept.
    pub too_long: Vec<u64>,
    /// Where the file broke off.
    pub cut: Option<Cut>,
}

impl Report {
    /// Lines kept.
    pub fn n_lines(&self) -> u64 {
        self.sources.iter().map(|(_, _, n)| n).sum()
    }

    /// Whether something is not, or perhaps not, where it belongs.
    pub fn has_loss(&self) -> bool {
        self.n_unrecognised > 0 || !self.too_long.is_empty() || self.cut.is_some()
    }
}

/// Why nothing (more) was imported.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// The system refuses to read.
    #[error("cannot read {name}")]
    Read {
        /// The file.
        name: String,
        /// The system's answer.
        source: io::Error,
    },
    /// There is no line in it.
    #[error("nothing to import from {name}: {why}")]
    Nothing {
        /// The file.
        name: String,
        /// What was found instead.
        why: String,
    },
    /// It is some other sort of file.
    #[error("{name} does not hold lines of text: {what}")]
    NotText {
        /// The file.
        name: String,
        /// What was found.
        what: String,
    },
    /// Its name promises a packing that its bytes do not have.
    #[error("{name} is not {what}, although its name says so")]
    NotPacked {
        /// The file.
        name: String,
        /// `zstd` or `gzip`.
        what: &'static str,
    },
    /// No line has a provider's shape.
    #[error("{name}: none of the first {n_lines} line(s) has the shape of a known provider's envelope")]
    Unrecognised {
        /// The file.
        name: String,
        /// How many were looked at.
        n_lines: u64,
    },
    /// The tape.
    #[error(transparent)]
    Archive(#[from] ArchiveError),
}

impl ImportError {
    /// What the person can do about it.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Read { .. } => None,
            Self::Nothing { .. } => Some("the file should hold one envelope a line, plain or packed with gzip or zstd"),
            Self::NotText { .. } => Some("unpack or convert it first: one envelope a line, plain, gzip or zstd"),
            Self::NotPacked { .. } => Some("rename it if it holds plain lines; otherwise get a whole copy of it"),
            Self::Unrecognised { .. } => Some("say whose they are with --provider; then every line is kept as it is"),
            Self::Archive(error) => error.hint(),
        }
    }
}

/// Imports all lines, committing as it goes, and seals what it wrote. `progress` is told now and then.
///
/// # Errors
/// When there is nothing to import (then `open` was not called), the file cannot be read, or the tape takes no more;
/// what was committed before stays.
pub fn run(
    mut lines: Lines,
    options: &Options,
    clock: &dyn Clock,
    open: impl FnOnce() -> Result<Archive, ArchiveError>,
    mut progress: impl FnMut(&Lines),
) -> Result<Report, ImportError> {
    let mut report = Report::default();
    let start = Start::read(&mut lines, options, &mut report)?;
    let dating = Dating { provider: start.provider, at: start.stamp.unwrap_or(options.first_at) };
    let mut import = Import { archive: open()?, options, report, targets: Vec::new(), dating, waiting: 0 };
    for (number, line) in start.held {
        import.line(number, line)?;
    }
    while import.report.cut.is_none() {
        let number = lines.number() + 1;
        match lines.next()? {
            Next::Line(b"") => import.report.n_empty += 1,
            Next::Line(line) => import.line(number, Bytes::copy_from_slice(line))?,
            Next::TooLong => import.report.too_long.push(number),
            Next::Cut(cut) => import.report.cut = Some(cut),
            Next::End => break,
        }
        if import.waiting >= COMMIT_BYTES {
            import.waiting = 0;
            import.archive.commit(clock.wall())?;
            progress(&lines);
        }
    }
    import.finish(clock)
}

/// The beginning of a file, read until a provider and a stamp are known.
struct Start {
    /// Lines read so far, each with its number.
    held: Vec<(u64, Bytes)>,
    /// Whose the first recognised line is.
    provider: Provider,
    /// The first provider's stamp: lines before it are dated like it.
    stamp: Option<UnixMicros>,
}

impl Start {
    fn read(lines: &mut Lines, options: &Options, report: &mut Report) -> Result<Self, ImportError> {
        let (mut held, mut held_bytes) = (Vec::new(), 0);
        let (mut first, mut stamp) = (options.provider, None);
        let name = lines.name().to_owned();
        while held_bytes <= MAX_HELD_BYTES && stamp.is_none() {
            let number = lines.number() + 1;
            match lines.next()? {
                Next::Line(b"") => report.n_empty += 1,
                Next::Line(line) => {
                    let provider = options.provider.or_else(|| provider::recognise(line));
                    stamp = provider.and_then(|provider| provider::decode(provider, line).provider_at);
                    first = first.or(provider);
                    held_bytes += line.len();
                    held.push((number, Bytes::copy_from_slice(line)));
                }
                Next::TooLong => report.too_long.push(number),
                Next::Cut(cut) => {
                    report.cut = Some(cut);
                    break;
                }
                Next::End => break,
            }
        }
        match first {
            Some(provider) if !held.is_empty() => Ok(Self { held, provider, stamp }),
            _ if held.is_empty() => {
                let why = match &report.cut {
                    Some(cut) => format!("it breaks off before its first line ends ({})", cut.why),
                    None if !report.too_long.is_empty() => "its lines are too long".to_owned(),
                    None => "it holds only empty lines".to_owned(),
                };
                Err(ImportError::Nothing { name, why })
            }
            _ => Err(ImportError::Unrecognised { name, n_lines: held.len() as u64 }),
        }
    }
}

/// Lines at the beginning whose shape is compared with the provider that was named.
const LOOKED_AT: u64 = 1_000;

/// Whose each line is, and when it came.
struct Dating {
    /// Provider of the line before.
    provider: Provider,
    /// received_at of the line before, whatever its provider: lines stand in the order in which they came.
    at: UnixMicros,
}

impl Dating {
    fn read(&mut self, number: u64, line: &[u8], options: &Options, report: &mut Report) -> Decoded {
        if options.provider.is_none() {
            match provider::recognise(line) {
                Some(provider) => self.provider = provider,
                None => {
                    // Nothing is thrown away: most likely it is a broken message of the stream it stands in.
                    report.n_unrecognised += 1;
                    if report.unrecognised.len() < MAX_TOLD {
                        report.unrecognised.push(number);
                    }
                }
            }
        }
        let foreign = |named| number <= LOOKED_AT && provider::recognise(line).is_some_and(|provider| provider != named);
        report.n_foreign += u64::from(options.provider.is_some_and(foreign));
        let decoded = provider::decode(self.provider, line);
        self.at = decoded.provider_at.unwrap_or(self.at);
        decoded
    }
}

/// Where the lines of a provider go.
struct Target {
    source: SourceName,
    provider: Provider,
    n_lines: u64,
}

struct Import<'a> {
    archive: Archive,
    options: &'a Options,
    report: Report,
    targets: Vec<Target>,
    dating: Dating,
    waiting: usize,
}

impl Import<'_> {
    fn line(&mut self, number: u64, line: Bytes) -> Result<(), ImportError> {
        let decoded = self.dating.read(number, &line, self.options, &mut self.report);
        let at = self.target(self.dating.provider)?;
        let target = &mut self.targets[at];
        target.n_lines += 1;
        self.report.body_bytes += line.len() as u64;
        self.waiting += line.len();
        let draft = Draft {
            received_at: self.dating.at,
            kind: RecordKind::Frame,
            via: Via::Import,
            conn: ConnId(0),
            info: None,
            body: Body::Bytes(line),
        };
        self.archive.append(&target.source, &draft, Some(&decoded))?;
        Ok(())
    }

    fn target(&mut self, provider: Provider) -> Result<usize, ImportError> {
        if let Some(at) = self.targets.iter().position(|target| target.provider == provider) {
            return Ok(at);
        }
        let source = self.options.source.clone().unwrap_or_else(|| SourceName::from(provider));
        self.archive.add_source(&source, provider)?;
        self.targets.push(Target { source, provider, n_lines: 0 });
        Ok(self.targets.len() - 1)
    }

    fn finish(mut self, clock: &dyn Clock) -> Result<Report, ImportError> {
        self.archive.close(clock.wall())?;
        self.targets.sort_by(|a, b| a.source.cmp(&b.source));
        self.report.sources = self.targets.into_iter().map(|t| (t.source, t.provider, t.n_lines)).collect();
        Ok(self.report)
    }
}

/// Reads all lines as envelopes, without a tape: recognised and dated as [`run`] does it.
///
/// For files of a size that fits into memory, such as fixtures.
///
/// # Errors
/// As [`run`].
pub fn envelopes(mut lines: Lines, options: &Options) -> Result<(Vec<Envelope>, Report), ImportError> {
    let mut report = Report::default();
    let start = Start::read(&mut lines, options, &mut report)?;
    let mut dating = Dating { provider: start.provider, at: start.stamp.unwrap_or(options.first_at) };
    let mut envelopes = Vec::new();
    for (number, bytes) in start.held {
        dating.read(number, &bytes, options, &mut report);
        envelopes.push(Envelope { provider: dating.provider, at: dating.at, bytes });
    }
    while report.cut.is_none() {
        let number = lines.number() + 1;
        match lines.next()? {
            Next::Line(b"") => report.n_empty += 1,
            Next::Line(line) => {
                let bytes = Bytes::copy_from_slice(line);
                dating.read(number, &bytes, options, &mut report);
                envelopes.push(Envelope { provider: dating.provider, at: dating.at, bytes });
            }
            Next::TooLong => report.too_long.push(number),
            Next::Cut(cut) => report.cut = Some(cut),
            Next::End => break,
        }
    }
    Ok((envelopes, report))
}
