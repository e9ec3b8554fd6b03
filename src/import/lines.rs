//! Lines out of a file that may be packed: plain, gzip or zstd, told by its first bytes.

use std::io::{self, BufRead, BufReader, Cursor, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::ImportError;

/// Longest line taken whole.
pub const MAX_LINE: usize = 32 << 20;

/// What is looked at before anything is believed.
const HEAD: usize = 64 << 10;

/// Larger windows than stock tools accept are refused, so a small file cannot claim all memory.
const WINDOW_LOG_MAX: u32 = 27;

/// More control characters than one byte in so many are no text.
const ODD_BYTES_ONE_IN: usize = 20;

const BOM: &[u8] = b"\xef\xbb\xbf";

/// First bytes of what people mistake for lines, with its name.
const STRANGERS: [(&[u8], &str); 6] = [
    (b"PK\x03\x04", "a zip archive"),
    (b"\xfd7zXZ\0", "packed with xz"),
    (b"BZh", "packed with bzip2"),
    (b"PAR1", "a Parquet file"),
    (b"SQLite format 3\0", "an SQLite database"),
    (b"\x7fELF", "a program"),
];

/// How a file is packed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Packing {
    /// Not at all.
    Plain,
    /// gzip, one or more members.
    Gzip,
    /// zstd, one or more frames.
    Zstd,
}

/// Lines of an opened file, in order.
pub struct Lines {
    name: String,
    packing: Packing,
    input: BufReader<Box<dyn Read>>,
    consumed: Arc<AtomicU64>,
    line: Vec<u8>,
    number: u64,
    offset: u64,
}

/// What comes next.
#[derive(Debug, PartialEq, Eq)]
pub enum Next<'a> {
    /// A line without its line end (`\n` or `\r\n`).
    Line(&'a [u8]),
    /// A line longer than [`MAX_LINE`]: passed over.
    TooLong,
    /// The packing breaks here; what was begun of a line is not given.
    Cut(Cut),
    /// The clean end.
    End,
}

/// Where a packed file stopped making sense.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cut {
    /// The line that could not be read whole, from 1.
    pub line: u64,
    /// Unpacked bytes before it broke off.
    pub offset: u64,
    /// What the unpacker says.
    pub why: String,
}

impl std::fmt::Debug for Lines {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Lines").field("name", &self.name).field("packing", &self.packing).finish_non_exhaustive()
    }
}

impl Lines {
    /// Looks at the beginning and unpacks from there. `name` is for messages and for the suspicion that a file called
    /// `.zst` or `.gz` should be packed.
    ///
    /// # Errors
    /// When the input cannot be read, is empty, or is no text.
    pub fn new(name: &str, input: impl Read + 'static) -> Result<Self, ImportError> {
        let read = |source| ImportError::Read { name: name.to_owned(), source };
        let consumed = Arc::new(AtomicU64::new(0));
        let mut input = Counted { input, consumed: Arc::clone(&consumed) };
        let mut head = Vec::new();
        (&mut input).take(HEAD as u64).read_to_end(&mut head).map_err(read)?;
        if head.is_empty() {
            return Err(ImportError::Nothing { name: name.to_owned(), why: "it is empty".to_owned() });
        }
        let packing = packing(&head);
        contradiction(name, packing, &head)?;
        let rest = Cursor::new(head).chain(input);
        let unpacked: Box<dyn Read> = match packing {
            Packing::Plain => Box::new(rest),
            Packing::Gzip => Box::new(flate2::read::MultiGzDecoder::new(rest)),
            Packing::Zstd => {
                let mut decoder = zstd::stream::read::Decoder::new(rest).map_err(read)?;
                decoder.window_log_max(WINDOW_LOG_MAX).map_err(read)?;
                Box::new(decoder)
            }
        };
        let input = BufReader::with_capacity(HEAD, unpacked);
        let mut lines = Self { name: name.to_owned(), packing, input, consumed, line: Vec::new(), number: 0, offset: 0 };
        lines.look_at_text()?;
        Ok(lines)
    }

    /// How the file is packed.
    pub fn packing(&self) -> Packing {
        self.packing
    }

    /// The name for messages.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Number of the line given last, from 1.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// Bytes of the file taken so far, as it is packed; runs a little ahead of the lines.
    pub fn consumed(&self) -> u64 {
        self.consumed.load(Ordering::Relaxed)
    }

    /// The next line.
    ///
    /// # Errors
    /// When the system refuses to read; broken packing is an answer, not an error.
    #[allow(clippy::should_implement_trait, reason = "a line is lent, not given")]
    pub fn next(&mut self) -> Result<Next<'_>, ImportError> {
        self.line.clear();
        self.number += 1;
        let mut too_long = false;
        loop {
            let buffer = match self.input.fill_buf() {
                Ok(buffer) => buffer,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return self.broke(error),
            };
            if buffer.is_empty() {
                // A last line without its line end is a line all the same.
                if self.line.is_empty() && !too_long {
                    return Ok(Next::End);
                }
                break;
            }
            let end = memchr::memchr(b'\n', buffer);
            let part = &buffer[..end.unwrap_or(buffer.len())];
            too_long |= self.line.len() + part.len() > MAX_LINE;
            if too_long {
                self.line.clear();
            } else {
                self.line.extend_from_slice(part);
            }
            let taken = part.len() + usize::from(end.is_some());
            self.input.consume(taken);
            self.offset += taken as u64;
            if end.is_some() {
                break;
            }
        }
        if too_long {
            return Ok(Next::TooLong);
        }
        if self.line.last() == Some(&b'\r') {
            self.line.pop();
        }
        Ok(Next::Line(&self.line))
    }

    fn broke(&mut self, error: io::Error) -> Result<Next<'static>, ImportError> {
        if error.raw_os_error().is_some() {
            return Err(ImportError::Read { name: self.name.clone(), source: error });
        }
        Ok(Next::Cut(Cut { line: self.number, offset: self.offset, why: error.to_string() }))
    }

    /// Refuses what is no text, so that a mistaken file name does not become a tape of rubbish.
    fn look_at_text(&mut self) -> Result<(), ImportError> {
        let not_text = |what: String| ImportError::NotText { name: self.name.clone(), what };
        // What cannot be unpacked at all shows when the first line is asked for.
        let Ok(start) = self.input.fill_buf() else { return Ok(()) };
        if let Some((_, what)) = STRANGERS.iter().find(|(magic, _)| start.starts_with(magic)) {
            return Err(not_text(format!("it is {what}")));
        }
        // Odd bytes may well stand in an envelope; in a whole file of lines they are few.
        let is_odd = |b: &&u8| b.is_ascii_control() && !matches!(b, b'\t' | b'\n' | b'\r');
        let n_odd = start.iter().filter(is_odd).count();
        if n_odd * ODD_BYTES_ONE_IN > start.len() {
            return Err(not_text(format!("{n_odd} of its first {} bytes are control characters", start.len())));
        }
        if start.starts_with(BOM) {
            self.input.consume(BOM.len());
            self.offset += BOM.len() as u64;
        }
        Ok(())
    }
}

fn packing(head: &[u8]) -> Packing {
    let skippable = head.len() >= 4 && head[0] & 0xf0 == 0x50 && head[1..4] == [0x2a, 0x4d, 0x18];
    if head.starts_with(&[0x1f, 0x8b]) {
        Packing::Gzip
    } else if skippable || head.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]) {
        Packing::Zstd
    } else {
        Packing::Plain
    }
}

/// A name that promises packing, on bytes that are neither packed nor the beginning of JSON.
fn contradiction(name: &str, packing: Packing, head: &[u8]) -> Result<(), ImportError> {
    let promised = [(".zst", Packing::Zstd, "zstd"), (".gz", Packing::Gzip, "gzip")];
    let Some((_, _, what)) = promised.iter().find(|(end, expected, _)| name.ends_with(end) && *expected != packing) else {
        return Ok(());
    };
    let text = head.strip_prefix(BOM).unwrap_or(head).trim_ascii_start();
    if packing == Packing::Plain && !matches!(text.first(), Some(b'{' | b'[')) {
        return Err(ImportError::NotPacked { name: name.to_owned(), what });
    }
    Ok(())
}

struct Counted<R> {
    input: R,
    consumed: Arc<AtomicU64>,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let got = self.input.read(buffer)?;
        self.consumed.fetch_add(got as u64, Ordering::Relaxed);
        Ok(got)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn lines(name: &str, bytes: &[u8]) -> String {
        let mut lines = match Lines::new(name, Cursor::new(bytes.to_vec())) {
            Ok(lines) => lines,
            Err(error) => return error.to_string(),
        };
        let mut told = Vec::new();
        loop {
            match lines.next().unwrap() {
                Next::Line(line) => told.push(String::from_utf8_lossy(line).into_owned()),
                Next::TooLong => told.push("(too long)".to_owned()),
                Next::Cut(cut) => return format!("{} (cut in line {} at {})", told.join("|"), cut.line, cut.offset),
                Next::End => return told.join("|"),
            }
        }
    }

    fn gz(bytes: &[u8]) -> Vec<u8> {
        let mut out = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        out.write_all(bytes).unwrap();
        out.finish().unwrap()
    }

    #[test]
    fn every_packing_gives_the_same_lines() {
        let text = b"{\"a\":1}\n\n{\"b\":2}\r\n\xff last";
        let want = "{\"a\":1}||{\"b\":2}|\u{fffd} last";
        let zst = zstd::encode_all(&text[..], 3).unwrap();
        let two = [gz(&text[..9]), gz(&text[9..])].concat();
        let frames = [zstd::encode_all(&text[..9], 3).unwrap(), zstd::encode_all(&text[9..], 3).unwrap()].concat();
        let bom = [BOM, text].concat();
        for (name, bytes) in [("a", &text[..]), ("a.gz", &gz(text)), ("-", &zst), ("b", &two), ("c", &frames), ("d", &bom)] {
            assert_eq!(lines(name, bytes), want, "{name}");
        }
        assert_eq!(lines("misnamed.zst", text), want, "JSON is taken for what it is");
    }

    #[test]
    fn a_torn_file_gives_what_is_whole() {
        let text: String = (0..20_000).map(|i| format!("{{\"line\":{i},\"x\":{}}}\n", i * 7919 % 104_729)).collect();
        for packed in [gz(text.as_bytes()), zstd::encode_all(text.as_bytes(), 3).unwrap()] {
            let told = lines("torn", &packed[..packed.len() / 2]);
            let (whole, cut) = told.rsplit_once(" (cut in line ").unwrap();
            let n_whole = whole.split('|').filter(|line| !line.is_empty()).count();
            assert!(n_whole > 1_000 && n_whole < 19_999, "{n_whole}");
            assert!(cut.starts_with(&format!("{} ", n_whole + 1)), "{n_whole} {cut}");
        }
    }

    #[test]
    fn refuses_what_is_no_text() {
        assert_eq!(lines("e", b""), "nothing to import from e: it is empty");
        assert_eq!(lines("p", b"PK\x03\x04rest"), "p does not hold lines of text: it is a zip archive");
        assert_eq!(lines("n", b"abc\0def"), "n does not hold lines of text: 1 of its first 7 bytes are control characters");
        assert_eq!(lines("x.zst", b"hello"), "x.zst is not zstd, although its name says so");
        assert_eq!(lines("x.gz", b"hello"), "x.gz is not gzip, although its name says so");
    }

    #[test]
    fn passes_over_a_line_that_is_too_long() {
        let text = [b"{\"a\":1}\n".as_slice(), &vec![b'x'; MAX_LINE + 1], b"\n{\"b\":2}\n"].concat();
        assert_eq!(lines("long", &text), "{\"a\":1}|(too long)|{\"b\":2}");
        let fits = [vec![b'x'; MAX_LINE], b"\n".to_vec()].concat();
        assert_eq!(lines("fits", &fits).len(), MAX_LINE);
    }
}
