"""Mode `slowdisk`: every sync takes five seconds, or the file system is frozen for twenty.

Reading and answering pings must not wait for the disk: p99 of the pong is at most a second, also with a queue so small that
envelopes must be dropped, which must be in the ledger, counted to the envelope. A stop takes at most five seconds, whatever
the disk does; a second signal ends at once.
"""

import subprocess
import threading
import time
from pathlib import Path

from desk import Desk, Result, now, scratch, spread, sweep
from mounts import Mount
from provider import Load, Server
from shim import Shim, build

ARCHIVE = {"commit_every": "10ms"}
SMALL = {"queue": "256KiB", "max_message": "64KiB"}
SYNC_S, FREEZE_S = 5, 20
PONG_AT_MOST = 1.0
STOPS_WITHIN = 5.0
# After the second signal.
ENDS_WITHIN = 1.0
INTERRUPTED = 130


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
        kind %= 5
        limits = SMALL if kind in (2, 3) else {}
        if kind in (0, 2, 4):
            desk = Desk(options.binary, dir, server, 1, ARCHIVE, limits=limits)
            shim = Shim(library, desk.dir / "page", desk.tape.parent)
            recorder = desk.record(env=shim.env("slow", usec=SYNC_S * 1_000_000))
            recorder.until(lambda: recorder.frames_of_all(desk.sources) > 0, 120)
            recorder.listen(25)
            is_reached = shim.syncs > 3
            judge(result, desk, server, recorder, "slow syncs", limits, is_reached, is_twice=kind == 4)
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


def stop(recorder, is_twice: bool) -> tuple[int | None, float]:
    """The exit code, and how long it took after the last signal."""
    recorder.process.terminate()
    if is_twice:
        recorder.listen(0.3)
        recorder.drain()
        recorder.process.terminate()
    begin = time.monotonic()
    return recorder.end(60), time.monotonic() - begin


def judge(
    result: Result, desk: Desk, server: Server, recorder, what: str, limits: dict, is_reached: bool, is_twice: bool = False
) -> None:
    what = f"{what}, small queue" if limits else what
    pongs = sorted(delay for conn in server.conns.values() for delay in conn.pongs)
    code, took = stop(recorder, is_twice)
    if code not in ((INTERRUPTED,) if is_twice else (0, 3)):
        result.violations.append(f"{what}: the recorder ends with exit code {code}")
    if took > (ENDS_WITHIN if is_twice else STOPS_WITHIN):
        result.violations.append(f"{what}: it ends {took:.1f} s after it was told to" + " for the second time" * is_twice)
    name = f"slowest {'second signal' if is_twice else 'stop'}, ms"
    result.figures[name] = max(result.figures.get(name, 0), round(took * 1000))
    left = recorder.done["left"] if recorder.done else "cut"
    result.figures[f"left {left}"] = result.figures.get(f"left {left}", 0) + 1
    desk.remember(recorder, now() if left == "cut" else None)
    if desk.recover().returncode != 0:
        result.violations.append(f"{what}: the tape cannot be recovered")
    tape, truth = desk.judge(may_skip=True)
    result.violations += [f"{what}: {words}" for words in tape.violations]
    # What was dropped last has nothing behind it.
    if not truth.skipped <= truth.dropped <= truth.skipped + truth.behind():
        result.violations.append(f"{what}: {truth.skipped} envelopes are missing, {truth.dropped} are counted as dropped")
    p99 = pongs[len(pongs) * 99 // 100] if pongs else None
    if p99 is None or p99 > PONG_AT_MOST:
        result.violations.append(f"{what}: a ping is answered within {p99} s (p99 of {len(pongs)})")
    result.figures[f"p99 pong, ms, {what}"] = round((p99 or 0) * 1000)
    result.figures[f"dropped and counted, {what}"] = result.figures.get(f"dropped and counted, {what}", 0) + truth.dropped
    if limits:
        result.controls[f"drops happened, {what}"] = truth.dropped > 0
    result.reached += is_reached
