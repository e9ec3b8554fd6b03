"""Mode `slowdisk`: every sync takes five seconds, or the file system is frozen for twenty.

Reading and answering pings must not wait for the disk (p99 of the pong at most a second), and whatever did not fit into
the queue meanwhile must be in the ledger, counted to the envelope.
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
LIMITS = {"queue": "256KiB", "max_message": "64KiB"}
SYNC_S, FREEZE_S = 5, 20
PONG_AT_MOST = 1.0


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
        dir = base / f"{nth}-{run}"
        if (nth + run) % 2 == 0:
            desk = Desk(options.binary, dir, server, 1, ARCHIVE, limits=LIMITS)
            shim = Shim(library, desk.dir / "page", desk.tape.parent)
            recorder = desk.record(env=shim.env("slow", usec=SYNC_S * 1_000_000))
            recorder.until(lambda: recorder.frames_of_all(desk.sources) > 0, 120)
            recorder.listen(25)
            is_reached = shim.syncs > 3
            judge(result, desk, server, recorder, "slow syncs", is_reached)
        else:
            with Mount("ext4", dir / "mount") as mount:
                desk = Desk(options.binary, dir, server, 1, ARCHIVE, tape=mount.dir / "tape", limits=LIMITS)
                recorder = desk.record()
                recorder.until(lambda: recorder.frames_of_all(desk.sources) > 0)
                frozen = freeze(mount.dir)
                recorder.listen(FREEZE_S + 5)
                frozen.join()
                judge(result, desk, server, recorder, "a frozen file system", True)


def freeze(dir: Path) -> threading.Thread:
    """Whatever happens to us, somebody else thaws it."""
    subprocess.run(["fsfreeze", "--freeze", str(dir)], check=True)
    thaw = subprocess.Popen(["sh", "-c", f"sleep {FREEZE_S}; fsfreeze --unfreeze '{dir}'"])
    waiting = threading.Thread(target=thaw.wait)
    waiting.start()
    return waiting


def judge(result: Result, desk: Desk, server: Server, recorder, what: str, is_reached: bool) -> None:
    pongs = sorted(delay for conn in server.conns.values() for delay in conn.pongs)
    code = recorder.stop(60)
    if code not in (0, 3):
        result.violations.append(f"{what}: the recorder ends with exit code {code}")
    desk.remember(recorder, None)
    tape, truth = desk.judge(may_skip=True)
    result.violations += [f"{what}: {words}" for words in tape.violations]
    if truth.skipped != truth.dropped:
        result.violations.append(f"{what}: {truth.skipped} envelopes are missing, {truth.dropped} are counted as dropped")
    p99 = pongs[len(pongs) * 99 // 100] if pongs else None
    if p99 is None or p99 > PONG_AT_MOST:
        result.violations.append(f"{what}: a ping is answered within {p99} s (p99 of {len(pongs)})")
    result.figures[f"p99 pong, ms, {what}"] = round((p99 or 0) * 1000)
    result.figures[f"dropped and counted, {what}"] = result.figures.get(f"dropped and counted, {what}", 0) + truth.dropped
    result.controls[f"drops happened, {what}"] = truth.dropped > 0
    result.reached += is_reached
