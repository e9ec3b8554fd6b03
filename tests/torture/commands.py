"""Mode `commands`: SIGKILL of what works on a tape that nobody records: export, compact, prune, merge, filling from another tape.

The kill falls before, or halfway through, a call that changes files, of the tape or of what is written beside it. Then the
same command runs to its end. What it leaves must be what an undisturbed run leaves: an export byte for byte, a tape with the
same envelopes and without anything that the oracle finds.
"""

import hashlib
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

import oracle
from desk import Desk, Result, dice, scratch, spread, sweep
from provider import Load, Server
from shim import Shim, build
from tape import read

ARCHIVE = {"commit_every": "3ms", "segment_size": "128KiB", "block_size": "16KiB"}
ENVELOPES = 1_500


@dataclass
class Job:
    name: str
    # Words of the command; `{other}`, `{first}` and `{beside}` are places.
    words: tuple
    # Whether the tape is there before.
    on_tape: bool = True


JOBS = [
    Job("export", ("export", "parquet", "--out", "{beside}")),
    Job("compact", ("compact", "--level", "5", "--block-size", "64KiB")),
    Job("prune", ("prune", "--max-size", "150KB")),
    Job("merge", ("merge", "{other}")),
    Job("merge into a new tape", ("merge", "{first}", "{other}"), False),
    Job("backfill --from-tape", ("backfill", "--from-tape", "{other}")),
]


class Bench:
    """Two tapes of one server, and what each command makes of them when nothing happens."""

    def __init__(self, binary: Path, dir: Path, library: Path):
        self.binary, self.dir, self.library = binary, dir, library
        server = Server(Load(burst=10, pause=0.001, limit=ENVELOPES))
        self.first = Desk(binary, dir / "first", server, 2, ARCHIVE)
        self.other = Desk(binary, dir / "other", server, 2, ARCHIVE)
        # The other one covers what the first one misses.
        beside = self.other.record()
        for _ in range(2):
            recorder = self.first.record()
            recorder.until(lambda: recorder.frames_of_all(self.first.sources) >= ENVELOPES)
            recorder.stop()
        beside.until(lambda: beside.frames_of_all(self.other.sources) >= ENVELOPES)
        beside.stop()
        self.whole, self.calls = {}, {}
        for nth, job in enumerate(JOBS):
            once, again = [self.undisturbed(job, f"{nth}-{time}") for time in range(2)]
            # What is never twice the same, such as the time of an export, is not compared.
            self.whole[job.name] = {key: what for key, what in once.items() if again.get(key) == what}
            assert len(self.whole[job.name]) > 1, f"{job.name} leaves nothing that can be compared"

    def desk(self, job: Job, name: str) -> tuple[Desk, Path]:
        desk = Desk(self.binary, self.dir / name, self.first.server, 2, ARCHIVE)
        if job.on_tape:
            shutil.copytree(self.first.tape, desk.tape, ignore=shutil.ignore_patterns("*.sock"))
        return desk, desk.tape.parent / "beside"

    def run(self, desk: Desk, job: Job, beside: Path, env: dict):
        places = {"other": self.other.tape, "first": self.first.tape, "beside": beside}
        return desk.run(*(word.format(**places) for word in job.words), env=env)

    def undisturbed(self, job: Job, name: str) -> dict:
        desk, beside = self.desk(job, name)
        shim = Shim(self.library, desk.dir / "page", desk.tape.parent)
        done = self.run(desk, job, beside, shim.env("none"))
        assert done.returncode in (0, 3), f"{job.name}: {done.returncode}: {done.stderr.decode()[-500:]}"
        self.calls[job.name] = shim.calls
        found = left(desk, beside)
        desk.sweep()
        return found


def left(desk: Desk, beside: Path) -> dict:
    """Envelopes of the tape by source, and files beside it."""
    found: dict = {}

    def visit(source, record) -> None:
        if record.kind == "frame":
            found.setdefault(source.name, []).append(hashlib.sha256(record.body).hexdigest())

    read(desk.tape, visit)
    # A merge may bring its parts in another order.
    found = {name: sorted(bodies) for name, bodies in found.items()}
    for root, _, names in os.walk(beside):
        for name in names:
            path = Path(root) / name
            found[str(path.relative_to(beside))] = hashlib.sha256(path.read_bytes()).hexdigest()
    return found


def run(options) -> Result:
    dir, result = scratch(options.dir), Result()
    try:
        bench = Bench(options.binary, dir, build(dir))
        points = [(job, way, k) for job in JOBS for way in ("kill", "half") for k in range(1, bench.calls[job.name] + 1)]
        figures = {f"calls, {job.name}": bench.calls[job.name] for job in JOBS}
        if not options.all:
            dice(options.seed, 0, "commands").shuffle(points)
            # Each command as often as the others, however many calls it has.
            each = max(1, options.count // len(JOBS))
            points = [point for job in JOBS for point in [point for point in points if point[0] is job][:each]]
        result = spread(len(points), options.jobs, work, options, bench, points)
        result.figures |= figures
    finally:
        sweep(dir, result)
    return result


def work(result: Result, count: int, nth: int, options, bench: Bench, points: list) -> None:
    for at in range(nth, len(points), options.jobs):
        job, way, k = points[at]
        result.runs += 1
        where = f"{job.name}, {way} at call {k}"
        desk, beside = bench.desk(job, f"run-{at}")
        before = len(result.violations)
        shim = Shim(bench.library, desk.dir / "page", desk.tape.parent)
        killed = bench.run(desk, job, beside, shim.env(way, k))
        where = f"{where} ({shim.what}), {desk.dir}"
        if shim.at != k:
            # Threads do not make the same calls each time.
            result.runs -= shim.calls < k
            result.reached += shim.calls >= k
            desk.sweep()
            continue
        result.reached += killed.returncode < 0
        done = bench.run(desk, job, beside, {})
        if done.returncode not in (0, 3):
            said = done.stderr.decode(errors="replace")[-400:]
            result.violations.append(f"{where}: the same command ends with exit code {done.returncode} afterwards: {said}")
        else:
            compare(result, bench, job, where, left(desk, beside))
            tape = oracle.check(bench.binary, desk.tape)
            result.violations += [f"{where}: {what}" for what in tape.violations]
        if len(result.violations) == before:
            desk.sweep()
    if nth == 0:
        control(result, bench)


def compare(result: Result, bench: Bench, job: Job, where: str, found: dict) -> None:
    whole = bench.whole[job.name]
    odd = [key for key, what in whole.items() if found.get(key) != what]
    more = [key for key in found if key not in whole and key.endswith((".parquet", ".partial", ".tmp"))]
    if odd or more:
        result.violations.append(f"{where}: not what an undisturbed run leaves: {odd[:5]} differ, {more[:5]} are more")


def control(result: Result, bench: Bench) -> None:
    """An export that lacks a file, and a tape that lacks an envelope, must be found."""
    for job in (JOBS[0], JOBS[3]):
        desk, beside = bench.desk(job, f"control-{job.name}")
        bench.run(desk, job, beside, {})
        found, planted = left(desk, beside), Result()
        key = next(key for key in bench.whole[job.name] if isinstance(found[key], str if job is JOBS[0] else list))
        found[key] = found[key][1:]
        compare(planted, bench, job, "planted", found)
        result.controls[f"something missing after {job.name}"] = bool(planted.violations)
        desk.sweep()
