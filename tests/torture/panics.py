"""Mode `panic`: each part of the recorder panics once. None of them may leave a recorder behind that looks alive.

What was announced is there, the next start goes on. An envelope that makes the parser panic is no reason to end: it is kept,
as one that nobody can read, also by whoever reads the tape again.
"""

import time
from pathlib import Path

from desk import Desk, Result, now, spread_in_scratch
from provider import Load, Server

ARCHIVE = {"commit_every": "3ms", "segment_size": "64KiB", "block_size": "16KiB"}
# Each with what has to be said, and the exit code.
PARTS = {
    "writer": ("the writer failed: writer was asked to panic", 1),
    "sealer": ("the part that seals segments failed", 1),
    "connection": ("a connection failed: connection was asked to panic", 1),
    "control": ("the control socket failed: control was asked to panic", 1),
    "scrubber": ("the job beside the recorder failed: scrubber was asked to panic", 1),
    "filler": ("the job beside the recorder failed: filler was asked to panic", 1),
    "teller": ("the part that tells what happens failed", 1),
    "signals": ("signals was asked to panic", None),
}
ENDS_WITHIN = 8.0
# In one of 32 messages of the server.
POISON = "1.50e+3"


def run(options) -> Result:
    options.count = max(options.count, len(PARTS) + 1)
    return spread_in_scratch(options, work)


def work(result: Result, count: int, nth: int, options, base: Path) -> None:
    names = [*PARTS, "parser"]
    if nth == 0:
        controls(result, options, base)
    for run in range(count):
        result.runs += 1
        name = names[(nth + run * options.jobs) % len(names)]
        desk = Desk(options.binary, base / f"{nth}-{run}", Server(Load(burst=10, pause=0.002)), 2, ARCHIVE)
        before = len(result.violations)
        (poisoned if name == "parser" else panicked)(result, desk, name)
        if len(result.violations) == before:
            desk.sweep()


def panicked(result: Result, desk: Desk, name: str, planted: str | None = None) -> None:
    said, good = PARTS[name]
    recorder = desk.record(env={"BIRDTAPE_PANIC": planted or name}, fills=name == "filler")
    begin = time.monotonic()
    code = recorder.end(30 if planted is None else ENDS_WITHIN)
    took = time.monotonic() - begin
    words = (desk.dir / "stderr").read_text()
    result.reached += "was asked to panic" in words
    if said not in words:
        result.violations.append(f"{name}: it does not say `{said}`: {words[-500:]}")
    if code is None or took > ENDS_WITHIN or (code != good if good is not None else code not in (0, 3)):
        result.violations.append(f"{name}: it ends with exit code {code} after {took:.1f} s")
    desk.remember(recorder, now())
    again = desk.record()
    if not again.until(lambda: again.frames_of_all(desk.sources) > 0):
        result.violations.append(f"{name}: the next start does not record: {(desk.dir / 'stderr').read_text()[-300:]}")
    again.stop()
    desk.remember(again, None)
    tape, _ = desk.judge()
    result.violations += [f"{name}: {what}" for what in tape.violations]


def controls(result: Result, options, base: Path) -> None:
    """A recorder of which no part panics looks as one that goes on alive does; what is no poison harms nobody."""
    for name, planted in (("writer", "parser:in none of its messages"), ("parser", None)):
        desk, found = Desk(options.binary, base / f"control-{name}", Server(Load(burst=10, pause=0.002)), 2, ARCHIVE), Result()
        if name == "parser":
            poisoned(found, desk, name, poison="in none of its messages")
            result.controls["a parser that never panicked"] = found.reached == 0
        else:
            panicked(found, desk, name, planted)
            ends = any("it ends with exit code" in what for what in found.violations)
            result.controls["a recorder that looks alive after its writer failed"] = ends and found.reached == 0
        desk.sweep()


def poisoned(result: Result, desk: Desk, name: str, poison: str = POISON) -> None:
    desk.env["BIRDTAPE_PANIC"] = f"parser:{poison}"
    # Killed, and read again by the next start: what is poison for the one is poison for the other.
    for is_last in (False, False, True):
        recorder = desk.record()
        before = (desk.dir / "stderr").read_text().count("was asked to panic")
        enough = lambda: recorder.frames_of_all(desk.sources) > 200
        if not recorder.until(enough):
            result.violations.append(f"{name}: it does not record on: {(desk.dir / 'stderr').read_text()[-300:]}")
        is_hit = (desk.dir / "stderr").read_text().count("was asked to panic") > before
        if is_last:
            code = recorder.stop()
            if code not in (0, 3):
                result.violations.append(f"{name}: it ends with exit code {code}")
            unknown = sum(source["unknown"] for source in recorder.done["sources"]) if recorder.done else 0
            if unknown == 0:
                result.violations.append(f"{name}: what nobody could read is not counted")
            result.reached += is_hit
        else:
            recorder.kill()
        desk.remember(recorder, None if is_last else now())
    done = desk.run("rebuild")
    if done.returncode != 0:
        result.violations.append(f"{name}: rebuild ends with exit code {done.returncode}")
    tape, truth = desk.judge()
    result.violations += [f"{name}: {what}" for what in tape.violations]
    result.figures["envelopes kept"] = result.figures.get("envelopes kept", 0) + truth.envelopes
