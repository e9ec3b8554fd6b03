//! What the program prints: data on stdout, talk on stderr.
//!
//! Bytes that stand on a tape are printed exactly, unless stdout is a terminal: there, as in everything made for people,
//! characters that could command it are made visible. A reader that goes away (`| head`) ends the command quietly.

use std::io::{self, BufWriter, IsTerminal, StdoutLock, Write};
use std::time::Duration;

use anyhow::Result;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::log::{redact, visible};
use crate::model::UnixMicros;

const BUFFER: usize = 256 << 10;

/// Nobody reads our output any more: no failure, but the end.
#[derive(Debug, thiserror::Error)]
#[error("stdout was closed")]
pub(super) struct Closed;

/// Stdout, buffered.
pub(super) struct Out {
    writer: BufWriter<StdoutLock<'static>>,
    terminal: bool,
}

impl Out {
    pub(super) fn new() -> Self {
        let stdout = io::stdout();
        let terminal = stdout.is_terminal();
        Self { writer: BufWriter::with_capacity(BUFFER, stdout.lock()), terminal }
    }

    /// A line of bytes from a tape: exact, but for a terminal.
    pub(super) fn exact(&mut self, parts: &[&[u8]]) -> Result<()> {
        if self.terminal {
            let line = parts.concat();
            return self.line(&String::from_utf8_lossy(&line));
        }
        for part in parts {
            check(self.writer.write_all(part))?;
        }
        check(self.writer.write_all(b"\n"))
    }

    /// A line for people.
    pub(super) fn line(&mut self, text: &str) -> Result<()> {
        check(writeln!(self.writer, "{}", visible(text)))
    }

    /// Text of several lines for people, without a line end at its end.
    pub(super) fn lines(&mut self, text: &str) -> Result<()> {
        text.lines().try_for_each(|line| self.line(line.trim_end()))
    }

    /// Text of our own making with colours, nothing in it from a tape but names.
    pub(super) fn styled(&mut self, text: &str) -> Result<()> {
        check(self.writer.write_all(text.as_bytes()))
    }

    /// For a job that writes lines itself.
    pub(super) fn lines_of_a_job(&mut self) -> Lines<impl Write> {
        Lines { to: &mut self.writer, terminal: self.terminal, begun: Vec::new() }
    }

    /// One JSON value on one line.
    pub(super) fn json(&mut self, value: &serde_json::Value) -> Result<()> {
        let text = value.to_string();
        self.exact(&[text.as_bytes()])
    }

    /// Hands everything on to the reader.
    pub(super) fn flush(&mut self) -> Result<()> {
        check(self.writer.flush())
    }
}

/// Takes lines in pieces of any length: exact, but for a terminal.
pub(super) struct Lines<W: Write> {
    to: W,
    terminal: bool,
    /// A line whose end has not come yet.
    begun: Vec<u8>,
}

impl<W: Write> Write for Lines<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if !self.terminal {
            return self.to.write(bytes);
        }
        let (whole, rest) = bytes.split_at(memchr::memrchr(b'\n', bytes).map_or(0, |at| at + 1));
        if !whole.is_empty() {
            self.begun.extend_from_slice(whole);
            for line in String::from_utf8_lossy(&std::mem::take(&mut self.begun)).lines() {
                writeln!(self.to, "{}", visible(line))?;
            }
        }
        self.begun.extend_from_slice(rest);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }
}

fn check(result: io::Result<()>) -> Result<()> {
    result.map_err(|error| {
        if error.kind() == io::ErrorKind::BrokenPipe {
            Closed.into()
        } else {
            anyhow::Error::new(error).context("cannot write to stdout")
        }
    })
}

/// Says a line on stderr, without keys and without commands to a terminal.
pub(super) fn say(text: &str) {
    // A talk that nobody hears must not stop the work.
    writeln!(io::stderr().lock(), "{}", visible(&redact(text))).ok();
}

/// A table for people.
pub(super) fn table(head: &[&str], rows: impl IntoIterator<Item = Vec<String>>) -> String {
    let mut table = comfy_table::Table::new();
    table.load_style(comfy_table::presets::NOTHING).set_header(head.iter().copied());
    for row in rows {
        table.add_row(row.iter().map(|cell| visible(cell)));
    }
    table.lines().map(|line| line.trim_end().to_owned() + "\n").collect()
}

/// A bar on stderr where that is a terminal, otherwise nothing. Without a length it counts only.
pub(super) fn progress(total_bytes: Option<u64>, doing: &'static str) -> ProgressBar {
    if !io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::with_draw_target(total_bytes, ProgressDrawTarget::stderr());
    let form = match total_bytes {
        Some(_) => "{msg} {wide_bar} {bytes}/{total_bytes} {bytes_per_sec} {eta}",
        None => "{msg} {spinner} {bytes} {bytes_per_sec}",
    };
    if let Ok(style) = ProgressStyle::with_template(form) {
        bar.set_style(style);
    }
    bar.with_message(doing)
}

/// A bar on stderr that counts steps, where that is a terminal.
pub(super) fn steps(total: u64, doing: &'static str) -> ProgressBar {
    if !io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::stderr());
    if let Ok(style) = ProgressStyle::with_template("{msg} {wide_bar} {pos}/{len} {elapsed}") {
        bar.set_style(style);
    }
    // A step may take long: the time goes on meanwhile.
    bar.enable_steady_tick(Duration::from_secs(1));
    bar.with_message(doing)
}

/// One line on stderr that is written again and again, where that is a terminal.
pub(super) fn live_line() -> Option<ProgressBar> {
    if !io::stderr().is_terminal() {
        return None;
    }
    let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
    if let Ok(style) = ProgressStyle::with_template("{spinner} {wide_msg}") {
        bar.set_style(style);
    }
    Some(bar)
}

/// An instant for people: to the millisecond, UTC.
pub(super) fn stamp(at: UnixMicros) -> String {
    let text = at.to_string();
    format!("{} {}Z", &text[..10], &text[11..23])
}

/// A length of time for people: its two largest parts.
pub(super) fn length(us: i64) -> String {
    let us = us.unsigned_abs();
    let exact = if us < 1_000_000 { Duration::from_millis(us / 1_000) } else { Duration::from_secs(us / 1_000_000) };
    let words = humantime::format_duration(exact).to_string();
    words.split(' ').take(2).collect::<Vec<_>>().join(" ")
}

/// A number of bytes for people.
pub(super) fn size(bytes: u64) -> String {
    bytesize::ByteSize(bytes).to_string()
}

/// `1 line`, `2 lines`.
pub(super) fn count(n: u64, one: &str) -> String {
    if n == 1 { format!("1 {one}") } else { format!("{n} {one}s") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn people_read_lengths_and_instants() {
        assert_eq!(stamp(UnixMicros(1_767_614_400_123_456)), "2026-01-05 12:00:00.123Z");
        assert_eq!([length(1_500), length(61_900_000), length(-3_661_000_000)], ["1ms", "1m 1s", "1h 1m"]);
        assert_eq!([count(1, "gap"), count(2, "gap")], ["1 gap", "2 gaps"]);
    }

    #[test]
    fn lines_of_a_job_command_no_terminal() {
        let hostile = "{\"a\":\"é\u{9b}2J\"}\nx,\"\x1b]52;\0\nend\"\n".as_bytes();
        for piece in [1, 2, 7, 100] {
            let written = |terminal| {
                let mut lines = Lines { to: Vec::new(), terminal, begun: Vec::new() };
                hostile.chunks(piece).for_each(|bytes| lines.write_all(bytes).unwrap());
                String::from_utf8(lines.to).unwrap()
            };
            assert_eq!(written(false).as_bytes(), hostile);
            assert_eq!(written(true), "{\"a\":\"é\\u{9b}2J\"}\nx,\"\\u{1b}]52;\\u{0}\nend\"\n");
        }
    }

    #[test]
    fn tables_command_no_terminal() {
        let text = table(&["a", "b"], [vec!["\x1b[2J".to_owned(), "x\ny".to_owned()]]);
        assert!(text.contains("\\u{1b}[2J") && text.contains("x\\ny") && !text.contains('\x1b'), "{text}");
    }
}
