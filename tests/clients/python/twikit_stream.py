"""`twikit`'s streaming session on X's live pipeline.

The library has its hosts built in, so a transport below it changes scheme, host and port, and nothing else.

Arguments: FIXTURE [refused]
"""

import asyncio
import os

import httpx
import twikit

import fixture

BASE = httpx.URL(fixture.url("X_BASE_URL"))


class Elsewhere(httpx.AsyncBaseTransport):
    def __init__(self):
        self.inner = httpx.AsyncHTTPTransport()
        self.statuses = []

    async def handle_async_request(self, request):
        request.url = request.url.copy_with(scheme=BASE.scheme, host=BASE.host, port=BASE.port)
        request.headers["host"] = f"{BASE.host}:{BASE.port}"
        response = await self.inner.handle_async_request(request)
        self.statuses.append(response.status_code)
        return response

    async def aclose(self):
        await self.inner.aclose()


def topics(envelopes):
    return [envelope["topic"] for envelope in envelopes]


async def main():
    transport = Elsewhere()
    client = twikit.Client("en-US")
    # Handed to the constructor it would be shadowed: twikit mounts a transport of its own over it.
    client.http = httpx.AsyncClient(transport=transport)
    client.set_cookies({"auth_token": os.environ["X_AUTH_TOKEN"], "ct0": os.environ["X_CT0"]})
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
