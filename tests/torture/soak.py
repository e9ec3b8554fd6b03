"""Mode `soak`: a steady rate for a long time, on a real disk, with the archive's settings as they are shipped.

Envelopes as large as real ones come evenly over a few sources. Resident memory must not grow from the fifth minute on, from
the socket to the announcement (which follows the sync) must not take long, and nothing may be lost. With --faults
connections are cut, the peer falls silent or deaf, and the recorder is held, stopped and killed, at random: then whatever is
missing must lie in a gap, and the figures are those of the calm between.

Nothing here grows with the envelopes: what was sent is a number for each connection, delays are a histogram.
"""

import os
import random
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from array import array
from bisect import bisect_left
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path

import oracle
from desk import PATIENCE, Desk, Recorder, Result, Skip, Truth, dice, holds, now, sweep
from provider import Conn, Load, Server
from tape import SEALED, ledger, micros

# So few that each has filled a segment and had it sealed before memory is judged.
SOURCES = 2
# The bars.
GROWS_AT_MOST = 1.0
P99_AT_MOST_MS = 250
# Of the rate that was asked for.
REACHES_AT_LEAST = 0.99
# Until then memory may fill what it needs, and after that a slope needs some time.
SETTLED_AFTER_S, FITTED_OVER_MIN = 300, 3
LOOK_EVERY_S = 5.0
# A new connection keeps quiet for so long, so that all announcements of the one before it are in.
QUIET_S = 1.0
# After a fault, delays are those of the fault for so long.
CALM_AFTER_S = 3.0
RECOVERS_WITHIN_S, STOPS_WITHIN_S = 60.0, 5.0
MEAN_CALM_S = 10.0
# How often each fault comes in a round of them, and how long it takes at least and at most, most often not long.
FAULTS = {
    "drop": (8, 0.1, 0.1),
    "reset": (6, 0.1, 0.1),
    # Noticed after 70 s; until then it may pass.
    "silent peer": (6, 0.5, 100),
    "deaf peer": (4, 0.5, 100),
    "held (SIGSTOP)": (8, 0.1, 15),
    "killed (SIGKILL)": (1, 0.1, 5),
    "stopped (SIGTERM)": (1, 0.1, 5),
}
BYTES_AN_ENVELOPE = 500
MB = 1e6


def run(options) -> Result:
    base = options.dir or Path(__file__).parents[2] / "target" / "torture"
    base.mkdir(parents=True, exist_ok=True)
    need = options.rate * options.minutes * 60 * BYTES_AN_ENVELOPE
    if shutil.disk_usage(base).free < need + (1 << 30):
        raise Skip(f"{base} has no {need / 1e9:.1f} GB to spare")
    dir, result = Path(tempfile.mkdtemp(prefix="birdtape-soak-", dir=base)), Result(runs=1)
    try:
        soak = Soak(options, dir / "soak", dice(options.seed, 0, "soak"))
        figures = soak.run(options.minutes * 60, options.faults)
        result.violations += soak.wrong + judged(figures) + soak.settle()
        result.reached = int(not soak.wrong and figures.is_whole())
        if not figures.is_whole():
            print("not reached: a slope of memory takes eight minutes", file=sys.stderr)
        result.figures = figures.words() | soak.counted
        controls(result, options, dir / "control", figures)
    finally:
        sweep(dir, result)
    return result


# What is sent.


@dataclass
class Paced(Conn):
    """A connection that is sent so many messages a second, from `begin` on."""

    opened_us: int = 0
    begin: float = 0.0
    muted_before: float = 0.0
    # Seconds in which it was sent something, once it is over.
    lasted: float | None = None
    handed_us: int = 0


class Pacer(Server):
    def __init__(self, rate: float, lag: "Lag"):
        self.rate, self.lag, self.muted_s, self.muted_since = rate, lag, 0.0, None
        super().__init__(Load(pause=0.004))

    def conn(self, source: str, tag: str) -> Conn:
        begin = time.monotonic() + QUIET_S
        began_ms = int((time.time() + QUIET_S) * 1000)
        return Paced(f"{tag}@{began_ms}/{self.rate:g}", source, opened_us=now(), begin=begin, muted_before=self.muted())

    def due(self, conn: Paced) -> int:
        lasts = self.lasts(conn)
        return int(lasts * self.rate) + 1 if lasts >= 0 else 0

    def lasts(self, conn: Paced) -> float:
        """Seconds in which it was sent something; negative in its quiet one."""
        if conn.lasted is not None:
            return conn.lasted
        return time.monotonic() - conn.begin - (self.muted() - conn.muted_before)

    def handed(self, conn: Paced) -> None:
        conn.handed_us = now()
        self.lag.handed(conn)

    def talk(self, peer, conn: Paced) -> None:
        try:
            super().talk(peer, conn)
        finally:
            conn.lasted = max(self.lasts(conn), 0.0)

    def mute(self) -> None:
        self.muted_since = time.monotonic()
        self.is_mute.set()

    def unmute(self) -> None:
        self.muted_s += time.monotonic() - self.muted_since
        self.muted_since = None
        self.is_mute.clear()

    def muted(self) -> float:
        since = self.muted_since
        return self.muted_s + (time.monotonic() - since if since is not None else 0.0)

    def alive(self) -> list[Paced]:
        with self.lock:
            return [conn for conn in self.conns.values() if conn.lasted is None]


# How long it takes.


class Histogram:
    """Counts by milliseconds."""

    def __init__(self):
        self.counts, self.total, self.max = [0] * 30_001, 0, 0.0

    def add(self, seconds: float, count: int = 1) -> None:
        self.counts[min(int(seconds * 1000), len(self.counts) - 1)] += count
        self.total += count
        self.max = max(self.max, seconds * 1000)

    def quantile(self, share: float) -> int | None:
        """The upper end of its bucket, in milliseconds."""
        left = share * self.total
        for ms, count in enumerate(self.counts):
            left -= count
            if left <= 0 and self.total > 0:
                return ms + 1
        return None

    def later(self, ms: int) -> "Histogram":
        other = Histogram()
        for at, count in enumerate(self.counts):
            other.add((at + ms) / 1000, count)
        return other


class Lag:
    """From when an envelope was handed to the system to when its announcement was read."""

    def __init__(self):
        self.lock = threading.Lock()
        self.frames: dict[str, int] = {}
        # The connection of each source, the announced envelopes before it, and what was handed over: (when, up to which).
        self.waiting: dict[str, tuple[str, int, deque]] = {}
        self.calm, self.rough, self.calm_since = Histogram(), Histogram(), 0.0

    def restart(self) -> None:
        """Another recorder counts anew."""
        with self.lock:
            self.frames, self.waiting = {}, {}

    def handed(self, conn: Paced) -> None:
        with self.lock:
            tag, base, queue = self.waiting.get(conn.source, ("", 0, deque()))
            if tag != conn.tag:
                base, queue = self.frames.get(conn.source, 0), deque()
                self.waiting[conn.source] = (conn.tag, base, queue)
            queue.append((time.monotonic(), base + conn.sent))

    def announced(self, source: str, frames: int) -> None:
        at = time.monotonic()
        with self.lock:
            seen = self.frames.get(source, 0)
            self.frames[source] = seen + frames
            _, base, queue = self.waiting.get(source, ("", 0, deque()))
            seen = max(seen, base)
            while queue and seen < self.frames[source]:
                handed, until = queue[0]
                upto = min(until, self.frames[source])
                (self.calm if handed > self.calm_since else self.rough).add(at - handed, upto - seen)
                seen = upto
                if upto == until:
                    queue.popleft()

    def is_waiting(self) -> bool:
        with self.lock:
            return any(queue for _, _, queue in self.waiting.values())

    def disturb(self) -> None:
        self.calm_since = float("inf")

    def calm_down(self) -> None:
        self.calm_since = time.monotonic() + CALM_AFTER_S


# What the recorder takes.


@dataclass
class Memory:
    """Resident and anonymous memory of recorders: (seconds since its start, MB, MB), a list for each."""

    lives: list = field(default_factory=list)
    peak: float = 0.0

    def look(self, pid: int, begin: float) -> None:
        status = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
        if "VmRSS" not in status:
            # It has ended; whoever reads its announcements is told.
            return
        kib = lambda name: int(status[name].split()[0]) * 1024 / MB
        self.lives[-1].append((time.monotonic() - begin, kib("VmRSS"), kib("RssAnon")))
        self.peak = max(self.peak, kib("VmHWM"))

    def settled(self, which: int = 1) -> list[list[tuple[float, float]]]:
        """What counts: the median of each minute, from the fifth of a life on, where it goes on for long enough.

        Sealing a segment takes some seconds, and memory only for as long; the peak tells of that.
        """
        found = []
        for life in self.lives:
            minutes: dict[int, list[float]] = {}
            for look in life:
                if look[0] >= SETTLED_AFTER_S:
                    minutes.setdefault(int(look[0] // 60), []).append(look[which])
            if len(minutes) >= FITTED_OVER_MIN:
                found.append([(minute * 60, statistics.median(some)) for minute, some in minutes.items()])
        return found


def slope(lives: list[list[tuple[float, float]]]) -> tuple[float, float] | None:
    """MB an hour by least squares, one slope for all lives, and half the width of its 95 % interval.

    Neighbours are much alike, so they count as fewer, by what their residuals have in common.
    """
    spread = mixed = 0.0
    means = [(sum(t for t, _ in life) / len(life), sum(y for _, y in life) / len(life)) for life in lives]
    for life, (t0, y0) in zip(lives, means):
        spread += sum((t - t0) ** 2 for t, _ in life)
        mixed += sum((t - t0) * (y - y0) for t, y in life)
    if spread == 0:
        return None
    a = mixed / spread
    rests = [[y - y0 - a * (t - t0) for t, y in life] for life, (t0, y0) in zip(lives, means)]
    count = sum(map(len, rests))
    square = sum(rest * rest for some in rests for rest in some)
    alike = sum(x * y for some in rests for x, y in zip(some, some[1:])) / square if square > 0 else 0.0
    alike = min(max(alike, 0.0), 0.999)
    error = (square / max(count - len(lives) - 1, 1) / spread * (1 + alike) / (1 - alike)) ** 0.5
    return a * 3600, 1.96 * error * 3600


def cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def cpu_of_all() -> tuple[float, float]:
    """Seconds in which the processors of this machine worked, and all their seconds."""
    first = [int(word) for word in Path("/proc/stat").read_text().splitlines()[0].split()[1:9]]
    idle = first[3] + first[4]
    return (sum(first) - idle) / os.sysconf("SC_CLK_TCK"), sum(first) / os.sysconf("SC_CLK_TCK")


class Syncs:
    """What a sync of 4 KiB takes at the same time in the same place, once a second: what no recorder could be faster than."""

    def __init__(self, path: Path):
        self.took, self.is_over = Histogram(), threading.Event()
        self.thread = threading.Thread(target=self.measure, args=(path,), daemon=True)
        self.thread.start()

    def measure(self, path: Path) -> None:
        with path.open("wb") as file:
            while not self.is_over.wait(1.0):
                file.seek(0)
                file.write(os.urandom(4096))
                file.flush()
                begin = time.monotonic()
                os.fsync(file.fileno())
                self.took.add(time.monotonic() - begin)

    def stop(self) -> None:
        self.is_over.set()
        self.thread.join()


# What was announced, and what is there.


class Journal:
    """Announcements in 16 bytes each."""

    def __init__(self):
        self.by_source: dict[str, tuple[array, array]] = {}

    def add(self, source: str, n: int, digest: str) -> None:
        numbers, digests = self.by_source.setdefault(source, (array("Q"), array("Q")))
        numbers.append(n)
        digests.append(int(digest, 16))

    def __iadd__(self, more) -> "Journal":
        for source, n, digest in more:
            self.add(source, n, digest)
        return self

    def __iter__(self):
        for source, (numbers, digests) in self.by_source.items():
            for n, digest in zip(numbers, digests):
                yield source, n, f"{digest:016x}"


class Watched(Recorder):
    def commit(self, event: dict) -> None:
        source = event["source"]
        # Only the names: `remember` wants to know whose end it is.
        self.announced.setdefault(source, [])
        self.frames[source] = self.frames.get(source, 0) + event["frames"]
        self.journal.add(source, event["n"], event["hash"])
        self.lag.announced(source, event["frames"])


class Tally(Truth):
    """What of each connection is there; and of the evidence only what was the last before each death."""

    def __init__(self, desk: Desk):
        super().__init__(desk)
        self.deaths: dict[str, list[int]] = {}
        for source, at in sorted(desk.deaths):
            self.deaths.setdefault(source, []).append(at)
        # Stamp of the last envelope by source and connection.
        self.reached: dict[tuple[str, int], int] = {}
        self.sent = self.missing = self.lost = 0

    def witness(self, source: str, at: int) -> None:
        deaths = self.deaths.get(source, [])
        last = self.evidence.setdefault(source, [0] * (len(deaths) + 1))
        nth = bisect_left(deaths, at)
        last[nth] = max(last[nth], at)

    def visit(self, source, record) -> None:
        super().visit(source, record)
        if record.kind == "frame":
            self.reached[(source.name, record.conn)] = micros(record.at)

    def settle(self, tape) -> None:
        there = {tag: (i, self.reached[key]) for key, (tag, i) in self.seen.items()}
        ledgers = {name: list(ledger(source).values()) for name, source in tape.sources.items()}
        for conn in self.desk.server.conns.values():
            i, since = there.get(conn.tag, (0, conn.opened_us))
            self.sent += conn.sent
            self.missing += conn.sent - i
            if conn.sent > i and not any(holds(gap, since, max(since, conn.handed_us)) for gap in ledgers.get(conn.source, [])):
                self.lost += conn.sent - i
                what = f"messages {i} to {conn.sent - 1} of {conn.tag} are missing, and nothing in the ledger tells so"
                self.wrong.append(f"{conn.source}: {what}: {since} to {conn.handed_us}")
        super().settle(tape)


# A whole run.


@dataclass
class Figures:
    rate: float
    reached: float
    lag: Lag
    memory: Memory
    syncs: Histogram
    seconds: float
    faults: dict
    has_faults: bool
    # Of the recorder, of this program, and of all that ran on the machine; and of the processors altogether.
    cpu: float
    own_cpu: float
    busy: float
    of_all: float

    def is_whole(self) -> bool:
        """Whether everything was measured that is to be judged."""
        return self.has_faults or slope(self.memory.settled()) is not None

    def words(self) -> dict:
        lag, lives = self.lag.calm, self.memory.settled()
        fit, anonymous = slope(lives), slope(self.memory.settled(2))
        found = {
            "asked for, envelopes/s": self.rate,
            "rate, envelopes/s": round(self.reached, 1),
            "announced": self.lag.calm.total + self.lag.rough.total,
            "p50, ms": lag.quantile(0.5),
            "p99, ms": lag.quantile(0.99),
            "p99.9, ms": lag.quantile(0.999),
            "max, ms": round(lag.max),
            "p99 of a bare sync beside it, ms": self.syncs.quantile(0.99),
            "max of a bare sync, ms": round(self.syncs.max),
            "RSS at minute 5, MB": lives and round(lives[-1][0][1], 1) or None,
            "RSS at the end, MB": round(next((life[-1][1] for life in self.memory.lives[::-1] if life), 0.0), 1),
            "RSS peak, MB": round(self.memory.peak, 1),
            "slope of RSS, MB/h": fit and round(fit[0], 2),
            "95 % of it, MB/h": fit and [round(fit[0] - fit[1], 2), round(fit[0] + fit[1], 2)],
            "slope of what is anonymous, MB/h": anonymous and round(anonymous[0], 2),
            "minutes fitted": sum(map(len, lives)),
            "CPU of the recorder, s": round(self.cpu, 1),
            "CPU of this program, s": round(self.own_cpu, 1),
            "processors busy with other things": round(max(self.busy - self.cpu - self.own_cpu, 0) / self.seconds, 2),
            "processors": os.cpu_count(),
        }
        if self.has_faults:
            found |= {"faults": self.faults, "max beside a fault, ms": round(self.lag.rough.max), "lives": len(self.memory.lives)}
        return found


def judged(figures: Figures) -> list[str]:
    """The verdict over the figures."""
    wrong = []
    if figures.reached < REACHES_AT_LEAST * figures.rate:
        wrong.append(f"{figures.reached:.1f} envelopes a second were sent, {figures.rate:g} were asked for")
    p99 = figures.lag.calm.quantile(0.99)
    if p99 is None or p99 > P99_AT_MOST_MS:
        wrong.append(f"p99 from the socket to the announcement is {p99} ms, above {P99_AT_MOST_MS} ms")
    fit = slope(figures.memory.settled())
    if fit is not None and fit[0] > GROWS_AT_MOST:
        wrong.append(f"memory grows by {fit[0]:.2f} MB an hour (give or take {fit[1]:.2f}), above {GROWS_AT_MOST:g}")
    return wrong


class Soak:
    def __init__(self, options, dir: Path, rng: random.Random):
        self.options, self.rng, self.lag, self.memory = options, rng, Lag(), Memory()
        self.server = Pacer(options.rate / SOURCES, self.lag)
        self.desk = Desk(options.binary, dir, self.server, SOURCES, {})
        self.desk.announced = Journal()
        self.wrong: list[str] = []
        self.faults = dict.fromkeys(FAULTS, 0)
        # The rest of the round.
        self.ahead: list[str] = []
        self.counted: dict = {}
        self.cpu, self.looked_at = 0.0, 0.0
        self.recorder: Watched | None = None

    def run(self, seconds: float, has_faults: bool) -> Figures:
        begin, cpu, (busy, of_all) = time.monotonic(), sum(os.times()[:2]), cpu_of_all()
        syncs = Syncs(self.desk.dir / "syncs")
        self.start()
        end, said_at = time.monotonic() + seconds, 0.0
        while not self.wrong and (left := end - time.monotonic()) > 0:
            self.listen(min(left, self.rng.expovariate(1 / MEAN_CALM_S) if has_faults else LOOK_EVERY_S))
            if has_faults and end - time.monotonic() > 0:
                self.fault()
            if time.monotonic() - said_at > 60:
                said_at = time.monotonic()
                self.say(said_at - begin)
        self.rest()
        syncs.stop()
        took = time.monotonic() - begin
        lasted = sum(self.server.lasts(conn) for conn in self.server.conns.values())
        sent = sum(conn.sent for conn in self.server.conns.values())
        busy, of_all = (after - before for after, before in zip(cpu_of_all(), (busy, of_all)))
        reached = sent / lasted * SOURCES if lasted > 0 else 0.0
        own = sum(os.times()[:2]) - cpu
        return Figures(
            self.options.rate, reached, self.lag, self.memory, syncs.took, took, self.faults, has_faults, self.cpu, own, busy, of_all
        )

    def say(self, at: float) -> None:
        (_, rss, anonymous), lag = self.memory.lives[-1][-1], self.lag.calm
        words = f"{at / 60:.0f} min: p99 {lag.quantile(0.99)} ms of {lag.total}, RSS {rss:.1f} MB, anonymous {anonymous:.1f} MB"
        print(words, file=sys.stderr, flush=True)

    def start(self) -> None:
        self.lag.restart()
        self.recorder = Watched(self.options.binary, self.desk)
        self.recorder.lag, self.recorder.journal = self.lag, self.desk.announced
        self.began, self.cpu_before = time.monotonic(), self.cpu
        self.memory.lives.append([])
        self.look()
        self.wait_for_more()

    def look(self) -> None:
        self.looked_at = time.monotonic()
        self.memory.look(self.recorder.process.pid, self.began)
        self.cpu = self.cpu_before + cpu_seconds(self.recorder.process.pid)

    def listen(self, seconds: float, condition=lambda: False) -> bool:
        """Takes announcements in and looks at the memory, for so long or until something holds."""
        end = time.monotonic() + seconds
        while not (holds := condition()) and (left := end - time.monotonic()) > 0 and not self.recorder.is_ended:
            self.recorder.read(min(left, 0.05))
            self.recorder.events.clear()
            if time.monotonic() - self.looked_at >= LOOK_EVERY_S:
                self.look()
        if self.recorder.is_ended:
            self.wrong.append(f"the recorder ended: {(self.desk.dir / 'stderr').read_text()[-300:]}")
        return holds

    def wait_for_more(self) -> None:
        """Until every source is recorded again."""
        before = dict(self.lag.frames)
        more = lambda: all(self.lag.frames.get(source, 0) > before.get(source, 0) for source in self.desk.sources)
        if not self.listen(RECOVERS_WITHIN_S, more):
            self.wrong.append(f"it does not record on: {(self.desk.dir / 'stderr').read_text()[-300:]}")

    def fault(self) -> None:
        if not self.ahead:
            self.ahead = [name for name, (weight, _, _) in FAULTS.items() for _ in range(weight)]
            self.rng.shuffle(self.ahead)
        name = self.ahead.pop()
        _, shortest, longest = FAULTS[name]
        seconds = shortest * (longest / shortest) ** self.rng.random()
        self.lag.disturb()
        match name.split()[0]:
            case ("drop" | "reset") as how:
                alive = self.server.alive()
                for conn in self.rng.sample(alive, self.rng.randint(1, len(alive))):
                    conn.cut = how
                self.listen(seconds)
            case "silent":
                self.server.mute()
                self.listen(seconds)
                self.server.unmute()
            case "deaf":
                self.server.is_deaf.set()
                self.listen(seconds)
                self.server.is_deaf.clear()
            case "held":
                self.recorder.process.send_signal(signal.SIGSTOP)
                self.listen(seconds)
                self.recorder.process.send_signal(signal.SIGCONT)
            case "killed":
                self.recorder.drain()
                self.look()
                self.recorder.kill()
                self.desk.remember(self.recorder, now())
                time.sleep(seconds)
                self.start()
            case "stopped":
                self.stop()
                time.sleep(seconds)
                self.start()
        self.faults[name] += 1
        self.wait_for_more()
        self.lag.calm_down()

    def stop(self) -> None:
        self.look()
        begin = time.monotonic()
        code = self.recorder.stop(PATIENCE)
        took = time.monotonic() - begin
        if code not in (0, 3) or took > STOPS_WITHIN_S:
            self.wrong.append(f"it ends {took:.1f} s after it was told to, with exit code {code}")
        self.desk.remember(self.recorder, None if code in (0, 3) else now())

    def rest(self) -> None:
        """Nothing more is sent; what was, is announced, and the recorder ends."""
        self.server.mute()
        if self.recorder.is_ended:
            self.recorder.end()
            return
        if not self.listen(PATIENCE, lambda: not self.lag.is_waiting()):
            self.wrong.append("not everything that was sent is announced")
        self.stop()
        done = self.recorder.done or {}
        self.counted["the recorder's own p99, ms"] = round(done.get("loss_window_us", {}).get("p99", 0) / 1000, 1)

    def settle(self) -> list[str]:
        """Mends the tape if need be, and lets the oracle read all of it."""
        if (mended := self.desk.recover()).returncode != 0:
            return [f"recover ends with {mended.returncode}: {mended.stderr.decode()[-500:]}"]
        begin = time.monotonic()
        tape, tally = judge(self.desk)
        self.counted |= {
            "envelopes": tally.envelopes,
            "sent": tally.sent,
            "missing, in a gap": tally.missing - tally.lost,
            "lost": tally.lost,
            "deaths": len(self.desk.deaths),
            "segments": sum(source.segments for source in tape.sources.values()),
            "MB of envelopes and our lines": round(sum(source.raw_bytes for source in tape.sources.values()) / MB, 1),
            "MB on disk": round(sum(path.stat().st_size for path in self.desk.tape.rglob("*") if path.is_file()) / MB, 1),
            "read by the oracle, s": round(time.monotonic() - begin),
        }
        # Without faults there is no reason for a gap.
        if not any(self.faults.values()) and tally.missing > 0:
            return tape.violations + [f"{tally.missing} envelopes are missing although nothing happened"]
        return tape.violations


def judge(desk: Desk):
    tally = Tally(desk)
    tape = oracle.check(desk.binary, desk.tape, tally.visit)
    tally.settle(tape)
    return tape, tally


# What must be found.


def controls(result: Result, options, dir: Path, figures: Figures) -> None:
    soak = Soak(options, dir, dice(options.seed, 1, "soak"))
    desk = soak.desk
    soak.start()
    soak.listen(2)
    # Late by up to a second, a third of the time.
    soak.recorder.process.send_signal(signal.SIGSTOP)
    soak.listen(1)
    soak.recorder.process.send_signal(signal.SIGCONT)
    soak.listen(0.5)
    soak.rest()
    result.violations += soak.wrong
    refuses = lambda words, **other: any(words in what for what in judged(with_other(figures, **other)))
    result.controls["a recorder that is held for a second"] = refuses("p99", lag=soak.lag)
    late = Lag()
    late.calm = figures.lag.calm.later(P99_AT_MOST_MS)
    result.controls["announcements that come later"] = refuses("p99", lag=late)
    result.controls["a rate that is not reached"] = refuses("were asked for", reached=0.98 * figures.rate)
    result.controls["memory that grows by 2 MB an hour"] = refuses("memory grows", memory=growing(figures.memory))
    result.controls["a process that grows"] = refuses("memory grows", memory=leaking())

    def finds(words: str) -> bool:
        tape, _ = judge(desk)
        return any(words in what for what in tape.violations)

    result.controls["nothing is found where nothing is wrong"] = not judge(desk)[0].violations
    source = desk.sources[0]
    numbers, digests = desk.announced.by_source[source]
    desk.announced.add(source, numbers[-1] + 1_000_000, "0123456789abcdef")
    result.controls["an announcement that is not on the tape"] = finds("was announced with hash")
    numbers.pop(), digests.pop()
    digests[0] ^= 1
    result.controls["an announced hash that is another"] = finds("was announced with hash")
    digests[0] ^= 1
    conn = next(conn for conn in soak.server.conns.values() if conn.source == source)
    desk.deaths.append((source, conn.handed_us - 1_000_000))
    result.controls["a death that the ledger does not tell of"] = finds("tells of the death")
    desk.deaths.pop()
    conn.sent += 1
    result.controls["an envelope that is lost"] = finds("are missing, and nothing in the ledger tells so")
    conn.sent -= 2
    result.controls["an envelope that was never sent"] = finds("were never sent to it")
    conn.sent += 1
    path = max((desk.tape / "segments").glob(f"*/*/*{SEALED}"), key=lambda path: path.stat().st_size)
    flipped = bytearray(path.read_bytes())
    flipped[len(flipped) // 3] ^= 0x10
    path.write_bytes(flipped)
    result.controls["a flipped bit"] = finds("")


def with_other(figures: Figures, **other) -> Figures:
    return Figures(**{name: other.get(name, getattr(figures, name)) for name in Figures.__dataclass_fields__})


def growing(memory: Memory) -> Memory:
    """The same noise around two megabytes an hour; of a run that was too short, a saw's."""
    lives = memory.settled() or [[(SETTLED_AFTER_S + at, 30.0 + at % 60 / 10) for at in range(0, 1500, 5)]]
    own = slope(lives)[0]
    more = lambda at: at * (2 - own) / 3600
    return Memory([[(at, rss + more(at), rss) for at, rss in life] for life in lives], memory.peak)


def leaking() -> Memory:
    """A real process that keeps 100 kB each 50 ms, looked at as the recorder is; its seconds count a hundredfold."""
    words = "import time\nkept = []\nwhile True:\n    kept.append(bytearray(b'x') * 100_000)\n    time.sleep(0.05)\n"
    process = subprocess.Popen([sys.executable, "-c", words])
    memory, begin = Memory([[]]), time.monotonic()
    while time.monotonic() - begin < 2:
        time.sleep(0.1)
        memory.look(process.pid, begin)
    process.kill()
    process.wait()
    memory.lives = [[(SETTLED_AFTER_S + at * 100, rss, anonymous) for at, rss, anonymous in memory.lives[0]]]
    return memory
