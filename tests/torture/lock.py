"""Mode `lock`: many recorders at once on one tape. Exactly one writes; the others name it and are gone within a second.

Each run does it twice: on a tape that nobody holds, and at the moment when the one that holds it is killed. What a busy
machine takes to start as many processes that do nothing is measured at the same time, and added to the second.
"""

import select
import subprocess
import time
from pathlib import Path

from desk import PATIENCE, Desk, Recorder, Result, now, scratch, spread, sweep
from provider import Load, Server
from shim import Shim, build

# Runs on one tape before it is looked at as a whole.
BATCH = 20
# A loser has so long.
AT_MOST = 1.0


def run(options) -> Result:
    dir = scratch(options.dir)
    result = Result()
    try:
        # One job: the processes of one run are the load.
        result = spread(options.count, 1, work, options, dir, build(dir))
    finally:
        sweep(dir, result)
    return result


def work(result: Result, count: int, nth: int, options, base: Path, library: Path) -> None:
    server = Server(Load(burst=5, pause=0.01))
    batch = 0
    result.figures["slowest loser, ms"] = 0
    while result.runs < count:
        desk = Desk(options.binary, base / str(batch), server, 1, {"commit_every": "3ms"})
        before = len(result.violations)
        for _ in range(min(BATCH, count - result.runs)):
            result.runs += 1
            first = race(result, desk, options.procs)
            if first is None:
                continue
            first.drain()
            at = now()
            first.kill()
            desk.remember(first, at)
            second = race(result, desk, options.procs)
            if second is None:
                continue
            result.reached += 1
            # The gap that the killed one left is open.
            if (code := second.stop()) != 3:
                result.violations.append(f"the winner ends with exit code {code}")
            desk.remember(second, None)
        tape, _ = desk.judge()
        result.violations += [f"batch {batch}: {what}" for what in tape.violations]
        if len(result.violations) == before:
            desk.sweep()
        batch += 1
    desk = Desk(options.binary, base / "control", server, 1, {"commit_every": "3ms"})
    desk.record("--for", "0.05").end()
    shim, trial = Shim(library, desk.dir / "page", desk.tape), Result(figures={"slowest loser, ms": 0})
    winner = race(trial, desk, options.procs, shim.env("nolock"))
    if winner is not None:
        winner.kill()
    result.controls["a lock that everybody gets"] = any("hold the tape" in what for what in trial.violations)


def idle_start(desk: Desk, procs: int) -> float:
    """How long as many processes take that only say their version."""
    begin = time.monotonic()
    idle = [subprocess.Popen([desk.binary, "--version"], stdout=subprocess.DEVNULL) for _ in range(procs)]
    [process.wait() for process in idle]
    return time.monotonic() - begin


def race(result: Result, desk: Desk, procs: int, env: dict | None = None) -> Recorder | None:
    """Starts them all, and gives the one that holds the tape when the others are gone."""
    stderr = (desk.dir / "stderr").stat().st_size if (desk.dir / "stderr").exists() else 0
    racing = []
    for _ in range(procs):
        recorder = desk.record(env=env)
        recorder.begin = time.monotonic()
        racing.append(recorder)
    ended, end, slowest = [], time.monotonic() + PATIENCE, 0.0
    poll = select.poll()
    by_pipe = {recorder.pipe: recorder for recorder in racing}
    [poll.register(pipe) for pipe in by_pipe]
    while len(ended) + sum(r.is_started for r in racing) < procs and time.monotonic() < end:
        for pipe, _ in poll.poll(100):
            recorder = by_pipe[pipe]
            recorder.read(0)
            if recorder.is_ended:
                poll.unregister(pipe)
                slowest = max(slowest, time.monotonic() - recorder.begin)
                if (code := recorder.end()) != 1:
                    result.violations.append(f"a loser ends with exit code {code}")
                ended.append(recorder)
    result.figures["slowest loser, ms"] = max(result.figures["slowest loser, ms"], round(slowest * 1000))
    if slowest > AT_MOST and slowest > AT_MOST + (busy := idle_start(desk, procs)):
        result.violations.append(f"a loser was gone only after {slowest:.2f} s; processes that do nothing take {busy:.2f} s")
    winners = [r for r in racing if r not in ended and r.is_started]
    for recorder in racing:
        if recorder not in ended and recorder not in winners[:1]:
            recorder.kill()
    if len(winners) != 1:
        result.violations.append(f"{len(winners)} of {procs} recorders hold the tape")
        [winner.kill() for winner in winners[:1]]
        return None
    with (desk.dir / "stderr").open("rb") as file:
        file.seek(stderr)
        said = file.read().decode(errors="replace")
    named = said.count(f"process {winners[0].process.pid}")
    if len(ended) > named:
        result.violations.append(f"{len(ended) - named} of {len(ended)} losers do not name the holder: {said[:300]}")
    return winners[0]
