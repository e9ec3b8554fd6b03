"""Mode `halfopen`: the peer falls silent, and its connection stays: no farewell, no answer to a ping.

The recorder must notice within ping interval + deadline + 1 s, and coverage must end at the last byte, not when it noticed.
"""

import time
from pathlib import Path

from desk import Desk, Result, dice, now, spread_in_scratch
from provider import Load, Server

PING, PONG = 1.0, 1.0
SETTINGS = {"ping_every": f"{PING:.0f}s", "pong_within": f"{PONG:.0f}s"}


def run(options) -> Result:
    return spread_in_scratch(options, work)


def work(result: Result, count: int, nth: int, options, base: Path) -> None:
    rng, server = dice(options.seed, nth, "halfopen"), Server(Load(burst=3, pause=0.01))
    desk = Desk(options.binary, base / str(nth), server, 2, {"commit_every": "3ms"}, settings=SETTINGS)
    recorder = desk.record()
    slowest = 0.0
    for _ in range(count):
        result.runs += 1
        before = dict(recorder.frames)
        more = lambda: all(recorder.frames.get(source, 0) > before.get(source, 0) + 5 for source in desk.sources)
        if not recorder.until(more):
            result.violations.append(f"it does not record on: {(desk.dir / 'stderr').read_text()[-300:]}")
            return
        recorder.listen(rng.random() * 1.5)
        gone = lambda: {event["source"] for event in recorder.events if event["event"] == "disconnected"}
        recorder.events.clear()
        server.is_mute.set()
        begin = time.monotonic()
        # What is on its way may still come.
        if not recorder.until(lambda: gone() == set(desk.sources)):
            result.violations.append(f"the silence is noticed by {sorted(gone())} only")
        took = time.monotonic() - begin
        slowest = max(slowest, took)
        if took > PING + PONG + 1:
            result.violations.append(f"the silence is noticed only after {took:.2f} s")
        desk.deaths += [(source, now()) for source in desk.sources]
        server.is_mute.clear()
        result.reached += 1
    result.figures["slowest to notice, ms"] = round(slowest * 1000)
    if recorder.stop() not in (0, 3):
        result.violations.append("the recorder does not end in good order")
    desk.remember(recorder, None)
    tape, truth = desk.judge()
    result.violations += tape.violations
    if nth == 0:
        first = min(truth.evidence[desk.sources[0]])
        desk.deaths.append((desk.sources[0], first + 1))
        tape, _ = desk.judge()
        result.controls["a silence that the ledger does not tell of"] = any("tells of the death" in what for what in tape.violations)
