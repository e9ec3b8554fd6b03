"""TwitterAPI.io's own SDK: search, and tweets by id, in the history of the same fixture.

Arguments: FIXTURE [refused]
"""

import os

from twitterapi_io import TwitterApiClient
from twitterapi_io.client import TwitterApiError

import fixture

client = TwitterApiClient(
    api_key=os.environ["TWITTERAPI_IO_API_KEY"], base_url=fixture.url("TWITTERAPI_IO_BASE_URL"), max_retries=1
)

# Ids in the order they first arrived; a post may arrive again in another envelope.
tweets = {}
for envelope in fixture.envelopes("twitterapi_io"):
    for tweet in envelope.get("tweets", []):
        tweets.setdefault(tweet["id"], tweet)

try:
    page = client.search_tweets("-from:nobody", query_type="Latest")
except TwitterApiError as error:
    if error.status == 404:
        fixture.skip("the replay serves no history")
    assert fixture.is_refused() and error.status == 401, (error.status, error.response_body)
else:
    assert not fixture.is_refused(), "a wrong key was let in"
    assert page["tweets"], page
    seen = set()
    while True:
        ids = [tweet["id"] for tweet in page["tweets"]]
        # Only the last page may be empty; an empty one with a successor would be a loop.
        assert ids or not page["has_next_page"], page
        assert not seen.intersection(ids), "a page repeats posts"
        seen.update(ids)
        if not page["has_next_page"]:
            break
        page = client.search_tweets("-from:nobody", query_type="Latest", cursor=page["next_cursor"])
    unknown = seen.difference(tweets)
    assert not unknown, f"posts that the fixture does not hold: {sorted(unknown)[:3]}"

    some = sorted(seen)[:5]
    answer = client.get_tweets_by_ids(some)
    by_id = {tweet["id"]: tweet for tweet in answer["tweets"]}
    assert sorted(by_id) == some, (sorted(by_id), some)
    for number, tweet in by_id.items():
        assert tweet["text"] == tweets[number]["text"], number
