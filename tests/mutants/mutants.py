"""Plants what cargo-mutants makes up into copies of the project and looks whether its tests notice. `scripts/mutants` calls it.

    python tests/mutants/mutants.py WORK COUNT SEED SKIP SHORT PROGRAM ITERATE [GLOB …]

All changes are built once, each behind a switch (`switches.py`). Each test is run alone first, to see which changes it meets; then each
change is tried by the tests that meet it, first the fast ones that meet few others, until one fails. What has no switch is built by itself and has to pass
stages, cheap ones first; a stage builds no more of the crate than its tests need: the rooms above are taken out of the copy's `lib.rs`.
cargo-mutants lists the changes and does not run them: it would build the whole crate for each.
"""

import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import tomllib
from concurrent.futures import ThreadPoolExecutor
from fnmatch import fnmatch
from pathlib import Path

import switches

ROOMS = ["segment", "catalog", "archive", "backfill"]
# The disk that tests write to: nothing of the product.
NOT_OURS = ["src/segment/mem_disk.rs"]

SEGMENT = ["model", "segment"]
ARCHIVE = [*SEGMENT, "catalog", "archive", "provider"]
BACKFILL = [*ARCHIVE, "net", "backfill"]
# Tests that take seconds: for what the others did not notice.
SLOW = [
    "a_bent_file_of_remains",
    "a_crash_",
    "a_damaged_tape_proves",
    "a_failed_write_stops",
    "a_full_disk_ends_it",
    "a_merge_that_was_killed_is_done",
    "either_order_gives",
    "one_refusal_anywhere",
    "records_that_were_durable",
    "rules_come_to",
    "the_longest_envelopes",
    "two_refusals_in_a_row",
]
# What looks at the rooms from above.
UPPER = ["upkeep::", "record::", "audit::", "backfill::", "bitrot::", "catalog_damage::", "crash_states::", "filling::", "lies::"]
UPPER += ["made::", "merge::", "round_trip::", "simulate::", "stock::", "timelines::"]


def quick(*filters):
    return [*filters, *(arg for name in SLOW for arg in ("--skip", name))]


# Name, whose changes, the rooms that are built (none: the whole project), where the tests are and which, how many seconds they may take.
STAGES = [
    ("segment", ["segment"], SEGMENT, ["--lib"], quick("segment::"), 300),
    ("archive", ["segment", "catalog", "archive"], ARCHIVE, ["--lib"], quick("archive::", "catalog::"), 300),
    ("archive, slow", ["segment", "catalog", "archive"], ARCHIVE, ["--lib"], SLOW, 900),
    ("backfill", ROOMS, BACKFILL, ["--lib"], quick("backfill::"), 300),
    ("backfill, slow", ["backfill"], BACKFILL, ["--lib"], SLOW, 900),
    ("program", ROOMS, None, ["--lib", "--test", "it"], UPPER, 1_800),
]


# The tests that try one change: no more seconds, of each program.
SECONDS_MAX = 20
# What becomes of a change. There was no time for all tests that meet it where it `survived the fast ones`; none meets what is
# `not met`; what is `not tried` has no switch and was not to be built.
HOW = ["caught", "timeout", "unviable", "survived", "survived the fast ones", "not met", "not tried"]
UNNOTICED = ["survived", "survived the fast ones", "not met"]


def room(mutant):
    return mutant["file"].split("/")[1]


def change(mutant):
    """What is changed, without the place, which moves."""
    return mutant["name"].split(": ", 1)[1]


def line(tree, mutant):
    return (tree / mutant["file"]).read_text().splitlines()[mutant["span"]["start"]["line"] - 1].strip()


def changed(text, mutant):
    lines = text.splitlines(keepends=True)

    def at(place):
        return sum(map(len, lines[: place["line"] - 1])) + place["column"] - 1

    begin, end = at(mutant["span"]["start"]), at(mutant["span"]["end"])
    return text[:begin] + mutant["replacement"] + text[end:]


def listed(tree):
    args = [os.environ["CARGO_MUTANTS"], "mutants", "--dir", tree, "--no-config", "--list", "--json"]
    args += [arg for name in ROOMS for arg in ("--file", f"src/{name}/**")] + [arg for name in NOT_OURS for arg in ("--exclude", name)]
    return json.loads(subprocess.run(args, check=True, capture_output=True, text=True).stdout)


def drawn(mutants, seed):
    """All, in the order of the seed: the rooms take turns, as long as they have some."""
    piles = [[mutant for mutant in mutants if room(mutant) == name] for name in ROOMS]
    rng = random.Random(seed)
    for pile in piles:
        rng.shuffle(pile)
    return [pile[i] for i in range(max(map(len, piles))) for pile in piles if i < len(pile)]


def cut_lib(lib, rooms):
    """`lib.rs` with these rooms only, each with its attributes."""
    kept = []
    for text in lib.splitlines():
        if text.startswith("pub mod ") and text[8:].rstrip(";") not in rooms:
            while kept[-1].startswith("#["):
                kept.pop()
        else:
            kept.append(text)
    return "\n".join(kept) + "\n"


def built(tree, targets):
    """The test programs; nothing where it does not build."""
    args = ["cargo", "test", "--locked", "--quiet", "--no-run", "--message-format=json", *targets]
    build = subprocess.run(args, cwd=tree, capture_output=True, text=True)
    messages = [json.loads(text) for text in build.stdout.splitlines() if text.startswith("{")]
    return [m["executable"] for m in messages if m.get("executable") and m["profile"]["test"]] if build.returncode == 0 else None


def bounded():
    """A change that asks for all memory or writes without an end is caught, too."""
    resource.setrlimit(resource.RLIMIT_AS, (6 << 30, 6 << 30))
    resource.setrlimit(resource.RLIMIT_FSIZE, (2 << 30, 2 << 30))


def tested(tree, programs, tests, longest, **more):
    """How the tests ended: survived, timeout, or caught by which; and how many passed."""
    n_passed = 0
    for program in programs:
        # Syncs of a real disk prove nothing here.
        own = tempfile.mkdtemp(prefix="mutants-", dir="/dev/shm" if Path("/dev/shm").is_dir() else None)
        env = os.environ | {"TMPDIR": own, "CARGO_MANIFEST_DIR": str(tree)} | more
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL, "text": True, "errors": "replace"}
        run = subprocess.Popen([program, *tests], cwd=tree, env=env, start_new_session=True, preexec_fn=bounded, **pipes)
        late = threading.Event()

        def stop(run=run, late=late):
            late.set()
            os.killpg(run.pid, signal.SIGKILL)

        timer = threading.Timer(longest, stop)
        timer.start()
        failed = None
        for said in run.stdout:
            n_passed += said.startswith("test ") and said.rstrip().endswith("ok")
            if said.startswith("test ") and said.rstrip().endswith("FAILED"):
                failed = said.split()[1]
                os.killpg(run.pid, signal.SIGKILL)
                break
        timer.cancel()
        run.stdout.close()
        code = run.wait()
        shutil.rmtree(own, ignore_errors=True)
        if late.is_set():
            return "timeout", n_passed
        if failed or code:
            return f"caught by {failed or f'exit code {code}'}", n_passed
    return "survived", n_passed


def met(tree, program, test):
    """Which changes a test meets and how many seconds it takes; none where it fails without a change."""
    with tempfile.NamedTemporaryFile("r") as numbers:
        began = time.monotonic()
        how, n_passed = tested(tree, [program], ["--exact", test], 900, MUTANTS_MET=numbers.name)
        seconds = time.monotonic() - began
        if how != "survived" or n_passed != 1:
            print(f"left out, not green without a change: {test}: {how}", flush=True)
            return set(), seconds
        return {int(number) for number in numbers}, seconds


def batches(tests, most):
    """Tests in groups that take longer and longer, together so many seconds at most: first those that meet few changes, and are fast."""
    group, left, limit = [], 0.5, 0.5
    for name, (numbers, seconds) in sorted(tests.items(), key=lambda test: len(test[1][0]) * test[1][1]):
        if seconds > most:
            continue
        most -= seconds
        if group and seconds > left:
            yield group
            group, limit = [], limit * 4
            left = limit
        group.append(name)
        left -= seconds
    if group:
        yield group


def switched(tree, mutants, tried, short, program_only):
    """How each of those with a switch ended."""
    have, unviable, without = switches.written(tree, mutants)
    print(f"== {len(have)} of {len(mutants)} have a switch, {len(unviable)} cannot be built, {len(without)} have none", flush=True)
    chosen = {mutant["name"] for mutant in tried}
    ended = {mutants[n]["name"]: "unviable" for n in unviable if mutants[n]["name"] in chosen}
    left = [n for n in sorted(have) if mutants[n]["name"] in chosen]
    in_code, of_program = ["--lib"], ["--test", "it"]
    for target in [of_program] if program_only == "yes" else [in_code] if short == "yes" else [in_code, of_program]:
        (program,) = built(tree, target) or sys.exit(f"error: the copy with switches does not build: {' '.join(target)}")
        lists = [subprocess.run([program, "--list", *more], capture_output=True, text=True, check=True).stdout for more in ([], ["--ignored"])]
        all_names, ignored = ([text.removesuffix(": test") for text in said.splitlines() if text.endswith(": test")] for said in lists)
        names = [name for name in all_names if name not in ignored and not (short == "yes" and any(slow in name for slow in SLOW))]
        print(f"== {' '.join(target)}: {len(names)} tests, {len(left)} changes", flush=True)

        def attempt(number, program=program, meets=None):
            began = time.monotonic()
            tests = {name: test for name, test in meets.items() if number in test[0]}
            name = mutants[number]["name"]
            how = "survived" if tests else ended.get(name, "not met")
            groups = list(batches(tests, SECONDS_MAX))
            for group in groups:
                longest = 8 + 10 * sum(tests[test][1] for test in group)
                how, _ = tested(tree, [program], ["--test-threads=1", "--exact", *group], longest, MUTANT=str(number))
                if how != "survived":
                    remember(tree, name)
                    break
            is_cut = sum(map(len, groups)) < len(tests) or ended.get(name) == "survived the fast ones"
            if how == "survived" and is_cut:
                how = "survived the fast ones"
            print(f"{name}: {how} ({time.monotonic() - began:.1f} s)", flush=True)
            return how

        with ThreadPoolExecutor(os.cpu_count()) as pool:
            meets = dict(zip(names, pool.map(lambda name: met(tree, program, name), names), strict=True))
            found = pool.map(lambda number: attempt(number, meets=meets), left)
            ended |= dict(zip([mutants[number]["name"] for number in left], found, strict=True))
        left = [number for number in left if ended[mutants[number]["name"]] in UNNOTICED]
    return ended


def remember(tree, name):
    """It was caught: `--iterate` leaves it out."""
    with (tree.parent / "caught.txt").open("a") as file:
        file.write(f"{name}\n")


def run(tree, stage, mutants):
    """How each of them ended."""
    name, _, _, targets, tests, longest = stage
    print(f"== {name}: {len(mutants)}", flush=True)
    programs = built(tree, targets)
    how, n_passed = tested(tree, programs, tests, longest) if programs else ("it does not build", 0)
    if how != "survived" or n_passed == 0:
        sys.exit(f"error: the stage {name} is not green without a change: {how}, {n_passed} tests passed")
    ended = {}
    for mutant in mutants:
        began = time.monotonic()
        path = tree / mutant["file"]
        text = path.read_text()
        path.write_text(changed(text, mutant))
        try:
            programs = built(tree, targets)
            how = tested(tree, programs, tests, longest)[0] if programs else "unviable"
        finally:
            path.write_text(text)
        ended[mutant["name"]] = how
        print(f"{mutant['name']}: {how} ({time.monotonic() - began:.0f} s)", flush=True)
    return ended


def main(work, count, seed, skip, short, program_only, iterate, *globs):
    began = time.monotonic()
    tree = Path(work) / "tree"
    mutants = listed(tree)
    known = tomllib.loads(Path(__file__).with_name("known.toml").read_text()).get("known", [])
    explained, stale = set(), 0
    for entry in known:
        found = [m for m in mutants if m["file"] == entry["file"] and change(m) == entry["change"] and line(tree, m) == entry["line"]]
        explained |= {mutant["name"] for mutant in found}
        if not found:
            stale += 1
            print(f"stale: tests/mutants/known.toml explains what is no more: {entry['file']}: {entry['change']}")
    order = [mutant for mutant in drawn(mutants, int(seed)) if not globs or any(fnmatch(mutant["file"], glob) for glob in globs)]
    chosen = order[int(skip) :][: None if count == "all" else int(count)]
    caught = Path(work) / "caught.txt"
    before = set(caught.read_text().splitlines()) if iterate == "yes" and caught.exists() else set()
    tried = [mutant for mutant in chosen if mutant["name"] not in explained | before]

    ended = switched(Path(work) / "switched", mutants, tried, short, program_only)
    lib = (tree / "src/lib.rs").read_text()
    slow = [mutant for mutant in tried if mutant["name"] not in ended]
    for stage in [stage for stage in STAGES if "yes" not in (short, program_only)]:
        left = [mutant for mutant in slow if room(mutant) in stage[1] and ended.get(mutant["name"], "survived") == "survived"]
        if left:
            (tree / "src/lib.rs").write_text(cut_lib(lib, stage[2]) if stage[2] else lib)
            ended |= run(tree, stage, left)
    ended |= {mutant["name"]: "not tried" for mutant in slow if mutant["name"] not in ended}
    tally = {how: sum(end.split(" by ")[0] == how for end in ended.values()) for how in HOW}
    for mutant in tried:
        if ended[mutant["name"]] in UNNOTICED:
            print(f"{ended[mutant['name']]} {mutant['name']}\n    {line(tree, mutant)}")
    reached, violations = len(tried) - tally["unviable"] - tally["not tried"], sum(tally[how] for how in UNNOTICED) + stale
    summary = {"mode": "mutants", "runs": len(tried), "reached": reached, "violations": violations, "of": len(mutants)} | tally
    summary |= {"explained": len(explained), "before": len(before), "stale": stale, "seconds": round(time.monotonic() - began), "seed": int(seed)}
    print(json.dumps(summary))
    sys.exit(violations > 0)


main(*sys.argv[1:])
