"""Mode `webhook`: SIGKILL of a recorder that receives webhooks, again and again.

Senders deliver for two sources, as the providers do: TwitterAPI.io with the key in a header, ScrapeBadger signed. What is not
answered with 200 is tried again, by the next recorder, too. Every third delivery is forged: a bit of its body, its signature or
its key is another, it is stale, or signed for somebody else. In the end everything that was answered with 200 is on the tape,
byte for byte; nothing forged is; and nothing is there more often than it was tried and not answered, and once.
"""

import hashlib
import hmac
import http.client
import json
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import oracle
from desk import Desk, Result, dice, now, spread_in_scratch
from provider import Load, Server

# Kills on one tape before it is looked at as a whole.
BATCH = 25
SENDERS = 4
ARCHIVE = {"commit_every": "3ms", "segment_size": "64KiB", "block_size": "16KiB"}
SECRET = "torture-webhook-secret"
IO, BADGER = "s0", "badger"


@dataclass
class Delivery:
    source: str
    body: bytes
    id: str
    # How it is forged, if it is.
    forged: str = ""
    tried: int = 0
    taken: bool = False


class Ledger:
    """What was delivered to one tape, and what became of it."""

    def __init__(self, seed: int, nth: int, batch: int):
        self.rng, self.lock = dice(seed, nth, f"webhook {batch}"), threading.Lock()
        self.name, self.count = f"{nth}-{batch}", 0
        self.waiting: list[Delivery] = []
        self.all: list[Delivery] = []
        # Forged ones that were answered with 200, and refusals of genuine ones.
        self.wrong: list[str] = []

    def next(self) -> Delivery:
        with self.lock:
            if self.waiting and self.rng.random() < 0.7:
                return self.waiting.pop(self.rng.randrange(len(self.waiting)))
            self.count += 1
            id = f"{self.name}-{self.count}"
            forged = self.rng.choice(["body", "proof", "stale", "foreign"]) if self.rng.random() < 1 / 3 else ""
            source = IO if forged == "stale" else self.rng.choice([IO, BADGER])
            delivery = Delivery(source, body(source, id, forged == "stale", self.rng.randrange(40, 4_000)), id, forged)
            self.all.append(delivery)
            return delivery

    def note(self, delivery: Delivery, status: int | None) -> None:
        with self.lock:
            if status == 200:
                delivery.taken = True
                if delivery.forged:
                    self.wrong.append(f"a forged delivery ({delivery.forged}) was answered with 200")
                return
            if not delivery.forged:
                if status not in (None, 503):
                    self.wrong.append(f"a genuine delivery was answered with {status}")
                delivery.tried += 1
                self.waiting.append(delivery)
            elif status not in (None, 401, 403, 503):
                self.wrong.append(f"a forged delivery ({delivery.forged}) was answered with {status}")


def body(source: str, id: str, is_stale: bool, size: int) -> bytes:
    number = 2_000_000_000_000_000_000 + int(hashlib.sha256(id.encode()).hexdigest()[:12], 16)
    text = f"{id} “{'é' * (size // 2)}”"
    if source == BADGER:
        return json.dumps({"type": "new_tweet", "source": "monitor", "monitor_id": "m", "tweet_id": str(number), "tweet_text": text}).encode()
    stamp = time.time_ns() // 1_000_000 - (400_000 if is_stale else 0)
    tweet = {"type": "tweet", "id": str(number), "text": text}
    return json.dumps({"tweets": [tweet], "rule_id": "r", "event_type": "tweet", "timestamp": stamp}, ensure_ascii=False).encode()


def flipped(data: bytes, rng) -> bytes:
    at, bent = rng.randrange(len(data)), bytearray(data)
    bent[at] ^= 1 << rng.randrange(8)
    return bytes(bent)


def proof(delivery: Delivery, rng) -> tuple[dict, bytes]:
    """Headers and body as they go out."""
    sent = flipped(delivery.body, rng) if delivery.forged == "body" and delivery.source == BADGER else delivery.body
    # TwitterAPI.io signs nothing: of a body that somebody else sends, the key is another.
    wrong_key = delivery.forged in ("proof", "foreign") or (delivery.forged == "body" and delivery.source == IO)
    if delivery.source == IO:
        return {"X-API-Key": "s1" if wrong_key else IO}, sent
    secret = "another" if delivery.forged == "foreign" else SECRET
    digits = hmac.new(secret.encode(), delivery.body, hashlib.sha256).hexdigest()
    if delivery.forged == "proof":
        place = rng.randrange(len(digits))
        digits = digits[:place] + rng.choice([c for c in "0123456789abcdefABCDEF " if c != digits[place]]) + digits[place + 1 :]
    name = rng.choice(["X-ScrapeBadger-Signature", "X-Signature-256"])
    return {name: f"sha256={digits}", "X-ScrapeBadger-Delivery-Id": delivery.id}, sent


def send(ledger: Ledger, port: int, stop: threading.Event, nth: int) -> None:
    rng = dice(0, nth, ledger.name)
    connection = None
    while not stop.is_set():
        delivery, status = ledger.next(), None
        headers, sent = proof(delivery, rng)
        try:
            connection = connection or http.client.HTTPConnection("127.0.0.1", port, timeout=20)
            connection.request("POST", f"/{delivery.source}", sent, headers)
            answer = connection.getresponse()
            answer.read()
            status = answer.status
        except (OSError, http.client.HTTPException):
            connection = None
        ledger.note(delivery, status)
        if connection is None and stop.wait(0.002):
            return


def run(options) -> Result:
    return spread_in_scratch(options, work)


def work(result: Result, count: int, nth: int, options, base: Path) -> None:
    rng, server, batch = dice(options.seed, nth, "webhook kill"), Server(Load(burst=5, pause=0.01)), 0
    while result.runs < count:
        desk = made(options, base / f"{nth}-{batch}", server)
        ledger, before = Ledger(options.seed, nth, batch), len(result.violations)
        for _ in range(min(BATCH, count - result.runs)):
            result.runs += 1
            one(result, desk, ledger, rng)
        # In the end nobody is killed any more: what still waits is taken.
        life(result, desk, ledger, lambda: not ledger.waiting)
        if desk.recover().returncode != 0:
            result.violations.append(f"worker {nth}, batch {batch}: the tape cannot be recovered")
        tape, _ = desk.judge()
        found = judged(desk, ledger)
        result.violations += [f"worker {nth}, batch {batch}: {what}" for what in [*tape.violations, *ledger.wrong, *found]]
        count_up(result, ledger)
        if nth == 0 and batch == 0:
            controls(result, desk, ledger)
        if len(result.violations) == before:
            desk.sweep()
        batch += 1


def made(options, dir: Path, server: Server) -> Desk:
    desk = Desk(options.binary, dir, server, 1, ARCHIVE)
    desk.has_webhooks = True
    # Its socket is refused: its webhooks are all that it has.
    more = ['[source.badger]', 'provider = "scrapebadger"', 'base_url = "http://127.0.0.1:9"', 'reconnect_floor = "0s"', 'reconnect_cap = "1s"', 'scopes_every = "0s"']
    desk.config.write_text(desk.config.read_text() + "\n".join(more) + "\n")
    desk.env["SCRAPEBADGER_WEBHOOK_SECRET"] = SECRET
    return desk


def life(result: Result, desk: Desk, ledger: Ledger, is_over) -> None:
    """A recorder whose senders go on until it is over; then it is stopped in good order."""
    recorder, senders, stop = begin(desk, ledger)
    if recorder is None:
        result.violations.append(f"it does not receive: {(desk.dir / 'stderr').read_text()[-300:]}")
        return
    if not recorder.until(lambda: is_over()):
        result.violations.append("deliveries are not taken although nobody is killed")
    stop.set()
    # The last of them are still on their way.
    while any(sender.is_alive() for sender in senders):
        recorder.read(0.01)
    if ledger.waiting and not result.violations:
        return life_again(result, desk, ledger, recorder)
    code = recorder.stop()
    if code not in (0, 3):
        result.violations.append(f"it ends with exit code {code}")
    desk.remember(recorder, None)


def life_again(result: Result, desk: Desk, ledger: Ledger, recorder) -> None:
    recorder.stop()
    desk.remember(recorder, None)
    life(result, desk, ledger, lambda: not ledger.waiting)


def begin(desk: Desk, ledger: Ledger):
    recorder = desk.record("--webhooks", "127.0.0.1:0")
    listens = lambda: [event for event in recorder.events if event["event"] == "webhooks"]
    if not recorder.until(lambda: len(listens()) == 2):
        recorder.kill()
        return None, [], None
    port = int(listens()[0]["url"].split(":")[2].split("/")[0])
    stop = threading.Event()
    senders = [threading.Thread(target=send, args=(ledger, port, stop, nth), daemon=True) for nth in range(SENDERS)]
    for sender in senders:
        sender.start()
    return recorder, senders, stop


def one(result: Result, desk: Desk, ledger: Ledger, rng) -> None:
    recorder, senders, stop = begin(desk, ledger)
    if recorder is None:
        result.violations.append(f"it does not receive: {(desk.dir / 'stderr').read_text()[-300:]}")
        return
    recorder.listen(0.01 + rng.random() * 0.1)
    recorder.drain()
    result.reached += recorder.kill()
    stop.set()
    for sender in senders:
        sender.join()
    desk.remember(recorder, now())


def kept(desk: Desk) -> dict:
    """How often each body is on the tape as a webhook's, by source."""
    found: dict = {}

    def visit(source, record) -> None:
        if record.via == "webhook":
            found[(source.name, record.body)] = found.get((source.name, record.body), 0) + 1

    oracle.read(desk.tape, visit)
    return found


def judged(desk: Desk, ledger: Ledger) -> list[str]:
    found, wrong = kept(desk), []
    for delivery in ledger.all:
        times = found.pop((delivery.source, delivery.body), 0)
        if delivery.taken and times == 0:
            wrong.append(f"delivery {delivery.id} of {delivery.source} was answered with 200 and is not on the tape")
        if delivery.forged and times > 0:
            wrong.append(f"forged delivery {delivery.id} of {delivery.source} ({delivery.forged}) is on the tape")
        if times > delivery.tried + 1:
            wrong.append(f"delivery {delivery.id} of {delivery.source} is there {times} times, and was tried {delivery.tried + 1} times")
    wrong += [f"{source} has what nobody delivered: {body[:80]!r}" for source, body in found]
    return wrong


def count_up(result: Result, ledger: Ledger) -> None:
    forged = sum(1 for delivery in ledger.all if delivery.forged)
    for name, figure in (
        ("answered with 200", sum(1 for delivery in ledger.all if delivery.taken)),
        ("tried again", sum(delivery.tried for delivery in ledger.all)),
        ("forged", forged),
    ):
        result.figures[name] = result.figures.get(name, 0) + figure


def controls(result: Result, desk: Desk, ledger: Ledger) -> None:
    """Plants what must be found, one after the other."""

    def finds(words: str) -> bool:
        return any(words in what for what in judged(desk, ledger))

    ledger.all.append(Delivery(BADGER, b"{}", "planted", taken=True))
    result.controls["a 200 for what is not on the tape"] = finds("was answered with 200 and is not on the tape")
    ledger.all.pop()
    genuine = next(delivery for delivery in ledger.all if delivery.taken)
    genuine.forged = "body"
    result.controls["a forged delivery on the tape"] = finds("is on the tape")
    genuine.forged = ""
    ledger.all.remove(genuine)
    result.controls["what nobody delivered"] = finds("has what nobody delivered")
    ledger.all.append(genuine)
    tried, genuine.tried = genuine.tried, -1
    result.controls["one that is there too often"] = finds("and was tried 0 times")
    genuine.tried = tried
