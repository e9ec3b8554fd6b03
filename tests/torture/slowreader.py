"""Mode `slowreader`: 100 clients of a replay that read nothing, beside one that is measured.

How much later than by the tape's own pace its envelopes come is compared with the same replay without them, from when all
their buffers are full: rounds in turn, of which the medians count. The replay's memory must not grow with them, and whoever
reads nothing for long is sent away. A replay that is told to wait for everybody must be found out.
"""

import re
import socket
import statistics
import subprocess
import time
from dataclasses import dataclass, replace
from pathlib import Path

from desk import Desk, Result, scratch, sweep
from provider import Load, Server
from tape import micros, read

ARCHIVE = {"commit_every": "20ms"}
READERS = 100
RECORD_S = 18
# Kernel buffers and queues of those that read nothing are full by then.
FULL_AFTER_S = 6.0
FACTOR = 1.1
# On a machine that has other things to do two rounds of the same differ by more than that factor; below this nobody minds.
GOOD_MS = 15.0
GROWS_AT_MOST = 64 << 20
REQUEST = (
    "GET /twitter/tweet/websocket HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nx-api-key: local\r\n\r\n"
)


def run(options) -> Result:
    dir, result = scratch(options.dir), Result()
    try:
        desk = Desk(options.binary, dir / "desk", Server(Load(burst=15, pause=0.004)), 1, ARCHIVE)
        recorder = desk.record("--for", str(RECORD_S))
        recorder.end(RECORD_S + 20)
        due = []
        read(desk.tape, lambda _, record: due.append(micros(record.at) / 1e6) if record.kind == "frame" else None)
        alone, beside = [], []
        for _ in range(options.count):
            result.runs += 1
            alone.append(play(result.violations, desk, due, 0))
            beside.append(play(result.violations, desk, due, READERS))
            result.reached += beside[-1].is_reached
        result.violations += judged(alone, beside)
        result.figures = {
            "p99 alone, ms": [round(round_.p99, 2) for round_ in alone],
            f"p99 beside {READERS}, ms": [round(round_.p99, 2) for round_ in beside],
            "slowest beside them, ms": round(max(round_.slowest for round_ in beside), 1),
            "grown, MiB": round((max(round_.grown for round_ in beside) - min(round_.grown for round_ in alone)) / (1 << 20), 1),
            "sent away": [round_.closed for round_ in beside],
        }
        control(result, desk, due, alone)
    finally:
        sweep(dir, result)
    return result


@dataclass
class Round:
    """How late envelopes came, how far memory grew, and how many of the others were sent away."""

    p99: float
    slowest: float
    grown: int
    closed: int
    # Whether the one that was measured got as far as where it counts.
    is_reached: bool


def judged(alone: list[Round], beside: list[Round]) -> list[str]:
    wrong = [f"{READERS - round_.closed} that read nothing were not sent away" for round_ in beside if round_.closed != READERS]
    without, among = (statistics.median(round_.p99 for round_ in rounds) for rounds in (alone, beside))
    if among > max(without * FACTOR, GOOD_MS):
        wrong.append(f"p99 is {among:.1f} ms beside {READERS}, {without:.1f} ms alone")
    grown = max(round_.grown for round_ in beside) - min(round_.grown for round_ in alone)
    if grown > GROWS_AT_MOST:
        wrong.append(f"the replay grows by {grown >> 20} MiB")
    return wrong


def control(result: Result, desk: Desk, due: list[float], alone: list[Round]) -> None:
    """Where everybody is waited for, one that reads nothing is enough."""
    said = []
    waiting = play(said, desk, due, 1, "--slow-clients", "wait", "--client-queue", "64KiB")
    result.controls["a replay that waits for whoever reads nothing"] = not waiting.is_reached and bool(said)
    result.controls["clients that are not sent away"] = bool(judged(alone, [replace(alone[0], closed=READERS - 1)]))
    late = replace(alone[0], closed=READERS, p99=GOOD_MS + FACTOR * max(round_.p99 for round_ in alone))
    result.controls["a p99 above the bar"] = bool(judged(alone, [late]))
    fat = replace(alone[0], closed=READERS, grown=alone[0].grown + GROWS_AT_MOST + (1 << 20))
    result.controls["a replay that grows"] = bool(judged(alone, [fat]))


def play(wrong: list[str], desk: Desk, due: list[float], stopped: int, *more: str) -> Round:
    command = [str(desk.binary), "--json", "replay", str(desk.tape), "--listen", "127.0.0.1:0", "--exit-when-done"]
    command += ["--max-connections", str(READERS + 1), "--wait-for-clients", str(stopped + 1), "--linger", "0", *more]
    with (desk.dir / "stderr").open("ab") as said:
        replay = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=said, env=desk.env)
    others = []
    try:
        port = int(re.search(rb"127\.0\.0\.1:(\d+)", replay.stdout.readline())[1])
        before = resident(replay.pid)
        for _ in range(stopped):
            others.append(connect(port, 4096)[0])
        delays, grown = listen(replay.pid, *connect(port, None), due, before)
        if len(delays) < 100:
            wrong.append(f"the reader beside {stopped} others got {len(delays)} envelopes late in the replay")
            return Round(0.0, 0.0, grown, 0, False)
        # Whoever was sent away finds an end behind what its socket still held.
        end = time.monotonic() + 5
        closed = sum(is_closed(other, end) for other in others)
        return Round(sorted(delays)[len(delays) * 99 // 100] * 1000, max(delays) * 1000, grown, closed, True)
    finally:
        for other in others:
            other.close()
        replay.terminate()
        replay.wait(30)
        replay.stdout.close()


def connect(port: int, buffer: int | None) -> tuple[socket.socket, bytes]:
    """A client whose handshake is done, and what came behind it."""
    client = socket.socket()
    if buffer is not None:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
    client.settimeout(10)
    client.connect(("127.0.0.1", port))
    client.sendall(REQUEST.encode())
    answer = b""
    while b"\r\n\r\n" not in answer:
        more = client.recv(1)
        assert more, "the replay hung up"
        answer += more
    assert b" 101 " in answer, answer[:200]
    return client, b""


def listen(pid: int, client: socket.socket, rest: bytes, due: list[float], before: int) -> tuple[list[float], int]:
    """Delays of the envelopes of the later part, against the earliest one; and the most that memory grew."""
    arrivals, grown, look_at = [], 0, 0.0
    client.settimeout(5)
    data = bytearray(rest)
    try:
        while len(arrivals) < len(due):
            more = client.recv(1 << 18)
            at = time.monotonic()
            if not more:
                break
            data += more
            while (size := whole(data)) is not None:
                if data[0] & 0x0F in (1, 2):
                    arrivals.append(at)
                del data[:size]
            if at > look_at:
                grown, look_at = max(grown, resident(pid) - before), at + 0.2
    except TimeoutError:
        pass
    client.close()
    delays = [at - planned for at, planned in zip(arrivals, due)]
    earliest = min(delays, default=0.0)
    late = [delay - earliest for delay, planned in zip(delays, due) if planned - due[0] > FULL_AFTER_S]
    return late, grown


def whole(data: bytearray) -> int | None:
    """Size of the first frame, if all of it is there."""
    if len(data) < 2:
        return None
    size, at = data[1] & 0x7F, 2
    if size > 125:
        at = 4 if size == 126 else 10
        if len(data) < at:
            return None
        size = int.from_bytes(data[2:at], "big")
    return at + size if len(data) >= at + size else None


def is_closed(client: socket.socket, until: float) -> bool:
    client.settimeout(0.2)
    while time.monotonic() < until:
        try:
            if not client.recv(1 << 16):
                return True
        except TimeoutError:
            return False
        except OSError:
            return True
    return False


def resident(pid: int) -> int:
    """Bytes of a process that lie in memory."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(re.search(r"VmRSS:\s+(\d+)", status)[1]) << 10
