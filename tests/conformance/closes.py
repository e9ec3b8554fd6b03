"""Runs the table of closes and counts its cells: one line of JSON."""

import json
import re
import subprocess
import time

# The program's own table, what comes of refusals on a tape, and which bytes of the wire are such a code at all.
TESTS = ["provider::closes::", "net::live::tests::codes_of_the_wire", "net::client::tests::bad_upgrades_are_handshake_faults",
         "net::client::tests::refusals_come_whole", "model::http::tests::a_wait_is_read_in_every_form"]
CONTROL = "provider::closes::the_table_goes_red"


def cargo(*tests):
    return subprocess.run(["cargo", "test", "--locked", "--lib", "--", *tests], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


begun = time.monotonic()
run = cargo("--nocapture", *TESTS)
cells = sum(int(n) for n in re.findall(r"cells (\d+)$", run.stdout, re.MULTILINE))
passed, failed = (sum(int(n) for n in re.findall(rf"(\d+) {word}", run.stdout)) for word in ("passed", "failed"))
caught = "1 passed" in cargo("--exact", CONTROL).stdout
print(json.dumps({"mode": "conformance closes", "runs": cells, "reached": cells, "violations": failed, "controls": f"{int(caught)}/1",
                  "seconds": round(time.monotonic() - begun, 1), "seed": 0, "tests": passed}))
if run.returncode or failed or not caught or not cells or passed < len(TESTS):
    print(run.stdout[-4000:])
    raise SystemExit(1)
