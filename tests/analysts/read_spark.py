"""Spark in local mode."""

from pyspark.sql import SparkSession
from pyspark.sql import functions as f
from pyspark.sql.types import DateType, LongType, TimestampType

from truth import TABLES, equal, truth

truth = truth()
spark = (
    SparkSession.builder.master("local[1]")
    .config("spark.ui.enabled", "false")
    .config("spark.sql.session.timeZone", "UTC")
    .config("spark.sql.shuffle.partitions", "1")
    .config("spark.driver.memory", "1g")
    .getOrCreate()
)
spark.sparkContext.setLogLevel("ERROR")
try:
    for table in TABLES:
        rows = spark.read.parquet(str(truth.lake / table)).count() if truth.has(table) else 0
        equal(rows, truth.rows(table), f"rows of {table}")
    tweets = spark.read.parquet(str(truth.lake / "tweets"))
    equal(tweets.schema["tweet_id"].dataType, LongType(), "type of tweet_id")
    equal(tweets.schema["published_at"].dataType, TimestampType(), "type of published_at")
    equal(tweets.schema["date"].dataType, DateType(), "type of the partition's key")
    found = tweets.select(
        "platform",
        "tweet_id",
        f.unix_micros("published_at").alias("published_us"),
        f.col("date").cast("string").alias("date"),
        "text",
        "first_like_count",
        "like_count",
        "author_id",
        f.col("hashtags").alias("tags"),
        f.col("seen_count").alias("events"),
        "is_deleted",
    )
    truth.compare_posts(row.asDict() for row in found.collect())
    one_day = tweets.where("date = DATE '2026-01-06'")
    equal(one_day.count(), sum(post["date"] == "2026-01-06" for post in truth.posts), "posts of one date")
    plan = one_day.select("text")._jdf.queryExecution().executedPlan().toString()
    if "PartitionFilters: [isnotnull(date" not in plan:
        raise SystemExit(f"the date does not prune partitions:\n{plan}")
    rules = tweets.select(f.explode("rules").alias("rule")).where("rule.id = 'r1'").select("rule.name").distinct().collect()
    equal([row["name"] for row in rules], ["birds"], "the rule's name")
finally:
    spark.stop()
