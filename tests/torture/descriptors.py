"""Mode `files`: too many files are open.

Under a recorder the limit falls below what it holds, and rises again: it says so once, does not end, records on within ten
seconds, and what it had announced is there. A replay with few files is flooded with connections: it turns away what it has no
files for, and whom it serves gets everything.
"""

import json
import re
import resource
import socket
import subprocess
import time
from pathlib import Path

from desk import Desk, Result, dice, now, spread_in_scratch
from provider import Load, Server
from slowreader import connect

ARCHIVE = {"commit_every": "3ms", "segment_size": "32KiB", "block_size": "8KiB"}
RESUMES_WITHIN = 10.0
FLOOD = 100


def run(options) -> Result:
    return spread_in_scratch(options, work)


def work(result: Result, count: int, nth: int, options, base: Path) -> None:
    rng, server = dice(options.seed, nth, "files"), Server(Load(burst=10, pause=0.002))
    if nth == 0:
        controls(result, options, base, server, dice(options.seed, nth, "files, planted"))
    for run in range(count):
        result.runs += 1
        desk = Desk(options.binary, base / f"{nth}-{run}", server, 2, ARCHIVE)
        before = len(result.violations)
        if (nth + run * options.jobs) % 4 == 3:
            flooded(result, desk, rng)
        else:
            starved(result, desk, rng)
        if len(result.violations) == before:
            desk.sweep()


def controls(result: Result, options, base: Path, server: Server, rng) -> None:
    """A recorder that gets its files back too late, and a replay that has files for everybody, must be found."""
    desk, found = Desk(options.binary, base / "control", server, 2, ARCHIVE), Result()
    starved(found, desk, rng, gives_back=False)
    result.controls["a recorder that does not go on"] = any("does not record on" in what for what in found.violations)
    desk.sweep()
    desk, found = Desk(options.binary, base / "control", server, 2, ARCHIVE), Result()
    flooded(found, desk, rng, files=FLOOD * 4)
    result.controls["a replay that turns nobody away"] = found.reached == 0
    desk.sweep()


def limit(pid: int, files: int) -> None:
    _, hard = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (files, hard))


def starved(result: Result, desk: Desk, rng, gives_back: bool = True) -> None:
    """The recorder has no file to rotate into."""
    recorder = desk.record()
    recorder.until(lambda: recorder.frames_of_all(desk.sources) > 0)
    pid = recorder.process.pid
    soft, _ = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    files = rng.choice([0, 8, 12, 16, 20, 24]) if gives_back else 0
    limit(pid, files)
    said = lambda: (desk.dir / "stderr").read_text()
    # With some files it may get along.
    recorder.until(lambda: "too many files are open" in said(), 3)
    recorder.listen(rng.choice([0.0, 0.5, 2.0]))
    recorder.drain()
    is_hit = "too many files are open" in said()
    result.reached += is_hit or files >= 12
    result.figures["had none"] = result.figures.get("had none", 0) + is_hit
    if not recorder.is_ended:
        counts = dict(recorder.frames)
        if gives_back:
            limit(pid, soft)
        begin = time.monotonic()
        more = lambda: all(recorder.frames.get(source, 0) > counts.get(source, 0) for source in desk.sources)
        if not recorder.until(more, 2 * RESUMES_WITHIN if gives_back else 1.0):
            result.violations.append(f"{files} files: it does not record on: {said()[-500:]}")
        took = time.monotonic() - begin
        result.figures["slowest to resume, ms"] = max(result.figures.get("slowest to resume, ms", 0), round(took * 1000))
        if took > RESUMES_WITHIN:
            result.violations.append(f"{files} files: it records on only after {took:.1f} s")
    if not gives_back and not recorder.is_ended:
        limit(pid, soft)
    code = recorder.end() if recorder.is_ended else recorder.stop()
    if code not in (0, 3):
        result.violations.append(f"{files} files: it ends with exit code {code}: {said()[-500:]}")
    desk.remember(recorder, now() if code is None or recorder.done is None else None)
    desk.recover()
    tape, _ = desk.judge(may_skip=True)
    result.violations += [f"{files} files: {what}" for what in tape.violations]


def flooded(result: Result, desk: Desk, rng, files: int | None = None) -> None:
    """Connections that say nothing take every file a replay can get; one that was there first gets its envelopes."""
    recorder = desk.record()
    recorder.until(lambda: recorder.frames_of_all(desk.sources) > 300)
    recorder.stop()
    files = files or rng.choice([32, 48, 64])
    command = ["prlimit", f"--nofile={files}:{files}", str(desk.binary), "--json", "replay", str(desk.tape), "--speed", "1"]
    with (desk.dir / "stderr").open("ab") as said:
        replay = subprocess.Popen([*command, "--repeat", "--listen", "127.0.0.1:0"], stdout=subprocess.PIPE, stderr=said, env=desk.env)
    sockets = []
    try:
        line = replay.stdout.readline()
        port = int(re.search(rb"127\.0\.0\.1:(\d+)", line)[1])
        first, _ = connect(port, None)
        for _ in range(FLOOD):
            idle = socket.create_connection(("127.0.0.1", port), timeout=5)
            sockets.append(idle)
        got = sum(len(first.recv(1 << 16)) for _ in range(50))
        turned = 0
        for idle in sockets:
            idle.settimeout(0.05)
            try:
                idle.recv(100)
                turned += 1
            except TimeoutError:
                # It has a place, and says nothing.
                pass
            except OSError:
                turned += 1
        if got == 0 or turned < FLOOD - files:
            result.violations.append(f"{files} files: a reader that was there got {got} bytes, {turned} others were turned away")
        for idle in sockets:
            idle.close()
        first.close()
        # When they have gone there is room again.
        end = time.monotonic() + RESUMES_WITHIN
        while True:
            try:
                connect(port, None)[0].close()
                break
            except (OSError, AssertionError) as why:
                if time.monotonic() > end:
                    result.violations.append(f"{files} files: nobody is served afterwards: {why}")
                    break
                time.sleep(0.1)
        if replay.poll() is not None:
            result.violations.append(f"{files} files: the replay ended with exit code {replay.returncode}")
        result.reached += turned > 0
        result.figures["turned away"] = result.figures.get("turned away", 0) + turned
    finally:
        replay.terminate()
        replay.wait(30)
        replay.stdout.close()

