"""Plants secrets, lets everything go wrong, and looks for them: leakcheck.py BIRDTAPE WORK SEED short|long.

Prints one line of JSON a part. README.md says what happens.
"""

import hashlib
import hmac
import json
import os
import random
import re
import resource
import signal
import sqlite3
import string
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path

import duckdb

import terminal
from peers import Peer, answer, close, frame, text
from search import END, Search, plain_forms

SOURCES = ["twitterapi_io", "tweetstream", "scrapebadger", "x_live"]
TOPIC = "/tweet_engagement/1727346512345678901"
PATIENCE = 30


class Planted:
    """Random secrets, one for each way in which a key travels."""

    def __init__(self, chance):
        def secret(odd):
            letters = string.ascii_letters + string.digits
            end = lambda: "".join(chance.choice(letters) for _ in range(END))
            return end() + odd + end()

        # What stands in the middle is what each way allows and some encoding changes.
        self.secrets = {
            "header key": secret('/+="&\\\'<%'),
            "subprotocol key": secret("+%&'~"),
            "query key": secret("/+=&%#? "[:-1]),
            "cookie": secret("/+=&<%"),
            "csrf token": secret("/+='&%"),
            "bearer key": secret("/+=~"),
            "stand-ins' key": secret("/+= "[:-1]),
            "proxy's password": secret("+&="),
            "webhook secret": secret("/+=&<% "[:-1]),
        }
        self.environment = {
            "TWITTERAPI_IO_API_KEY": self.secrets["header key"],
            "TWEETSTREAM_API_KEY": self.secrets["subprotocol key"],
            "SCRAPEBADGER_API_KEY": self.secrets["query key"],
            "X_AUTH_TOKEN": self.secrets["cookie"],
            "X_CT0": self.secrets["csrf token"],
            "X_BEARER_TOKEN": self.secrets["bearer key"],
            "SCRAPEBADGER_WEBHOOK_SECRET": self.secrets["webhook secret"],
            "BIRDTAPE_REDACT_KEY": self.secrets["stand-ins' key"],
        }
        self.of = {
            "twitterapi_io": ["header key"],
            "tweetstream": ["subprotocol key"],
            "scrapebadger": ["query key"],
            "x_live": ["cookie", "csrf token", "bearer key"],
        }

    def echo(self, source):
        """What a careless server might say: every secret of the source in every form."""
        return [form for name in self.of[source] for form in plain_forms(self.secrets[name]).values()]

    def was_sent(self, source, request):
        """Whether a request brought all secrets of the source."""
        sent = request.head.decode("latin-1")
        return all(any(form in sent for form in plain_forms(self.secrets[name]).values()) for name in self.of[source])


def envelope(source, words, number=1):
    """An envelope of a provider with these words in it."""
    number = str(2_007_000_000_000_000_000 + number)
    if source == "twitterapi_io":
        return {"event_type": "tweet", "rule_id": "r", "timestamp": 1, "tweets": [
            {"id": number, "text": words, "createdAt": "Mon Jan 05 12:00:00 +0000 2026", "author": {"id": "7", "userName": "a"}}]}
    if source == "tweetstream":
        return {"v": 1, "t": "tweet", "op": "content", "id": number, "ts": 1767614400000, "d": {"tweetId": number, "text": words}}
    if source == "scrapebadger":
        return {"type": "new_tweet", "tweet_id": number, "tweet_text": words, "author_username": "a"}
    return {"topic": TOPIC, "payload": {"tweet_engagement": {"like_count": "3", "note": words}}}


def message(source, words):
    """A message as its transport carries it."""
    if source == "x_live":
        return b"data: " + words.encode() + b"\n\n"
    return text(words)


CONFIG = '{"topic":"/system/config","payload":{"config":{"session_id":"s","subscription_ttl_millis":120000,"heartbeat_millis":25000}}}'


def greeting(source):
    first = message(source, CONFIG) if source == "x_live" else b""
    return first + message(source, json.dumps(envelope(source, "hello")))


class Scenario:
    """One way in which things go; `live` answers what opens a stream, `rest` everything else."""

    def __init__(self, name, live=None, rest=None, times=1, base=None, ends="int", wants=None, config=""):
        self.name, self.live, self.rest, self.times = name, live, rest, times
        self.base, self.ends, self.wants, self.config = base, ends, wants, config


def scenarios(planted, elsewhere):
    def shouted(source):
        return " ".join(planted.echo(source))

    def headers(source):
        return [("X-Echo", form) for form in planted.echo(source)] + [
            ("Set-Cookie", "session=" + planted.secrets[planted.of[source][0]]),
            ("X-Request-Id", planted.echo(source)[0]), ("Server", planted.echo(source)[-1])]

    def echoing(status):
        return lambda source, request: (answer(status, json.dumps({"error": shouted(source), "message": planted.echo(source)[0]}),
                                               headers(source)), False)

    def stays(more):
        return lambda source, request: (request.upgraded() + greeting(source) + more(source), True)

    def ends(more):
        return lambda source, request: (request.upgraded() + greeting(source) + more(source), False)

    def handshake(source, request):
        chosen = []
        offered = request.headers.get("sec-websocket-protocol")
        if offered:
            chosen = [("Sec-WebSocket-Protocol", offered.split(",")[-1].strip())]
        return request.upgraded(chosen + headers(source)) + greeting(source), True

    def frames(source):
        said = b"".join(message(source, json.dumps(envelope(source, form, at))) for at, form in enumerate(planted.echo(source)))
        # No envelope at all, and not even JSON.
        return said + message(source, shouted(source))

    def farewell(source):
        if source == "x_live":
            return message(source, '{"errors":[{"code":32,"message":' + json.dumps(shouted(source)) + "}]}")
        return close(1008, planted.echo(source)[0])

    def error_frame(source):
        words = json.dumps(planted.echo(source)[0])
        return message(source, {
            "twitterapi_io": '{"event_type":"error","message":%s}', "tweetstream": '{"v":1,"t":"control","op":"error","d":{"message":%s}}',
            "scrapebadger": '{"type":"error","code":4100,"message":%s}', "x_live": '{"errors":[{"code":88,"message":%s}]}'}[source] % words)

    def malformed(source, request):
        """Another way at each attempt."""
        counts[source] = counts.get(source, 0) + 1
        said = shouted(source).encode()
        if source == "x_live":
            broken = [b"data: " + said, b"data: \xff" + said + b"\n\n", b"nonsense " + said + b"\n\n"]
        else:
            broken = [frame(1, b"\xff" + said), frame(1, said, first=0xc0), frame(3, said), frame(1, said)[:-1],
                      frame(1, said, first=0) + frame(1, b"x")]
        return request.upgraded() + greeting(source) + broken[counts[source] % len(broken)], False

    # The third in a row makes some clients wait long: so each begins with another.
    counts = {"twitterapi_io": 0, "tweetstream": 1, "scrapebadger": 2, "x_live": 0}
    redirect = lambda source, request: (answer(302, shouted(source), [
        ("Location", f"http://127.0.0.1:{elsewhere.port}/?api_key=" + planted.echo(source)[1]), *headers(source)]), False)
    page = lambda source, request: (answer(
        502, "<html>" + shouted(source) + "</html>", [("Location", planted.echo(source)[0])]), False)
    bad_accept = lambda source, request: (request.upgraded(headers(source)).replace(
        b"Sec-WebSocket-Accept: ", b"Sec-WebSocket-Accept: x").replace(b"200 OK", b"204 No Content"), False)
    endless = lambda source, request: (b"HTTP/1.1 200 OK\r\n" + b"".join(
        b"X-Echo: " + planted.echo(source)[0].encode() + b"\r\n" for _ in range(2000)), False)

    return [
        Scenario("success", stays(lambda source: b""), rest=lambda source, request: (answer(200, "[]"), False)),
        Scenario("no such name", base="https://nobody.invalid"),
        Scenario("nobody listens", base="closed port"),
        Scenario("401 that quotes the key", echoing(401), rest=echoing(401)),
        Scenario("redirect to another origin", redirect, rest=redirect),
        Scenario("no TLS where TLS is wanted", base="https to a plain port"),
        Scenario("a certificate nobody knows", base="https to a stranger"),
        Scenario("echo in the handshake", handshake, rest=echoing(429)),
        Scenario("echo in messages", stays(frames), rest=echoing(200)),
        Scenario("echo in the farewell", ends(farewell), rest=echoing(503)),
        Scenario("echo in an error of the stream", stays(error_frame), rest=redirect),
        Scenario("echo in a page of an error", page, rest=page, times=2),
        Scenario("malformed frames", malformed, rest=echoing(500), times=3),
        Scenario("wrong accept key", bad_accept, rest=echoing(404)),
        Scenario("endless headers", endless, rest=endless),
        Scenario("429 with a wait", echoing(429), rest=echoing(429)),
        Scenario("abort", stays(frames), rest=echoing(200), ends="abrt"),
        Scenario("kill", stays(frames), rest=echoing(200), ends="kill"),
    ]


def ended(process):
    """Whether it has ended, or does within a moment."""
    try:
        process.wait(timeout=5)
    except subprocess.TimeoutExpired:
        return False
    return True


class Check:
    def __init__(self, birdtape, work, seed, is_short):
        self.birdtape, self.work, self.is_short = birdtape, work, is_short
        self.planted = Planted(random.Random(seed))
        self.search = Search(self.planted.secrets)
        self.runs = self.reached = 0
        self.violations, self.missed, self.notes = [], [], []
        self.elsewhere = Peer(lambda request: (answer(200, "{}"), False))
        with Peer(lambda request: (b"", False)).listener as listener:
            self.closed_port = listener.getsockname()[1]

    def environment(self, directory, **more):
        names = {name: value for name, value in os.environ.items() if not name.startswith(("BIRDTAPE_", "X_"))}
        return {**names, **self.planted.environment, "BIRDTAPE_LOG": "trace", "RUST_LOG": "trace", "RUST_BACKTRACE": "full",
                "SSLKEYLOGFILE": str(directory / "tls-keys.log"), **more}

    def command(self, directory, *arguments):
        return [self.birdtape, "--tape", str(directory / "tape"), "--config", str(directory / "birdtape.toml"), *arguments]

    def start(self, directory, name, *arguments, **more):
        """A child of the program whose output goes to files beside the tape."""
        def unlimited():
            soft, hard = resource.getrlimit(resource.RLIMIT_CORE)
            resource.setrlimit(resource.RLIMIT_CORE, (hard, hard))

        out = open(directory / f"{name}.out.log", "wb")
        err = open(directory / f"{name}.err.log", "wb")
        with out, err:
            return subprocess.Popen(self.command(directory, *arguments), stdout=out, stderr=err, stdin=subprocess.DEVNULL,
                                    cwd=directory, env=self.environment(directory, **more), preexec_fn=unlimited)

    def run(self, directory, name, *arguments, **more):
        process = self.start(directory, name, *arguments, **more)
        try:
            return process.wait(timeout=PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            return None

    def configure(self, directory, bases, more=""):
        lines = ["[backfill]", "automatic = false", 'index_delay = "0s"', ""]
        for source in SOURCES:
            lines += [f"[source.{source}]", f'provider = "{source}"', f'base_url = "{bases[source]}"', 'reconnect_floor = "50ms"',
                      'reconnect_cap = "100ms"', 'lateness_horizon = "0s"']
            lines += {"scrapebadger": ['auth = "query"'], "x_live": [f'topics = ["{TOPIC}"]']}.get(source, [])
            lines += [more, ""]
        (directory / "birdtape.toml").write_text("\n".join(lines), encoding="utf-8")

    def record(self, scenario):
        directory = self.work / scenario.name.replace(" ", "-")
        directory.mkdir()
        peers, bases, stranger = {}, {}, None
        for source in SOURCES:
            script = lambda request, source=source: (
                scenario.live(source, request) if request.is_live else scenario.rest(source, request))
            if scenario.live is None:
                script = lambda request: (answer(404), False)
            peers[source] = Peer(script)
            bases[source] = f"http://127.0.0.1:{peers[source].port}"
        if scenario.base == "closed port":
            bases = dict.fromkeys(SOURCES, f"http://127.0.0.1:{self.closed_port}")
        elif scenario.base == "https to a plain port":
            bases = {source: base.replace("http:", "https:") for source, base in bases.items()}
        elif scenario.base == "https to a stranger":
            stranger = subprocess.Popen([self.birdtape, "replay", "--synthetic", "--tls"], stdout=subprocess.PIPE,
                                        stderr=subprocess.DEVNULL, stdin=subprocess.DEVNULL)
            bases = dict.fromkeys(SOURCES, json.loads(stranger.stdout.readline())["base"])
        elif scenario.base:
            bases = dict.fromkeys(SOURCES, scenario.base)
        self.configure(directory, bases)
        process = self.start(directory, "record", "--json", "record", "--webhooks", "127.0.0.1:0")
        told = directory / "record.out.log"

        def has_happened(source):
            """Whether the secret went out, or why it could not is told."""
            if scenario.live is None:
                return any(event.get("event") in ("gap", "said") and event.get("source") == source for event in events(told))
            live = [request for request in peers[source].requests if request.is_live]
            sent = [request for request in live if self.planted.was_sent(source, request)]
            # A key that is refused is not tried again.
            return len(sent) >= scenario.times or (sent and process.poll() is not None)

        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline and not all(map(has_happened, SOURCES)):
            time.sleep(0.02)
        self.runs += len(SOURCES)
        happened = [source for source in SOURCES if has_happened(source)]
        self.reached += len(happened)
        self.missed += [f"{scenario.name}: {source}" for source in SOURCES if source not in happened]
        if process.poll() is None:
            self.deliver(process, told, scenario.name)
        # What was said is on its way to the tape; the last commit is at most so far away.
        settle(told)
        self.look_at_process(process, scenario.name)
        process.send_signal({"int": signal.SIGINT, "abrt": signal.SIGABRT, "kill": signal.SIGKILL}[scenario.ends])
        try:
            process.wait(timeout=PATIENCE)
        except subprocess.TimeoutExpired:
            self.violations.append(f"{scenario.name}: does not end")
            process.kill()
        for peer in peers.values():
            peer.stop()
        if stranger:
            stranger.kill()
            stranger.wait()
        if self.elsewhere.requests or self.elsewhere.heard:
            self.violations.append(f"{scenario.name}: a redirect was followed")
        return directory

    def deliver(self, process, told, what):
        """Webhooks that say all secrets of their source: genuine, forged, and to the wrong place."""
        planted = self.planted
        said = {"twitterapi_io": planted.echo("twitterapi_io"),
                "scrapebadger": planted.echo("scrapebadger") + list(plain_forms(planted.secrets["webhook secret"]).values())}
        urls = {event["source"]: event["url"] for event in events(told) if event.get("event") == "webhooks"}
        for source, words in said.items():
            body = json.dumps(envelope(source, " ".join(words))).encode()
            if source == "twitterapi_io":
                body = body.replace(b'"timestamp": 1,', b'"timestamp": %d,' % (time.time_ns() // 1_000_000))
                proof = {"X-API-Key": planted.secrets["header key"]}
            else:
                digits = hmac.new(planted.secrets["webhook secret"].encode(), body, hashlib.sha256).hexdigest()
                proof = {"X-ScrapeBadger-Signature": "sha256=" + digits, "X-ScrapeBadger-Delivery-Id": words[-1]}
            quoted = plain_forms(planted.secrets["webhook secret"])["url"]
            tries = [("", proof, 200), ("", {name: words[-1] for name in proof}, 401), (f"/{quoted}", proof, 404), (f"?k={quoted}", {}, 401)]
            self.runs += 1
            found = []
            for place, headers, _ in tries:
                request = urllib.request.Request(urls.get(source, "http://127.0.0.1:9") + place, body, headers, method="POST")
                try:
                    found.append(urllib.request.urlopen(request, timeout=PATIENCE).status)
                except urllib.error.HTTPError as error:
                    found.append(error.code)
                except OSError as error:
                    found.append(str(error))
            if all(isinstance(one, str) for one in found) and ended(process):
                # Every source had given up.
                self.runs -= 1
                continue
            self.reached += found == [status for *_, status in tries]
            if found != [status for *_, status in tries]:
                self.missed.append(f"{what}: webhooks of {source} are answered {found}")

    def look_at_process(self, process, what):
        for name in ("cmdline", "comm", "status"):
            try:
                content = Path(f"/proc/{process.pid}/{name}").read_bytes()
            except OSError:
                continue
            self.violations += [f"{what}: {secret} in /proc/PID/{name}" for secret in self.search.bytes(content)]

    def look_at_rest(self, directory, what):
        """Everything that lies there afterwards."""
        self.violations += [f"{what}: a core was written: {path.name}" for path in directory.glob("core*")]
        self.violations += [f"{what}: {secret} in {file}" for file, secret in self.search.tree(directory)]
        if (directory / "tls-keys.log").exists():
            self.violations.append(f"{what}: keys of TLS were logged")

    def read_back(self, directory):
        """Everything that is made of a tape."""
        out = directory / "made"
        out.mkdir()
        tables = ["tweets", "events", "envelopes", "coverage"]
        everything = [argument for table in tables for argument in ("--table", table)]
        commands = [("status", "status"), ("gaps", "gaps"), ("cat", "cat"), ("rebuild", "rebuild"),
                    ("jsonl", "export", "jsonl", *everything, "--out", str(out / "jsonl") + "/"),
                    ("cut", "fixture", "cut", "--sample", "50", "--out", str(out / "cut.jsonl"))]
        if not self.is_short:
            commands += [("verify", "verify"), ("recover", "recover"), ("status-json", "--json", "status"), ("gaps-json", "--json", "gaps"), ("tail", "tail", "-n", "1000"),
                         ("csv", "export", "csv", *everything, "--out", str(out / "csv") + "/"),
                         ("parquet", "export", "parquet", "--out", str(out / "parquet")),
                         ("cut-redacted", "fixture", "cut", "--sample", "50", "--redact", "all", "--out", str(out / "cut2.jsonl")),
                         ("certify", "certify"), ("plan", "backfill", "--dry-run"), ("check", "check")]
        for name, *arguments in commands:
            self.run(directory, name, *arguments)

    def gaps(self):
        """A tape with gaps that history could fill: recorded from the program's own replay, which drops its clients once."""
        directory = self.work / "gaps"
        directory.mkdir()
        faults = [f'[[fault]]\nprovider = "{source}"\ndo = "close"\ncode = 1012\nmessages = 10\n' for source in SOURCES[:3]]
        (directory / "faults.toml").write_text("\n".join(faults), encoding="utf-8")
        fixture = Path(__file__).resolve().parents[2] / "fixtures" / "synthetic" / "mixed-400.jsonl"
        replay = subprocess.Popen([self.birdtape, "replay", str(fixture), "--faults", "faults.toml", "--speed", "5", "--exit-when-done",
                                   "--linger", "1"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, stdin=subprocess.DEVNULL,
                                  cwd=directory)
        base = json.loads(replay.stdout.readline())["base"]
        self.configure(directory, dict.fromkeys(SOURCES, base))
        self.run(directory, "record", "--json", "record", "--until-idle", "1.5", "twitterapi_io", "tweetstream", "scrapebadger")
        replay.kill()
        replay.wait()
        return directory

    def backfill(self, directory):
        """History that refuses, waits, sends elsewhere and quotes, over the gaps of a tape."""
        planted, counts = self.planted, {}
        kinds = [429, 500, 200, 302, 401]

        def script(source):
            def ask(request):
                counts[source] = counts.get(source, 0) + 1
                status = kinds[min(counts[source], len(kinds)) - 1]
                words = " ".join(planted.echo(source))
                headers = [("Retry-After", "0"), ("X-Echo", planted.echo(source)[0]), ("X-Request-Id", planted.echo(source)[1]),
                           ("Location", f"http://127.0.0.1:{self.elsewhere.port}/?k=" + planted.echo(source)[1])]
                return answer(status, json.dumps({"error": words, "message": words, "tweets": [envelope(source, words)]}), headers), False
            return ask

        peers = {source: Peer(script(source)) for source in SOURCES}
        self.configure(directory, {source: f"http://127.0.0.1:{peer.port}" for source, peer in peers.items()})
        process = self.start(directory, "backfill", "--json", "backfill", "--max-requests", "60")
        asked = lambda source: any(planted.was_sent(source, request) for request in peers[source].requests)
        # X has no history of what these topics say: nothing is asked there.
        able = [source for source in SOURCES if source != "x_live"]
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline and process.poll() is None and not all(len(peers[source].requests) > 1 for source in able):
            time.sleep(0.02)
        settle(directory / "backfill.out.log")
        self.look_at_process(process, "backfill")
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
        try:
            process.wait(timeout=PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        self.runs += len(able)
        self.reached += sum(map(asked, able))
        self.missed += [f"backfill: {source}" for source in able if not asked(source)]
        for peer in peers.values():
            peer.stop()

    def through_proxy(self, directory):
        """History behind a proxy that is not there and has a password."""
        self.configure(directory, dict.fromkeys(SOURCES, "https://nobody.invalid"))
        password = plain_forms(self.planted.secrets["proxy's password"])["url"]
        proxy = f"http://user:{password}@127.0.0.1:{self.closed_port}"
        process = self.start(directory, "proxy", "--json", "backfill", "--max-requests", "2", HTTPS_PROXY=proxy, https_proxy=proxy)
        told = directory / "proxy.out.log"
        deadline = time.monotonic() + PATIENCE
        has_failed = lambda: any(event.get("event") in ("waits", "rests", "ended", "done") for event in events(told))
        while time.monotonic() < deadline and process.poll() is None and not has_failed():
            time.sleep(0.02)
        self.runs += 1
        self.reached += has_failed()
        if not has_failed():
            self.missed.append("a proxy that is not there")
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
        try:
            process.wait(timeout=PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def leaks(self):
        begun = time.monotonic()
        wanted = scenarios(self.planted, self.elsewhere)
        for scenario in wanted:
            directory = self.record(scenario)
            if not self.is_short or scenario.name in ("echo in messages", "echo in the farewell", "malformed frames"):
                self.read_back(directory)
            self.look_at_rest(directory, scenario.name)
        directory = self.gaps()
        self.backfill(directory)
        self.through_proxy(directory)
        self.read_back(directory)
        self.look_at_rest(directory, "backfill")
        # Echoes that did not reach a tape would prove nothing.
        marked = subprocess.run(self.command(self.work / "echo-in-messages", "cat", "--raw"), stdout=subprocess.PIPE,
                                stderr=subprocess.DEVNULL).stdout.count(b"[redacted: ")
        if marked < len(SOURCES):
            self.missed.append(f"echoes on the tape: {marked} markers")
        controls = self.controls()
        report("leakcheck", self.runs, self.reached, self.violations + self.missed, controls, begun, self.notes)
        return not self.violations and not self.missed and self.reached == self.runs and all(controls.values())

    def controls(self):
        """What must be found: by name, whether it was."""
        caught = {}
        directory = self.work / "controls"
        directory.mkdir()
        secret = self.planted.secrets["query key"]
        names = lambda file: self.search.file(directory / file)

        def has(what, file, only="query key"):
            caught[what] = only in names(file)

        # A program that logs its address as it is.
        (directory / "plain.log").write_text(f"DEBUG GET /v1/stream?api_key={secret} HTTP/1.1\n", encoding="utf-8")
        has("an address in a log", "plain.log")
        for at, (form, words) in enumerate(plain_forms(secret).items()):
            (directory / f"{at}.log").write_text(f"x{words}y\n", encoding="utf-8")
            has(f"{form} in a log", f"{at}.log")
            line = json.dumps({"n": at, "kind": "frame", "raw": {"t": words}}) + "\n"
            packed = subprocess.run(["zstd", "-qc"], input=line.encode() * 50, stdout=subprocess.PIPE, check=True).stdout
            (directory / f"{at}.jsonl.zst").write_bytes(packed)
            has(f"{form} in a segment", f"{at}.jsonl.zst")
            path = directory / f"{at}.sqlite"
            with sqlite3.connect(path) as database:
                database.execute("PRAGMA journal_mode = WAL")
                database.execute("CREATE TABLE gap (detail TEXT)")
                # Long enough for pages of its own.
                database.execute("INSERT INTO gap VALUES (?)", ("." * 4070 + words + "." * 9000,))
            database.close()
            has(f"{form} in a catalog", path.name)
            path = directory / f"{at}.parquet"
            with duckdb.connect() as database:
                # Compressed with what makes it worth while, so that it does not stand there as it is.
                database.execute("CREATE TABLE t AS SELECT 'a' || i AS a, [?] AS b FROM range(500) AS r(i)", [words])
                database.execute(f"COPY t TO '{path}' (FORMAT parquet, COMPRESSION zstd)")
            has(f"{form} in an export", path.name)
        body = __import__("base64").b64encode(b"\xff" + secret.encode() + b"\x00").decode()
        line = json.dumps({"n": 1, "kind": "frame", "b64": body}) + "\n"
        stream = subprocess.run(["zstd", "-qc"], input=line.encode() * 2000, stdout=subprocess.PIPE, check=True).stdout
        (directory / "open.jsonl.zst.open").write_bytes(stream[:-8])
        has("bytes in base64 in a segment without an end", "open.jsonl.zst.open")
        (directory / "cut.log").write_text(secret[:END] + "…\n", encoding="utf-8")
        has("the beginning of one", "cut.log")
        # The program's own log, with a child that says its address.
        (directory / "clean.log").write_text("nothing of that sort\n", encoding="utf-8")
        caught["nothing where nothing is"] = not names("clean.log")
        self.core_control(directory, secret, caught)
        return caught

    def core_control(self, directory, secret, caught):
        """A child that may leave a core and dies of the same signal with the secret in its memory."""
        code = f"import os, resource; s = {secret!r} * 9; h = resource.getrlimit(resource.RLIMIT_CORE)[1]; " \
               "resource.setrlimit(resource.RLIMIT_CORE, (h, h)); os.abort()"
        with tempfile.TemporaryDirectory(dir=directory) as place:
            subprocess.run([sys.executable, "-c", code], cwd=place, stderr=subprocess.DEVNULL)
            cores = list(Path(place).glob("core*"))
            if cores:
                caught["a core"] = any("query key" in self.search.file(core) for core in cores)
            else:
                self.notes.append("cores: this machine writes none here, so their absence proves little")

    def terminals(self):
        begun = time.monotonic()
        directory = self.work / "terminal"
        directory.mkdir()
        first = 2_007_000_000_000_000_100
        lines = terminal.lines(first)
        (directory / "lines.jsonl").write_text("\n".join(lines[:-len(terminal.HOSTILE) + 1]) + "\n", encoding="utf-8")
        hostile = "".join(terminal.HOSTILE.values())
        runs, violations, shown = 0, [], 0

        # A recorder in a terminal, before a server that speaks to the terminal.
        sends = lambda source: request_script(source, lines, hostile)
        peers = {source: Peer(sends(source)) for source in SOURCES}
        self.configure(directory, {source: f"http://127.0.0.1:{peer.port}" for source, peer in peers.items()})
        more = {"cwd": directory, "env": {**self.environment(directory), "BIRDTAPE_LOG": "info", "TERM": "xterm"}}
        out = terminal.under_terminal(self.command(directory, "record", "--for", "2"), **more)
        runs += 1
        violations += [f"record: {found}" for found in terminal.hostile_in(out)]
        for peer in peers.values():
            peer.stop()
        subprocess.run(self.command(directory, "import", "--provider", "auto", "--as", "brought", str(directory / "lines.jsonl")),
                       stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, **more)
        ids = [str(first + at) for at in range(3)]
        # Those with colours or a bar of progress draw by themselves.
        drawing = ("gaps", "export", "verify")
        commands = [("tail", "-n", "200"), ("tail", "-n", "200", "--json"), ("cat",), ("cat", "--raw"), ("get", ids[0]),
                    ("get", ids[1], "--raw"), ("get", ids[2], "--json"), ("status",), ("status", "--json"), ("gaps",),
                    ("gaps", "--json"), ("export", "csv", "--table", "tweets"), ("export", "jsonl", "--table", "envelopes"),
                    ("export", "csv", "--table", "events"), ("verify",)]
        for command in commands:
            out = terminal.under_terminal(self.command(directory, *command), **more)
            runs += 1
            shown += "and away" in out
            look = terminal.hostile_in if command[0] in drawing else terminal.commands_in
            violations += [f"{' '.join(command[:3])}: {found}" for found in look(out)]
        found = {}
        for table in ("tweets", "events", "envelopes", "coverage"):
            for raw in ((), ("--raw-cells",)):
                file = directory / f"{table}{len(raw)}.csv"
                subprocess.run(self.command(directory, "export", "csv", "--table", table, *raw, "--out", str(file)),
                               stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, **more)
                found[table, bool(raw)], rows = terminal.formulas_in(file)
            runs += 1
            violations += [f"{table}.csv: {cell!r}" for cell in found[table, False]]
        plain = terminal.under_terminal(["cat", str(directory / "lines.jsonl")])
        controls = {"hostile words on a terminal": bool(terminal.commands_in(plain)), "hostile words were shown": shown >= 5,
                    "formulas in raw cells": len(found["tweets", True]) >= len(terminal.FORMULAS)}
        report("terminal", runs, runs, violations, controls, begun, [])
        return not violations and all(controls.values())


def request_script(source, lines, hostile):
    def script(request):
        if not request.is_live:
            return answer(500, json.dumps({"error": hostile, "message": hostile})), False
        if source == "scrapebadger":
            return answer(403, json.dumps({"error": hostile, "message": hostile}), [("Server", "x\x1b[2J")]), False
        if source == "x_live":
            errors = json.dumps({"errors": [{"code": 88, "message": hostile}]}, ensure_ascii=False)
            return request.upgraded() + message(source, CONFIG) + message(source, errors), True
        said = b"".join(message(source, line) for line in (lines if source == "twitterapi_io" else lines[-4:]))
        return request.upgraded() + said + close(1008, hostile[:60]), False
    return script


def events(path):
    """What a command has told so far, as JSON."""
    out = []
    for line in path.read_bytes().splitlines():
        try:
            out.append(json.loads(line))
        except ValueError:
            continue
    return [event for event in out if isinstance(event, dict)]


def settle(path):
    """Waits until a file has not grown for a moment."""
    deadline, size, since = time.monotonic() + 5, -1, time.monotonic()
    while time.monotonic() < deadline:
        now = path.stat().st_size
        if now != size:
            size, since = now, time.monotonic()
        if time.monotonic() - since > 0.3:
            return
        time.sleep(0.05)


def report(mode, runs, reached, violations, controls, begun, notes):
    missed = [name for name, caught in controls.items() if not caught]
    line = {"mode": mode, "runs": runs, "reached": reached, "violations": len(violations),
            "controls": f"{len(controls) - len(missed)}/{len(controls)}", "seconds": round(time.monotonic() - begun, 1), "seed": SEED}
    if violations:
        line["found"] = violations[:60]
    if missed:
        line["not caught"] = missed
    if notes:
        line["notes"] = notes
    print(json.dumps(line), flush=True)


def main():
    global SEED
    birdtape, work, seed, length = sys.argv[1:]
    SEED = int(seed)
    check = Check(birdtape, Path(work), SEED, length == "short")
    fine = check.leaks()
    fine = check.terminals() and fine
    raise SystemExit(0 if fine else 1)


main()
