"""Modes `syscall` and `ioerror`: something happens at the k-th call that changes files, for each k of a fixed workload.

The calls are counted below the process, over all its threads, in its segments, its catalog and its directories. The
workload is `JOBS`: a new tape; mending one whose last recorder was killed; making its catalog again; importing into it;
recording on, with rotations and seals.
"""

import shutil
from dataclasses import dataclass
from pathlib import Path

from desk import Desk, Recorder, Result, dice, now, scratch, spread, sweep
from provider import Load, Server
from shim import Shim, build
from tape import files, zstd

ARCHIVE = {"commit_every": "0s", "segment_size": "4KiB", "block_size": "1KiB"}
# Lines of four providers.
LINES = Path(__file__).parents[2] / "fixtures/synthetic/mixed-400.jsonl"
# Envelopes of each of the two sources.
ENVELOPES = 36


@dataclass
class Job:
    name: str
    # Words of a command over the tape; none is a recorder.
    words: tuple
    # Whether the tape is there before, left by a killed recorder.
    on_dead: bool
    envelopes: int = ENVELOPES


JOBS = [
    Job("a new tape", (), False, 3),
    Job("recover", ("recover",), True),
    Job("rebuild", ("rebuild",), True),
    Job("import", ("import", "--provider", "auto", str(LINES)), True),
    Job("record", (), True),
]


class Bench:
    """What one process of the harness works with."""

    def __init__(self, options, dir: Path, library: Path):
        self.binary, self.dir, self.library = options.binary, dir, library
        dir.mkdir(parents=True)
        self.server = Server(Load(burst=1, pause=0.0005, limit=ENVELOPES))
        self.base = Desk(options.binary, dir / "base", self.server, 2, ARCHIVE)
        self.base.record("--for", "0.05").end()
        recorder = self.base.record()
        recorder.until(lambda: recorder.frames_of_all(self.base.sources) >= ENVELOPES // 2)
        recorder.kill()
        self.base.remember(recorder, now())
        self.nth = 0

    def desk(self, job: Job) -> tuple[Desk, Shim]:
        self.nth += 1
        desk = Desk(self.binary, self.dir / str(self.nth), self.server, 2, ARCHIVE)
        if job.on_dead:
            shutil.copytree(self.base.tape, desk.tape, ignore=shutil.ignore_patterns("*.sock"))
            desk.announced, desk.deaths = list(self.base.announced), list(self.base.deaths)
        return desk, Shim(self.library, desk.dir / "page", desk.tape.parent)

    def do(self, desk: Desk, job: Job, env: dict) -> tuple[int | None, Recorder | None]:
        """Lets a job run to its end, whatever that is: exit code, None when it had to be killed."""
        if job.words:
            return desk.run(*job.words, env=env).returncode, None
        self.server.load.limit = job.envelopes
        recorder = desk.record(env=env)
        is_done = lambda: recorder.is_ended or recorder.frames_of_all(desk.sources) >= job.envelopes
        recorder.until(lambda: is_done() or has_waited(desk))
        # What the full disk took is never announced; the rest is soon.
        frames = None
        while not is_done() and frames != recorder.frames:
            frames = dict(recorder.frames)
            recorder.listen(0.3)
        return (recorder.end() if recorder.is_ended else recorder.stop()), recorder

    def calls(self, job: Job) -> int:
        """How many calls there are when nothing happens; commits fall a little differently each time."""
        counts = []
        for _ in range(3):
            desk, shim = self.desk(job)
            self.do(desk, job, shim.env("none"))
            counts.append(shim.calls)
            desk.sweep()
        return min(counts)


def kills(options) -> Result:
    return run(options, ["kill", "half"], killed)


def errors(options) -> Result:
    return run(options, ["eio", "enospc"], failed)


def run(options, ways: list[str], one) -> Result:
    dir, result = scratch(options.dir), Result()
    try:
        library = build(dir)
        bench = Bench(options, dir / "count", library)
        points = [(job, way, k) for job in JOBS for way in ways for k in range(1, bench.calls(job) + 1)]
        figures = {f"calls, {job.name}": max(k for j, _, k in points if j is job) for job in JOBS}
        if not options.all:
            dice(options.seed, 0, "points").shuffle(points)
            points = points[: options.count]
        result = spread(len(points), options.jobs, work, options, dir, library, points, one)
        result.figures |= figures
    finally:
        sweep(dir, result)
    return result


def work(result: Result, count: int, nth: int, options, dir: Path, library: Path, points: list, one) -> None:
    bench, rng = Bench(options, dir / str(nth), library), dice(options.seed, nth, "calls")
    for at in range(nth, len(points), options.jobs):
        job, way, k = points[at]
        result.runs += 1
        # Commits fall a little differently each time: what was not reached is tried again.
        most = 0
        for _ in range(8):
            desk, shim = bench.desk(job)
            before = len(result.violations)
            if one(result, bench, desk, shim, job, way, k, rng):
                result.reached += 1
                break
            most = max(most, shim.calls)
            desk.sweep()
        else:
            if most < k:
                # There were never so many calls.
                result.runs -= 1
                result.figures["behind the last call"] = result.figures.get("behind the last call", 0) + 1
            continue
        if is_same(way, shim):
            desk.sweep()
            continue
        tape, _ = desk.judge(may_skip=way == "enospc")
        for what in tape.violations:
            result.violations.append(f"{job.name}, {way} at call {k} ({shim.what}), {desk.dir}: {what}")
        if len(result.violations) == before:
            desk.sweep()
    if nth == 0:
        control(result, bench, one is failed)


def killed(result: Result, bench: Bench, desk: Desk, shim: Shim, job: Job, way: str, k: int, rng) -> bool:
    code, recorder = bench.do(desk, job, shim.env(way, k))
    if shim.at != k:
        return False
    if is_same(way, shim):
        return True
    if recorder is not None:
        desk.remember(recorder, now())
    if not (desk.tape / "tape.json").exists():
        # Killed before there was a tape; whoever starts next makes one.
        desk.record("--for", "0.05").end()
    if rng.random() < 0.25:
        desk.recover(env=Shim(bench.library, desk.dir / "page2", desk.tape.parent).env(way, rng.randint(1, 40)))
        result.figures["recoveries killed"] = result.figures.get("recoveries killed", 0) + 1
    mend(result, desk, f"{job.name}, {way} at call {k} ({shim.what})")
    return True


def has_waited(desk: Desk) -> bool:
    """Whether the recorder found the disk full and went on by itself."""
    return "there is room on the disk again" in (desk.dir / "stderr").read_text()


def is_same(way: str, shim: Shim) -> bool:
    """Of this call there is no half: what it leaves is what `kill` leaves, and that is looked at already."""
    return way == "half" and "write" not in shim.what


def failed(result: Result, bench: Bench, desk: Desk, shim: Shim, job: Job, way: str, k: int, rng) -> bool:
    code, recorder = bench.do(desk, job, shim.env(way, k))
    if shim.at != k:
        return False
    where = f"{job.name}, {way} at call {k} ({shim.what})"
    if code is None:
        result.violations.append(f"{where}: it neither goes on nor ends")
    elif code not in (0, 1, 3):
        result.violations.append(f"{where}: it ends with exit code {code}: {(desk.dir / 'stderr').read_text()[-300:]}")
    if shim.again:
        result.violations.append(f"{where}: a segment that had failed to sync was synced again")
    if recorder is not None:
        is_whole = recorder.frames_of_all(desk.sources) >= job.envelopes or has_waited(desk)
        if not is_whole and code in (0, 3):
            result.violations.append(f"{where}: it ends in good order, and has announced {recorder.frames} only")
        name = "went on" if is_whole else "ended"
        result.figures[name] = result.figures.get(name, 0) + 1
        desk.remember(recorder, None if is_whole else now())
    if not (desk.tape / "tape.json").exists():
        desk.record("--for", "0.05").end()
    mend(result, desk, where)
    return True


def mend(result: Result, desk: Desk, where: str) -> None:
    mended = desk.recover()
    if mended.returncode != 0:
        said = mended.stderr.decode(errors="replace")[-500:]
        result.violations.append(f"{where}, {desk.dir}: recover ends with {mended.returncode}: {mended.stdout.decode()} {said}")


def control(result: Result, bench: Bench, with_errors: bool) -> None:
    """Damage that must be found: a sync that lies, or the end of a file that a killed recorder had announced."""
    job = JOBS[-1]
    if with_errors:
        for k in range(100, 400):
            desk, shim = bench.desk(job)
            _, recorder = bench.do(desk, job, shim.env("lie", k))
            if shim.at == k and shim.what.startswith("fdatasync") and ".jsonl.zst.open" in shim.what and recorder:
                break
            desk.sweep()
        desk.remember(recorder, None)
        name = "a sync that drops data and says that all is well"
    else:
        desk, shim = bench.desk(job)
        _, recorder = bench.do(desk, job, shim.env("kill", 600))
        desk.remember(recorder, now())
        source, n, digest = desk.announced[-1]
        newest = max(file.first_n for file in files(desk.tape) if file.source == source and file.first_n <= n)
        path = next(file.path for file in files(desk.tape) if file.source == source and file.first_n == newest)
        # More and more, until the last announcement is gone.
        while digest.encode() in zstd([path])[0]:
            content = path.read_bytes()
            path.write_bytes(content[: len(content) * 4 // 5])
        name = "the end of a segment cut off"
    desk.recover()
    tape, _ = desk.judge()
    result.controls[name] = any("was announced with hash" in what for what in tape.violations)
    desk.sweep()
