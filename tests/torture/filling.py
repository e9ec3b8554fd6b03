"""Mode `backfill`: SIGKILL of `birdtape backfill` while it fills gaps from providers' histories, until it is done.

A recorder is killed and started again beside one that is not; a replay of the other one's tape is the history, behind a counter
of requests. Filling is killed after a number of pages and a moment more, or before, or halfway through, a call that changes
files; then the same command goes on. What it leaves must be what an undisturbed filling leaves: every record that was there,
every post that the history had, each page once, the same states of the same gaps, the same certificate. Whatever a kill leaves
calls no gap filled whose posts are not there. A kill may cost the page that was not durable and the one on its way.
"""

import hashlib
import http.client
import json
import os
import re
import shutil
import signal
import socketserver
import subprocess
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import oracle
from desk import PATIENCE, Desk, Result, dice, scratch, spread, sweep
from shim import Shim, build
from tape import ledger

PROVIDERS = ["twitterapi_io", "scrapebadger", "tweetstream"]
# Always the same one, because what it costs to fill differs from world to world.
WORLD = ["--synthetic", "--seed", "3", "--mix", "twitterapi_io=1,scrapebadger=1,tweetstream=1", "--rate", "90"]
ARCHIVE = {"commit_every": "20ms", "segment_size": "256KiB", "block_size": "16KiB"}
# So long it is recorded before the hole, not recorded, and recorded again.
BEFORE_S, HOLE_S, AFTER_S = 4.0, 2.0, 4.0
# Requests that one kill may cost; and whoever goes on asks once more who is followed.
A_KILL_COSTS = 2
A_LIST_COSTS = 1
KILLS_A_TAPE = 6
POST = re.compile(rb"\b\d{18,20}\b")


class Replay:
    """A running `birdtape replay`."""

    def __init__(self, binary: Path, dir: Path, env: dict, *words: str):
        command = [str(binary), "replay", *words, "--no-rate-limits", "--listen", "127.0.0.1:0"]
        with (dir / "replay").open("ab") as said:
            self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=said, env=env)
        self.base = json.loads(self.process.stdout.readline())["base"]

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(30)
        self.process.stdout.close()


class Counting(socketserver.ThreadingMixIn, HTTPServer):
    """Hands requests on to a replay and counts them before they are answered."""

    daemon_threads = True

    def __init__(self, base: str):
        super().__init__(("127.0.0.1", 0), Handing)
        self.behind, self.n, self.lock = base.removeprefix("http://"), 0, threading.Lock()
        self.base = f"http://127.0.0.1:{self.server_address[1]}"
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def handle_error(self, request, client_address) -> None:
        """Whoever asked is dead: that is what the test is about."""


class Handing(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = 1 << 20

    def do_GET(self) -> None:
        with self.server.lock:
            self.server.n += 1
        if not hasattr(self, "behind"):
            self.behind = http.client.HTTPConnection(self.server.behind, timeout=30)
        headers = {name: value for name, value in self.headers.items() if name.lower() not in ("host", "connection")}
        size = int(self.headers.get("content-length", 0))
        self.behind.request(self.command, self.path, self.rfile.read(size) if size else None, headers)
        answer = self.behind.getresponse()
        body = answer.read()
        self.send_response_only(answer.status)
        for name, value in answer.getheaders():
            if name.lower() not in ("content-length", "connection", "transfer-encoding"):
                self.send_header(name, value)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_POST = do_GET

    def log_message(self, *_) -> None:
        pass


@dataclass
class Found:
    """What an independent reader finds on a tape."""

    # (source, digest of address and body) of each page of history, and how often it is there.
    pages: Counter = field(default_factory=Counter)
    # Digest of each record by source and number.
    records: dict = field(default_factory=dict)
    # Ids that stand in pages or live envelopes, by source.
    ids: dict = field(default_factory=dict)
    # By source and number: its whole state.
    gaps: dict = field(default_factory=dict)
    # Requests that the ledger has counted.
    spent: int = 0
    violations: list = field(default_factory=list)


def find(binary: Path, tape: Path) -> Found:
    found = Found()

    def visit(source, record) -> None:
        digest = hashlib.sha256(record.body).hexdigest()
        found.records[source.name, record.n] = (record.kind, record.at, digest)
        # A list of what is followed is asked for again by who goes on, as it may be another one by then.
        if record.kind == "http" and record.via == "history" and not record.info["url"].endswith("/api/me"):
            found.pages[source.name, digest] += 1
        if record.kind in ("http", "frame") and record.via != "own":
            found.ids.setdefault(source.name, set()).update(POST.findall(record.body))

    read = oracle.check(binary, tape, visit)
    found.violations = read.violations
    for name, source in read.sources.items():
        found.gaps |= {(name, n): (gap["cause"], gap["scope"], gap["state"], gap["from"], gap["to"]) for n, gap in ledger(source).items()}
        found.spent += sum(fact.get("spent", {}).get("requests", 0) for _, _, _, fact in source.facts if fact.get("note") == "gap_step")
    return found


class Stage:
    """A tape with holes, the tape without them, and what an undisturbed filling makes of the former."""

    def __init__(self, options, dir: Path):
        self.binary, self.dir = options.binary, dir
        self.env = {name: value for name, value in os.environ.items() if not name.startswith("BIRDTAPE_")} | {"TORTURE": "k"}
        self.library = build(dir)
        world = Replay(self.binary, dir, self.env, *WORLD, "--shift", "now", "--wait-for-clients", "2", "--max-connections", "4")
        full, self.holed = dir / "full", dir / "holed"
        beside = self.record(full, world.base)
        cut = self.record(self.holed, world.base)
        time.sleep(BEFORE_S)
        cut.kill()
        cut.wait()
        time.sleep(HOLE_S)
        cut = self.record(self.holed, world.base)
        time.sleep(AFTER_S)
        for recorder in (cut, beside):
            recorder.terminate()
            assert recorder.wait(PATIENCE) in (0, 3), "a recorder does not end in good order"
        world.stop()
        self.history = Replay(self.binary, dir, self.env, str(full), "--from", "end")
        self.before = find(self.binary, self.holed)
        assert not self.before.violations, self.before.violations
        # Nothing that changes from one run to the next is compared.
        runs = [self.undisturbed(f"undisturbed-{nth}") for nth in range(2)]
        (self.whole, self.certificate, self.requests, self.seconds, self.calls), (again, certificate, requests, *_) = runs
        assert again.pages == self.whole.pages and states(again) == states(self.whole), "no two fillings are equal"
        assert certificate == self.certificate and requests == self.requests, f"{self.requests} requests and {requests} are not equal"
        gaps = states(self.whole)
        assert {name for name, _ in gaps} == set(PROVIDERS) and all(state[2] == "filled" for state in gaps.values()), gaps
        self.n_pages = sum(self.whole.pages.values())
        truth = find(self.binary, full).ids
        # By source: ids that the recorder missed, and that the history has.
        self.missing = {name: (truth[name] - self.before.ids[name]) & self.whole.ids[name] for name in PROVIDERS}
        assert all(len(ids) > 20 for ids in self.missing.values()), "hardly anything was missed"

    def stop(self) -> None:
        self.history.stop()

    def config(self, tape: Path, base: str) -> Path:
        config = tape.with_name(f"{tape.name}.toml")
        lines = [f'tape = "{tape}"', "[archive]", *(f'{key} = "{value}"' for key, value in ARCHIVE.items())]
        for name in PROVIDERS:
            lines += [f"[source.{name}]", f'provider = "{name}"', f'base_url = "{base}"', 'key_env = "TORTURE"']
            lines += ['lateness_horizon = "1s"', 'reconnect_floor = "0s"', 'scopes_every = "0s"']
        config.write_text("\n".join(lines) + "\n")
        return config

    def record(self, tape: Path, base: str) -> subprocess.Popen:
        command = [str(self.binary), "--config", str(self.config(tape, base)), "record", "--no-backfill"]
        with (self.dir / "stderr").open("ab") as said:
            return subprocess.Popen(command, stdout=said, stderr=said, env=self.env)

    def fill(self, tape: Path, base: str, env: dict) -> subprocess.Popen:
        command = [str(self.binary), "--json", "--config", str(self.config(tape, base)), "backfill", "--pace", "0"]
        with tape.with_name(f"{tape.name}.stderr").open("ab") as said:
            return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=said, env=self.env | env)

    def undisturbed(self, name: str) -> tuple[Found, list, int, float, int]:
        counting, tape = Counting(self.history.base), self.dir / name
        copy(self.holed, tape)
        shim = Shim(self.library, self.dir / f"{name}.page", self.dir)
        begin = time.monotonic()
        filling = self.fill(tape, counting.base, shim.env("none"))
        filling.communicate()
        assert filling.returncode == 0, f"an undisturbed filling ends with exit code {filling.returncode}"
        seconds = time.monotonic() - begin
        found, certificate = find(self.binary, tape), certified(self.binary, tape)
        assert not found.violations, found.violations
        counting.shutdown()
        counting.server_close()
        shutil.rmtree(tape)
        return found, certificate, counting.n, seconds, shim.calls


def copy(tape: Path, to: Path) -> None:
    shutil.copytree(tape, to, ignore=shutil.ignore_patterns("*.sock"))


def states(found: Found) -> dict:
    return found.gaps


def certified(binary: Path, tape: Path) -> list:
    """What the certificates of all sources say of every scope, but for what is newer than anything that is known."""
    said = []
    for name in sorted(PROVIDERS):
        command = [str(binary), "--tape", str(tape), "certify", "--source", name, "--from", "-1d", "--to", "now"]
        done = subprocess.run(command, capture_output=True, check=False, timeout=300)
        if done.returncode not in (0, 3):
            said.append(done.stderr.decode(errors="replace")[-300:])
            continue
        for scope in json.loads(done.stdout)["scopes"]:
            classes = {of: scope[of]["intervals"] for of in oracle.CLASSES if of in scope and of != "pending"}
            said.append((name, scope["scope"], scope["version"], classes))
    return said


def run(options) -> Result:
    dir, result = scratch(options.dir), Result()
    try:
        stage = Stage(options, dir)
        try:
            result = spread(options.count, options.jobs, work, options, stage)
        finally:
            stage.stop()
        result.figures |= {"undisturbed: requests": stage.requests, "pages": stage.n_pages, "calls that change files": stage.calls}
    finally:
        sweep(dir, result)
    return result


def work(result: Result, count: int, nth: int, options, stage: Stage) -> None:
    rng, batch = dice(options.seed, nth, "backfill"), 0
    while result.runs < count:
        counting, tape = Counting(stage.history.base), stage.dir / f"{nth}-{batch}"
        copy(stage.holed, tape)
        shim = Shim(stage.library, stage.dir / f"{tape.name}.page", stage.dir)
        before = len(result.violations)
        where = f"worker {nth}, tape {batch}"
        kills = min(KILLS_A_TAPE, count - result.runs)
        done = 0
        while done < kills:
            is_over = not one(result, stage, tape, counting, shim, rng, KILLS_A_TAPE - done)
            if is_over:
                break
            result.runs += 1
            result.reached += 1
            done += 1
            if rng.random() < 0.25:
                halfway(result, stage, tape, where)
        filling = stage.fill(tape, counting.base, {})
        filling.communicate()
        if filling.returncode != 0:
            said = tape.with_name(f"{tape.name}.stderr").read_text()[-400:]
            result.violations.append(f"{where}: after {done} kills the same command ends with exit code {filling.returncode}: {said}")
        found, certificate = find(stage.binary, tape), certified(stage.binary, tape)
        result.violations += [f"{where}, {done} kills: {what}" for what in judged(stage, found, certificate, counting.n, done)]
        add(result, "tapes filled", 1)
        add(result, "requests more than undisturbed", counting.n - stage.requests)
        add(result, "requests that the ledger does not know", counting.n - found.spent)
        if batch == 0 and nth == 0:
            controls(result, stage, found, certificate)
        counting.shutdown()
        counting.server_close()
        if len(result.violations) == before:
            shutil.rmtree(tape)
        batch += 1


def add(result: Result, name: str, figure: int) -> None:
    result.figures[name] = result.figures.get(name, 0) + figure


def one(result: Result, stage: Stage, tape: Path, counting: Counting, shim: Shim, rng, left: int) -> bool:
    """A filling that is killed; whether it was before its end."""
    if rng.random() < 0.4:
        filling = stage.fill(tape, counting.base, shim.env(rng.choice(["kill", "half"]), rng.randrange(1, 1 + stage.calls // left)))
        filling.communicate()
        is_killed = filling.returncode == -signal.SIGKILL
        add(result, "kills at a call", is_killed)
        return is_killed
    pages, moment = rng.randrange(0, 1 + stage.n_pages // left), rng.random() * 0.03
    filling = stage.fill(tape, counting.base, {})
    if pages == 0:
        # While the tape is being opened, or before the first answer.
        moment = rng.random() * 0.3
    for line in filling.stdout:
        pages -= b'"event":"page"' in line
        if pages <= 0:
            break
    time.sleep(moment)
    filling.kill()
    filling.communicate()
    is_killed = filling.returncode == -signal.SIGKILL
    add(result, "kills at a moment", is_killed)
    return is_killed


def halfway(result: Result, stage: Stage, tape: Path, where: str) -> None:
    """What a kill leaves, looked at in a copy: the next start must mend it by itself."""
    aside = tape.with_name(f"{tape.name}-aside")
    copy(tape, aside)
    done = subprocess.run([str(stage.binary), "--tape", str(aside), "recover"], capture_output=True, check=False, env=stage.env)
    if done.returncode != 0:
        result.violations.append(f"{where}: recover ends with {done.returncode}: {done.stderr.decode(errors='replace')[-300:]}")
    found = find(stage.binary, aside)
    result.violations += [f"{where}, halfway: {what}" for what in kept(stage, found) + found.violations]
    add(result, "looked at halfway", 1)
    shutil.rmtree(aside)


def kept(stage: Stage, found: Found) -> list[str]:
    """What must hold at any time."""
    wrong = []
    gone = [key for key, record in stage.before.records.items() if found.records.get(key) != record]
    if gone:
        wrong.append(f"{len(gone)} records that were there are gone or others, such as {gone[0]}")
    twice = [key for key, n in found.pages.items() if n > stage.whole.pages.get(key, 1)]
    if twice:
        wrong.append(f"{len(twice)} pages are stored more often than by an undisturbed filling, such as one of {twice[0][0]}")
    for (name, n), state in found.gaps.items():
        lacking = stage.missing.get(name, set()) - found.ids.get(name, set())
        if state[2] == "filled" and lacking:
            wrong.append(f"gap {name}-{n} is called filled, and {len(lacking)} posts of it are not there")
    return wrong


def judged(stage: Stage, found: Found, certificate: list, requests: int, kills: int) -> list[str]:
    """What must hold in the end."""
    wrong = found.violations + kept(stage, found)
    lacking = sum(len(ids - found.ids.get(name, set())) for name, ids in stage.missing.items())
    if lacking:
        wrong.append(f"{lacking} posts that the history has are not there")
    if states(found) != states(stage.whole):
        wrong.append(f"the gaps end as {states(found)}, undisturbed as {states(stage.whole)}")
    if certificate != stage.certificate:
        wrong.append(f"the certificates say {certificate}, undisturbed {stage.certificate}")
    may_cost = A_KILL_COSTS * kills + (A_LIST_COSTS if kills else 0)
    if requests > stage.requests + may_cost:
        wrong.append(f"{requests} requests after {kills} kills, {stage.requests} undisturbed")
    if not requests - may_cost <= found.spent <= requests:
        wrong.append(f"the ledger knows of {found.spent} requests, {requests} were made, with {kills} kills")
    return wrong


def controls(result: Result, stage: Stage, found: Found, certificate: list) -> None:
    """Plants what must be found, one after the other, in what was judged."""

    def finds(words: str, requests: int = stage.requests, certificate: list = certificate) -> bool:
        return any(words in what for what in judged(stage, found, certificate, requests, 0))

    spent = found.spent
    found.spent = stage.requests
    key = next(iter(found.pages))
    found.pages[key] += 1
    result.controls["a page that is stored twice"] = finds("are stored more often")
    found.pages[key] -= 1
    name = key[0]
    ids, found.ids[name] = found.ids[name], found.ids[name] - {min(stage.missing[name])}
    result.controls["a post that is not there"] = finds("that the history has are not there")
    result.controls["a gap that is called filled and is not"] = finds("is called filled")
    found.ids[name] = ids
    record = next(iter(stage.before.records))
    was = found.records.pop(record)
    result.controls["a record that is gone"] = finds("are gone or others")
    found.records[record] = was
    result.controls["a request too many"] = finds("requests after 0 kills", requests=stage.requests + 1)
    result.controls["a request that the ledger does not know"] = finds("the ledger knows of", requests=stage.requests + 1)
    gap = next(iter(found.gaps))
    state = found.gaps[gap]
    found.gaps[gap] = (*state[:2], "partial", *state[3:])
    result.controls["a gap that ends otherwise"] = finds("the gaps end as")
    found.gaps[gap] = state
    result.controls["a certificate that says otherwise"] = finds("the certificates say", certificate=certificate[1:])
    found.spent = spent
