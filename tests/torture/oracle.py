"""Compares what the product says of a tape with what the tape says to an independent reader.

Usage: oracle.py BIRDTAPE TAPE

Prints one line of JSON. Exit code 0 when both find the tape whole and agree in every figure, 1 when not.
"""

import hashlib
import json
import subprocess
import sys
from datetime import datetime, timedelta, timezone
from pathlib import Path

import tape as tapes
from tape import Source, Tape, ledger, micros

COMPARED = ["provider", "records", "envelopes", "last_n", "segments", "open_segments", "bytes", "raw_bytes"]
CLASSES = ["live", "backfilled", "audited", "missing", "unverifiable", "pruned", "pending"]


def ask(binary: Path, tape: Path, *words: str) -> tuple[int, list[dict], str]:
    """Runs the product over a tape: exit code, its lines of JSON, its words."""
    command = [str(binary), "--tape", str(tape), *words]
    done = subprocess.run(command, capture_output=True, check=False, timeout=600)
    lines = [json.loads(line) for line in done.stdout.splitlines() if line.strip()]
    return done.returncode, lines, done.stderr.decode(errors="replace").strip()


def check_verify(binary: Path, tape: Tape) -> None:
    code, lines, words = ask(binary, tape.dir, "--json", "verify")
    if len(lines) != 1:
        tape.bad(f"verify says nothing (exit code {code}): {words}")
        return
    report = lines[0]
    # Loss that the ledger tells of makes a tape not whole, and is no disagreement.
    unknown = [damage for damage in report["damage"] if not damage["known"]]
    for damage in unknown:
        tape.bad(f"verify: {damage['place']}: {damage['what']}")
    if report["ok"] != (code == 0) or report["ok"] != (not report["damage"]):
        tape.bad(f"verify contradicts itself: ok is {report['ok']}, exit code {code}")
    # A directory that a recorder made for its first segment, and was killed, holds nothing to disagree about.
    theirs = {row["source"]: row for row in report["sources"] if row["segments"] > 0}
    if set(theirs) != set(tape.sources):
        tape.bad(f"verify knows the sources {sorted(theirs)}, the files are of {sorted(tape.sources)}")
    for name in set(theirs) & set(tape.sources):
        ours = tape.sources[name]
        for key in COMPARED:
            if theirs[name][key] != getattr(ours, key):
                tape.bad(f"{name}: verify says {key} {theirs[name][key]}, the oracle {getattr(ours, key)}")


def check_gaps(binary: Path, tape: Tape) -> None:
    """The catalog's ledger against the notes."""
    code, lines, words = ask(binary, tape.dir, "--json", "gaps")
    if code not in (0, 3):
        tape.bad(f"gaps fails with exit code {code}: {words}")
        return
    theirs = {}
    for row in lines:
        if "n" in row and "cause" in row:
            theirs[(row["source"], row["n"])] = {key: row[key] for key in ("scope", "cause", "state", "from", "to")}
    ours = {(name, n): gap for name, source in tape.sources.items() for n, gap in ledger(source).items()}
    for key in sorted(set(ours) | set(theirs)):
        if key[0] in tape.sources and key[1] <= tape.sources[key[0]].pruned_n:
            continue
        if ours.get(key) != theirs.get(key):
            tape.bad(f"gap {key[0]}-{key[1]}: the notes say {ours.get(key)}, the catalog {theirs.get(key)}")


def check_certificate(binary: Path, tape: Tape, source: Source) -> None:
    """Each instant of each scope is in exactly one class, and none is called live that no evidence reaches."""
    scopes = [fact for _, _, _, fact in source.facts if fact.get("note") == "scope"]
    if not scopes:
        return
    since = min(scope["since"] for scope in scopes)
    last = max(at for _, at, _, _ in source.facts)
    until = datetime.strptime(max(since, last), "%Y-%m-%dT%H:%M:%S.%fZ") + timedelta(seconds=5)
    until = until.replace(tzinfo=timezone.utc).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    command = [str(binary), "--tape", str(tape.dir), "certify", "--source", source.name, "--from", since, "--to", until]
    done = subprocess.run(command, capture_output=True, check=False, timeout=600)
    if done.returncode not in (0, 3):
        tape.bad(f"{source.name}: certify fails with exit code {done.returncode}: {done.stderr.decode(errors='replace')}")
        return
    line = done.stdout.rstrip(b"\n")
    statement = json.loads(line)
    without = line.replace(b',"digest":"%s"' % statement["digest"].encode(), b"")
    if hashlib.sha256(without).hexdigest() != statement["digest"]:
        tape.bad(f"{source.name}: the certificate's digest does not hold")
    silent = silences(source)
    gaps = ledger(source).values()
    for scope in statement["scopes"]:
        name = f"{source.name}, scope {scope['scope']} version {scope['version']}"
        begin = max(micros(scope["since"]), micros(since))
        end = min(micros(scope.get("until", until)), micros(until))
        # Only a pruned tape has that class.
        of_class = lambda of: scope.get(of, {"intervals": []}) if of == "pruned" else scope[of]
        stretches = [(micros(a), micros(b), of) for of in CLASSES for a, b in of_class(of)["intervals"]]
        position = begin
        for a, b, of in sorted(stretches):
            if a != position or b <= a:
                tape.bad(f"{name}: {of} is from {a} to {b}, what is before it ends at {position}")
            position = max(position, b)
        if position != end:
            tape.bad(f"{name}: the classes end at {position}, the window at {end}")
        for a, b in [(a, b) for a, b, of in stretches if of == "live"]:
            for x, y in silent:
                if max(a, x) < min(b, y):
                    tape.bad(f"{name}: {a} to {b} is called live, and nobody recorded from {x} to {y}")
            for gap in gaps:
                x = micros(gap["from"])
                y = micros(gap["to"]) if gap["to"] else b
                if gap["scope"] in (scope["scope"], "*") and max(a, x) < min(b, y):
                    tape.bad(f"{name}: {a} to {b} is called live, and a gap ({gap['cause']}) is from {x} to {y}")


def silences(source: Source) -> list[tuple[int, int]]:
    """Between the last evidence of a run and the first of the next nobody recorded."""
    return [(micros(ended), micros(began)) for ended, began in source.runs if ended is not None and ended < began]


def read(path: Path, visit=lambda source, record: None) -> Tape:
    """As `tape.read`, and remembers for each run of a source when the one before it ended, and when it began."""

    def watch(source: Source, record) -> None:
        if not hasattr(source, "runs"):
            source.runs, source.alive_at = [], None
        if record.kind == "note" and json.loads(record.body).get("note") == "start":
            source.runs.append((source.alive_at, record.at))
        # What waited while the disk was full is older than the run that writes it.
        if record.kind == "frame" and source.runs and record.at < source.runs[-1][1]:
            source.runs[-1] = (source.runs[-1][0], record.at)
        # Notes of a mender are written for a recorder that is dead; what came by webhook is no evidence.
        if (record.kind in ("frame", "open") and record.via != "webhook") or (record.kind == "note" and b'{"note":"alive"' in record.body[:20]):
            source.alive_at = max(record.at, source.alive_at or "")
        visit(source, record)

    return tapes.read(path, watch)


def check(binary: Path, path: Path, visit=lambda source, record: None) -> Tape:
    """Everything. The tape must have been recovered, or closed in good order."""
    tape = read(path, visit)
    check_verify(binary, tape)
    check_gaps(binary, tape)
    for source in tape.sources.values():
        check_certificate(binary, tape, source)
    return tape


def main() -> int:
    if len(sys.argv) != 3:
        print(__doc__.strip(), file=sys.stderr)
        return 2
    binary, path = Path(sys.argv[1]), Path(sys.argv[2])
    if not (path / "tape.json").is_file():
        print(f"error: {path} is no tape: it has no tape.json", file=sys.stderr)
        return 2
    tape = check(binary, path)
    figures = {name: {key: getattr(source, key) for key in COMPARED} for name, source in tape.sources.items()}
    print(json.dumps({"ok": not tape.violations, "tape": tape.id, "sources": figures, "violations": tape.violations}))
    return 1 if tape.violations else 0


if __name__ == "__main__":
    sys.exit(main())
