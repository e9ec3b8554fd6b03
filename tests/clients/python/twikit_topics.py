"""`twikit`'s streaming session changes its topics while it is open; the clock is held until it has.

Arguments: FIXTURE
"""

import asyncio
import urllib.request

from twikit.streaming import Topic

import fixture
import x_elsewhere


def topics(envelopes):
    return [envelope["topic"] for envelope in envelopes]


async def main():
    client, _ = x_elsewhere.client()
    posts = [envelope for envelope in fixture.envelopes("x_live") if "tweet_engagement" in envelope["payload"]]
    all_topics = list(dict.fromkeys(topics(posts)))
    assert Topic.tweet_engagement(all_topics[0].rpartition("/")[2]) == all_topics[0]
    third = len(all_topics) // 3
    kept, dropped, added = all_topics[:third], all_topics[third : 2 * third], all_topics[2 * third :]

    session = await client.get_streaming_session({*kept, *dropped}, auto_reconnect=False)
    said = await session.update_subscriptions(set(added), set(dropped))
    # Everything that was asked for holds.
    assert said.subscriptions is not None and not said.subscriptions.errors, said
    assert session.topics == {*kept, *added}
    urllib.request.urlopen(fixture.url("BIRDTAPE_BASE_URL") + "/_birdtape/resume", data=b"").close()

    got = [topic async for topic, payload in session if payload.tweet_engagement is not None]
    fixture.same(got, [topic for topic in topics(posts) if topic not in dropped])


asyncio.run(main())
