"""Plants faults into a copy of the project, one at a time, and looks whether its tests notice. `scripts/controls` calls it.

    python tests/controls/controls.py COPY [N …]

Prints a line for each fault, and one of JSON in the end. Exit code 0 when every fault was caught, 1 otherwise.
"""

import json
import re
import subprocess
import sys
import time
import tomllib
from pathlib import Path

LONGEST = 1_200


def cargo(copy, args):
    """The end of what was said, and how it ended: red, green, or the words for why neither."""
    # Only the tests have a limit: how long a build takes says nothing.
    which = args[:args.index("--")] if "--" in args else args
    build = subprocess.run(["cargo", "test", "--locked", "--no-run", *which], cwd=copy, capture_output=True, text=True)
    if build.returncode:
        return build.stderr[-2_000:], "it does not build"
    try:
        run = subprocess.run(["cargo", "test", "--locked", *args], cwd=copy, capture_output=True, text=True, timeout=LONGEST)
    except subprocess.TimeoutExpired:
        return "", "red (it hangs)"
    said = run.stdout + run.stderr
    results = re.findall(r"^test result: (\w+)\. (\d+) passed; (\d+) failed", said, re.MULTILINE)
    if not results:
        return said[-2_000:], "it does not build"
    if any(result[0] == "FAILED" for result in results):
        return said, "red"
    return said, "green" if sum(int(result[1]) for result in results) > 0 else "no test was run"


def arguments(test):
    """Several names of tests are given behind `--`."""
    names = [arg for arg in test if arg.endswith(("::", "walk"))]
    return [arg for arg in test if arg not in names] + ["--", *names]


def main(copy, *wanted):
    copy = Path(copy)
    controls = tomllib.loads(Path(__file__).with_name("controls.toml").read_text())["control"]
    controls = [control for control in controls if not wanted or str(control["n"]) in wanted]
    started, caught = time.monotonic(), 0
    for control in controls:
        path = copy / control["file"]
        text = path.read_text()
        find = control["find"].removeprefix("\n")
        replace = control["replace"].removeprefix("\n")
        if text.count(find) != 1:
            print(f"FAILED {control['n']:2} {control['fault']}: its place stands {text.count(find)} times in {control['file']}")
            continue
        path.write_text(text.replace(find, replace))
        began = time.monotonic()
        try:
            said, how = cargo(copy, arguments(control["test"]))
        finally:
            path.write_text(text)
        seconds = time.monotonic() - began
        if how.startswith("red"):
            caught += 1
            failed = sorted(set(re.findall(r"^test (\S+) \.\.\. FAILED", said, re.MULTILINE)))
            print(f"ok     {control['n']:2} {control['fault']}: {', '.join(failed[:3]) or how} ({len(failed)} red, {seconds:.0f} s)")
        else:
            print(f"FAILED {control['n']:2} {control['fault']}: {how} ({seconds:.0f} s)")
            if how == "it does not build":
                print("       " + said.replace("\n", "\n       "))
        sys.stdout.flush()
    summary = {"mode": "controls", "runs": len(controls), "reached": len(controls), "violations": len(controls) - caught}
    print(json.dumps(summary | {"controls": caught, "seconds": round(time.monotonic() - started), "seed": None}))
    return 0 if caught == len(controls) else 1


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
