"""`twikit` asks for counters of posts, and for a conversation to its beginning.

Arguments: FIXTURE [refused]
"""

import asyncio

from twikit.errors import TweetNotAvailable, Unauthorized

import fixture
import x_elsewhere

COUNTERS = {
    "favorite_count": "like_count",
    "retweet_count": "retweet_count",
    "reply_count": "reply_count",
    "quote_count": "quote_count",
}


def totals(envelopes):
    """The last total of each counter of each post."""
    found = {}
    for envelope in envelopes:
        counts = envelope["payload"].get("tweet_engagement")
        if counts is None:
            continue
        of_post = found.setdefault(envelope["topic"].rpartition("/")[2], {})
        for name, wire in COUNTERS.items():
            if counts.get(wire) is not None:
                of_post[name] = int(counts[wire])
        views = counts.get("view_count_info", {}).get("count")
        if views is not None:
            of_post["view_count"] = int(views)
    return found


def check(tweet, want):
    got = {name: tweet._legacy.get(name) for name in COUNTERS}
    got["view_count"] = None if tweet.view_count is None else int(tweet.view_count)
    assert {name: count for name, count in got.items() if count is not None} == want, (tweet.id, got, want)


async def snapshots(client, envelopes):
    want = totals(envelopes)
    assert len(want) > 3 and all(int(number) > 2**53 for number in want), want.keys()
    for tweet, number in zip(await client.get_tweets_by_ids(list(want)), want, strict=True):
        assert tweet.id == number, (tweet.id, number)
        check(tweet, want[number])
    number = next(iter(want))
    tweet = await client.get_tweet_by_id(number)
    assert tweet.id == number
    check(tweet, want[number])
    assert await client.get_tweets_by_ids(["1"]) == [None]
    try:
        await client.get_tweet_by_id("1")
        raise AssertionError("an unknown post was found")
    except TweetNotAvailable:
        pass


async def conversations(client, envelopes):
    said = [envelope["payload"]["dm_update"] for envelope in envelopes if "dm_update" in envelope["payload"]]
    assert said, "the fixture has no conversation"
    for number in {message["conversation_id"] for message in said}:
        want = [message["user_id"] for message in said if message["conversation_id"] == number]
        page, got = await client.get_group_dm_history(number), []
        while len(page) > 0:
            got += page
            page = await page.next()
        fixture.same([message.sender_id for message in got], want[::-1])
        ids = [int(message.id) for message in got]
        assert ids == sorted(set(ids), reverse=True), ids
        assert all(message.group_id == number for message in got)


async def main():
    client, transport = x_elsewhere.client()
    if fixture.is_refused():
        try:
            await client.get_tweets_by_ids(["1"])
            raise AssertionError("a wrong cookie was let in")
        except Unauthorized:
            assert transport.statuses == [401], transport.statuses
            return
    envelopes = fixture.envelopes("x_live")
    if any("dm_update" in envelope["payload"] for envelope in envelopes):
        await conversations(client, envelopes)
    else:
        await snapshots(client, envelopes)


asyncio.run(main())
