"""Holds what a Cargo.lock names against rules.toml, and shows that it would notice.

usage: check.py PROJECT…      each a directory with Cargo.toml and Cargo.lock
"""

import copy
import json
import pathlib
import re
import subprocess
import sys
import time
import tomllib

RULES = tomllib.loads((pathlib.Path(__file__).parent / "rules.toml").read_text())


def packages(project):
    """All packages of a project's lock file, for every platform, as Cargo knows them."""
    command = ["cargo", "metadata", "--format-version", "1", "--locked", "--manifest-path", f"{project}/Cargo.toml"]
    found = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)["packages"]
    lock = tomllib.loads((pathlib.Path(project) / "Cargo.lock").read_text())
    sums = {(one["name"], one["version"]): one.get("checksum") for one in lock["package"]}
    for one in found:
        one["checksum"] = sums.get((one["name"], one["version"]))
    return found


def is_allowed(expression, allow):
    """Whether an SPDX expression can be met with what is allowed; `/` is an old way to write OR."""
    words = re.findall(r"\(|\)|[^\s()]+", expression.replace("/", " OR "))

    def alternatives(at):
        met, at = terms(at)
        while at < len(words) and words[at] == "OR":
            other, at = terms(at + 1)
            met = met or other
        return met, at

    def terms(at):
        met, at = term(at)
        while at < len(words) and words[at] == "AND":
            other, at = term(at + 1)
            met = met and other
        return met, at

    def term(at):
        if words[at] == "(":
            met, at = alternatives(at + 1)
            return met, at + 1
        if words[at + 1 : at + 2] == ["WITH"]:
            return " ".join(words[at : at + 3]) in allow, at + 3
        return words[at] in allow, at + 1

    met, at = alternatives(0)
    return met and at == len(words)


def numbers(version):
    return tuple(int(part) for part in re.split(r"[-+]", version)[0].split("."))


def violations(found):
    """What is against the rules, in words."""
    bans, wrong = RULES["bans"], []
    versions = {}
    for one in found:
        name = f"{one['name']} {one['version']}"
        if one["source"] is None:
            # Ours: it lies in this directory.
            continue
        versions.setdefault(one["name"], []).append(one["version"])
        if one["source"] not in RULES["sources"]["allow"]:
            wrong.append(f"{name} comes from {one['source']}")
        elif not one["checksum"]:
            wrong.append(f"{name} has no checksum in the lock file")
        licence = one["license"]
        if not licence or not is_allowed(licence, RULES["licences"]["allow"]):
            wrong.append(f"{name} has the licence {licence}")
        if one["name"] in bans["packages"]:
            wrong.append(f"{name} is banned")
        least = bans["least"].get(one["name"])
        if least and numbers(one["version"]) < numbers(least):
            wrong.append(f"{name} is older than {least}")
    wrong += [f"{name} is there as {' and '.join(versions[name])}" for name in bans["single"] if len(versions.get(name, [])) > 1]
    return wrong


def controls(found):
    """Plants one fault of each sort; how many there are, and how many of them are noticed."""

    def bent(**fields):
        planted = copy.deepcopy(found)
        next(one for one in planted if one["name"] == "rustls").update(fields)
        return planted

    rustls = next(one for one in found if one["name"] == "rustls")
    planted = [
        bent(license="GPL-3.0-only"),
        bent(license="MIT AND (GPL-3.0-only OR AGPL-3.0)"),
        bent(license=None),
        bent(source="git+https://example.org/rustls"),
        bent(checksum=None),
        bent(name="openssl-sys"),
        bent(version="0.20.0"),
        [*found, {**rustls, "version": "0.24.0"}],
    ]
    return len(planted), sum(bool(violations(one)) for one in planted)


def advisories(projects):
    """Known faults, by cargo-deny: what became of the look, in words, and whether it found something."""
    if subprocess.run(["cargo", "deny", "--version"], capture_output=True).returncode != 0:
        return "not run (cargo-deny is not installed: cargo install --locked cargo-deny)", False
    for project in projects:
        command = ["cargo", "deny", "--manifest-path", f"{project}/Cargo.toml", "check", "advisories"]
        done = subprocess.run(command, capture_output=True, text=True)
        if "error[" in done.stderr:
            print(done.stderr, file=sys.stderr)
            return "found", True
        if done.returncode != 0:
            return "not run (their database cannot be reached)", False
    return "none", False


def main():
    started = time.monotonic()
    n_seen, wrong, controlled = 0, [], (0, 0)
    for project in sys.argv[1:]:
        found = packages(project)
        n_seen += len(found)
        wrong += violations(found)
        if any(one["name"] == "rustls" for one in found):
            n_planted, n_noticed = controls(found)
            controlled = (controlled[0] + n_planted, controlled[1] + n_noticed)
    told, is_known = advisories(sys.argv[1:])
    for one in sorted(set(wrong)):
        print(one)
    print(f"advisories: {told}")
    line = {"mode": "supply-chain", "runs": n_seen, "reached": n_seen, "violations": len(set(wrong)) + is_known}
    line |= {"controls": controlled[1], "seconds": round(time.monotonic() - started, 1), "seed": 0, "advisories": told}
    print(json.dumps(line))
    is_controlled = controlled[0] > 0 and controlled[0] == controlled[1]
    sys.exit(0 if not wrong and not is_known and is_controlled else 1)


main()
