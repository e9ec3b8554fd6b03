"""Mode `stop`: SIGTERM or SIGINT at a random instant: while the tape is opened, under load, in the middle of a rotation.

It ends within five seconds in good order, and what it was sent and had answered for is there; a second signal ends at once.
"""

import signal
import time
from pathlib import Path

from desk import Desk, Result, dice, now, spread_in_scratch
from provider import Load, Server

# Stops on one tape before it is looked at as a whole.
BATCH = 10
ARCHIVE = {"commit_every": "3ms", "segment_size": "64KiB", "block_size": "16KiB"}
STOPS_WITHIN, ENDS_WITHIN, INTERRUPTED = 5.0, 1.0, 130


def run(options) -> Result:
    return spread_in_scratch(options, work)


def work(result: Result, count: int, nth: int, options, base: Path) -> None:
    rng, server, batch = dice(options.seed, nth, "stop"), Server(Load(burst=10, pause=0.002)), 0
    if nth == 0:
        control(result, options, base / "control", server)
    while result.runs < count:
        desk = Desk(options.binary, base / f"{nth}-{batch}", server, 2, ARCHIVE)
        before = len(result.violations)
        for _ in range(min(BATCH, count - result.runs)):
            result.runs += 1
            one(result, desk, rng)
        if desk.recover().returncode != 0:
            result.violations.append(f"worker {nth}, batch {batch}: the tape cannot be recovered")
        if (desk.tape / "segments").exists():
            tape, _ = desk.judge()
            result.violations += [f"worker {nth}, batch {batch}: {what}" for what in tape.violations]
        if len(result.violations) == before:
            desk.sweep()
        batch += 1


def one(result: Result, desk: Desk, rng) -> None:
    recorder = desk.record()
    if rng.random() < 0.7:
        recorder.until(lambda: recorder.frames_of_all(desk.sources) > 0)
        recorder.listen(rng.random() * 0.2)
    else:
        # From when it listens; before that the system ends it, as every program.
        recorder.listen(0.02 + rng.random() * 0.1)
    recorder.drain()
    recorder.process.send_signal(rng.choice([signal.SIGTERM, signal.SIGINT]))
    is_twice = rng.random() < 0.2
    if is_twice:
        recorder.listen(rng.random() * 0.02)
        recorder.process.send_signal(rng.choice([signal.SIGTERM, signal.SIGINT]))
    begin = time.monotonic()
    code = recorder.end(30)
    took = time.monotonic() - begin
    result.reached += 1
    was_early = not recorder.is_started and code in (-signal.SIGTERM, -signal.SIGINT)
    result.violations += judged(desk, code, took, is_twice, was_early)
    name = "slowest second signal, ms" if code == INTERRUPTED else "slowest stop, ms"
    result.figures[name] = max(result.figures.get(name, 0), round(took * 1000))
    name = "by the second signal" if code == INTERRUPTED else "before it listened" if was_early else "in good order"
    result.figures[name] = result.figures.get(name, 0) + 1
    desk.remember(recorder, now() if code not in (0, 3) else None)


def judged(desk: Desk, code: int | None, took: float, is_twice: bool, was_early: bool) -> list[str]:
    wrong = []
    good = (0, 3, INTERRUPTED) if is_twice else (0, 3)
    if code not in good and not was_early:
        wrong.append(f"it ends with exit code {code}: {(desk.dir / 'stderr').read_text()[-300:]}")
    if took > (ENDS_WITHIN if code == INTERRUPTED else STOPS_WITHIN):
        wrong.append(f"it ends {took:.1f} s after it was told to, with exit code {code}")
    return wrong


def control(result: Result, options, dir: Path, server: Server) -> None:
    """A recorder that hears nothing for longer than it may, and one that is cut down and called stopped, must be found."""
    desk = Desk(options.binary, dir, server, 2, ARCHIVE)
    recorder = desk.record()
    recorder.until(lambda: recorder.frames_of_all(desk.sources) > 0)
    recorder.process.send_signal(signal.SIGSTOP)
    recorder.process.send_signal(signal.SIGTERM)
    begin = time.monotonic()
    code = recorder.end(STOPS_WITHIN + 0.5)
    found = judged(desk, code, time.monotonic() - begin, False, False)
    result.controls["a stop that takes too long"] = any("after it was told to" in what for what in found)
    result.controls["a recorder that does not end in good order"] = any("ends with exit code" in what for what in found)
    # Called a stop, it owes everything that was announced, and the ledger nothing: one more announcement is one too many.
    desk.remember(recorder, None)
    source, n, _ = desk.announced[-1]
    desk.announced.append((source, n + 1_000_000, "0123456789abcdef"))
    desk.recover()
    tape, _ = desk.judge()
    result.controls["an announcement that is not on the tape"] = any("was announced with hash" in what for what in tape.violations)
    desk.sweep()
