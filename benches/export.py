"""Speed of the export beside what analysts would use instead, in one run. `scripts/bench-export` calls it.

    python benches/export.py BIRDTAPE TAPE LINES.jsonl.zst DIR [ROUNDS]

BIRDTAPE exports the table `tweets` of TAPE, with the whole merge and all nested columns: once with all fields that have no
column in `extra`, once with those only that nobody expected. DuckDB, Polars and pyarrow read the
same envelopes from compressed lines and write their flat columns, a row for each sighting, merged and sorted by nobody. All
take turns, each in a process of its own; medians are compared.

In the end the flat columns of the lean export are compared with DuckDB's, row by row and by their size. DuckDB has a row for
each sighting, so of each post the one that came last is taken, which is what the merge does with full objects; `published_at`
is cut to the second of the provider's field. Posts that only the fast lane's envelopes hold are not in DuckDB's query.

A child of this script does the work of one of them: `python benches/export.py --peer NAME LINES OUT`.
"""

import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

FLAT = {
    "tweet_id": ("id", "BIGINT"),
    "author_id": ("author.id", "BIGINT"),
    "author_handle": ("author.userName", "VARCHAR"),
    "author_name": ("author.name", "VARCHAR"),
    "author_followers": ("author.followers", "BIGINT"),
    "text": ("text", "VARCHAR"),
    "lang": ("lang", "VARCHAR"),
    "url": ("url", "VARCHAR"),
    "client": ("source", "VARCHAR"),
    "conversation_id": ("conversationId", "BIGINT"),
    "in_reply_to_tweet_id": ("inReplyToId", "BIGINT"),
    "in_reply_to_user_id": ("inReplyToUserId", "BIGINT"),
    "in_reply_to_handle": ("inReplyToUsername", "VARCHAR"),
    "like_count": ("likeCount", "BIGINT"),
    "repost_count": ("retweetCount", "BIGINT"),
    "reply_count": ("replyCount", "BIGINT"),
    "quote_count": ("quoteCount", "BIGINT"),
    "bookmark_count": ("bookmarkCount", "BIGINT"),
    "view_count": ("viewCount", "BIGINT"),
}
IDS_AS_TEXT = {"id", "conversationId", "inReplyToId", "inReplyToUserId"}
LEGACY_DATE = "%a %b %d %H:%M:%S %z %Y"


def duckdb_peer(lines, out):
    import duckdb

    author = "author STRUCT(id VARCHAR, userName VARCHAR, name VARCHAR, followers BIGINT)"
    fields = ["createdAt VARCHAR", author]
    for path, kind in FLAT.values():
        if "." not in path:
            fields.append(f"{path} {'VARCHAR' if path in IDS_AS_TEXT else kind}")
    columns = f"{{tweets: 'STRUCT({', '.join(fields)})[]', timestamp: 'BIGINT', rule_id: 'VARCHAR'}}"
    flat = ", ".join(f"t.{path}::{kind} AS {name}" for name, (path, kind) in FLAT.items())
    duckdb.execute("SET preserve_insertion_order = false")
    duckdb.execute(f"""
        COPY (
            SELECT strptime(t.createdAt, '{LEGACY_DATE}') AS published_at, make_timestamp(timestamp * 1000) AS received_at,
                   rule_id, {flat}
            FROM (SELECT unnest(tweets) AS t, timestamp, rule_id
                  FROM read_json('{lines}', format = 'newline_delimited', columns = {columns}))
        ) TO '{out}' (FORMAT parquet, COMPRESSION zstd)""")


def polars_peer(lines, out):
    import polars as pl

    tweet = {"createdAt": pl.String, "author": pl.Struct({"id": pl.String, "userName": pl.String, "name": pl.String,
                                                          "followers": pl.Int64})}
    for path, kind in FLAT.values():
        if "." not in path:
            tweet[path] = pl.String if path in IDS_AS_TEXT or kind == "VARCHAR" else pl.Int64
    schema = {"tweets": pl.List(pl.Struct(tweet)), "timestamp": pl.Int64, "rule_id": pl.String}

    def flat(name, path, kind):
        first, *rest = path.split(".")
        column = pl.col(first).struct.field(rest[0]) if rest else pl.col(first)
        return (column.cast(pl.Int64) if kind == "BIGINT" else column).alias(name)

    rows = pl.read_ndjson(subprocess.run(["zstd", "-dcq", lines], stdout=subprocess.PIPE, check=True).stdout, schema=schema)
    rows = rows.lazy().explode("tweets").drop_nulls("tweets").unnest("tweets")
    rows.select(
        pl.col("createdAt").str.to_datetime(LEGACY_DATE, time_unit="us").alias("published_at"),
        pl.from_epoch("timestamp", time_unit="ms").alias("received_at"),
        "rule_id",
        *(flat(name, path, kind) for name, (path, kind) in FLAT.items()),
    ).sink_parquet(out, compression="zstd")


def pyarrow_peer(lines, out):
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.json as pj
    import pyarrow.parquet as pq

    author = pa.struct([("id", pa.string()), ("userName", pa.string()), ("name", pa.string()), ("followers", pa.int64())])
    tweet = [("createdAt", pa.string()), ("author", author)]
    for path, kind in FLAT.values():
        if "." not in path:
            tweet.append((path, pa.string() if path in IDS_AS_TEXT or kind == "VARCHAR" else pa.int64()))
    schema = pa.schema([("tweets", pa.list_(pa.struct(tweet))), ("timestamp", pa.int64()), ("rule_id", pa.string())])
    options = pj.ParseOptions(explicit_schema=schema, unexpected_field_behavior="ignore")
    writer = None
    with pa.input_stream(lines, compression="zstd") as stream:
        for batch in pj.open_json(stream, read_options=pj.ReadOptions(block_size=16 << 20), parse_options=options):
            parents = pc.list_parent_indices(batch["tweets"])
            tweets = pc.list_flatten(batch["tweets"])
            published = pc.strptime(tweets.field("createdAt"), format="%a %b %d %H:%M:%S +0000 %Y", unit="us")
            columns = {"published_at": published, "received_at": pc.take(batch["timestamp"], parents).cast(pa.timestamp("ms")),
                       "rule_id": pc.take(batch["rule_id"], parents)}
            for name, (path, kind) in FLAT.items():
                column = tweets
                for part in path.split("."):
                    column = column.field(part)
                columns[name] = column.cast(pa.int64()) if kind == "BIGINT" else column
            table = pa.table(columns)
            writer = writer or pq.ParquetWriter(out, table.schema, compression="zstd")
            writer.write_table(table)
    if writer:
        writer.close()


def compare(ours, theirs):
    """Rows of both that the other has not, and the size of the columns that both have."""
    import duckdb

    names = ", ".join(FLAT)
    ours, theirs = f"{ours}/tweets/*/*.parquet", str(theirs)
    duckdb.execute("SET TimeZone = 'UTC'")
    duckdb.execute(f"""
        CREATE TEMP TABLE theirs AS
        SELECT DISTINCT ON (tweet_id) published_at::TIMESTAMPTZ AS published_at, {names}
        FROM read_parquet('{theirs}') ORDER BY tweet_id, received_at DESC""")
    duckdb.execute(f"""
        CREATE TEMP TABLE ours AS
        SELECT date_trunc('second', published_at) AS published_at, {names} FROM read_parquet('{ours}')
        WHERE tweet_id IN (SELECT tweet_id FROM theirs)""")
    one = lambda query: duckdb.execute(query).fetchone()[0]
    n_ours, n_theirs = (one(f"SELECT count(*) FROM {table}") for table in ("ours", "theirs"))
    n_more = one(f"SELECT count(*) FROM read_parquet('{ours}')") - n_ours
    apart = [one(f"SELECT count(*) FROM (FROM {a} EXCEPT ALL FROM {b})") for a, b in (("ours", "theirs"), ("theirs", "ours"))]
    size = lambda files: one(f"""
        SELECT sum(total_compressed_size) FROM parquet_metadata('{files}')
        WHERE path_in_schema IN ('published_at', {", ".join(f"'{name}'" for name in FLAT)})""") / 1e6
    print(f"\nRows with {len(FLAT) + 1} flat columns: ours {n_ours:,} (and {n_more:,} of the fast lane), DuckDB's {n_theirs:,};"
          f" ours EXCEPT ALL DuckDB's {apart[0]:,}, DuckDB's EXCEPT ALL ours {apart[1]:,}")
    print(f"These columns take {size(ours):.2f} MB of ours and {size(theirs):.2f} MB of DuckDB's: {size(ours) / size(theirs):.3f}")


OURS = {"birdtape": "all", "birdtape, lean": "unexpected"}
PEERS = {"duckdb": duckdb_peer, "polars": polars_peer, "pyarrow": pyarrow_peer}


def measure(command):
    """Wall and CPU seconds, peak MB."""
    start = time.monotonic()
    child = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    errors = child.stderr.read()
    _, status, used = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode != 0:
        sys.exit(f"{command[0]}: exit code {child.returncode}\n{errors.decode(errors='replace')}")
    return time.monotonic() - start, used.ru_utime + used.ru_stime, used.ru_maxrss / 1024


def size_of(path):
    files = [path] if path.is_file() else path.rglob("*.parquet")
    return sum(file.stat().st_size for file in files)


def main(birdtape, tape, lines, work, rounds="5"):
    work = Path(work)
    runs = {name: [] for name in [*OURS, *PEERS]}
    sizes = {}
    for round_ in range(int(rounds)):
        for name in runs:
            out = work / f"{name}-{round_}"
            if name in OURS:
                command = [birdtape, "--tape", tape, "--json", "export", "parquet", "--out", str(out), "--table", "tweets"]
                command += ["--extra", OURS[name]]
            else:
                command = [sys.executable, __file__, "--peer", name, lines, str(out)]
            runs[name].append(measure(command))
            sizes[name] = size_of(out)
            kept = name in ("birdtape, lean", "duckdb") and round_ + 1 == int(rounds)
            if not kept:
                subprocess.run(["rm", "-rf", str(out)], check=True)
    medians = {name: [statistics.median(column) for column in zip(*all_)] for name, all_ in runs.items()}
    base = medians["duckdb"]
    print(f"{rounds} rounds in turn, medians; {Path(lines).stat().st_size / 1e6:.0f} MB of compressed lines\n")
    print("| | wall, s | ÷ DuckDB | CPU, s | ÷ DuckDB | peak memory, MB | output, MB |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for name, (wall, cpu, peak) in medians.items():
        what = f"birdtape, merged and nested, `--extra {OURS[name]}`" if name in OURS else f"{name}, flat"
        print(f"| {what} | {wall:.2f} | {wall / base[0]:.2f} | {cpu:.2f} | {cpu / base[1]:.2f} | {peak:.0f} | {sizes[name] / 1e6:.1f} |")
    last = int(rounds) - 1
    compare(work / f"birdtape, lean-{last}", work / f"duckdb-{last}")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--peer"]:
        PEERS[sys.argv[2]](*sys.argv[3:])
    else:
        main(*sys.argv[1:])
