"""Mode `slowdisk`: every sync takes five seconds, or the file system is frozen for twenty.

Reading and answering pings must not wait for the disk: p99 of the pong is at most a second as long as the queue has room.
With a small queue the recorder stops reading for ten seconds before it drops, and what it drops must be in the ledger,
counted to the envelope.
"""

import subprocess
import threading
import time
from pathlib import Path

from desk import Desk, Result, scratch, spread, sweep
from mounts import Mount
from provider import Load, Server
from shim import Shim, build

ARCHIVE = {"commit_every": "10ms"}
SMALL = {"queue": "256KiB", "max_message": "64KiB"}
SYNC_S, FREEZE_S = 5, 20
PONG_AT_MOST = 1.0
STOPS_READING_S = 10.0


def run(options) -> Result:
    dir, result = scratch(options.dir), Result()
    try:
        result = spread(options.count, options.jobs, work, options, dir, build(dir))
    finally:
        sweep(dir, result)
    return result


def work(result: Result, count: int, nth: int, options, base: Path, library: Path) -> None:
    for run in range(count):
        result.runs += 1
        server = Server(Load(burst=5, pause=0.004, ping=0.05))
        dir, kind = base / f"{nth}-{run}", nth + run * options.jobs
        limits = SMALL if kind % 4 >= 2 else {}
        if kind % 2 == 0:
            desk = Desk(options.binary, dir, server, 1, ARCHIVE, limits=limits)
            shim = Shim(library, desk.dir / "page", desk.tape.parent)
            recorder = desk.record(env=shim.env("slow", usec=SYNC_S * 1_000_000))
            recorder.until(lambda: recorder.frames_of_all(desk.sources) > 0, 120)
            recorder.listen(25)
            is_reached = shim.syncs > 3
            judge(result, desk, server, recorder, "slow syncs", limits, is_reached)
        else:
            with Mount("ext4", dir / "mount") as mount:
                desk = Desk(options.binary, dir, server, 1, ARCHIVE, tape=mount.dir / "tape", limits=limits)
                recorder = desk.record()
                recorder.until(lambda: recorder.frames_of_all(desk.sources) > 0)
                frozen = freeze(mount.dir)
                recorder.listen(FREEZE_S + 5)
                frozen.join()
                judge(result, desk, server, recorder, "a frozen file system", limits, True)


def freeze(dir: Path) -> threading.Thread:
    """Whatever happens to us, somebody else thaws it."""
    subprocess.run(["fsfreeze", "--freeze", str(dir)], check=True)
    thaw = subprocess.Popen(["sh", "-c", f"sleep {FREEZE_S}; fsfreeze --unfreeze '{dir}'"])
    waiting = threading.Thread(target=thaw.wait)
    waiting.start()
    return waiting


def judge(result: Result, desk: Desk, server: Server, recorder, what: str, limits: dict, is_reached: bool) -> None:
    what = f"{what}, small queue" if limits else what
    pongs = sorted(delay for conn in server.conns.values() for delay in conn.pongs)
    # Each of a dozen syncs takes its time.
    code = recorder.stop(180)
    if code not in (0, 3):
        result.violations.append(f"{what}: the recorder ends with exit code {code}")
    desk.remember(recorder, None)
    tape, truth = desk.judge(may_skip=True)
    result.violations += [f"{what}: {words}" for words in tape.violations]
    # What was dropped last has nothing behind it.
    if not truth.skipped <= truth.dropped <= truth.skipped + truth.behind():
        result.violations.append(f"{what}: {truth.skipped} envelopes are missing, {truth.dropped} are counted as dropped")
    p99 = pongs[len(pongs) * 99 // 100] if pongs else None
    if p99 is None or p99 > PONG_AT_MOST + (STOPS_READING_S if limits else 0):
        result.violations.append(f"{what}: a ping is answered within {p99} s (p99 of {len(pongs)})")
    result.figures[f"p99 pong, ms, {what}"] = round((p99 or 0) * 1000)
    result.figures[f"dropped and counted, {what}"] = result.figures.get(f"dropped and counted, {what}", 0) + truth.dropped
    if limits:
        result.controls[f"drops happened, {what}"] = truth.dropped > 0
    result.reached += is_reached
