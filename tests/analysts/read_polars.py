"""Polars, lazily, with Hive partitions."""

import polars as pl

from truth import TABLES, equal, truth

truth = truth()


def scan(table):
    return pl.scan_parquet(truth.files(table), hive_partitioning=table != "coverage")


for table in TABLES:
    rows = scan(table).select(pl.len()).collect().item() if truth.has(table) else 0
    equal(rows, truth.rows(table), f"rows of {table}")

tweets = scan("tweets")
schema = tweets.collect_schema()
equal(schema["tweet_id"], pl.Int64, "type of tweet_id")
equal(schema["published_at"], pl.Datetime("us", "UTC"), "type of published_at")
equal(schema["date"], pl.Date, "type of the partition's key")

found = tweets.select(
    "platform",
    "tweet_id",
    pl.col("published_at").dt.epoch("us").alias("published_us"),
    pl.col("date").cast(pl.String),
    "text",
    "first_like_count",
    "like_count",
    "author_id",
    pl.col("hashtags").alias("tags"),
    pl.col("seen_count").alias("events"),
    "is_deleted",
).collect()
truth.compare_posts(found.to_dicts())

one_day = tweets.filter(pl.col("date") == pl.date(2026, 1, 6))
equal(one_day.select(pl.len()).collect().item(), sum(post["date"] == "2026-01-06" for post in truth.posts), "posts of one day")
rules = tweets.select(pl.col("rules").explode()).unnest("rules").filter(pl.col("id") == "r1").select("name").unique().collect()
equal(rules.to_series().to_list(), ["birds"], "the rule's name")

# Sorted by time within a file: what the file says of itself is true.
for file in sorted(truth.lake.joinpath("tweets").rglob("*.parquet")):
    equal(pl.read_parquet(file, columns=["published_at"]).to_series().is_sorted(), True, f"{file} is sorted")
