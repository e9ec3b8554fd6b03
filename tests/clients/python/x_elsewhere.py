"""`twikit` against another host.

The library has its hosts built in, so a transport below it changes scheme, host and port, and nothing else.
"""

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


class NoTransaction:
    """Stands in for a header that twikit computes from X's home page, which a replay does not have."""

    home_page_response = True

    def generate_transaction_id(self, **_):
        return "none"


def client():
    """A client with the cookies of this run, and its transport."""
    transport = Elsewhere()
    made = twikit.Client("en-US")
    # Handed to the constructor it would be shadowed: twikit mounts a transport of its own over it.
    made.http = httpx.AsyncClient(transport=transport)
    made.client_transaction = NoTransaction()
    made.set_cookies({"auth_token": os.environ["X_AUTH_TOKEN"], "ct0": os.environ["X_CT0"]})
    return made, transport
