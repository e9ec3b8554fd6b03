"""Mode `powercut`: a real file system loses everything that was not synced; every fourth cut hits the recovery.

Only what was read before the cut was ordered counts as announced: a recorder goes on for a moment, and may still tell.
"""

import shutil
from pathlib import Path

from desk import Desk, Result, dice, now, scratch, spread, sweep
from mounts import Mount
from provider import Load, Server
from shim import Shim, build
import oracle

# Cuts on one tape before it is looked at as a whole.
BATCH = 15
ARCHIVE = {"commit_every": "3ms", "segment_size": "256KiB", "block_size": "32KiB"}


def run(options) -> Result:
    dir, total = scratch(options.dir), Result()
    try:
        library = build(dir)
        for fs in options.fs.split(","):
            result = spread(options.count, options.jobs, work, options, dir, fs, library)
            result.figures = {f"{name}, {fs}": figure for name, figure in result.figures.items()}
            total.add(result)
    finally:
        sweep(dir, total)
    return total


def work(result: Result, count: int, nth: int, options, base: Path, fs: str, library: Path) -> None:
    rng, server = dice(options.seed, nth, fs), Server(Load(burst=10, pause=0.002))
    with Mount(fs, base / f"{fs}-{nth}") as mount:
        batch = 0
        while result.runs < count:
            desk = Desk(options.binary, base / f"{fs}-{nth}-{batch}", server, 2, ARCHIVE, tape=mount.dir / "tape")
            before = len(result.violations)
            for _ in range(min(BATCH, count - result.runs)):
                result.runs += 1
                result.reached += one(result, desk, mount, rng)
            mended = desk.recover()
            if mended.returncode != 0:
                result.violations.append(f"{fs}: recover ends with {mended.returncode}: {mended.stderr.decode()[-500:]}")
            tape, truth = desk.judge()
            result.violations += [f"{fs}, worker {nth}, batch {batch}: {what}" for what in tape.violations]
            count_in(result, "announcements", len(desk.announced))
            count_in(result, "envelopes", truth.envelopes)
            if len(result.violations) > before:
                shutil.copytree(desk.tape, desk.dir / "tape", ignore=shutil.ignore_patterns("*.sock"))
            else:
                desk.sweep()
            shutil.rmtree(desk.tape)
            batch += 1
        control(result, max(5, count // 10), options, base / f"{fs}-{nth}-control", mount, server, library, rng)


def count_in(result: Result, name: str, by: int = 1) -> None:
    result.figures[name] = result.figures.get(name, 0) + by


def one(result: Result, desk: Desk, mount: Mount, rng) -> bool:
    """One cut; whether it found a recorder, or its recovery, at work."""
    if desk.announced and rng.random() < 0.25:
        recorder = desk.record()
        recorder.listen(rng.random() * 0.04)
        recorder.drain()
        if not recorder.is_started:
            is_hit = recorder.process.poll() is None
            mount.cut()
            recorder.kill()
            mount.power_on()
            count_in(result, "recoveries cut", is_hit)
            return is_hit
    else:
        recorder = desk.record()
    if not recorder.until(lambda: recorder.frames_of_all(desk.sources) > 0):
        result.violations.append(f"{mount.fs}: no envelope was announced: {(desk.dir / 'stderr').read_text()[-500:]}")
        recorder.kill()
        return False
    recorder.listen(rng.random() * 0.08)
    recorder.drain()
    mount.cut()
    # What comes now does not count: it may have been on its way, or be a lie of a disk that is gone.
    at = now()
    recorder.kill()
    mount.power_on()
    desk.remember(recorder, at)
    wrong, n_zeros = desk.stock_zstd(recorder, may_end_in_zeros=True)
    result.violations += [f"{mount.fs}: {what}" for what in wrong]
    count_in(result, "open segments that end in zeros", n_zeros)
    return True


def control(result: Result, count: int, options, dir: Path, mount: Mount, server: Server, library: Path, rng) -> None:
    """The same without a single sync must lose what was announced."""
    lost = 0
    for nth in range(count):
        desk = Desk(options.binary, dir / str(nth), server, 2, ARCHIVE, tape=mount.dir / "tape")
        shim = Shim(library, desk.dir / "page", mount.dir)
        # The tape itself is there and safe, so that it is the data that is lost.
        whole = desk.record("--for", "0.05")
        whole.end()
        recorder = desk.record(env=shim.env("nosync"))
        recorder.until(lambda: recorder.frames_of_all(desk.sources) > 0)
        recorder.listen(rng.random() * 0.08)
        recorder.drain()
        mount.cut()
        recorder.kill()
        mount.power_on()
        desk.remember(recorder, None)
        desk.recover()
        lost += not desk.announced or is_lost(desk)
        shutil.rmtree(desk.tape, ignore_errors=True)
    count_in(result, "cuts without syncs", count)
    count_in(result, "of them with loss", lost)
    result.controls[f"{mount.fs}: without syncs at least 99 % of the cuts lose"] = lost >= 0.99 * count


def is_lost(desk: Desk) -> bool:
    try:
        tape = oracle.read(desk.tape)
    except (OSError, ValueError):
        return True
    commits = {name: source.commits for name, source in tape.sources.items()}
    return any(digest not in commits.get(source, {}).get(n, ()) for source, n, digest in desk.announced)
