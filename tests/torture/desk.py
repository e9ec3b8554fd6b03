"""What every mode needs: a recorder under observation, the truth of what it was sent, and the verdict over its tape."""

import json
import multiprocessing
import os
import random
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from dataclasses import dataclass, field
from pathlib import Path

import oracle
from provider import Server, message
from tape import OPEN, Tape, ledger, micros, zstd

# The recorder has so long for anything that must happen.
PATIENCE = 20.0


class Skip(Exception):
    """A mode cannot run here; the words say what is missing."""


@dataclass
class Result:
    runs: int = 0
    reached: int = 0
    violations: list = field(default_factory=list)
    # Name to whether it was caught.
    controls: dict = field(default_factory=dict)
    # Whatever else is worth a figure.
    figures: dict = field(default_factory=dict)

    def add(self, other: "Result") -> None:
        self.runs += other.runs
        self.reached += other.reached
        self.violations += other.violations
        for name, caught in other.controls.items():
            self.controls[name] = self.controls.get(name, True) and caught
        for name, figure in other.figures.items():
            worst = name.startswith(("slowest", "p99"))
            self.figures[name] = max(self.figures.get(name, 0), figure) if worst else self.figures.get(name, 0) + figure


class Recorder:
    """A `birdtape --json record`, and what it has announced so far."""

    def __init__(self, binary: Path, desk: "Desk", *words: str, env: dict | None = None, prefix: tuple = (), fills: bool = False):
        command = [*prefix, str(binary), "--json", "--config", str(desk.config), "record", *words]
        command += [] if fills else ["--no-backfill"]
        self.said = (desk.dir / "stderr").open("ab")
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=self.said, env=desk.env | (env or {}))
        self.pipe = self.process.stdout.fileno()
        os.set_blocking(self.pipe, False)
        self.poll = select.poll()
        self.poll.register(self.pipe, select.POLLIN)
        self.rest = b""
        self.is_ended = False
        self.is_started = False
        # (n, hash) by source, in order, and the envelopes they cover.
        self.announced: dict[str, list] = {}
        self.frames: dict[str, int] = {}
        self.done: dict | None = None
        self.events: list = []

    def read(self, seconds: float) -> bool:
        """Waits for announcements and takes them in; whether there were any."""
        if self.is_ended or not self.poll.poll(seconds * 1000):
            return False
        try:
            data = os.read(self.pipe, 1 << 20)
        except BlockingIOError:
            return False
        if not data:
            self.is_ended = True
            return False
        *lines, self.rest = (self.rest + data).split(b"\n")
        for line in lines:
            event = json.loads(line)
            match event["event"]:
                case "commit":
                    self.commit(event)
                case "started":
                    self.is_started = True
                case "done":
                    self.done = event
                case _:
                    self.events.append(event)
        return True

    def commit(self, event: dict) -> None:
        source = event["source"]
        self.announced.setdefault(source, []).append((event["n"], event["hash"]))
        self.frames[source] = self.frames.get(source, 0) + event["frames"]

    def drain(self) -> None:
        while self.read(0):
            pass

    def until(self, condition, seconds: float = PATIENCE) -> bool:
        end = time.monotonic() + seconds
        while not condition():
            left = end - time.monotonic()
            if left <= 0 or (not self.read(min(left, 0.05)) and self.is_ended):
                return condition()
        return True

    def listen(self, seconds: float) -> None:
        """Takes announcements in for so long."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0 and not self.is_ended:
            self.read(left)

    def kill(self) -> bool:
        """SIGKILL, after what was read before; whether it hit a living process."""
        self.process.kill()
        code = self.process.wait()
        self.close()
        return code == -signal.SIGKILL

    def stop(self, seconds: float = PATIENCE) -> int | None:
        """SIGTERM; the exit code, None when it had to be killed."""
        self.process.terminate()
        return self.end(seconds)

    def end(self, seconds: float = PATIENCE) -> int | None:
        """Waits for its end."""
        self.until(lambda: self.is_ended, seconds)
        try:
            code = self.process.wait(0.5 if not self.is_ended else seconds)
        except subprocess.TimeoutExpired:
            self.kill()
            return None
        self.close()
        return code

    def close(self) -> None:
        self.process.stdout.close()
        self.said.close()

    def frames_of_all(self, sources: list[str]) -> int:
        return min((self.frames.get(source, 0) for source in sources), default=0)


class Desk:
    """A directory with a tape in `t/tape`, its configuration, and a provider."""

    def __init__(self, binary: Path, dir: Path, server: Server, sources: int, archive: dict, tape: Path | None = None, limits: dict | None = None, settings: dict | None = None):
        self.binary, self.dir, self.server = binary, dir, server
        self.sources = [f"s{nth}" for nth in range(sources)]
        self.tape = tape or dir / "t" / "tape"
        self.config = dir / "birdtape.toml"
        dir.mkdir(parents=True, exist_ok=True)
        lines = [f'tape = "{self.tape}"', "[archive]", *(f'{key} = "{value}"' for key, value in archive.items())]
        lines += ["[limits]", *(f'{key} = "{value}"' for key, value in (limits or {}).items())]
        self.env = {key: value for key, value in os.environ.items() if not key.startswith("BIRDTAPE_")}
        for source in self.sources:
            variable = f"TORTURE_{source.upper()}"
            self.env[variable] = source
            lines += [f"[source.{source}]", 'provider = "twitterapi_io"', f'base_url = "{server.address}"']
            lines += [f'key_env = "{variable}"', 'lateness_horizon = "1ms"', 'scopes_every = "0s"']
            lines += ['reconnect_floor = "0s"', 'reconnect_cap = "1s"']
            lines += [f'{key} = "{value}"' for key, value in (settings or {}).items()]
        self.config.write_text("\n".join(lines) + "\n")
        if tape is None:
            self.tape.parent.mkdir(parents=True, exist_ok=True)
        self.has_webhooks = False
        # (source, n, hash): everything that was announced before it was cut down.
        self.announced: list = []
        # (source, microseconds): when a recorder was cut down that had announced envelopes.
        self.deaths: list = []

    def record(self, *words: str, **more) -> Recorder:
        return Recorder(self.binary, self, *words, **more)

    def recover(self, **more) -> subprocess.CompletedProcess:
        return self.run("recover", **more)

    def run(self, *words: str, env: dict | None = None) -> subprocess.CompletedProcess:
        command = [str(self.binary), "--json", "--tape", str(self.tape), *words]
        return subprocess.run(command, capture_output=True, check=False, timeout=300, env=self.env | (env or {}))

    def remember(self, recorder: Recorder, dead_at: int | None) -> None:
        """Takes over what a recorder had announced; `dead_at` when it could not say farewell."""
        for source, commits in recorder.announced.items():
            self.announced += [(source, n, digest) for n, digest in commits]
            if dead_at is not None and recorder.frames.get(source, 0) > 0:
                self.deaths.append((source, dead_at))

    def stock_zstd(self, recorder: Recorder, may_end_in_zeros: bool = False) -> tuple[list[str], int]:
        """What the stock zstd does not read of what a dead recorder left open, and announced; and how many files end in zeros.

        ext4 may make a file's length durable before the blocks that it counts, which then read as zeros. There the stock zstd
        stops, and does not give what it had unpacked of the last 128 KiB before; it is given what lies before the zeros.
        """
        wrong, n_zeros = [], 0
        for source, commits in recorder.announced.items():
            newest = max((self.tape / "segments" / source).glob(f"*/*{OPEN}"), default=None, key=lambda path: path.name)
            if newest is None:
                continue
            held = newest.read_bytes()
            # Blocks of file systems have a multiple of so many bytes, and what was written may end with a zero, too.
            whole = -(-len(held.rstrip(b"\0")) // 1024) * 1024
            if may_end_in_zeros and whole < len(held):
                n_zeros += 1
                newest = self.dir / "head.zst"
                newest.write_bytes(held[:whole])
            out, _, _ = zstd([newest])
            last = [line for line in out[: out.rfind(b"\n") + 1].split(b"\n") if b',"kind":"commit",' in line[:80]]
            n = json.loads(last[-1])["n"] if last else 0
            if n < commits[-1][0]:
                wrong.append(f"{source}: the stock zstd reads up to record {n}, announced was {commits[-1][0]}")
        return wrong, n_zeros

    def judge(self, may_skip: bool = False) -> tuple[Tape, "Truth"]:
        """The oracle over the tape, with what this desk knows to be true. A slow disk may let envelopes be skipped."""
        truth = Truth(self, may_skip)
        tape = oracle.check(self.binary, self.tape, truth.visit)
        truth.settle(tape)
        return tape, truth

    def sweep(self) -> None:
        """Nobody needs it any more."""
        shutil.rmtree(self.dir, ignore_errors=True)


@dataclass
class Last:
    """The last envelope of a source, and when the one before it was received."""

    key: tuple[str, int]
    at: int
    body: bytes
    before: int | None


class Truth:
    """Compares envelopes with what the provider sent, and the ledger with when recorders died."""

    def __init__(self, desk: Desk, may_skip: bool = False):
        self.desk, self.may_skip = desk, may_skip
        # Envelopes that were sent and left out between two that are there, and those that a note counts as dropped.
        self.skipped = self.dropped = 0
        self.seen: dict[tuple[str, int], tuple[str, int]] = {}
        self.tags: set[str] = set()
        self.wrong: list[str] = []
        self.envelopes = 0
        # (source, from, to): received before and after what was left out.
        self.breaks: list[tuple[str, int, int]] = []
        self.last: dict[str, Last] = {}
        # Stamp of the last evidence before each record of a source is found from this.
        self.evidence: dict[str, list[int]] = {}

    def witness(self, source: str, at: int) -> None:
        self.evidence.setdefault(source, []).append(at)

    def visit(self, source, record) -> None:
        # What came by webhook is no evidence.
        if record.kind in ("frame", "open") and record.via != "webhook":
            self.witness(source.name, micros(record.at))
        if record.kind == "note" and record.body.startswith(b'{"note":"dropped"'):
            self.dropped += json.loads(record.body)["envelopes"]
        if record.kind != "frame" or record.via != "ws":
            return
        self.envelopes += 1
        key = (source.name, record.conn)
        if key not in self.seen:
            try:
                tag = json.loads(record.body)["tag"]
            except (ValueError, KeyError, TypeError):
                tag = None
            if tag is not None and message(str(tag), 0)[1] != record.body:
                tag = None
            i = 0
            if tag is None and self.may_skip:
                tag, i = self.beheaded(source.name, record.body)
            elif tag is None or tag in self.tags:
                self.wrong.append(f"{source.name}: connection {record.conn} does not begin with a greeting of its own: {record.body[:80]!r}")
                tag = "?"
            self.tags.add(tag)
            self.seen[key] = (tag, i)
        tag, i = self.seen[key]
        sent = self.desk.server.conns[tag].sent if self.may_skip and tag in self.desk.server.conns else i
        skipped = 0
        while i + skipped < sent and message(tag, i + skipped)[1] != record.body:
            skipped += 1
        if skipped > 0:
            self.skipped += skipped
            # Before the first one that was safe nothing was promised.
            if source.name in self.last:
                self.breaks.append((source.name, *self.broken(source.name, tag, i + skipped, micros(record.at))))
            i += skipped
        self.seen[key] = (tag, i + 1)
        before = self.last.get(source.name)
        self.last[source.name] = Last(key, micros(record.at), record.body, before.at if before else None)
        if tag != "?" and message(tag, i)[1] != record.body:
            self.wrong.append(f"{source.name}: record {record.n} is not message {i} of {tag}: {record.body[:80]!r}")
            self.seen[key] = ("?", 0)

    def broken(self, source: str, tag: str, i: int, at: int) -> tuple[int, int]:
        """From when to when something is missing, as seen at message `i`.

        Empty messages look alike. When the one before `i` does, that is what came before, and what is missing came before both.
        """
        last = self.last[source]
        if last.before is not None and self.seen.get(last.key, ("?", 0))[0] == tag and message(tag, i - 1)[1] == last.body:
            return last.before, last.at
        return last.at, at

    def beheaded(self, source: str, body: bytes) -> tuple[str, int]:
        """The connection that sent an envelope when no greeting is there to say so, and where it stands; the disk was full."""
        if source in self.last:
            # On the tape the same connection begins anew.
            tag, i = self.seen[self.last[source].key]
            if tag in self.desk.server.conns and self.has_sent(tag, i, body):
                return self.seen.pop(self.last[source].key)
        # It was full before the greeting was safe.
        mine = [conn.tag for conn in self.desk.server.conns.values() if conn.source == source and conn.tag not in self.tags]
        return next((tag for tag in mine if self.has_sent(tag, 0, body)), "?"), 0

    def has_sent(self, tag: str, since: int, body: bytes) -> bool:
        return any(message(tag, i)[1] == body for i in range(since, self.desk.server.conns[tag].sent))

    def behind(self) -> int:
        """Envelopes that were sent after the last one that is there."""
        return sum(max(0, self.desk.server.conns[tag].sent - i) for tag, i in self.seen.values() if tag != "?")

    def settle(self, tape: Tape) -> None:
        for (source, conn), (tag, i) in self.seen.items():
            sent = self.desk.server.conns.get(tag)
            if tag != "?" and (sent is None or sent.source != source or i > sent.sent):
                self.wrong.append(f"{source}: {i} messages of {tag} were never sent to it")
        for source, n, digest in self.desk.announced:
            known = tape.sources.get(source)
            if known is None or known.last_n < n or digest not in known.commits.get(n, ()):
                have = known.last_n if known else 0
                self.wrong.append(f"{source}: record {n} was announced with hash {digest} and is not there; the tape ends at {have}")
        ledgers = {name: list(ledger(source).values()) for name, source in tape.sources.items()}
        for source, since, until in self.breaks:
            if not any(holds(gap, since, until) for gap in ledgers.get(source, [])):
                self.wrong.append(f"{source}: envelopes between {since} and {until} are missing, and nothing in the ledger tells so")
        facts = {name: source.facts for name, source in tape.sources.items()}
        stops = {name: [micros(at) for _, at, _, fact in some if fact.get("note") == "stop"] for name, some in facts.items()}
        for source, at in self.desk.deaths:
            before = max((stamp for stamp in self.evidence.get(source, []) if stamp <= at), default=0)
            # Without evidence nothing was promised that could break: what was announced came by webhook alone.
            if before == 0 and self.desk.has_webhooks:
                continue
            # It had said farewell before: the gap is opened by who records next.
            if any(before <= stop <= at for stop in stops.get(source, [])):
                continue
            # Something may be missing from the last evidence on.
            if not any(holds(gap, before, at) for gap in ledgers.get(source, [])):
                self.wrong.append(f"{source}: nothing in the ledger tells of the death at {at}, the last evidence before it is of {before}")
        tape.violations += self.wrong


def holds(gap: dict, since: int, until: int) -> bool:
    return gap["scope"] == "*" and micros(gap["from"]) <= since and (gap["to"] is None or micros(gap["to"]) >= until)


def now() -> int:
    return time.time_ns() // 1000


def scratch(base: Path | None) -> Path:
    """A directory of our own; in memory where there is room, for the speed."""
    memory = Path("/dev/shm")
    if base is None and memory.is_dir() and shutil.disk_usage(memory).free > 2 << 30:
        base = memory
    return Path(tempfile.mkdtemp(prefix="birdtape-torture-", dir=base))


def spread(count: int, jobs: int, work, *arguments) -> Result:
    """Lets `jobs` processes do `count` runs together: `work(result, count, seed of the job, *arguments)`."""
    total, started = Result(), []
    context = multiprocessing.get_context("fork")
    for nth in range(min(jobs, max(count, 1))):
        share = count // jobs + (nth < count % jobs)
        mine, theirs = context.Pipe(duplex=False)

        def run(share=share, nth=nth, theirs=theirs):
            result = Result()
            try:
                work(result, share, nth, *arguments)
            except Skip as why:
                theirs.send(why)
                return
            except BaseException:
                result.violations.append("the harness failed: " + traceback.format_exc())
            theirs.send(result)

        process = context.Process(target=run)
        process.start()
        theirs.close()
        started.append((process, mine))
    skipped = None
    for process, mine in started:
        try:
            result = mine.recv()
        except EOFError:
            result = Result(violations=["a process of the harness died"])
        if isinstance(result, Skip):
            skipped = result
        else:
            total.add(result)
        process.join()
    if skipped is not None:
        raise skipped
    return total


def sweep(dir: Path, result: Result) -> None:
    """Clears a scratch directory, unless something in it wants to be looked at."""
    if result.violations:
        print(f"what was found lies in {dir}", file=sys.stderr)
    else:
        shutil.rmtree(dir, ignore_errors=True)


def spread_in_scratch(options, work) -> Result:
    """All runs of a mode that needs nothing but a scratch directory: `work(result, count, seed of the job, options, directory)`."""
    dir, result = scratch(options.dir), Result()
    try:
        result = spread(options.count, options.jobs, work, options, dir)
    finally:
        sweep(dir, result)
    return result


def dice(seed: int, nth: int, what: str) -> random.Random:
    return random.Random(f"{seed} {nth} {what}")
