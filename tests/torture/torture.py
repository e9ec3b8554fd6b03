"""The command line of scripts/torture."""

import argparse
import importlib
import json
import os
import sys
import time
from pathlib import Path

from desk import Skip

# Name to module, function, and what it is.
MODES = {
    "kill": ("kill", "run", "SIGKILL of a recorder under load; every fourth one hits the recovery"),
    "powercut": ("powercut", "run", "a real file system loses all that was not synced"),
    "lock": ("lock", "run", "many recorders at once on one tape, twice: afresh, and when the one that won is killed"),
    "syscall": ("calls", "kills", "SIGKILL at each call that changes files, before it and halfway through it"),
    "ioerror": ("calls", "errors", "each call that changes files fails, with EIO and with ENOSPC"),
}


def main() -> int:
    options = arguments()
    if options.mode is None:
        return 2
    return run(options)


def run(options) -> int:
    begin = time.monotonic()
    try:
        module, function, _ = MODES[options.mode]
        result = getattr(importlib.import_module(module), function)(options)
    except Skip as why:
        print(f"skipped: {options.mode}: {why}")
        return 77
    for what in result.violations[:50]:
        print(f"violation: {what}", file=sys.stderr)
    missed = [name for name, caught in result.controls.items() if not caught]
    for name in missed:
        print(f"control not caught: {name}", file=sys.stderr)
    line = {
        "mode": options.mode,
        "runs": result.runs,
        "reached": result.reached,
        "violations": len(result.violations),
        "controls": {"planted": len(result.controls), "caught": len(result.controls) - len(missed)},
        "seconds": round(time.monotonic() - begin, 1),
        "seed": options.seed,
    }
    print(json.dumps(line | {"figures": result.figures}), flush=True)
    return 0 if not result.violations and not missed and result.reached == result.runs else 1


def arguments():
    parser = argparse.ArgumentParser()
    parser.add_argument("mode", choices=MODES)
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 2)
    parser.add_argument("--seed", type=int, default=time.time_ns() // 1000 % 1_000_000)
    parser.add_argument("--fs", default="ext4,xfs")
    parser.add_argument("--procs", type=int, default=20)
    parser.add_argument("--all", action="store_true")
    parser.add_argument("--dir", type=Path)
    parser.add_argument("--binary", type=Path, required=True)
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
