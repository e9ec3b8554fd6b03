//! `birdtape tail`: the newest records, for people.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::Result;

use super::args::{self, Common};
use super::exit::{Exit, Outcome};
use super::out::Out;
use super::{cat, summary};
use crate::archive::{Record, Span, Tape};
use crate::model::{BodyRef, Seq, UnixMicros};
use crate::segment::{Line, Reader, RealDisk, walk_lines};

/// How often a followed tape is asked for news.
const POLL: Duration = Duration::from_millis(200);

/// Show the newest records
///
/// One line a record: received_at, source, number, kind, what it is about, and the beginning of its text. Control characters are
/// made visible. With --follow it goes on as the recorder commits.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  birdtape tail
  birdtape tail --source alpha -n 50 --follow
  birdtape tail --follow --json | jq .raw.op")]
pub(super) struct Args {
    /// Only this source (repeatable) [default: all]
    #[arg(long, value_name = "NAME")]
    source: Vec<String>,
    /// How many records to begin with
    #[arg(short = 'n', long = "lines", value_name = "N", default_value_t = 10)]
    lines: usize,
    /// Go on as new records are committed
    #[arg(short, long)]
    follow: bool,
}

pub(super) fn run(common: &Common, args: &Args) -> Outcome {
    let tape = common.open_tape()?;
    let mut tail = Tail { tape, named: args.source.clone(), seen: BTreeMap::new(), json: common.json };
    let mut out = Out::new();
    tail.begin(&mut out, args.lines)?;
    if !args.follow {
        return Ok(Exit::Done);
    }
    loop {
        std::thread::sleep(POLL);
        tail.go_on(&mut out)?;
    }
}

struct Tail {
    tape: Tape,
    named: Vec<String>,
    /// Last number shown, by source.
    seen: BTreeMap<String, u64>,
    json: bool,
}

/// Source, provider and record.
type Shown = (String, String, Record);

impl Tail {
    fn begin(&mut self, out: &mut Out, lines: usize) -> Result<()> {
        for name in args::sources(&self.tape, &self.named)? {
            let last = self.tape.source(&name)?.last_n;
            self.seen.insert(name, last.saturating_sub(lines as u64));
        }
        let mut news = self.news()?;
        let first = news.len().saturating_sub(lines);
        news.drain(..first);
        self.print(out, &news)
    }

    fn go_on(&mut self, out: &mut Out) -> Result<()> {
        let news = self.news()?;
        if news.is_empty() { Ok(()) } else { self.print(out, &news) }
    }

    /// What was committed since the last time, merged by received_at.
    fn news(&mut self) -> Result<Vec<Shown>> {
        let mut news: Vec<(UnixMicros, Shown)> = Vec::new();
        for source in self.tape.sources()? {
            if !self.named.is_empty() && !self.named.contains(&source.name) {
                continue;
            }
            let seen = self.seen.entry(source.name.clone()).or_insert(0);
            if source.last_n <= *seen {
                continue;
            }
            let records = records_between(&self.tape, &source.name, *seen + 1, source.last_n)?;
            *seen = source.last_n;
            // Within a source the order is that of the tape, also where stamps of an import fall back.
            let mut latest = UnixMicros(i64::MIN);
            news.extend(records.into_iter().map(|record| {
                latest = latest.max(record.at);
                (latest, (source.name.clone(), source.provider.clone(), record))
            }));
        }
        news.sort_by_key(|(latest, _)| *latest);
        Ok(news.into_iter().map(|(_, shown)| shown).collect())
    }

    fn print(&self, out: &mut Out, news: &[Shown]) -> Result<()> {
        for (source, provider, record) in news {
            if self.json {
                cat::whole(out, &cat::head(source), record)?;
            } else {
                out.line(&summary::line(source, provider, record))?;
            }
        }
        out.flush()
    }
}

/// Records of a source, both ends included.
fn records_between(tape: &Tape, source: &str, first_n: u64, last_n: u64) -> Result<Vec<Record>> {
    if let Some(found) = from_open_segment(tape, source, first_n, last_n)? {
        return Ok(found);
    }
    let mut records = tape.records(source, Span { from_n: Some(Seq(first_n)), ..Span::default() })?;
    let mut found = Vec::new();
    while let Some(record) = records.next()?.filter(|record| record.n.0 <= last_n) {
        found.push(record);
    }
    Ok(found)
}

/// The short way to the newest records: reads only the block that is being written, not its whole segment.
///
/// Following would otherwise unpack the segment again with every commit. `None` where the records lie elsewhere, or the
/// segment was sealed meanwhile.
fn from_open_segment(tape: &Tape, source: &str, first_n: u64, last_n: u64) -> Result<Option<Vec<Record>>> {
    let segments = tape.catalog().segments(source)?;
    let Some(row) = segments.last().filter(|row| row.state == "open" && row.first_n <= first_n) else { return Ok(None) };
    let blocks = tape.catalog().blocks(source, row.first_n)?;
    let block = blocks.iter().find(|block| block.last_n >= first_n).map(|block| block.offset);
    let offset = block.or(blocks.last().map(|block| block.offset + block.bytes)).unwrap_or(0);
    let path = tape.layout().open(source, &row.day, Seq(row.first_n));
    let Ok(mut reader) = Reader::open(&RealDisk, &path) else { return Ok(None) };
    reader.seek(offset)?;
    let mut found = Vec::new();
    while let Some(block) = reader.next_block()? {
        walk_lines(&block.data, |line| {
            found.extend(record(line).filter(|record| (first_n..=last_n).contains(&record.n.0)));
            Ok::<_, anyhow::Error>(())
        })?;
    }
    Ok((found.len() as u64 == last_n + 1 - first_n).then_some(found))
}

fn record(line: &[u8]) -> Option<Record> {
    let Some(Line::Record(record)) = Line::parse(line) else { return None };
    Some(Record {
        line: bytes::Bytes::copy_from_slice(line),
        n: record.n,
        at: record.at,
        kind: record.kind,
        via: record.via,
        conn: record.conn,
        info: record.info.map(str::to_owned),
        verbatim: matches!(record.body, BodyRef::Raw(_)),
        body: record.bytes()?.into_owned().into(),
    })
}
