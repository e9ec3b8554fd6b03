"""A tape, read without a line of the product: the stock zstd program, json, and XXH3 by its own library.

`read` recomputes everything that the format says of the files: the chain of commit hashes over every byte, numbers
without a hole, whose segment it is, the seek tables. `ledger` recomputes the gaps from the notes. What does not hold
is a sentence in `violations`.
"""

import base64
import json
import re
import struct
import subprocess
from dataclasses import dataclass, field
from datetime import datetime, timezone
from functools import lru_cache
from pathlib import Path

import xxhash

SEALED = ".jsonl.zst"
OPEN = ".jsonl.zst.open"
SKIPPABLE = 0x184D2A5E
SEEKABLE = 0x8F92EAB1
# Bytes that are unpacked at a time, where a single file is not larger.
TOGETHER = 256 << 20
START = re.compile(rb'\{"n":(\d+),"at":"([^"]{27})","kind":"(\w+)"')
RECORD = re.compile(rb',"via":"(\w+)","conn":(\d+)')
DECODER = json.JSONDecoder()
KINDS = {b"frame", b"open", b"close", b"sent", b"http", b"note"}


@lru_cache(1 << 12)
def whole_seconds(stamp: str) -> int:
    at = datetime.strptime(stamp, "%Y-%m-%dT%H:%M:%S").replace(tzinfo=timezone.utc)
    return int((at - datetime(1970, 1, 1, tzinfo=timezone.utc)).total_seconds())


def micros(stamp: str) -> int:
    """An RFC 3339 stamp of 27 bytes, in microseconds since 1970."""
    return whole_seconds(stamp[:19]) * 1_000_000 + int(stamp[20:26])


@dataclass
class Record:
    n: int
    at: str
    kind: str
    via: str
    conn: int
    # Facts about the body.
    info: dict
    body: bytes


@dataclass
class Source:
    name: str
    provider: str = ""
    records: int = 0
    envelopes: int = 0
    last_n: int = 0
    segments: int = 0
    open_segments: int = 0
    bytes: int = 0
    raw_bytes: int = 0
    torn_bytes: int = 0
    # Last number that was removed on purpose.
    pruned_n: int = 0
    # Hashes of commit lines by the number they carry.
    commits: dict = field(default_factory=dict)
    # (n, at, fact) of every note, open and close.
    facts: list = field(default_factory=list)
    last_at: dict = field(default_factory=dict)
    # Ranges that a note calls lost, and the holes in the numbers.
    lost: list = field(default_factory=list)
    holes: list = field(default_factory=list)


@dataclass
class Tape:
    dir: Path
    id: str = ""
    sources: dict = field(default_factory=dict)
    violations: list = field(default_factory=list)

    def bad(self, what: str) -> None:
        self.violations.append(what)


@dataclass
class File:
    source: str
    first_n: int
    is_open: bool
    path: Path


def files(tape: Path) -> list[File]:
    """Segments in their order; an open file whose sealed twin is there is left out."""
    found = {}
    for path in sorted((tape / "segments").glob("*/*/*")):
        for suffix, is_open in ((SEALED, False), (OPEN, True)):
            name = path.name.removesuffix(suffix)
            if path.name.endswith(suffix) and len(name) == 20 and name.isdigit():
                file = File(path.parts[-3], int(name), is_open, path)
                key = (file.source, file.first_n)
                if key not in found or found[key].is_open:
                    found[key] = file
    return [found[key] for key in sorted(found)]


def seek_table(content: bytes) -> list[tuple[int, int]]:
    """(bytes, uncompressed bytes) of each block; raises when there is none or it does not fit."""
    count, descriptor, magic = struct.unpack("<IBI", content[-9:])
    if magic != SEEKABLE or descriptor != 0:
        raise ValueError("no seek table at its end")
    size = 8 * count + 9
    magic, length = struct.unpack("<II", content[-size - 8 : -size])
    if magic != SKIPPABLE or length != size:
        raise ValueError("the seek table is not in a skippable frame of its own")
    table = list(struct.iter_unpack("<II", content[-size:-9]))
    if sum(block for block, _ in table) != len(content) - size - 8:
        raise ValueError("its blocks do not add up to the file")
    return table


def zstd(paths: list[Path]) -> tuple[bytes, int, str]:
    """What the stock program makes of files: output, exit code, words."""
    command = ["zstd", "--decompress", "--stdout", "--quiet", "--", *map(str, paths)]
    done = subprocess.run(command, capture_output=True, check=False)
    return done.stdout, done.returncode, done.stderr.decode(errors="replace").strip()


def content_of(line: bytes, at: int) -> tuple[dict, bytes | None]:
    """The facts about the body, and its bytes as they came off the wire, from where the fields before them end."""
    info = {}
    if line.startswith(b',"info":', at):
        text = line[at + 8 :].decode()
        info, end = DECODER.raw_decode(text)
        at += 8 + len(text[:end].encode())
    if line.startswith(b',"raw":', at):
        return info, line[at + 7 : -1]
    if line.startswith(b',"text":', at):
        return info, json.loads(line[at + 8 : -1]).encode()
    if line.startswith(b',"b64":', at):
        return info, base64.b64decode(json.loads(line[at + 7 : -1]), validate=True)
    return info, None


class Reader:
    def __init__(self, tape: Tape, visit):
        self.tape, self.visit = tape, visit

    def segment(self, source: Source, file: File, raw: bytes, ends: set[int] | None) -> None:
        """One segment's uncompressed bytes. `ends` are the block ends of a sealed one."""
        where = f"{source.name}/{file.path.name}"
        bad = lambda what: self.tape.bad(f"{where}: {what}")
        position = chained = 0
        seed = 0
        is_first, n_first, waiting, commit_end = True, None, [], 0
        last_n = file.first_n - 1
        while position < len(raw):
            end = raw.find(b"\n", position)
            if end < 0:
                break
            line = raw[position:end]
            start = START.match(line)
            try:
                whole = json.loads(line)
            except ValueError:
                whole = None
            if start is None or whole is None:
                if not file.is_open:
                    bad(f"the line at byte {position} cannot be read")
                break
            n, at, kind = int(start[1]), start[2].decode(), start[3]
            if is_first:
                head = (kind, n, whole.get("format"), whole.get("tape"), whole.get("source"))
                if head != (b"segment", file.first_n - 1, 1, self.tape.id, source.name):
                    bad(f"its first line is not the header of this segment: {line[:200]!r}")
                source.provider = whole.get("provider", "")
                is_first = False
            elif kind == b"commit":
                hashed = xxhash.xxh3_64_hexdigest(raw[chained:position], seed=seed)
                if (whole["bytes"], whole["hash"], n) != (position, hashed, last_n):
                    # Of an open file nothing behind the last good commit was ever promised.
                    if not file.is_open:
                        bad(f"the commit line at byte {position} does not hold")
                    break
                chained, seed = position, int(hashed, 16)
                source.commits.setdefault(n, set()).add(hashed)
                commit_end = end + 1
                if ends is not None:
                    ends.discard(commit_end)
                for record in waiting:
                    self.keep(source, record, bad)
                waiting = []
            elif kind in KINDS:
                if n != last_n + 1:
                    bad(f"record {n} stands behind record {last_n}")
                last_n = n
                n_first = n if n_first is None else n_first
                fields = RECORD.match(line, start.end())
                info, body = content_of(line, fields.end()) if fields else ({}, None)
                if body is None:
                    bad(f"record {n} is not in the form of the format")
                else:
                    waiting.append(Record(n, at, kind.decode(), fields[1].decode(), int(fields[2]), info, body))
            else:
                bad(f"the line at byte {position} has a kind that the format does not know")
            position = end + 1
        if ends:
            bad(f"{len(ends)} blocks do not end with a commit line")
        if file.is_open:
            source.torn_bytes += len(raw) - commit_end
        elif commit_end != len(raw):
            bad(f"{len(raw) - commit_end} bytes behind its last commit line")
        elif n_first is not None and n_first != file.first_n:
            bad(f"its first record is {n_first}")
        source.raw_bytes += commit_end

    def keep(self, source: Source, record: Record, bad) -> None:
        if record.n != source.last_n + 1:
            # The note that tells of it may stand further on.
            source.holes.append((source.last_n + 1, record.n - 1))
        source.last_n = record.n
        source.records += 1
        source.envelopes += record.kind == "frame"
        if record.conn:
            if record.at < source.last_at.get(record.conn, ""):
                bad(f"record {record.n} was received before the one before it on its connection")
            source.last_at[record.conn] = record.at
        if record.kind in ("note", "open", "close"):
            fact = json.loads(record.body)
            source.facts.append((record.n, record.at, record.kind, fact))
            if fact.get("note") == "gap" and "lost_n" in fact:
                source.lost.append(tuple(fact["lost_n"]))
        self.visit(source, record)


def unpack(some: list[Path], raw_sizes: dict[Path, int]) -> dict[Path, bytes]:
    """One process for some sealed files; the seek tables say where one ends. Nothing when it refuses: then each for itself."""
    out, code, _ = zstd(some)
    if code != 0 or sum(raw_sizes[path] for path in some) != len(out):
        return {}
    together, position = {}, 0
    for path in some:
        together[path] = out[position : position + raw_sizes[path]]
        position += raw_sizes[path]
    return together


def batches(sealed: list[Path], raw_sizes: dict[Path, int]) -> dict[Path, list[Path]]:
    """What is unpacked together, by its first file."""
    found, size = [], 0
    for path in sealed:
        if not found or len(found[-1]) == 200 or size + raw_sizes[path] > TOGETHER:
            found.append([])
            size = 0
        found[-1].append(path)
        size += raw_sizes[path]
    return {batch[0]: batch for batch in found}


def read(path: Path, visit=lambda source, record: None) -> Tape:
    """Reads a whole tape; `visit` is told of each record that a commit line vouches for, in order."""
    tape = Tape(path)
    info = json.loads((path / "tape.json").read_text())
    tape.id = info["tape"]
    if info["format"] != 1:
        tape.bad(f"format {info['format']} is unknown")
        return tape
    reader = Reader(tape, visit)
    all_files = files(path)
    tables, sealed = {}, []
    for file in all_files:
        if not file.is_open:
            try:
                tables[file.path] = seek_table(file.path.read_bytes())
            except (ValueError, struct.error) as why:
                tape.bad(f"{file.source}/{file.path.name}: {why}")
            sealed.append(file.path)
    raw_sizes = {path: sum(raw for _, raw in tables.get(path, ())) for path in sealed}
    begins, together = batches(sealed, raw_sizes), {}
    for file in all_files:
        source = tape.sources.setdefault(file.source, Source(file.source))
        source.segments += 1
        source.open_segments += file.is_open
        source.bytes += file.path.stat().st_size
        if file.path in begins:
            together = unpack(begins[file.path], raw_sizes)
        if file.path in together:
            raw = together.pop(file.path)
        else:
            raw, code, words = zstd([file.path])
            if code != 0 and not file.is_open:
                tape.bad(f"{file.source}/{file.path.name}: the stock zstd refuses it: {words}")
        ends = None
        if file.path in tables:
            total, ends = 0, set()
            for _, size in tables[file.path]:
                total += size
                ends.add(total)
            if total != len(raw):
                tape.bad(f"{file.source}/{file.path.name}: its seek table does not add up to its content")
        reader.segment(source, file, raw, ends)
    for source in tape.sources.values():
        remains = tape.dir / "segments" / source.name / "pruned.jsonl.zst"
        if remains.exists():
            # What was removed on purpose; its ledger is in there, and in the catalog.
            source.pruned_n = json.loads(zstd([remains])[0].split(b"\n", 1)[0])["n"]
        for first, last in source.holes:
            if first <= last <= source.pruned_n:
                continue
            if last < first or not any(a <= first and last <= b for a, b in source.lost):
                tape.bad(f"{source.name}: records {first} to {last} are missing, and no note calls them lost")
    return tape


def ledger(source: Source) -> dict:
    """The gaps of a source by number, as its notes tell of them."""
    gaps = {}
    for n, at, kind, fact in source.facts:
        if kind != "note":
            continue
        if fact["note"] == "gap":
            gaps[n] = {
                "scope": fact["scope"],
                "cause": fact["cause"],
                "state": "open",
                "from": fact["from"],
                "to": fact.get("to"),
            }
        elif fact["note"] == "gap_step":
            gap = gaps.get(fact["gap"])
            if gap is None:
                is_told = any(first <= fact["gap"] <= last for first, last in source.holes)
                if fact["gap"] > source.pruned_n and not is_told:
                    # Equal to nothing that a catalog says.
                    gaps[fact["gap"]] = {"state": "never opened", "to": None}
                continue
            gap["state"], gap["cause"] = fact["state"], fact["cause"]
            gap["to"] = fact.get("to") or gap["to"]
    return gaps
