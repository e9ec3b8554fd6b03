"""DuckDB over the glob, with Hive partitions."""

import re

import duckdb

from truth import TABLES, equal, truth

truth = truth()
db = duckdb.connect()
db.execute("SET TimeZone = 'UTC'")
for table in TABLES:
    if not truth.has(table):
        equal(truth.rows(table), 0, f"rows of {table}")
        continue
    db.execute(f"CREATE VIEW {table} AS SELECT * FROM read_parquet('{truth.files(table)}', hive_partitioning = true)")
    equal(db.execute(f"SELECT count(*) FROM {table}").fetchone()[0], truth.rows(table), f"rows of {table}")

types = {name: kind for name, kind, *_ in db.execute("DESCRIBE tweets").fetchall()}
equal(types["tweet_id"], "BIGINT", "type of tweet_id")
equal(types["published_at"], "TIMESTAMP WITH TIME ZONE", "type of published_at")
equal(types["date"], "DATE", "type of the partition's key")

rows = db.execute("""
    SELECT platform, tweet_id, epoch_us(published_at), date::VARCHAR, text, first_like_count, like_count, author_id, hashtags,
           seen_count, is_deleted
    FROM tweets""").fetchall()
names = ["platform", "tweet_id", "published_us", "date", "text", "first_like_count", "like_count", "author_id", "tags", "events",
         "is_deleted"]
truth.compare_posts(dict(zip(names, row)) for row in rows)

# The snowflake's own arithmetic, in the database.
wrong = db.execute("""
    SELECT count(*) FROM tweets
    WHERE platform = 'x' AND epoch_ms(published_at) <> (tweet_id >> 22) + 1288834974657""").fetchone()[0]
equal(wrong, 0, "published_at that contradicts its id")

plan = db.execute("EXPLAIN ANALYZE SELECT count(text) FROM tweets WHERE date = DATE '2026-01-06'").fetchone()[1]
files = re.search(r"Total Files Read: (\d+)", plan) or re.search(r"Scanning Files: (\d+)/\d+", plan)
if files is None or files[1] != "1":
    raise SystemExit(f"one date, but these files were read:\n{plan}")

# Nested columns, as an analyst would ask for them.
tags = db.execute("SELECT tag, count(*) FROM (SELECT unnest(hashtags) AS tag FROM tweets) GROUP BY tag ORDER BY tag").fetchall()
equal(dict(tags)["birds"], sum(bool(post["tags"]) for post in truth.posts), "posts tagged birds")
names = db.execute("SELECT DISTINCT rule.name FROM (SELECT unnest(rules) AS rule FROM tweets) WHERE rule.id = 'r1'").fetchall()
equal(names, [("birds",)], "the rule's name")
extra = db.execute("SELECT count(*) FROM tweets WHERE json_extract(extra, '$.aFieldOfTomorrow.deep[1]') = 2").fetchone()[0]
equal(extra, sum(post["platform"] == "x" for post in truth.posts), "posts with the field of tomorrow")
