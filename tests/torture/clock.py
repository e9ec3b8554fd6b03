"""Mode `clock`: the wall clock steps while recording, by a second to ten years and either way; the monotonic clock runs on.

By libfaketime. Order by number and on each connection must hold, no interval may be negative or overlap another.
"""

import shutil
from pathlib import Path

from desk import Desk, Result, Skip, dice, spread_in_scratch
from mounts import install
from provider import Load, Server

LIBRARY = "/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1"
STEPS = ["+1s", "-1s", "+61s", "-61s", "+1h", "-1h", "+1d", "-1d", "+10d", "-10d", "+1y", "-1y", "+10y", "-10y"]


def run(options) -> Result:
    if shutil.which("faketime") is None:
        install("faketime")
    if not Path(LIBRARY).exists():
        raise Skip("libfaketime is not installed, and apt-get cannot install it")
    return spread_in_scratch(options, work)


def work(result: Result, count: int, nth: int, options, base: Path) -> None:
    rng, server = dice(options.seed, nth, "clock"), Server(Load(burst=3, pause=0.005))
    for run in range(count):
        result.runs += 1
        desk = Desk(options.binary, base / f"{nth}-{run}", server, 2, {"commit_every": "3ms"})
        file = desk.dir / "time"
        env = {"LD_PRELOAD": LIBRARY, "FAKETIME_TIMESTAMP_FILE": str(file), "FAKETIME_NO_CACHE": "1", "DONT_FAKE_MONOTONIC": "1"}
        file.write_text("+0\n")
        steps = [rng.choice(STEPS) for _ in range(3)]
        # Two lives, so that a start meets a clock that was put back meanwhile.
        for step in (steps[:2], steps[2:]):
            recorder = desk.record(env=env)
            is_recording = recorder.until(lambda: recorder.frames_of_all(desk.sources) > 3)
            for by in step:
                before = dict(recorder.frames)
                file.write_text(by + "\n")
                recorder.listen(0.1 + rng.random() * 0.2)
                is_recording = is_recording and recorder.until(lambda: all(recorder.frames[s] > before[s] for s in before))
            if not is_recording:
                result.violations.append(f"{steps}: it does not record on: {(desk.dir / 'stderr').read_text()[-300:]}")
            code = recorder.stop()
            if code not in (0, 3):
                result.violations.append(f"{steps}: the recorder ends with exit code {code}: {(desk.dir / 'stderr').read_text()[-300:]}")
            desk.remember(recorder, None)
        tape, truth = desk.judge()
        years = {fact[1][:7] for source in tape.sources.values() for fact in source.facts}
        result.figures["runs with stamps of several months"] = result.figures.get("runs with stamps of several months", 0) + (len(years) > 1)
        result.reached += 1
        if tape.violations:
            result.violations += [f"{steps}, {desk.dir}: {what}" for what in tape.violations]
        else:
            desk.sweep()
    result.controls["the clock did step"] = count == 0 or result.figures["runs with stamps of several months"] > 0
