//! The format as a whole: round trips, cuts at every byte, flips of every bit.

use std::path::{Path, PathBuf};

use bytes::Bytes;

use super::*;
use crate::model::{Body, ConnId, Draft, RecordKind, Seq, UnixMicros, Via};

pub(super) fn draft(n: u64) -> Draft {
    let text = format!(
        r#"{{"event_type":"tweet","id":"{}","text":"line {n} of the sample, {}"}}"#,
        1_000 + n,
        "é".repeat(n as usize % 7)
    );
    Draft {
        received_at: UnixMicros(1_767_614_400_000_000 + n as i64 * 1_001),
        kind: RecordKind::Frame,
        via: Via::Ws,
        conn: ConnId(1),
        info: None,
        body: Body::Bytes(Bytes::from(text)),
    }
}

pub(super) fn begin(disk: &MemDisk, path: &Path, block: u64) -> Writer {
    let header = Header {
        n: Seq(0),
        at: UnixMicros(1_767_614_400_000_000),
        format: FORMAT,
        tape: "t".into(),
        source: "alpha".into(),
        provider: "twitterapi_io".into(),
    };
    Writer::create(disk, path, &header, 3, block).unwrap()
}

/// Ten records a commit, small blocks.
pub(super) fn write(disk: &MemDisk, path: &Path, records: u64, block: u64) -> Writer {
    let mut writer = begin(disk, path, block);
    for n in 1..=records {
        writer.append(Seq(n), &draft(n), true).unwrap();
        if n % 10 == 0 {
            writer.commit(UnixMicros(n as i64)).unwrap();
        }
    }
    writer
}

/// Numbers of the proven records, and whether anything was damaged.
fn read(disk: &MemDisk, path: &Path, trust: Trust) -> (Vec<u64>, bool) {
    let mut reader = Reader::open(disk, path).unwrap();
    let mut walk = Walk::new(trust);
    let (mut numbers, mut damaged) = (Vec::new(), false);
    while let Some(block) = reader.next_block().unwrap() {
        let proven = walk.block(&block, |line, _| {
            if let Line::Record(record) = line {
                assert_eq!(record.bytes().unwrap().as_ref(), body(record.n.0).as_slice(), "bytes of {}", record.n);
                numbers.push(record.n.0);
            }
            Ok::<_, ()>(())
        });
        damaged |= proven.unwrap().damage.is_some();
    }
    (numbers, damaged)
}

fn body(n: u64) -> Vec<u8> {
    match draft(n).body {
        Body::Bytes(bytes) => bytes.to_vec(),
        Body::Fact(_) => unreachable!("samples are envelopes"),
    }
}

fn paths() -> [PathBuf; 3] {
    ["s/1.jsonl.zst.open", "s/1.jsonl.zst.partial", "s/1.jsonl.zst"].map(PathBuf::from)
}

#[test]
fn what_is_committed_reads_back_open_and_sealed() {
    let [open, partial, sealed] = paths();
    for records in [0, 1, 9, 10, 95, 200] {
        let disk = MemDisk::default();
        let writer = write(&disk, &open, records, 4_096);
        let committed: Vec<u64> = (1..=records / 10 * 10).collect();
        assert_eq!(read(&disk, &open, Trust::Chain).0[..committed.len()], committed, "open, {records} records");
        writer.finish(UnixMicros(9)).unwrap();
        let result = seal(&disk, &open, &partial, &sealed, 3).unwrap();
        let all: Vec<u64> = (1..=records).collect();
        assert_eq!(read(&disk, &sealed, Trust::Chain), (all, false), "sealed, {records} records");
        assert_eq!((result.records(), result.torn_bytes), (records, 0));
        assert_eq!(result.sha256, sha256_of(&disk, &sealed).unwrap());
        let sizes: Vec<_> = result.blocks.iter().map(|b| (b.bytes, b.raw_bytes)).collect();
        assert_eq!(seek_table(&disk, &sealed).unwrap(), sizes);
        assert_eq!(disk.files().len(), 1, "the open file and the partial one are gone");
    }
}

/// What a walk says of every block of a file.
pub(super) fn spans(disk: &MemDisk, path: &Path) -> Vec<BlockSpan> {
    let (mut reader, mut walk, mut spans) = (Reader::open(disk, path).unwrap(), Walk::new(Trust::Chain), Vec::new());
    while let Some(block) = reader.next_block().unwrap() {
        spans.push(walk.block(&block, |_, _| Ok::<_, ()>(())).unwrap().span);
    }
    spans
}

/// Whoever wrote a file and whoever walks through it say the same of its blocks, which lie without a hole between them; also of
/// a last one without a record.
#[test]
fn everybody_says_the_same_of_the_blocks() {
    let [open, partial, sealed] = paths();
    let disk = MemDisk::default();
    let mut writer = begin(&disk, &open, 4_096);
    let (mut written, mut n) = (Vec::new(), 0);
    while written.len() < 5 {
        n += 1;
        written.extend(writer.append(Seq(n), &draft(n), true).unwrap());
        if n % 10 == 0 {
            writer.commit(UnixMicros(n as i64)).unwrap();
        }
    }
    writer.commit(UnixMicros(8)).unwrap();
    written.extend(writer.finish(UnixMicros(9)).unwrap());
    assert_eq!((written.len(), written[5].records), (6, 0));
    assert_eq!(spans(&disk, &open), written);
    let result = seal(&disk, &open, &partial, &sealed, 3).unwrap();
    assert_eq!(spans(&disk, &sealed), result.blocks);
    let packing = Packing { level: 19, block_bytes: 2 * 4_096 + 2_048, threads: std::num::NonZeroUsize::MIN };
    let compacted = compact(&disk, &sealed, &partial, packing, &mut |_| std::ops::ControlFlow::Continue(())).unwrap().unwrap();
    assert_eq!(spans(&disk, &partial), compacted.blocks);
    assert_eq!((compacted.blocks.len(), compacted.records(), compacted.last_n()), (3, n, Seq(n)));
    for (blocks, file) in [(&written, None), (&result.blocks, Some(&sealed)), (&compacted.blocks, Some(&partial))] {
        let (mut at, mut raw_at, mut last_n) = (0, 0, Seq(0));
        for block in blocks {
            assert_eq!((block.offset, block.raw_offset), (at, raw_at), "{block:?}");
            (at, raw_at) = (at + block.bytes, raw_at + block.raw_bytes);
            if block.records > 0 {
                assert_eq!((block.first_n.0, block.last_n.0), (last_n.0 + 1, last_n.0 + block.records), "{block:?}");
                assert_eq!(
                    (block.first_at, block.last_at),
                    (draft(block.first_n.0).received_at, draft(block.last_n.0).received_at)
                );
                last_n = block.last_n;
            }
        }
        assert_eq!((raw_at, last_n), (result.raw_bytes, Seq(n)));
        if let Some(file) = file {
            let sizes: Vec<_> = blocks.iter().map(|b| (b.bytes, b.raw_bytes)).collect();
            assert_eq!(seek_table(&disk, file).unwrap(), sizes);
        }
    }
}

/// Blocks are joined as far as the limit reaches, to the byte; every byte of the old file is told of, and the new one is known.
#[test]
fn compacting_joins_up_to_the_limit() {
    let [open, partial, sealed] = paths();
    let disk = MemDisk::default();
    write(&disk, &open, 300, 4_096).finish(UnixMicros(9)).unwrap();
    seal(&disk, &open, &partial, &sealed, 3).unwrap();
    let before = spans(&disk, &sealed);
    assert!(before.len() > 4 && !is_compact(&disk, &sealed).unwrap());
    let mut told = 0;
    let mut go_on = |bytes| {
        told += bytes;
        std::ops::ControlFlow::Continue(())
    };
    let limit = before[0].raw_bytes + before[1].raw_bytes;
    let packing = Packing { level: 3, block_bytes: limit, threads: std::num::NonZeroUsize::new(2).unwrap() };
    let compacted = compact(&disk, &sealed, &partial, packing, &mut go_on).unwrap().unwrap();
    assert_eq!(told, before.iter().map(|block| block.bytes).sum::<u64>());
    assert_eq!(compacted.blocks[0].raw_bytes, limit);
    assert_eq!(compacted.blocks[0].commits, before[0].commits + before[1].commits);
    assert!(is_compact(&disk, &partial).unwrap());
    let stub = Path::new("s/2.jsonl.zst");
    disk.create(stub).unwrap().append(b"short").unwrap();
    assert!(!is_compact(&disk, stub).unwrap());
    assert_eq!(is_compact(&disk, Path::new("s/3.jsonl.zst")).unwrap_err().io_kind(), Some(std::io::ErrorKind::NotFound));
}

/// What the system refuses is told, and what is no refusal is none.
#[cfg(unix)]
#[test]
fn the_real_disk_says_what_it_finds() {
    use std::io::ErrorKind::{AlreadyExists, NotADirectory};

    let dir = tempfile::tempdir().unwrap();
    let [parent, child, file, nowhere, link] = ["a", "a/b", "file", "nowhere", "link"].map(|name| dir.path().join(name));
    RealDisk.create_dir(&child).unwrap();
    RealDisk.create_dir(&child).unwrap();
    std::fs::write(&file, b"three").unwrap();
    std::os::unix::fs::symlink(&file, &link).unwrap();
    let within = file.join("x");

    assert_eq!(RealDisk.create_dir(&file).unwrap_err().kind(), AlreadyExists);
    assert_eq!(RealDisk.create_dir(&within).unwrap_err().kind(), AlreadyExists);
    assert_eq!(RealDisk.list(dir.path()).unwrap(), ["a", "file", "link"]);
    assert_eq!(RealDisk.list(&nowhere).unwrap(), [""; 0]);
    assert_eq!(RealDisk.list(&file).unwrap_err().kind(), NotADirectory);
    assert_eq!([&file, &link, &nowhere].map(|path| RealDisk.is_link(path).unwrap()), [false, true, false]);
    assert_eq!(RealDisk.is_link(&within).unwrap_err().kind(), NotADirectory);
    assert_eq!([&file, &nowhere].map(|path| RealDisk.len(path).unwrap()), [Some(5), None]);
    assert_eq!(RealDisk.len(&within).unwrap_err().kind(), NotADirectory);
    assert_eq!(RealDisk.remove_empty_dir(&file).unwrap_err().kind(), NotADirectory);
    for path in [&parent, &child, &nowhere] {
        RealDisk.remove_empty_dir(path).unwrap();
    }
    assert!(parent.is_dir() && !child.exists(), "only what was empty is gone");

    let held = RealDisk.lock(&nowhere, " the first \n").unwrap();
    let Err(LockRefused::Held(holder)) = RealDisk.lock(&nowhere, "the second") else { panic!("it is held") };
    assert_eq!(holder, "the first");
    drop(held);
    drop(RealDisk.lock(&nowhere, "2nd").unwrap());
    assert_eq!(std::fs::read(&nowhere).unwrap(), b"2nd");
    assert!(matches!(RealDisk.lock(&link, "through a link"), Err(LockRefused::Io(_))));
}

/// Flushed lines of every size: a torn frame is read to its last flushed byte, also when that filled the output exactly.
#[test]
fn a_torn_frame_reads_to_its_last_flush() {
    let [open, ..] = paths();
    let mut seed = 1u64;
    let mut noise = |length: usize| -> String {
        let next = || {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            char::from(b' ' + 3 + (seed >> 33) as u8 % 57)
        };
        std::iter::repeat_with(next).take(length).collect()
    };
    for length in (1_000..200_000).step_by(1_357) {
        let disk = MemDisk::default();
        let mut writer = begin(&disk, &open, 64 << 20);
        for n in 1..=3 {
            let text = format!("{{\"t\":\"{}\"}}", noise(length));
            let big = Draft { body: Body::Bytes(Bytes::from(text)), ..draft(n) };
            writer.append(Seq(n), &big, true).unwrap();
        }
        writer.commit(UnixMicros(1)).unwrap();
        let block = Reader::open(&disk, &open).unwrap().next_block().unwrap().unwrap();
        assert_eq!(block.end, BlockEnd::Torn);
        assert_eq!(block.data.len() as u64, writer.raw_bytes(), "three lines of {length} characters");
    }
}

/// Envelopes of the greatest length that is taken, in each form, before and behind others: every block can be read.
#[test]
fn the_longest_envelopes_can_be_read_again() {
    let [open, partial, sealed] = paths();
    let disk = MemDisk::default();
    let mut writer = begin(&disk, &open, Packing::BLOCK_BYTES_MAX);
    let json = [b"{\"a\":\"", &vec![b'x'; MAX_BODY_BYTES - 8][..], b"\"}"].concat();
    let bodies = [vec![1u8; MAX_BODY_BYTES], vec![0xff; MAX_BODY_BYTES], vec![b'"'; MAX_BODY_BYTES], json, b"\x01".to_vec()];
    let mut spans = Vec::new();
    for (body, n) in bodies.iter().zip(1..) {
        let record = Draft { body: Body::Bytes(Bytes::from(body.clone())), ..draft(n) };
        spans.extend(writer.append(Seq(n), &record, n == 4).unwrap());
        writer.commit(UnixMicros(n as i64)).unwrap();
    }
    spans.extend(writer.finish(UnixMicros(9)).unwrap());
    assert_eq!(spans.iter().map(|span| span.records).sum::<u64>(), 5, "every block is told, once: {spans:?}");
    for file in [&open, &sealed] {
        if file == &sealed {
            seal(&disk, &open, &partial, &sealed, 1).unwrap();
        }
        let mut reader = Reader::open(&disk, file).unwrap();
        let (mut walk, mut n_read) = (Walk::new(Trust::Chain), 0);
        while let Some(block) = reader.next_block().unwrap() {
            assert!(block.data.len() <= MAX_BLOCK_BYTES);
            let proven = walk.block(&block, |line, _| {
                if let Line::Record(record) = line {
                    assert!(record.bytes().unwrap() == bodies[n_read], "record {n_read}");
                    n_read += 1;
                }
                Ok::<_, ()>(())
            });
            assert_eq!(proven.unwrap().damage, None);
        }
        assert_eq!(n_read, 5);
    }
}

/// How the blocks of a file end, and how many bytes each has.
fn ends(disk: &MemDisk, path: &Path) -> Vec<(BlockEnd, u64)> {
    let mut reader = Reader::open(disk, path).unwrap();
    let mut ends = Vec::new();
    while let Some(block) = reader.next_block().unwrap() {
        assert_eq!(block.offset, ends.iter().map(|(_, bytes)| bytes).sum::<u64>(), "blocks lie without a hole between them");
        ends.push((block.end, block.bytes));
    }
    ends
}

/// A power cut may leave zeros where bytes were to be: some are damage, many are a torn tail, however far they reach.
#[test]
fn zeros_at_the_end_are_a_torn_tail_where_they_are_many() {
    let (disk, path) = (MemDisk::default(), Path::new("s/1.jsonl.zst.open"));
    write(&disk, path, 100, 4_096).finish(UnixMicros(9)).unwrap();
    let (whole, before) = (disk.files()[0].1.clone(), ends(&disk, path));
    let last = before.last().unwrap().1 as usize;
    let read = 128 << 10;
    for n_zeros in [4, 15, 16, 17, read - 1, read, read + 1, 3 * read + 5] {
        let zeros = |mut bytes: Vec<u8>, n| {
            bytes.resize(bytes.len() + n, 0);
            disk.overwrite(path, bytes);
            ends(&disk, path)
        };
        let found = zeros(whole.clone(), n_zeros);
        assert_eq!(found[..before.len()], before, "{n_zeros} zeros");
        let [(end, bytes)] = &found[before.len()..] else { panic!("{n_zeros} zeros: {found:?}") };
        assert_eq!((*end == BlockEnd::Torn, *bytes), (n_zeros >= 16, n_zeros as u64), "{n_zeros} zeros: {end:?}");
        // Within the last block, of which only its first bytes were written.
        let kept = whole.len() - last / 2;
        let found = zeros(whole[..kept].to_vec(), n_zeros);
        let (end, bytes) = found.last().unwrap();
        assert_eq!(found[..before.len() - 1], before[..before.len() - 1], "{n_zeros} zeros");
        assert_eq!((found.len(), *bytes), (before.len(), (last - last / 2 + n_zeros) as u64), "{n_zeros} zeros");
        assert!(*end != BlockEnd::Whole && (n_zeros < 16 || *end == BlockEnd::Torn), "{n_zeros} zeros: {end:?}");
        // Something behind them is no tail.
        disk.overwrite(path, [&whole[..], &vec![0; n_zeros], b"x"].concat());
        assert!(matches!(ends(&disk, path).last(), Some((BlockEnd::Damaged(_), _))), "{n_zeros} zeros and more");
    }
}

/// Behind what is no block the next one is found, wherever it begins; what only looks like the start of one is none.
#[test]
fn the_next_block_is_found_behind_anything() {
    let (disk, path) = (MemDisk::default(), Path::new("s/1.jsonl.zst.open"));
    write(&disk, path, 100, 4_096).finish(UnixMicros(9)).unwrap();
    let (whole, before) = (disk.files()[0].1.clone(), ends(&disk, path));
    let first = before[0].1 as usize;
    let read = 128 << 10;
    let frame_of_others = zstd::encode_all(&b"{\"a\":1}\n"[..], 3).unwrap();
    for n_bytes in [1, 3, 4, 5, 100, read - 1, read, read + 1, read + 4, 2 * read + 7] {
        let mut junk = vec![0xAA; n_bytes];
        for (at, bait) in
            [(7, &[0x28, 0xB5, 0x2F, 0xFD][..]), (20, &[0x5E, 0x2A, 0x4D, 0x18, 9, 0, 0, 0]), (40, &frame_of_others)]
        {
            if let Some(place) = junk.get_mut(at..at + bait.len()) {
                place.copy_from_slice(bait);
            }
        }
        disk.overwrite(path, [&whole[..first], &junk, &whole[first..]].concat());
        let found = ends(&disk, path);
        assert_eq!((found.len(), &found[0], &found[2..]), (before.len() + 1, &before[0], &before[1..]), "{n_bytes} bytes");
        assert!(matches!(&found[1], (BlockEnd::Damaged(_), bytes) if *bytes == n_bytes as u64), "{n_bytes}: {:?}", found[1]);
    }
}

/// Nobody's memory is taken by a block that unpacks to more than one of ours may; the next one is read.
#[test]
fn a_block_that_unpacks_to_too_much_is_damage() {
    let (disk, path) = (MemDisk::default(), Path::new("s/1.jsonl.zst.open"));
    write(&disk, path, 10, 4_096).finish(UnixMicros(9)).unwrap();
    let (whole, before) = (disk.files()[0].1.clone(), ends(&disk, path));
    for (more, is_damage) in [(0, false), (1, true)] {
        let mut line = b"{\"n\":".to_vec();
        line.resize(MAX_BLOCK_BYTES + more, b' ');
        let packed = zstd::encode_all(&line[..], 1).unwrap();
        disk.overwrite(path, [&packed, &whole[..]].concat());
        let found = ends(&disk, path);
        assert_eq!((found[0].1, &found[1..]), (packed.len() as u64, &before[..]));
        assert_eq!(matches!(&found[0].0, BlockEnd::Damaged(why) if why.contains("more than")), is_damage, "{:?}", found[0].0);
    }
}

/// Packed bytes may look like the beginning of a seek table: what was committed is believed all the same.
#[test]
fn a_torn_block_that_looks_like_a_seek_table_is_read() {
    let [open, ..] = paths();
    let disk = MemDisk::default();
    let mut writer = begin(&disk, &open, 64 << 20);
    let mut line = br#"{"n":1,"at":"2026-11-20T23:18:00.123456Z","kind":"frame","via":"ws","conn":7,"raw":{"a":""#.to_vec();
    let mut seed = 3u64;
    for at in 0..4_000 {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        // Noise, which zstd leaves as it is, on one line.
        let byte = (seed >> 33) as u8;
        line.push(if byte == b'\n' { 0 } else { byte });
        if at == 2_000 {
            line.extend([0x5E, 0x2A, 0x4D, 0x18]);
        }
    }
    line.extend(b"\"}}\n");
    writer.append_line(Seq(1), UnixMicros(1), &line).unwrap();
    writer.commit(UnixMicros(1)).unwrap();
    let file = disk.files()[0].1.clone();
    assert!(file.windows(4).any(|four| four == [0x5E, 0x2A, 0x4D, 0x18]), "it stands in the file");
    let mut reader = Reader::open(&disk, &open).unwrap();
    let block = reader.next_block().unwrap().unwrap();
    assert_eq!((block.end.clone(), block.bytes), (BlockEnd::Torn, file.len() as u64));
    assert_eq!(Walk::new(Trust::Chain).prove(&block), (block.data.len(), None));
}

#[test]
fn blocks_are_found_by_offset() {
    let [open, partial, sealed] = paths();
    let disk = MemDisk::default();
    write(&disk, &open, 200, 4_096).finish(UnixMicros(9)).unwrap();
    let result = seal(&disk, &open, &partial, &sealed, 3).unwrap();
    assert!(result.blocks.len() > 3);
    for span in &result.blocks {
        let place = BlockPlace { offset: span.offset, bytes: span.bytes, raw_bytes: span.raw_bytes };
        let block = block_at(&disk, &sealed, place).unwrap();
        assert_eq!((block.data.len() as u64, block.bytes), (span.raw_bytes, span.bytes));
        assert!(block.data.ends_with(b"\"}\n"));
        // An index that is wrong about its size does not matter.
        for (bytes, raw_bytes) in [(0, 0), (span.bytes - 1, span.raw_bytes), (span.bytes + 9, span.raw_bytes + 1)] {
            let again = block_at(&disk, &sealed, BlockPlace { bytes, raw_bytes, ..place }).unwrap();
            assert_eq!((&again.data, again.bytes), (&block.data, span.bytes));
        }
        let huge = BlockPlace { bytes: u64::MAX, raw_bytes: u64::MAX, ..place };
        assert_eq!(block_at(&disk, &sealed, huge).unwrap().data, block.data);
    }
    assert!(block_at(&disk, &sealed, BlockPlace { offset: 1, bytes: 100, raw_bytes: 100 }).is_err());
}

#[test]
fn a_walk_begins_at_any_block() {
    let [open, partial, sealed] = paths();
    let disk = MemDisk::default();
    write(&disk, &open, 200, 4_096).finish(UnixMicros(9)).unwrap();
    let result = seal(&disk, &open, &partial, &sealed, 3).unwrap();
    for (at, span) in result.blocks.iter().enumerate() {
        let (mut reader, mut walk) = (Reader::open(&disk, &sealed).unwrap(), Walk::behind(Trust::Chain));
        reader.seek(span.offset).unwrap();
        for expected in &result.blocks[at..] {
            let block = reader.next_block().unwrap().unwrap();
            let mut lines = Vec::new();
            let mut keep = |line: &[u8]| {
                lines.extend([line, b"\n"].concat());
                Ok::<_, ()>(())
            };
            walk_lines(&block.data, &mut keep).unwrap();
            assert!(lines == block.data, "without their ends");
            let proven = walk.block(&block, |_, _| Ok::<_, ()>(())).unwrap();
            assert_eq!((proven.damage, proven.bytes as u64, proven.span.records), (None, expected.raw_bytes, expected.records));
        }
        assert_eq!(walk.last_hash, result.hash);
    }
}

#[test]
fn cut_anywhere_gives_a_prefix_and_seals() {
    let [open, partial, sealed] = paths();
    let disk = MemDisk::default();
    drop(write(&disk, &open, 60, 2_048));
    let whole = disk.files()[0].1.clone();
    let mut last = 0;
    for cut in 0..=whole.len() {
        disk.overwrite(&open, whole[..cut].to_vec());
        let (numbers, damaged) = read(&disk, &open, Trust::Chain);
        assert!(!damaged, "a cut is an end, not damage (at {cut})");
        assert_eq!(numbers, (1..=numbers.len() as u64).collect::<Vec<_>>(), "cut at {cut}");
        assert!(numbers.len() >= last, "a longer file never proves less (at {cut})");
        last = numbers.len();
        if cut % 17 == 0 {
            let copy = MemDisk::default();
            copy.create(&open).unwrap().append(&whole[..cut]).unwrap();
            let result = seal(&copy, &open, &partial, &sealed, 3).unwrap();
            assert_eq!(result.records(), numbers.len() as u64, "sealed from a cut at {cut}");
        }
    }
    assert_eq!(last, 60);
}

/// A flipped bit anywhere in an open segment: no wrong byte is ever believed (`read` compares the bodies).
#[test]
fn flipped_bits_of_an_open_segment_are_never_believed() {
    let [open, ..] = paths();
    let disk = MemDisk::default();
    drop(write(&disk, &open, 40, 3_000));
    let whole = disk.files()[0].1.clone();
    let mut shortened = 0;
    for bit in 0..whole.len() * 8 {
        let mut bent = whole.clone();
        bent[bit / 8] ^= 1 << (bit % 8);
        disk.overwrite(&open, bent);
        shortened += u32::from(read(&disk, &open, Trust::Chain).0.len() < 40);
    }
    assert!(shortened > whole.len() as u32, "the flips were seen: {shortened}");
}

#[test]
fn a_damaged_block_costs_only_itself() {
    let [open, partial, sealed] = paths();
    let disk = MemDisk::default();
    write(&disk, &open, 200, 4_096).finish(UnixMicros(9)).unwrap();
    let result = seal(&disk, &open, &partial, &sealed, 3).unwrap();
    let whole = disk.files()[0].1.clone();
    let hit = result.blocks[2];
    for bit in 0..hit.bytes * 8 {
        let mut bent = whole.clone();
        let at = (hit.offset * 8 + bit) as usize;
        bent[at / 8] ^= 1 << (at % 8);
        disk.overwrite(&sealed, bent);
        let (numbers, damaged) = read(&disk, &sealed, Trust::Checksum);
        let rest: Vec<u64> = (1..=200).filter(|n| !(hit.first_n.0..=hit.last_n.0).contains(n)).collect();
        // A flip in a frame header's unused bits may leave the block whole: then everything is there.
        assert!(numbers == rest && damaged || numbers.len() == 200, "bit {bit}: {} records, damaged {damaged}", numbers.len());
    }
}

/// Two neighbours in each other's place: the second is proven where it stands, and what is behind both of them as well.
#[test]
fn blocks_in_each_others_place_cost_only_themselves() {
    let (disk, path) = (MemDisk::default(), Path::new("s/1.jsonl.zst.open"));
    write(&disk, path, 400, 1_500).finish(UnixMicros(9)).unwrap();
    let (whole, blocks) = (disk.files()[0].1.clone(), spans(&disk, path));
    assert!(blocks.len() > 5, "several blocks");
    let bytes = |block: &BlockSpan| &whole[block.offset as usize..(block.offset + block.bytes) as usize];
    let numbers = |block: &BlockSpan| block.first_n.0..=block.last_n.0;
    for a in 0..blocks.len() - 1 {
        for b in a + 1..blocks.len() {
            let mut order: Vec<_> = blocks.iter().collect();
            order.swap(a, b);
            disk.overwrite(path, order.into_iter().flat_map(bytes).copied().collect());
            let (found, damaged) = read(&disk, path, Trust::Chain);
            assert!(damaged, "{a} and {b}");
            let is_hit = |n: &u64| [a, b].iter().any(|hit| numbers(&blocks[*hit]).contains(n));
            let rest: Vec<_> = found.into_iter().filter(|n| !is_hit(n)).collect();
            assert_eq!(rest, (1..=400).filter(|n| !is_hit(n)).collect::<Vec<_>>(), "{a} and {b} are in each other's place");
        }
    }
}

/// The first block of another segment is whole, and its chain begins like any other: only its header tells.
#[test]
fn a_block_with_the_header_of_another_is_not_believed() {
    let (disk, path) = (MemDisk::default(), Path::new("s/1.jsonl.zst.open"));
    write(&disk, path, 100, 1_500).finish(UnixMicros(9)).unwrap();
    let first = spans(&disk, path)[0];
    for (tape, source, is_ours) in [("t", "alpha", true), ("t", "beta", false), ("u", "alpha", false)] {
        let owner = Owner { tape: tape.to_owned(), source: source.to_owned() };
        let (mut reader, mut walk, mut n) = (Reader::open(&disk, path).unwrap(), Walk::new(Trust::Chain).of(owner), 0);
        while let Some(block) = reader.next_block().unwrap() {
            let proven = walk.block(&block, |_, _| Ok::<_, ()>(())).unwrap();
            assert_eq!(proven.damage.is_none(), is_ours || block.offset > 0, "{:?}", proven.damage);
            n += proven.span.records;
        }
        assert_eq!(n, if is_ours { 100 } else { 100 - first.records }, "{source} of {tape}");
    }
}

#[test]
fn a_failed_write_poisons_and_loses_nothing_committed() {
    let [open, ..] = paths();
    for at_op in 1..12 {
        let disk = MemDisk::default();
        let mut writer = begin(&disk, &open, 2_048);
        disk.fail_at(at_op, std::io::ErrorKind::StorageFull, false);
        let (mut committed, mut n) = (0, 0);
        let failed = loop {
            n += 1;
            if n > 300 {
                break false;
            }
            if writer.append(Seq(n), &draft(n), true).is_err() {
                break true;
            }
            match writer.commit(UnixMicros(0)) {
                Ok(commit) => committed = commit.n.0,
                Err(_) => break true,
            }
        };
        assert!(failed, "the fault at operation {at_op} was reached");
        assert!(matches!(writer.append(Seq(n), &draft(n), true), Err(SegmentError::Poisoned { .. })));
        assert!(matches!(writer.commit(UnixMicros(0)), Err(SegmentError::Poisoned { .. })));
        disk.restart(Unsynced::Lost);
        let numbers = read(&disk, &open, Trust::Chain).0;
        assert!(numbers.len() as u64 >= committed, "{} of {committed}", numbers.len());
    }
}

#[test]
fn garbage_never_panics() {
    let disk = MemDisk::default();
    let path = Path::new("s/1.jsonl.zst");
    disk.create(path).unwrap();
    let mut seed = 7u64;
    for length in [0, 1, 3, 4, 5, 8, 9, 100, 5_000] {
        for _ in 0..20 {
            let data: Vec<u8> = (0..length)
                .map(|_| {
                    seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                    (seed >> 33) as u8
                })
                .collect();
            disk.overwrite(path, data);
            assert_eq!(read(&disk, path, Trust::Checksum).0, [0u64; 0]);
            assert!(seek_table(&disk, path).is_err());
        }
    }
}

/// Memory would be taken for half a gigabyte before the first of its entries is read.
#[test]
fn a_seek_table_longer_than_its_file_is_not_read() {
    let disk = MemDisk::default();
    let path = Path::new("s/1.jsonl.zst");
    disk.create(path).unwrap();
    disk.overwrite(path, b"not a block\xfa\x80\x80\x03\0\xb1\xea\x92\x8f".to_vec());
    let why = seek_table(&disk, path).unwrap_err().to_string();
    assert!(why.contains("has 58753274 blocks, more than 20 bytes hold"), "{why}");
}

/// Format version 1, as files: what was once written must read the same for ever.
///
/// `UPDATE_FIXTURES=1 cargo test --lib segment` writes them anew; that is a change of the format (see the module docs).
#[test]
fn golden_files_of_version_1() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/segment");
    let [open, partial, sealed] = paths();
    let disk = MemDisk::default();
    let mut writer = begin(&disk, &open, 1_500);
    let odd: [&[u8]; 3] = [b"not JSON, but \"text\"\n", b"\xff\x00\xfe", b"{\"spaced\" : 1.50, \"e\":\"\\ud83d\\ude00\"}"];
    for n in 1..=12 {
        let body = odd.get(n as usize - 1).map_or_else(|| body(n), |bytes| bytes.to_vec());
        let json = n >= 3;
        let info = (n == 2).then(|| r#"{"cause":"invalid_utf8","bytes":3}"#.to_owned());
        let record = Draft { body: Body::Bytes(Bytes::from(body)), info, ..draft(n) };
        writer.append(Seq(n), &record, json).unwrap();
        if n % 4 == 0 {
            writer.commit(UnixMicros(1_767_614_500_000_000 + n as i64)).unwrap();
        }
    }
    let torn = disk.files()[0].1.clone();
    writer.finish(UnixMicros(1_767_614_600_000_000)).unwrap();
    seal(&disk, &open, &partial, &sealed, 3).unwrap();
    let whole = disk.files()[0].1.clone();
    let lines = zstd::decode_all(&whole[..]).unwrap();
    let files = [("v1.jsonl", &lines), ("v1-sealed.jsonl.zst", &whole), ("v1-open.jsonl.zst.open", &torn)];
    if std::env::var_os("UPDATE_FIXTURES").is_some() {
        std::fs::create_dir_all(&dir).unwrap();
        files.iter().for_each(|(name, bytes)| std::fs::write(dir.join(name), bytes).unwrap());
    }
    let golden = |name: &str| std::fs::read(dir.join(name)).unwrap();
    assert_eq!(String::from_utf8(lines).unwrap(), String::from_utf8(golden("v1.jsonl")).unwrap(), "what is written today");
    // How zstd packs may change with its version; what it unpacks to may not.
    assert_eq!(zstd::decode_all(&golden("v1-sealed.jsonl.zst")[..]).unwrap(), golden("v1.jsonl"));
    for (name, trust) in [("v1-sealed.jsonl.zst", Trust::Chain), ("v1-open.jsonl.zst.open", Trust::Chain)] {
        let disk = MemDisk::default();
        disk.create(&sealed).unwrap();
        disk.overwrite(&sealed, golden(name));
        let mut reader = Reader::open(&disk, &sealed).unwrap();
        let (mut walk, mut bodies) = (Walk::new(trust), Vec::new());
        while let Some(block) = reader.next_block().unwrap() {
            let proven = walk.block(&block, |line, _| {
                if let Line::Record(record) = line {
                    bodies.push(record.bytes().unwrap().into_owned());
                }
                Ok::<_, ()>(())
            });
            assert_eq!(proven.unwrap().damage, None, "{name}");
        }
        assert_eq!(bodies.len(), 12, "{name}");
        assert_eq!(&bodies[..3], &odd.map(<[u8]>::to_vec), "{name}");
        assert_eq!(bodies[11], body(12), "{name}");
    }
}
