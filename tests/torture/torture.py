"""The command line of scripts/torture."""

import argparse
import importlib
import json
import os
import sys
import time
from pathlib import Path

from desk import Skip

# Name to module, function, how many runs when nobody says, and what it is.
MODES = {
    "kill": ("kill", "run", 10_000, "SIGKILL of a recorder under load; every fourth one hits the recovery"),
    "powercut": ("powercut", "run", 10_000, "a real file system loses all that was not synced (--fs)"),
    "lock": ("lock", "run", 200, "many recorders at once on one tape (--procs), again when the one that won is killed"),
    "syscall": ("calls", "kills", 100, "SIGKILL at each call that changes files, before it and halfway through it (--all)"),
    "commands": ("commands", "run", 120, "SIGKILL of export, compact, prune, merge and filling from a tape, at such a call (--all)"),
    "backfill": ("filling", "run", 300, "SIGKILL of a filling from providers' histories, again and again until it is done"),
    "ioerror": ("calls", "errors", 50, "each call that changes files fails, with EIO and with ENOSPC (--all)"),
    "enospc": ("full", "run", 2_000, "the disk runs full under a recorder, and has room again after a while"),
    "readonly": ("full", "readonly", 8, "the tape's place may not be written"),
    "slowdisk": ("slow", "run", 5, "syncs take five seconds, or the file system is frozen for twenty"),
    "stop": ("stop", "run", 50, "SIGTERM or SIGINT at a random instant, now and then twice"),
    "panic": ("panics", "run", 9, "each part of the recorder panics, and an envelope makes the parser panic"),
    "files": ("descriptors", "run", 12, "too many files are open, in a recorder and in a replay"),
    "slowreader": ("slowreader", "run", 3, "a hundred clients of a replay that read nothing, beside one that is measured"),
    "webhook": ("hooks", "run", 5_000, "SIGKILL of a recorder that receives webhooks, some of them forged, tried again as providers do"),
    "halfopen": ("halfopen", "run", 20, "the peer falls silent and its connection stays"),
    "soak": ("soak", "run", 1, "a steady rate for long: memory, delays and losses (--rate, --minutes, --faults; or scripts/soak)"),
    "clock": ("clock", "run", 20, "the wall clock steps while recording, by a second to ten years"),
}

# What --short runs.
SHORT = [
    ("kill", ["--count", "200"]),
    ("powercut", ["--fs", "ext4", "--count", "50"]),
    ("powercut", ["--fs", "xfs", "--count", "50"]),
    ("lock", ["--count", "10"]),
    ("syscall", ["--count", "100"]),
    ("commands", ["--count", "24"]),
    ("backfill", ["--count", "12"]),
    ("ioerror", ["--count", "50"]),
    ("enospc", ["--count", "12"]),
    ("readonly", ["--count", "4"]),
    ("stop", ["--count", "20"]),
    ("webhook", ["--count", "30"]),
    ("panic", []),
    ("files", ["--count", "4"]),
]

EPILOG = """\
Each mode prints one line of JSON: {"mode","runs","reached","violations","controls","seconds","seed"}. Its exit code is 0 when
nothing was violated, everything was reached and every planted fault was caught; 77 when something is missing here (it says
`skipped: …`), else 1. What was violated is said on stderr, and the tapes stay where they are.

modes:
{modes}

examples:
  scripts/torture --short                            what the gate runs, in about three minutes; a skip is no failure
  scripts/torture kill --count 10000
  scripts/torture powercut --fs ext4,xfs --count 10000
  scripts/torture syscall --all
  scripts/torture ioerror --count 500 --seed 7
  scripts/soak --rate 1000 --minutes 30              mode soak, release profile
  scripts/soak --minutes 480 --faults                the long form; needs 15 GB
"""


def main() -> int:
    options = parser().parse_args()
    if options.short:
        codes = [run(parser().parse_args([mode, "--binary", str(options.binary), *words])) for mode, words in SHORT]
        return int(any(code not in (0, 77) for code in codes))
    if options.mode is None:
        parser().error("name a mode, or --short")
    return run(options)


def run(options) -> int:
    begin = time.monotonic()
    try:
        module, function, count, _ = MODES[options.mode]
        options.count = options.count or count
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


def parser() -> argparse.ArgumentParser:
    modes = "\n".join(f"  {name:<10} {words}" for name, (*_, words) in MODES.items())
    parser = argparse.ArgumentParser(
        prog="scripts/torture",
        usage="scripts/torture MODE [--count N] [--seed S] … | --short",
        description="Tortures the real binary, and lets an oracle that shares no decoder with it judge the tapes.",
        epilog=EPILOG.replace("{modes}", modes),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("mode", nargs="?", choices=MODES, metavar="MODE")
    parser.add_argument("--short", action="store_true", help="the modes that the gate runs, each for a short while")
    parser.add_argument("--count", type=int, metavar="N", help="runs (powercut: of each file system)")
    parser.add_argument("--all", action="store_true", help="syscall, commands, ioerror: every call, not a sample")
    parser.add_argument("--fs", default="ext4,xfs", metavar="FS,FS", help="powercut: file systems [ext4,xfs]")
    parser.add_argument("--procs", type=int, default=20, metavar="N", help="lock: recorders at once [20]")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 2, metavar="N", help="runs at the same time [CPUs]")
    parser.add_argument("--rate", type=float, default=1000.0, metavar="N", help="soak: envelopes a second [1000]")
    parser.add_argument("--minutes", type=float, default=30.0, metavar="N", help="soak: how long [30]")
    parser.add_argument("--faults", action="store_true", help="soak: with random faults")
    parser.add_argument("--seed", type=int, default=time.time_ns() // 1000 % 1_000_000, metavar="S", help="draws the same faults")
    parser.add_argument("--dir", type=Path, help="where the tapes lie [/dev/shm if there is room; soak: target/torture]")
    parser.add_argument("--binary", type=Path, required=True, help=argparse.SUPPRESS)
    return parser


if __name__ == "__main__":
    sys.exit(main())
