"""What the fixture holds for a provider, and the arguments every client script takes."""

import json
import os
import sys

SKIPPED = 77


def provider_of(envelope):
    """Whose an envelope is, by the shape its provider gives it."""
    if "topic" in envelope:
        return "x_live"
    if "event_type" in envelope or isinstance(envelope.get("tweets"), list):
        return "twitterapi_io"
    if envelope.get("v") == 1 and "op" in envelope:
        return "tweetstream"
    return "scrapebadger"


def lines(provider):
    """The provider's envelopes, each the text that must arrive."""
    with open(sys.argv[1], encoding="utf-8", newline="\n") as file:
        all_lines = file.read().split("\n")
    found = [line for line in all_lines if line and provider_of(json.loads(line)) == provider]
    assert len(found) > 20, f"the fixture holds {len(found)} envelopes of {provider}"
    return found


def envelopes(provider):
    return [json.loads(line) for line in lines(provider)]


def is_refused():
    """Whether the key of this run is a wrong one."""
    return sys.argv[-1] == "refused"


def url(name):
    return os.environ[name]


def same(got, want):
    """Stops at the first difference."""
    for idx, (one, other) in enumerate(zip(got, want)):
        assert one == other, f"number {idx}: got {one!r:.300}, the fixture has {other!r:.300}"
    assert len(got) == len(want), f"got {len(got)}, the fixture has {len(want)}"


def skip(why):
    print(why)
    sys.exit(SKIPPED)
