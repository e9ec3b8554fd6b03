"""Mode `kill`: SIGKILL of a recorder under load at a random instant; every fourth one hits the recovery."""

import time
from pathlib import Path

from desk import Desk, Result, Truth, dice, now, spread_in_scratch
from provider import Load, Server
from tape import SEALED
import oracle

# Kills on one tape before it is looked at as a whole.
BATCH = 25
ARCHIVE = {"commit_every": "3ms", "segment_size": "256KiB", "block_size": "32KiB"}


def run(options) -> Result:
    return spread_in_scratch(options, work)


def work(result: Result, count: int, nth: int, options, base: Path) -> None:
    rng, server = dice(options.seed, nth, "kill"), Server(Load(burst=10, pause=0.002))
    batch, opening = 0, 0.02
    while result.runs < count:
        desk = Desk(options.binary, base / f"{nth}-{batch}", server, 2, ARCHIVE)
        before = len(result.violations)
        for _ in range(min(BATCH, count - result.runs)):
            result.runs += 1
            if rng.random() < 0.25 and desk.announced:
                recorder = desk.record()
                recorder.listen(rng.random() * opening)
                recorder.drain()
                is_hit = recorder.kill() and not recorder.is_started
                result.reached += is_hit
                result.figures["recoveries killed"] = result.figures.get("recoveries killed", 0) + is_hit
                # Whoever was opened already: its end is known as well.
                desk.remember(recorder, now())
                if is_hit:
                    continue
                result.runs -= 1
                opening *= 0.9
                continue
            begin = time.monotonic()
            recorder = desk.record()
            recorder.until(lambda: recorder.is_started)
            opening = 0.9 * opening + 0.1 * (time.monotonic() - begin)
            if not recorder.until(lambda: recorder.frames_of_all(desk.sources) > 0):
                result.violations.append(f"batch {batch}: no envelope was announced: {(desk.dir / 'stderr').read_text()[-500:]}")
                recorder.kill()
                continue
            recorder.listen(rng.random() * 0.06)
            recorder.drain()
            result.reached += recorder.kill()
            desk.remember(recorder, now())
            result.violations += [f"batch {batch}: {what}" for what in desk.stock_zstd(recorder)[0]]
        mended = desk.recover()
        if mended.returncode != 0:
            result.violations.append(f"batch {batch}: recover ends with {mended.returncode}: {mended.stderr.decode()[-500:]}")
        tape, truth = desk.judge()
        result.violations += [f"worker {nth}, batch {batch}: {what}" for what in tape.violations]
        for name, figure in (("announcements", len(desk.announced)), ("envelopes", truth.envelopes), ("deaths", len(desk.deaths))):
            result.figures[name] = result.figures.get(name, 0) + figure
        result.figures["segments"] = result.figures.get("segments", 0) + sum(s.segments for s in tape.sources.values())
        if batch == 0 and nth == 0:
            controls(result, desk)
        if len(result.violations) == before:
            desk.sweep()
        batch += 1


def controls(result: Result, desk: Desk) -> None:
    """Plants what must be found, one after the other, in a tape that was judged."""

    def finds(words: str) -> bool:
        tape, _ = desk.judge()
        return any(words in what for what in tape.violations)

    source, n, digest = desk.announced[-1]
    desk.announced.append((source, n + 1_000_000, digest))
    result.controls["an announcement that is not on the tape"] = finds("was announced with hash")
    desk.announced.pop()
    desk.announced.append((source, n, "0123456789abcdef"))
    result.controls["an announced hash that is another"] = finds("was announced with hash")
    desk.announced.pop()

    first = min(truth_of(desk).evidence[source])
    desk.deaths.append((source, first + 1))
    result.controls["a death that the ledger does not tell of"] = finds("tells of the death")
    desk.deaths.pop()

    tag = next(tag for tag, conn in desk.server.conns.items() if conn.source == source and conn.sent > 50)
    sent, desk.server.conns[tag].sent = desk.server.conns[tag].sent, 0
    result.controls["an envelope that was never sent"] = finds("were never sent to it")
    desk.server.conns[tag].sent = sent

    sealed = sorted((desk.tape / "segments").glob(f"*/*/*{SEALED}"))
    path = max(sealed, key=lambda path: path.stat().st_size)
    content = path.read_bytes()
    flipped = bytearray(content)
    flipped[len(flipped) // 3] ^= 0x10
    path.write_bytes(flipped)
    result.controls["a flipped bit"] = finds("")
    path.write_bytes(content)
    middle = sealed[len(sealed) // 4]
    content = middle.read_bytes()
    middle.unlink()
    result.controls["a segment that is gone"] = finds("are missing, and no note calls them lost")
    middle.write_bytes(content)


def truth_of(desk: Desk) -> Truth:
    """What a plain reading gives, without a verdict."""
    truth = Truth(desk)
    oracle.read(desk.tape, truth.visit)
    return truth
