"""A small made-up world whose truth is known: envelopes of three providers, and what an export of them must say.

    python world.py DIR        writes DIR/lines.jsonl and DIR/truth.json

The shapes are those of the providers' documentation. Nothing here is read by birdtape's own code, so that the two can
only agree if both are right.
"""

import json
import random
import sys
from datetime import datetime, timedelta, timezone

EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)
X_EPOCH_MS = 1288834974657
FIRST_DAY = datetime(2026, 1, 5, tzinfo=timezone.utc)
DAYS = 3
POSTS_PER_DAY = 120
# What breaks naive readers and spreadsheets; no text says the same as another once numbered.
TEXTS = [
    "plain words",
    'quotes " and \\ backslashes',
    "two\nlines\tand a tab\r\n",
    "emoji 🦜👩🏽‍🚀, wide 漢字, right to left שלום",
    "=1+1 looks like a formula",
    "a control character \u0001, a line separator \u2028 and a null \u0000 inside",
    "{\"json\": [1, 2]}",
    "",
]


def ms_of(at):
    return (at - EPOCH) // timedelta(milliseconds=1)


def legacy(at):
    return at.strftime("%a %b %d %H:%M:%S +0000 %Y")


def iso(at):
    return at.isoformat(timespec="milliseconds").replace("+00:00", "Z")


class World:
    def __init__(self, seed):
        self.dice = random.Random(seed)
        self.lines = []  # (instant, envelope)
        self.posts = {}  # (platform, id) -> truth
        self.seen = []  # (instant, platform, id, what)

    def build(self):
        for day in range(DAYS):
            for n in range(POSTS_PER_DAY):
                at = FIRST_DAY + timedelta(days=day, milliseconds=self.dice.randrange(86_300_000))
                self.post(at, n)
        self.lines.sort(key=lambda line: line[0])
        for key, truth in self.posts.items():
            self.settle(key, truth)

    def post(self, at, n):
        is_truth_social = n % 10 == 9
        noise = self.dice.getrandbits(16 if is_truth_social else 22)
        number = ms_of(at) << 16 | noise if is_truth_social else (ms_of(at) - X_EPOCH_MS) << 22 | noise
        platform = "truth_social" if is_truth_social else "x"
        if (platform, number) in self.posts:
            return
        words = TEXTS[n % len(TEXTS)]
        self.posts[platform, number] = {
            "published_us": ms_of(at) * 1000,
            "text": f"{words} #{n}" if words else "",
            "likes": [],
            "events": 0,
            "is_deleted": False,
            "tags": [f"tag{n % 7}", "birds"] if n % 3 == 0 and not is_truth_social else [],
            "author_id": 7_000_000_000_000_000_000 + n,
        }
        later = lambda seconds: at + timedelta(seconds=seconds + self.dice.random())
        if is_truth_social:
            self.tweetstream(platform, number, later(1), at)
            return
        self.twitterapi_io(number, later(2), at, self.dice.randrange(1000))
        if n % 4 == 0:
            self.twitterapi_io(number, later(60), at, 1000 + self.dice.randrange(1000))
        if n % 3 == 1:
            self.tweetstream(platform, number, later(1), at)
        if n % 5 == 2:
            self.scrapebadger(number, later(3), at)
        if n % 20 == 7:
            self.deleted(number, later(300))

    def say(self, at, envelope, platform, number, spaces=(",", ":")):
        self.lines.append((at, json.dumps(envelope, ensure_ascii=number % 2 == 0, separators=spaces)))
        self.posts[platform, number]["events"] += 1

    def twitterapi_io(self, number, at, published, likes):
        truth = self.posts["x", number]
        truth["likes"].append((at, likes))
        tags = [{"text": tag, "indices": [0, 1]} for tag in truth["tags"]]
        tweet = {
            "type": "tweet", "id": str(number), "url": f"https://x.com/a/status/{number}", "text": truth["text"],
            "retweetCount": 1, "replyCount": 2, "likeCount": likes, "quoteCount": 0, "viewCount": likes * 10,
            "createdAt": legacy(published), "lang": "en", "bookmarkCount": 0, "isReply": False, "inReplyToId": None,
            "conversationId": str(number), "entities": {"hashtags": tags}, "quoted_tweet": None, "retweeted_tweet": None,
            "author": {"type": "user", "userName": "alder", "id": str(truth["author_id"]), "name": "Alder", "followers": 12},
            "aFieldOfTomorrow": {"deep": [1, 2]},
        }
        self.say(at, {"event_type": "tweet", "rule_id": "r1", "rule_tag": "birds", "tweets": [tweet],
                      "timestamp": ms_of(at)}, "x", number)

    def tweetstream(self, platform, number, at, published):
        truth = self.posts[platform, number]
        author = {"id": str(truth["author_id"]), "handle": "@alder", "name": "Alder"}
        if platform != "x":
            author["platform"] = platform
        content = {"tweetId": str(number), "text": truth["text"], "createdAt": ms_of(published), "author": author}
        self.say(at, {"v": 1, "t": "tweet", "op": "content", "id": str(number), "ts": ms_of(at), "d": content}, platform, number)

    def scrapebadger(self, number, at, published):
        self.say(at, {
            "event": "tweet.detected", "monitor_id": "m1", "monitor_name": "Birds", "tweet_id": str(number),
            "author_username": "alder", "tweet_text": self.posts["x", number]["text"], "tweet_published_at": iso(published),
            "detected_at": iso(at), "latency_ms": (at - published) // timedelta(milliseconds=1),
        }, "x", number, spaces=(", ", ": "))

    def deleted(self, number, at):
        self.posts["x", number]["is_deleted"] = True
        self.say(at, {"v": 1, "t": "tweet", "op": "delete", "id": str(number), "ts": ms_of(at), "d": {"tweetId": str(number)}},
                 "x", number)

    @staticmethod
    def settle(key, truth):
        likes = [count for _, count in sorted(truth.pop("likes"), key=lambda seen: seen[0])]
        truth["platform"], truth["tweet_id"] = key[0], str(key[1])
        truth["first_like_count"], truth["like_count"] = (likes[0], likes[-1]) if likes else (None, None)
        truth["author_id"] = str(truth["author_id"])
        truth["date"] = (EPOCH + timedelta(microseconds=truth["published_us"])).date().isoformat()


def main(directory):
    world = World(seed=20260105)
    world.build()
    with open(f"{directory}/lines.jsonl", "w", encoding="utf-8", newline="\n") as lines:
        lines.writelines(line + "\n" for _, line in world.lines)
    posts = sorted(world.posts.values(), key=lambda post: (post["published_us"], int(post["tweet_id"])))
    with open(f"{directory}/truth.json", "w", encoding="utf-8") as truth:
        json.dump({"posts": posts, "n_envelopes": len(world.lines)}, truth)


if __name__ == "__main__":
    main(*sys.argv[1:])
