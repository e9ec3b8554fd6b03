//! The format on disk: lines, blocks, the chain of commits, sealing.

use std::io::Write as _;
use std::num::NonZeroUsize;
use std::ops::ControlFlow;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use birdtape::model::json::Json;
use birdtape::model::{Body, BodyRef, ConnId, Draft, Provider, RecordKind, Seq, UnixMicros, Via};
use birdtape::provider::decode;
use birdtape::segment::{
    Block, BlockEnd, BlockPlace, Commit, Disk as _, Line, MAX_BLOCK_BYTES, MemDisk, Packing, Reader, Trust, Walk, block_at,
    compact, encode_commit, encode_record, is_compact, seal, seek_table,
};
use bytes::Bytes;
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use xxhash_rust::xxh3::xxh3_64_with_seed;

/// A line that we take says to us what it says to any other reader of JSON; and any envelope comes back from its line.
pub(super) fn line(data: &[u8]) -> bool {
    let draft = |kind| Draft {
        received_at: UnixMicros(1_793_606_400_000_000),
        kind,
        via: Via::Ws,
        conn: ConnId(7),
        info: data.len().is_multiple_of(2).then(|| r#"{"a":"}","raw":{"b64":1}}"#.to_owned()),
        body: Body::Bytes(Bytes::copy_from_slice(data)),
    };
    let mut written = Vec::new();
    encode_record(&mut written, Seq(3), &draft(RecordKind::Frame), decode(Provider::XLive, data).json);
    let written = written.strip_suffix(b"\n").expect("a line");
    assert!(!written.contains(&b'\n'));
    let Some(Line::Record(record)) = Line::parse(written) else { panic!("our own line is none") };
    assert_eq!(record.bytes().as_deref(), Some(data), "an envelope comes back");
    agrees(&Line::Record(record), &serde_json::from_slice(written).expect("our own line is JSON"));

    let Some(line) = Line::parse(data) else { return false };
    if let Ok(theirs) = serde_json::from_slice::<Value>(data) {
        agrees(&line, &theirs);
    }
    true
}

fn agrees(line: &Line<'_>, theirs: &Value) {
    let text = |key: &str| theirs[key].as_str().unwrap_or_default();
    match line {
        Line::Header(header) => {
            assert_eq!((header.tape.as_ref(), header.source.as_ref()), (text("tape"), text("source")));
            assert_eq!(header.provider, text("provider"));
        }
        Line::Commit(commit) => {
            assert_eq!((Some(commit.n.0), Some(commit.bytes)), (theirs["n"].as_u64(), theirs["bytes"].as_u64()));
            assert_eq!((commit.at.to_string().as_str(), text("kind")), (text("at"), "commit"));
            assert!(u64::from_str_radix(text("hash"), 16) == Ok(commit.hash));
        }
        Line::Record(record) => {
            let bytes = record.bytes();
            let is_value = |raw: &[u8]| {
                let mut json = Json::new(std::str::from_utf8(raw).unwrap_or_default());
                json.skip().and_then(|()| json.finish()).is_ok()
            };
            // A `raw` that is not one value may hold anything, members of the line too; who reads it finds out.
            let theirs_bytes = match record.body {
                BodyRef::Raw(raw) if is_value(raw) => {
                    assert_eq!(serde_json::from_slice::<Value>(raw).ok().as_ref(), Some(&theirs["raw"]));
                    Some(raw.to_vec())
                }
                BodyRef::Raw(_) => return,
                BodyRef::Text(_) => Some(text("text").as_bytes().to_vec()),
                BodyRef::B64(_) => STANDARD.decode(text("b64")).ok(),
            };
            assert_eq!(bytes.as_deref(), theirs_bytes.as_deref());
            assert_eq!((Some(record.n.0), Some(record.conn.0)), (theirs["n"].as_u64(), theirs["conn"].as_u64()));
            assert_eq!((record.at.to_string().as_str(), record.kind.name()), (text("at"), text("kind")));
            assert_eq!(record.via.name(), text("via"));
            let info = record.info.map(|info| serde_json::from_str::<Value>(info).expect("it was taken"));
            assert_eq!(info.as_ref(), theirs.get("info"));
        }
    }
}

const FILE: &str = "s/00000000000000000001.jsonl.zst";

fn disk_with(file: &[u8]) -> MemDisk {
    let disk = MemDisk::default();
    disk.create(Path::new(FILE)).expect("an empty disk");
    disk.overwrite(Path::new(FILE), file.to_vec());
    disk
}

/// A segment made of lines that the input gives: all of it is known, so what is believed can be judged.
struct Plan {
    file: Vec<u8>,
    /// What each block unpacks to; the last one may be torn.
    blocks: Vec<Vec<u8>>,
    is_torn: bool,
}

impl Plan {
    /// `@` is a commit line that holds, `#` one that does not, `!` ends a block, `R…` is a record with that text; any other
    /// line stands as it is. A last block without `!` is torn.
    fn read(text: &[u8]) -> Self {
        let (mut blocks, mut block, mut seed, mut since, mut n) = (Vec::new(), Vec::new(), 0, Vec::new(), 0);
        for word in text.split(|byte| *byte == b'\n') {
            let mut line = Vec::new();
            let commit = |hash| Commit { n: Seq(n), at: UnixMicros(n as i64), bytes: 0, hash };
            match word {
                b"!" => {
                    blocks.push(std::mem::take(&mut block));
                    continue;
                }
                b"@" => {
                    let hash = xxh3_64_with_seed(&since, seed);
                    encode_commit(&mut line, &commit(hash));
                    seed = hash;
                    since.clear();
                }
                b"#" => encode_commit(&mut line, &commit(0x00ba_dbad)),
                [b'R', said @ ..] => {
                    n += 1;
                    let body = Body::Bytes(Bytes::copy_from_slice(said));
                    let (kind, via, conn) = (RecordKind::Frame, Via::Ws, ConnId(1));
                    let draft = Draft { received_at: UnixMicros(n as i64), kind, via, conn, info: None, body };
                    encode_record(&mut line, Seq(n), &draft, false);
                }
                // What is no UTF-8 stands in base64, so never in a line. (It could begin like a block of ours.)
                other => line.extend([String::from_utf8_lossy(other).as_bytes(), b"\n"].concat()),
            }
            since.extend_from_slice(&line);
            block.extend(line);
        }
        let is_torn = !block.is_empty();
        if is_torn {
            blocks.push(block);
        }
        let mut file = Vec::new();
        for (at, data) in blocks.iter().enumerate() {
            let mut encoder = zstd::stream::write::Encoder::new(&mut file, 1).expect("zstd");
            encoder.include_checksum(true).expect("zstd");
            encoder.write_all(data).expect("memory");
            if is_torn && at + 1 == blocks.len() {
                encoder.flush().expect("memory");
            } else {
                encoder.finish().expect("memory");
            }
        }
        Self { file, blocks, is_torn }
    }

    /// How much of each block the chain proves, counted anew: up to the last commit line whose hash is that of all before it.
    fn proven(&self) -> Vec<usize> {
        let (mut seed, mut since, mut is_broken) = (0, Vec::new(), false);
        let judge = |data: &Vec<u8>| {
            let (mut good, mut at) = (0, 0);
            for line in data.split_inclusive(|byte| *byte == b'\n') {
                at += line.len();
                if let Some(Line::Commit(commit)) = line.strip_suffix(b"\n").and_then(Line::parse) {
                    if !is_broken && xxh3_64_with_seed(&since, seed) != commit.hash {
                        is_broken = true;
                        break;
                    }
                    (seed, good, is_broken) = (commit.hash, at, false);
                    since.clear();
                }
                since.extend_from_slice(line);
            }
            good
        };
        self.blocks.iter().map(judge).collect()
    }
}

/// All blocks of a file, none larger than it may be.
fn blocks(disk: &MemDisk) -> Vec<Block> {
    let mut reader = Reader::open(disk, Path::new(FILE)).expect("it is there");
    let (mut blocks, mut at) = (Vec::new(), 0);
    while let Some(block) = reader.next_block().expect("memory can be read") {
        assert!(block.bytes > 0 && block.offset >= at, "{block:?} begins before {at}");
        // What does not fit any more is unpacked a buffer further at most.
        assert!(block.data.len() <= MAX_BLOCK_BYTES + (1 << 20));
        at = block.offset + block.bytes;
        blocks.push(block);
    }
    blocks
}

/// The lines that are believed, one after the other.
fn believed(blocks: &[Block], trust: Trust) -> (Vec<u8>, Vec<usize>) {
    let mut walk = Walk::new(trust);
    let (mut lines, mut lengths) = (Vec::new(), Vec::new());
    for block in blocks {
        let proven = walk.block(block, |_, line| {
            lines.extend_from_slice(line);
            Ok::<_, ()>(())
        });
        lengths.push(proven.expect("nobody refuses").bytes);
    }
    (lines, lengths)
}

/// A file that is given out as a sealed segment: any bytes (first byte even), or blocks of lines (odd).
pub(super) fn sealed(data: &[u8]) -> bool {
    let Some((mode, rest)) = data.split_first() else { return false };
    let plan = (mode % 2 == 1).then(|| Plan::read(rest));
    let disk = disk_with(plan.as_ref().map_or(rest, |plan| &plan.file));
    let path = Path::new(FILE);
    let blocks = blocks(&disk);
    let (by_chain, lengths) = believed(&blocks, Trust::Chain);
    let (by_checksum, _) = believed(&blocks, Trust::Checksum);
    // What another reader of zstd says of the same bytes.
    let file = disk.files().swap_remove(0).1;
    for block in blocks.iter().filter(|block| block.end == BlockEnd::Whole) {
        let packed = &file[block.offset as usize..(block.offset + block.bytes) as usize];
        assert!(zstd::stream::decode_all(packed).expect("a whole block is whole") == block.data);
        let place = BlockPlace { offset: block.offset, bytes: block.bytes, raw_bytes: block.data.len() as u64 };
        assert_eq!(block_at(&disk, path, place).expect("a whole block is found").data.len(), block.data.len());
    }
    if let Some(plan) = plan.filter(|plan| !plan.blocks.iter().any(Vec::is_empty)) {
        assert!(blocks.iter().map(|block| &block.data).eq(&plan.blocks), "what was packed is unpacked");
        assert_eq!(lengths, plan.proven(), "what the chain proves");
    }
    if let Ok(table) = seek_table(&disk, path) {
        assert!(table.len() <= file.len());
    }
    is_compact(&disk, path).expect("memory can be read");
    let packing = Packing { level: 1, block_bytes: 4 << 10, threads: NonZeroUsize::MIN };
    let partial = Path::new("s/partial");
    if let Ok(Some(packed)) = compact(&disk, path, partial, packing, &mut |_| ControlFlow::Continue(())) {
        assert_eq!(packed.content, hex(&Sha256::digest(&by_chain)), "compacting changes nothing");
    }
    assert!(by_chain.len() <= by_checksum.len() || !blocks.iter().all(|block| block.end == BlockEnd::Whole));
    !by_chain.is_empty()
}

/// A file that is given out as a segment being written: it is sealed up to what the chain proves, and no further.
pub(super) fn open(data: &[u8]) -> bool {
    let Some((mode, rest)) = data.split_first() else { return false };
    let plan = (mode % 2 == 1).then(|| Plan::read(rest));
    let disk = disk_with(plan.as_ref().map_or(rest, |plan| &plan.file));
    let blocks = blocks(&disk);
    let (lines, lengths) = believed(&blocks, Trust::Chain);
    if let Some(plan) = plan.filter(|plan| !plan.blocks.iter().any(Vec::is_empty)) {
        assert_eq!(lengths, plan.proven(), "what the chain proves");
        let ends_torn = blocks.last().is_some_and(|block| block.end == BlockEnd::Torn);
        assert_eq!(ends_torn, plan.is_torn);
    }
    let (open, partial, done) = (Path::new(FILE), Path::new("s/partial"), Path::new("s/done"));
    let before = disk.files().swap_remove(0).1;
    let Ok(sealed) = seal(&disk, open, partial, done, 1) else {
        assert!(disk.files().iter().any(|(path, file)| path == open && *file == before), "the open file stays");
        return false;
    };
    assert_eq!(sealed.content, hex(&Sha256::digest(&lines)), "sealed is what was believed");
    let found = disk.files();
    assert!(found.len() == 1 && found[0].0 == done);
    let unpacked = zstd::stream::decode_all(&found[0].1[..]).expect("stock zstd reads it");
    assert!(unpacked == lines);
    let table = seek_table(&disk, done).expect("it has a table");
    assert_eq!(table.iter().map(|(_, raw)| raw).sum::<u64>(), lines.len() as u64);
    !lines.is_empty()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
