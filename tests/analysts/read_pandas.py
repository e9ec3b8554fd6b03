"""pyarrow's datasets, and pandas over them."""

import pandas as pd
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq

from truth import TABLES, equal, truth

truth = truth()
HIVE = ds.partitioning(pa.schema([("date", pa.date32())]), flavor="hive")


def dataset(table):
    return ds.dataset(truth.lake / table, partitioning=None if table == "coverage" else HIVE, format="parquet")


for table in TABLES:
    equal(dataset(table).count_rows() if truth.has(table) else 0, truth.rows(table), f"rows of {table}")

tweets = dataset("tweets")
equal(tweets.schema.field("tweet_id").type, pa.int64(), "type of tweet_id")
equal(tweets.schema.field("published_at").type, pa.timestamp("us", "UTC"), "type of published_at")
days = {post["date"] for post in truth.posts}
equal(len(list(tweets.get_fragments())), len(days), "files")
day = ds.field("date") == pa.scalar("2026-01-06").cast(pa.date32())
equal(len(list(tweets.get_fragments(filter=day))), 1, "files of one date")

# Nullable integers: numpy's have no null, and a float would lose an id's digits.
frame = tweets.to_table().to_pandas(types_mapper=pd.ArrowDtype)
equal(str(frame["published_at"].dt.tz), "UTC", "time zone")
found = [
    {
        "platform": row.platform,
        "tweet_id": row.tweet_id,
        "published_us": row.published_at.value // 1000,
        "date": row.date.isoformat()[:10],
        "text": row.text,
        "first_like_count": None if pd.isna(row.first_like_count) else row.first_like_count,
        "like_count": None if pd.isna(row.like_count) else row.like_count,
        "author_id": row.author_id,
        "tags": list(row.hashtags),
        "events": row.seen_count,
        "is_deleted": row.is_deleted,
    }
    for row in frame.itertuples()
]
truth.compare_posts(found)

# What a file says of itself.
file = min(truth.lake.joinpath("tweets").rglob("*.parquet"))
told = pq.ParquetFile(file)
keys = {key.decode() for key in told.schema_arrow.metadata or {}} | {key.decode() for key in told.metadata.metadata or {}}
for key in ("birdtape.tape", "birdtape.schema", "birdtape.segments"):
    if key not in keys:
        raise SystemExit(f"{file} does not tell {key}; it tells {sorted(keys)}")
column = next(told.metadata.row_group(0).column(i) for i in range(told.metadata.num_columns)
              if told.metadata.row_group(0).column(i).path_in_schema == "tweet_id")
equal(column.compression, "ZSTD", "compression")
equal(column.statistics.has_min_max, True, "statistics of tweet_id")
ids = [int(post["tweet_id"]) for post in truth.posts if post["date"] == min(days)]
equal((column.statistics.min, column.statistics.max), (min(ids), max(ids)), "least and greatest tweet_id of the first date")

# pandas alone, as most people call it.
alone = pd.read_parquet(file, dtype_backend="pyarrow")
equal(sorted(alone["tweet_id"].tolist()), sorted(ids), "ids by pandas.read_parquet")
