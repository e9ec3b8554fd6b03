"""`websockets`: every message of a provider's stream, byte for byte, to its close.

Arguments: FIXTURE PROVIDER [refused]
"""

import asyncio
import json
import os
import sys

import websockets

import fixture

PROVIDER = sys.argv[2]


def dial():
    if PROVIDER == "twitterapi_io":
        headers = {"x-api-key": os.environ["TWITTERAPI_IO_API_KEY"]}
        return websockets.connect(fixture.url("TWITTERAPI_IO_WS_URL"), additional_headers=headers)
    if PROVIDER == "scrapebadger":
        headers = {"x-api-key": os.environ["SCRAPEBADGER_API_KEY"]}
        return websockets.connect(fixture.url("SCRAPEBADGER_WS_URL"), additional_headers=headers)
    token = "tweetstream.auth.token." + os.environ["TWEETSTREAM_API_KEY"]
    return websockets.connect(fixture.url("TWEETSTREAM_WS_URL"), subprotocols=["tweetstream.v1", token])


async def refused():
    if PROVIDER != "scrapebadger":
        try:
            async with dial():
                raise AssertionError("a wrong key was let in")
        except websockets.exceptions.InvalidStatus as error:
            assert error.response.status_code == 401, error
        return
    # ScrapeBadger lets everybody in and says no afterwards.
    async with dial() as socket:
        said = json.loads(await socket.recv())
        assert (said["type"], said["code"]) == ("error", 4001), said
        try:
            await socket.recv()
            raise AssertionError("the connection stayed open")
        except websockets.exceptions.ConnectionClosed as closed:
            assert closed.rcvd.code == 4001, closed


async def stream():
    got = []
    async with dial() as socket:
        if PROVIDER == "tweetstream":
            assert socket.subprotocol == "tweetstream.v1", socket.subprotocol
        async for message in socket:
            got.append(message)
        assert socket.close_code == 1001, socket.close_code
    fixture.same(got, fixture.lines(PROVIDER))


asyncio.run(refused() if fixture.is_refused() else stream())
