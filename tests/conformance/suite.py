"""One end of our WebSocket against the Autobahn test suite: suite.py client|server WSTEST TESTS WORK SEED CASES.

Prints one line of JSON. Exits with 1 when a case failed, was missing, or the control was not caught.
"""

import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

CLIENT = "net::live::conformance::echoes"
SERVER = "net::server::conformance::echoes"
NON_STRICT_MAX = 2
# Text and binary, of several lengths: enough to see that a wrong echo is seen.
CONTROL = ["1.1.2", "1.1.3", "1.2.2", "5.3"]


def spec(work, cases, **more):
    path = work / "spec.json"
    path.write_text(json.dumps({"outdir": str(work / "reports"), "cases": cases, "exclude-cases": ["12.*", "13.*"],
                                "exclude-agent-cases": {}, **more}), encoding="utf-8")
    return path


def environment(spoil, port=None):
    names = dict(os.environ)
    names.pop("CONFORMANCE_SPOIL", None)
    if spoil:
        names["CONFORMANCE_SPOIL"] = "1"
    if port:
        names["CONFORMANCE_PORT"] = str(port)
    return names


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def until_listening(port, process):
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline and process.poll() is None:
        with socket.socket() as caller:
            if caller.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    raise SystemExit("the suite's server did not start; see its log under target/conformance")


def tests(binary, name):
    return [binary, "--ignored", "--exact", name, "--nocapture"]


def our_client(wstest, binary, work, cases, spoil):
    port = free_port()
    given = spec(work, cases, url=f"ws://127.0.0.1:{port}")
    with open(work / "suite.log", "wb") as log:
        suite = subprocess.Popen([wstest, "--mode", "fuzzingserver", "--webport", "0", "--spec", str(given)], stdout=log,
                                 stderr=subprocess.STDOUT, cwd=work)
        try:
            until_listening(port, suite)
            with open(work / "ours.log", "wb") as ours:
                subprocess.run(tests(binary, CLIENT), stdout=ours, stderr=subprocess.STDOUT, env=environment(spoil, port),
                               check=True, timeout=480)
        finally:
            suite.kill()
            suite.wait()


def our_server(wstest, binary, work, cases, spoil):
    with open(work / "suite.log", "wb") as log, open(work / "ours.log", "wb") as errors:
        ours = subprocess.Popen(tests(binary, SERVER), stdout=subprocess.PIPE, stderr=errors, env=environment(spoil))
        try:
            port = next(int(line.split()[-1]) for line in ours.stdout if b"listening on " in line)
            given = spec(work, cases, servers=[{"agent": "birdtape", "url": f"ws://127.0.0.1:{port}"}])
            subprocess.run([wstest, "--mode", "fuzzingclient", "--spec", str(given)], stdout=log, stderr=subprocess.STDOUT,
                           cwd=work, check=True, timeout=480)
        finally:
            ours.kill()
            ours.wait()


def run(mode, wstest, binary, work, cases, spoil):
    """Verdicts of the suite, by case."""
    work.mkdir(parents=True, exist_ok=True)
    index = work / "reports" / "index.json"
    index.unlink(missing_ok=True)
    {"client": our_client, "server": our_server}[mode](wstest, binary, work, cases, spoil)
    return json.loads(index.read_text(encoding="utf-8"))["birdtape"]


def main():
    mode, wstest, binary, work, seed, *cases = sys.argv[1:]
    work, begun = Path(work), time.monotonic()
    found = run(mode, wstest, binary, work / mode, cases, spoil=False)
    counts = {}
    for verdict in found.values():
        counts[verdict["behavior"]] = counts.get(verdict["behavior"], 0) + 1
    good = ("OK", "INFORMATIONAL", "NON-STRICT")
    bad = sorted(case for case, verdict in found.items()
                 if verdict["behavior"] not in good or verdict["behaviorClose"] not in good)
    violations = len(bad) + max(0, counts.get("NON-STRICT", 0) - NON_STRICT_MAX)
    # All 301, or as many as the patterns allow.
    wanted = 301 if cases == ["*"] else len(found)
    spoilt = run(mode, wstest, binary, work / f"{mode}-control", CONTROL, spoil=True)
    caught = sum(verdict["behavior"] == "FAILED" for verdict in spoilt.values())
    print(json.dumps({"mode": f"conformance {mode}", "runs": wanted, "reached": len(found), "violations": violations,
                      "controls": f"{caught}/{len(CONTROL)}", "seconds": round(time.monotonic() - begun, 1),
                      "seed": int(seed), "verdicts": counts, "failed": bad}))
    if violations or len(found) != wanted or not found or caught != len(CONTROL):
        raise SystemExit(1)


main()
