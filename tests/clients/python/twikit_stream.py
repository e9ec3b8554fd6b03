"""`twikit`'s streaming session on X's live pipeline.

Arguments: FIXTURE [refused]
"""

import asyncio

import fixture
import x_elsewhere

def topics(envelopes):
    return [envelope["topic"] for envelope in envelopes]


async def main():
    client, transport = x_elsewhere.client()
    want = fixture.envelopes("x_live")
    wanted = {topic for topic in topics(want) if not topic.startswith("/system/")}
    try:
        session = await client.get_streaming_session(wanted, auto_reconnect=False)
    except KeyError as error:
        # This is how twikit meets an answer without a payload.
        assert fixture.is_refused() and transport.statuses == [401], (error, transport.statuses)
        return
    assert not fixture.is_refused(), "a wrong cookie was let in"
    got = [event async for event in session]

    # The session itself took the first config.
    assert want[0]["topic"] == "/system/config"
    assert session.id == want[0]["payload"]["config"]["session_id"], session.id
    fixture.same([topic for topic, _ in got], topics(want[1:]))
    for (topic, payload), envelope in zip(got, want[1:]):
        counts = envelope["payload"].get("tweet_engagement")
        if counts is not None:
            for name in ("like_count", "retweet_count", "quote_count", "reply_count"):
                assert getattr(payload.tweet_engagement, name) == counts.get(name), (topic, name)


asyncio.run(main())
