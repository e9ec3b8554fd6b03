"""ScrapeBadger's own SDK: the stream as typed events.

Arguments: FIXTURE [refused]
"""

import asyncio
import os

from scrapebadger import ScrapeBadger
from scrapebadger._internal.exceptions import WebSocketStreamError
from scrapebadger.twitter.stream_models import ConnectedEvent, PingEvent, TweetEvent

import fixture


async def events():
    """All events, and the error that ended them, if one did."""
    got = []
    key, base = os.environ["SCRAPEBADGER_API_KEY"], fixture.url("SCRAPEBADGER_BASE_URL")
    async with ScrapeBadger(api_key=key, base_url=base) as client:
        async with client.twitter.stream.connect() as stream:
            try:
                async for event in stream:
                    got.append(event)
            except WebSocketStreamError as error:
                return got, error
    return got, None


got, error = asyncio.run(events())
if fixture.is_refused():
    assert got == [] and error is not None and error.code == 4001, (got, error)
else:
    # The SDK takes a close with 1001 for an ordinary end.
    assert error is None, error
    want = fixture.envelopes("scrapebadger")
    kinds = {"connected": ConnectedEvent, "ping": PingEvent, "tweet": TweetEvent}
    fixture.same([type(event) for event in got], [kinds[envelope["type"]] for envelope in want])
    ids = [event.tweet_id for event in got if isinstance(event, TweetEvent)]
    fixture.same(ids, [envelope["tweet_id"] for envelope in want if envelope["type"] == "tweet"])
