"""What tweets may do to a terminal and to a spreadsheet: nothing."""

import csv
import json
import os
import pty
import re
import select
import subprocess
import time

OSC52 = "\x1b]52;c;cGxhbnRlZA==\x07"
# Each with what it would do.
HOSTILE = {
    "colours": "red \x1b[31m and away \x1b[2J",
    "clipboard": f"copy {OSC52} that",
    "bell": "ding \x07 dong",
    "overwriting": "honest words\rforged words",
    "eight-bit control": "clear \u009b2J screen",
    "direction": "invoice \u202egpj.exe \u2066 \u200f \u061c",
    "lines": "one\u2028two\u2029three\x0bfour\x0cfive\x85six",
    "deleting": "safe\x08\x08\x08\x08evil \x7f",
}
FORMULAS = ["=1+1", "+1+1", "-1+1", "@SUM(A1)", "\t=1+1", "\r=1+1", "\n=1+1", "=HYPERLINK(\"https://e.test\",\"x\")",
            "\uff1d1+1", "\uff0b1", "\uff0d1", "\uff20SUM(A1)"]
FIRST = ("=", "+", "-", "@", "\t", "\r", "\n", "\uff1d", "\uff0b", "\uff0d", "\uff20")

COMMANDS = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\x80-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]|\r(?!\n)")
# Where the program draws by itself, as a recorder does: what it never draws.
FOREIGN = re.compile("\x1b\\]|[\x07\x80-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")


def lines(first_id):
    """Envelopes with all of it in their texts and names."""
    out = []
    for at, words in enumerate([*HOSTILE.values(), *FORMULAS]):
        number = str(first_id + at)
        out.append(json.dumps({"event_type": "tweet", "rule_id": "r1", "rule_tag": words, "timestamp": 1767614400000 + at, "tweets": [
            {"type": "tweet", "id": number, "text": words, "createdAt": "Mon Jan 05 12:00:00 +0000 2026", "source": words,
             "url": f"https://x.com/a/status/{number}", "likeCount": 1,
             "author": {"id": "7", "userName": "attacker", "name": words, "description": words, "location": words}}]},
            ensure_ascii=at % 2 == 0))
    # What is no JSON stands on the tape as text, and is shown as such.
    return out + [words for words in HOSTILE.values() if "\r" not in words]


def under_terminal(command, seconds=20, **more):
    """What a command writes to a terminal."""
    leader, follower = pty.openpty()
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=follower, stderr=follower, close_fds=True, **more)
    os.close(follower)
    out, deadline = b"", time.monotonic() + seconds
    while time.monotonic() < deadline:
        if select.select([leader], [], [], 0.1)[0]:
            try:
                chunk = os.read(leader, 65536)
            except OSError:
                break
            if not chunk:
                break
            out += chunk
        elif process.poll() is not None:
            break
    if process.poll() is None:
        process.kill()
    process.wait()
    os.close(leader)
    return out.decode("utf-8", "replace")


def commands_in(out, pattern=COMMANDS):
    return sorted({repr(match.group(0)) for match in pattern.finditer(out)})


def hostile_in(out):
    """What came through, of a program that may draw by itself: words with the command that follows them."""
    begun = [re.split("[\x00-\x1f\x7f-\x9f]", words)[0] for words in HOSTILE.values()]
    through = [words for words in begun if words and re.search(re.escape(words) + "[\x00-\x1f\x7f-\x9f]", out)]
    return commands_in(out, FOREIGN) + through


def formulas_in(path):
    """Cells of a CSV file that a spreadsheet would compute."""
    with open(path, newline="", encoding="utf-8") as file:
        rows = list(csv.reader(file))
    number = re.compile(r"-?[0-9]+(\.[0-9]+)?(e[+-]?[0-9]+)?\Z")
    cells = [cell for row in rows[1:] for cell in row]
    return sorted({cell for cell in cells if cell.startswith(FIRST) and not number.match(cell)}), len(rows) - 1
