"""Mode `enospc`: the disk runs full under a recorder, and has room again after a while. Nobody helps.

A small file system (ext4 in an image, and tmpfs) is filled by a file beside the tape, up to a point that moves through the
recorder's work, and that file is taken away again. The recorder must still be there, say so once, and record on within
ten seconds; what it had announced must be on the tape, and the time between in the ledger. One that is started on a full disk
waits for room in the same way.

Mode `readonly`: the file system may not be written, or not by this user, or a file stands where the tape should be. The
recorder says so and ends with exit code 1, and whatever was there is as it was.
"""

import ctypes
import errno
import os
import shutil
import subprocess
import time
from pathlib import Path

from desk import PATIENCE, Desk, Recorder, Result, Skip, dice, now, spread_in_scratch
from mounts import LIBC, Mount
from provider import Load, Server

ARCHIVE = {"commit_every": "3ms", "segment_size": "256KiB", "block_size": "32KiB"}
SIZE = 24 << 20
# Full disks on one tape before it is looked at as a whole.
BATCH = 5
RESUMES_WITHIN = 10.0


class Tmpfs:
    """As `Mount`, in memory."""

    fs = "tmpfs"

    def __init__(self, dir: Path):
        if os.geteuid() != 0:
            raise Skip("only root may mount")
        self.dir = dir / "mounted"
        self.dir.mkdir(parents=True)
        if LIBC.mount(b"tmpfs", str(self.dir).encode(), b"tmpfs", 0, b"size=%d" % SIZE) != 0:
            raise Skip(f"mounting is not allowed here: {os.strerror(ctypes.get_errno())}")

    def __enter__(self) -> "Tmpfs":
        return self

    def change(self, how: str) -> None:
        """Lets it be written, or not."""
        subprocess.run(["mount", "--options", f"remount,{how}", str(self.dir)], check=True)

    def __exit__(self, *_) -> None:
        LIBC.umount2(str(self.dir).encode(), 2)


def run(options) -> Result:
    return spread_in_scratch(options, work)


def work(result: Result, count: int, nth: int, options, base: Path) -> None:
    rng, server = dice(options.seed, nth, "enospc"), Server(Load(burst=5, pause=0.004))
    with Mount("ext4", base / f"ext4-{nth}", SIZE) if nth % 2 == 0 else Tmpfs(base / f"tmpfs-{nth}") as mount:
        batch = 0
        while result.runs < count:
            desk = Desk(options.binary, base / f"{nth}-{batch}", server, 2, ARCHIVE, tape=mount.dir / "tape")
            before = len(result.violations)
            # What earlier recorders of this tape counted as dropped; of one that was killed nobody knows.
            desk.dropped = 0
            recorder = desk.record()
            if not recorder.until(lambda: recorder.frames_of_all(desk.sources) > 0):
                result.violations.append(f"no envelope was announced: {(desk.dir / 'stderr').read_text()[-500:]}")
            for nth_full in range(min(BATCH, count - result.runs)):
                result.runs += 1
                if nth_full == BATCH - 1:
                    recorder = at_start(result, desk, mount, recorder, rng)
                    continue
                if recorder.is_ended:
                    desk.remember(recorder, now())
                    recorder.end()
                    recorder = desk.record()
                    recorder.until(lambda: recorder.frames_of_all(desk.sources) > 0)
                one(result, desk, mount, recorder, rng)
            code = recorder.end() if recorder.is_ended else recorder.stop()
            # The gaps that are left are known loss.
            if code not in (0, 3):
                result.violations.append(f"{mount.fs}: the recorder ends with exit code {code}")
            desk.remember(recorder, None)
            mended = desk.recover()
            if mended.returncode != 0:
                result.violations.append(f"{mount.fs}: recover ends with {mended.returncode}: {mended.stderr.decode()[-300:]}")
            tape, truth = desk.judge(may_skip=True)
            result.violations += [f"{mount.fs}, worker {nth}, batch {batch}: {what}" for what in tape.violations]
            dropped = sum(source["dropped"] for source in (recorder.done or {"sources": []})["sources"]) + truth.dropped
            if recorder.done and desk.dropped is not None and truth.skipped > dropped + desk.dropped:
                result.violations.append(f"{mount.fs}: {truth.skipped} envelopes are missing, {dropped} are counted as dropped")
            result.figures["missing and counted"] = result.figures.get("missing and counted", 0) + truth.skipped
            result.figures["envelopes"] = result.figures.get("envelopes", 0) + truth.envelopes
            if batch == 0 and nth == 0:
                control(result, desk)
            if len(result.violations) > before:
                shutil.copytree(desk.tape, desk.dir / "tape", ignore=shutil.ignore_patterns("*.sock"))
            else:
                desk.sweep()
            shutil.rmtree(desk.tape)
            batch += 1


def one(result: Result, desk: Desk, mount, recorder: Recorder, rng) -> None:
    """Fills the disk, waits until the recorder says so, frees it, and waits until envelopes are announced again."""
    balloon = mount.dir / "balloon"
    said = desk.dir / "stderr"
    before = said.read_text().count("the disk is full")
    fill(balloon, rng.randrange(0, 64) * 4096)
    is_full = lambda: said.read_text().count("the disk is full") > before
    if not recorder.until(is_full):
        result.violations.append(f"{mount.fs}: the disk is full, and the recorder does not say so")
        balloon.unlink()
        return
    # Long enough for some tries in vain, now and then.
    recorder.listen(rng.choice([0.0, 0.3, 3.0]))
    told = said.read_text().count("the disk is full")
    if told > before + 1:
        result.violations.append(f"{mount.fs}: it says {told - before} times that the disk is full")
    # What was announced before may still be on its way.
    recorder.drain()
    counts, room = dict(recorder.frames), said.read_text().count("there is room on the disk again")
    balloon.unlink()
    begin = time.monotonic()
    more = lambda: (
        said.read_text().count("there is room on the disk again") > room
        and all(recorder.frames.get(source, 0) > counts.get(source, 0) for source in desk.sources)
    )
    if not recorder.until(more, PATIENCE):
        words = said.read_text()[-500:]
        result.violations.append(f"{mount.fs}: there is room again, and it does not record on (ended: {recorder.is_ended}): {words}")
        return
    took = time.monotonic() - begin
    result.figures["slowest to resume, ms"] = max(result.figures.get("slowest to resume, ms", 0), round(took * 1000))
    if took > RESUMES_WITHIN:
        result.violations.append(f"{mount.fs}: it records on only {took:.1f} s after there is room again")
    result.reached += 1


def at_start(result: Result, desk: Desk, mount, recorder: Recorder, rng) -> Recorder:
    """The one that records is stopped or killed, and the next one finds a full disk."""
    is_killed = rng.random() < 0.5
    recorder.drain()
    if recorder.is_ended:
        recorder.end()
    elif is_killed:
        recorder.kill()
    else:
        recorder.stop()
    if recorder.done is None:
        desk.dropped = None
    else:
        desk.dropped += sum(source["dropped"] for source in recorder.done["sources"])
    desk.remember(recorder, now() if is_killed else None)
    balloon, said = mount.dir / "balloon", desk.dir / "stderr"
    words = lambda: said.read_text().count("the disk is full")
    before = words()
    fill(balloon, rng.randrange(0, 16) * 4096)
    recorder = desk.record()
    if not recorder.until(lambda: words() > before):
        result.violations.append(f"{mount.fs}: started on a full disk, it does not say so: {said.read_text()[-300:]}")
    recorder.listen(rng.choice([0.0, 0.3, 2.5]))
    begin = time.monotonic()
    balloon.unlink()
    counts = dict(recorder.frames)
    more = lambda: all(recorder.frames.get(source, 0) > counts.get(source, 0) for source in desk.sources)
    is_reached = recorder.until(more)
    took = time.monotonic() - begin
    if not is_reached or took > RESUMES_WITHIN:
        result.violations.append(f"{mount.fs}: started on a full disk, it does not record {took:.1f} s after there is room")
    result.reached += is_reached
    result.figures["started on a full disk"] = result.figures.get("started on a full disk", 0) + 1
    return recorder


def readonly(options) -> Result:
    return spread_in_scratch(options, refuse)


def refuse(result: Result, count: int, nth: int, options, base: Path) -> None:
    server = Server(Load(burst=5, pause=0.004))
    if nth == 0:
        allowed(result, options, base, server)
    with Tmpfs(base / f"ro-{nth}") as mount:
        for run in range(count):
            result.runs += 1
            kind = ["read only", "another user's", "a file in its place", "no tape yet, read only"][(nth + run * options.jobs) % 4]
            desk = Desk(options.binary, base / f"{nth}-{run}", server, 1, ARCHIVE, tape=mount.dir / f"tape-{run}")
            if kind == "a file in its place":
                desk.tape.write_text("not a tape")
            elif kind != "no tape yet, read only":
                recorder = desk.record()
                recorder.until(lambda: recorder.frames_of_all(desk.sources) > 0)
                recorder.kill()
                desk.remember(recorder, now())
            before = contents(desk.tape)
            prefix = ()
            if "read only" in kind:
                mount.change("ro")
            elif kind == "another user's":
                if shutil.which("setpriv") is None:
                    raise Skip("setpriv is not installed")
                prefix = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups")
                # Only the tape is to be out of reach.
                for place in (base, base / f"ro-{nth}", desk.dir, mount.dir):
                    place.chmod(0o755)
                desk.config.chmod(0o644)
            begin = time.monotonic()
            recorder = desk.record(prefix=prefix)
            code = recorder.end(20)
            took = time.monotonic() - begin
            words = (desk.dir / "stderr").read_text()
            mount.change("rw")
            result.reached += 1
            result.violations += refused(desk, kind, before, code, took, words)
            if desk.announced:
                desk.recover()
                tape, _ = desk.judge()
                result.violations += [f"{kind}: {what}" for what in tape.violations]


def refused(desk: Desk, kind: str, before: dict, code: int | None, took: float, words: str) -> list[str]:
    wrong = []
    hint = "name another with --tape" if kind != "a file in its place" else str(desk.tape)
    if code != 1 or took > 5 or str(desk.tape) not in words or hint not in words:
        wrong.append(f"{kind}: exit code {code} after {took:.1f} s: {words[-400:]}")
    if contents(desk.tape) != before:
        wrong.append(f"{kind}: what was there is changed")
    return wrong


def allowed(result: Result, options, base: Path, server: Server) -> None:
    """A place that may be written after all: the recorder ends otherwise, and what was there is changed."""
    desk = Desk(options.binary, base / "control", server, 1, ARCHIVE)
    recorder = desk.record()
    recorder.until(lambda: recorder.frames_of_all(desk.sources) > 0)
    recorder.kill()
    before = contents(desk.tape)
    recorder = desk.record()
    recorder.until(lambda: recorder.frames_of_all(desk.sources) > 0)
    begin = time.monotonic()
    code = recorder.stop()
    found = refused(desk, "planted", before, code, time.monotonic() - begin, (desk.dir / "stderr").read_text())
    result.controls["a place that may be written"] = any("exit code" in what for what in found)
    result.controls["a tape that is changed"] = any("is changed" in what for what in found)
    desk.sweep()


def contents(path: Path) -> dict:
    """All that is there, but for who holds the lock."""
    files = [path] if path.is_file() else [file for file in sorted(path.rglob("*")) if file.is_file() and file.name != "lock"]
    return {str(file): file.read_bytes() for file in files}


def fill(balloon: Path, leave: int) -> None:
    """Takes all the space there is, but for some."""
    with balloon.open("wb", buffering=0) as file:
        size = 1 << 20
        while size >= 4096:
            try:
                file.write(b"\xaa" * size)
            except OSError as why:
                if why.errno != errno.ENOSPC:
                    raise
                size //= 4
        os.fsync(file.fileno()) if leave == 0 else None
        file.truncate(max(0, file.tell() - leave))


def control(result: Result, desk: Desk) -> None:
    """What is planted here must be found."""
    source, n, digest = desk.announced[-1]
    desk.announced.append((source, n + 1_000_000, digest))
    desk.deaths.append((source, now() - 3_600_000_000))
    tape, _ = desk.judge(may_skip=True)
    result.controls["an announcement that is not on the tape"] = any("announced with hash" in what for what in tape.violations)
    result.controls["a death that the ledger does not tell of"] = any("tells of the death" in what for what in tape.violations)
