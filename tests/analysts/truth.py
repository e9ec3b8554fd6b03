"""What every reader compares with: the truth of `world.py`, and the export's own report."""

import json
import sys
from pathlib import Path

TABLES = ["tweets", "events", "envelopes", "profile_changes", "follows", "engagement", "dm_activity", "coverage"]
COLUMNS = ["platform", "tweet_id", "published_us", "date", "text", "first_like_count", "like_count", "author_id", "tags",
           "events", "is_deleted"]


class Truth:
    def __init__(self, directory):
        self.lake = Path(directory) / "lake"
        self.posts = json.loads((Path(directory) / "truth.json").read_text(encoding="utf-8"))["posts"]
        self.report = json.loads((Path(directory) / "report.json").read_text(encoding="utf-8"))

    def files(self, table):
        """A pattern that every reader understands."""
        return str(self.lake / table / ("*.parquet" if table == "coverage" else "*/*.parquet"))

    def has(self, table):
        return any(self.lake.joinpath(table).rglob("*.parquet"))

    def rows(self, table):
        """How many rows the export says it wrote."""
        return self.report["tables"].get(table, {}).get("rows_in_all", 0)

    def compare_posts(self, found):
        """`found`: dicts with COLUMNS, ids as the reader's own integers, in any order."""
        found = sorted(({**post, "tweet_id": exact(post["tweet_id"]), "author_id": exact(post["author_id"])} for post in found),
                       key=lambda post: (post["published_us"], int(post["tweet_id"])))
        wanted = [{name: post[name] for name in COLUMNS} for post in self.posts]
        equal(len(found), len(wanted), "posts")
        for one, other in zip(found, wanted):
            equal({name: one[name] for name in COLUMNS}, other, f"post {other['tweet_id']}")


def exact(number):
    """An id as text; a float would have lost its last digits already."""
    if isinstance(number, bool) or not isinstance(number, int):
        raise SystemExit(f"an id came as {type(number).__name__}: {number!r}")
    return str(number)


def equal(found, wanted, what):
    if found != wanted:
        raise SystemExit(f"{what}: found {found!r}, wanted {wanted!r}")


def truth():
    return Truth(sys.argv[1])
