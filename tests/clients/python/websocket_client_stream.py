"""`websocket-client`, driven the way TwitterAPI.io's published sample drives it: callbacks and `run_forever`.

Arguments: FIXTURE [refused]
"""

import os

import websocket

import fixture

want = fixture.lines("twitterapi_io")
got = []
errors = []
closes = []


def on_message(app, message):
    got.append(message)
    # The library would sleep through the server's close and dial again in 90 s, so this client is the one to leave.
    if len(got) == len(want):
        app.close()


def on_error(app, error):
    errors.append(error)


def on_close(app, code, reason):
    closes.append(code)


app = websocket.WebSocketApp(
    fixture.url("TWITTERAPI_IO_WS_URL"),
    header={"x-api-key": os.environ["TWITTERAPI_IO_API_KEY"]},
    on_message=on_message,
    on_error=on_error,
    on_close=on_close,
)
app.run_forever(ping_interval=40, ping_timeout=30, reconnect=0 if fixture.is_refused() else 90)

if fixture.is_refused():
    assert len(errors) == 1 and errors[0].status_code == 401, errors
    assert not got
else:
    fixture.same(got, want)
    assert len(closes) == 1 and not errors, (closes, errors)
