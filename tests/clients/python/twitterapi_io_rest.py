"""TwitterAPI.io's own SDK: searches, timelines, mentions and posts by id in the history of the same fixture.

Arguments: FIXTURE [refused]
"""

import os
import re

from twitterapi_io import TwitterApiClient
from twitterapi_io.client import TwitterApiError

import fixture

client = TwitterApiClient(
    api_key=os.environ["TWITTERAPI_IO_API_KEY"], base_url=fixture.url("TWITTERAPI_IO_BASE_URL"), max_retries=1
)

# Each post as it came last, and the fast lane's few words on posts that never came whole.
tweets, fast = {}, {}
for envelope in fixture.envelopes("twitterapi_io"):
    for tweet in envelope.get("tweets", []):
        tweets[tweet["id"]] = tweet
    if envelope["event_type"] == "fast_tweet":
        fast[envelope["tweet"]["id"]] = envelope["tweet"]
known = tweets.keys() | fast.keys()
# Twitter's ids are larger than what a float holds exactly.
assert all(int(number) > 2**53 for number in known)


def everything(ask):
    """All posts of a list, page by page to its end."""
    posts, cursor = [], None
    while True:
        page = ask(cursor)
        found = page["data"]["tweets"] if "data" in page else page["tweets"]
        # Only the last page may be empty; an empty one with a successor would be a loop.
        assert found or not page["has_next_page"], page
        posts += found
        if not page["has_next_page"]:
            break
        cursor = page["next_cursor"]
    ids = [post["id"] for post in posts]
    assert ids == sorted(set(ids), key=int, reverse=True), "posts are repeated, or not the newest come first"
    for post in posts:
        if post["id"] in tweets:
            assert post["text"] == tweets[post["id"]]["text"], post
    return ids


def those(wanted):
    """Ids of the posts that came whole and are wanted, newest first."""
    return sorted((number for number, tweet in tweets.items() if wanted(tweet)), key=int, reverse=True)


def whole(ids):
    return [number for number in ids if number in tweets]


def is_retweet(tweet):
    return tweet["text"].startswith("RT @")


def history():
    search = lambda query: everything(lambda cursor: client.search_tweets(query, query_type="Latest", cursor=cursor))
    fixture.same(search("-from:nobody include:nativeretweets"), sorted(known, key=int, reverse=True))
    fixture.same(whole(search("-from:nobody")), those(lambda tweet: not is_retweet(tweet)))

    authors = sorted({tweet["author"]["userName"] for tweet in tweets.values()})
    for author in authors[:3]:
        of_them = those(lambda tweet: tweet["author"]["userName"] == author)
        fixture.same(whole(search(f"from:{author} include:nativeretweets")), of_them)
        last = lambda cursor: client.get_user_last_tweets(user_name=author, include_replies=True, cursor=cursor)
        fixture.same(whole(everything(last)), of_them)
        number = tweets[of_them[0]]["author"]["id"]
        by_number = lambda cursor: client.get_user_last_tweets(user_id=number, include_replies=False, cursor=cursor)
        fixture.same(whole(everything(by_number)), [n for n in of_them if not tweets[n]["isReply"]])
        assert client.get_user_info(author)["data"]["id"] == number

    names = sorted({name for tweet in tweets.values() for name in re.findall(r"@(\w+)", tweet["text"])})
    for name in names[:3]:
        # A retweet's @ is of whom it repeats.
        is_named = re.compile(rf"@{name}\b", re.IGNORECASE)
        want = those(lambda tweet: is_named.search(tweet["text"]) and not is_retweet(tweet))
        fixture.same(whole(everything(lambda cursor: client.get_user_mentions(name, cursor=cursor))), want)

    some = whole(sorted(known))[:100]
    answer = client.get_tweets_by_ids([*some[:99], "1"])
    fixture.same([tweet["id"] for tweet in answer["tweets"]], some[:99])
    for tweet in answer["tweets"]:
        assert tweet == tweets[tweet["id"]], tweet["id"]
    replies = [tweet for tweet in tweets.values() if tweet["inReplyToId"] in tweets]
    for parent in sorted({tweet["inReplyToId"] for tweet in replies})[:3]:
        got = everything(lambda cursor: client.get_tweet_replies(parent, query_type="Latest", cursor=cursor))
        want = {tweet["id"] for tweet in replies if tweet["inReplyToId"] == parent and not is_retweet(tweet)}
        assert want <= set(got), (parent, want, got)


if fixture.is_refused():
    try:
        client.search_tweets("-from:nobody")
        raise AssertionError("a wrong key was let in")
    except TwitterApiError as error:
        assert error.status == 401, (error.status, error.response_body)
else:
    history()
