"""A TwitterAPI.io-shaped WebSocket server that knows what it sent.

Every connection gets a tag; its message number `i` is `message(tag, i)` and nothing else, so the truth of a whole run
is a number per tag. Message 0 is the greeting and carries the tag.
"""

import base64
import hashlib
import random
import socket
import struct
import threading
import time
from dataclasses import dataclass, field
from functools import lru_cache

MAGIC = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
LETTERS = random.Random(7)
# Hard to compress, so that what is torn off really holds messages; with what JSON escapes, and more than ASCII.
FILLER = "".join(LETTERS.choices("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOP0123456789 äß€😀", k=1 << 16))
FILLER_BYTES = LETTERS.randbytes(1 << 16)
# Words as common as words are, so that it packs as texts do.
WORDS = ["".join(LETTERS.choices("etaoinshrdlucmäß😀", k=LETTERS.randint(2, 9))) for _ in range(3_000)]
PROSE = " ".join(WORDS[int(LETTERS.paretovariate(0.4)) % len(WORDS)] for _ in range(16_000))
ACCOUNTS = 5_000
# X's epoch, in milliseconds since 1970.
SNOWFLAKES_SINCE = 1_288_834_974_657


def message(tag: str, i: int) -> tuple[int, bytes]:
    """Opcode and payload of a connection's message: mostly envelopes, now and then what nobody expects."""
    if i == 0:
        return 1, b'{"event_type":"connected","timestamp":1793606400001,"tag":"%s"}' % tag.encode()
    at = (i * 7919 + len(tag) * 104729 + sum(map(ord, tag)) * 1299709) % 60_000
    is_lifelike = "@" in tag
    match i % (256 if is_lifelike else 32):
        case 5:
            return 1, f'\t{{ "event_type" : "tweet", "tag":"{tag}", "i": {i}, "rate": 1.50e+3 }} \n'.encode()
        case 11:
            return 1, f"{tag} {i}: no \"JSON\"\r\n\x00\x1f{FILLER[at:at + 50]}".encode()
        case 17:
            return 2, b"%s %d\xff\xfe" % (tag.encode(), i) + FILLER_BYTES[at : at + 200]
        case 23:
            return 1, b""
        case _ if is_lifelike:
            return 1, lifelike(tag, i, at)
        case _:
            text = FILLER[at : at + 40 + at % 300]
            head = f'{{"event_type":"tweet","rule_id":"{tag}","timestamp":1793606400001,"tweets":[{{"type":"tweet","id":"'
            return 1, f'{head}{1_990_000_000_000_000_000 + i * 4096 + at}","i":{i},"text":"{text}"}}]}}'.encode()


@lru_cache(1 << 10)
def schedule(tag: str) -> tuple[int, float]:
    """When a connection began, in milliseconds since 1970, and how many messages a second it is sent."""
    began, rate = tag.split("@")[1].split("/")
    return int(began), float(rate)


def lifelike(tag: str, i: int, at: int) -> bytes:
    """A post of 1 to 3 KB as one comes, with an id of about the instant it is sent."""
    began, rate = schedule(tag)
    at_ms = began + int(i * 1000 / rate)
    id = (at_ms - 500 - SNOWFLAKES_SINCE) << 22 | (i * 7919 + at) % (1 << 22)
    account = at * 31 % ACCOUNTS
    name, user = f"{WORDS[account % 2_999]}{account}", 1_000_000_000_000 + account * 7_654_321
    text, bio = PROSE[at : at + 40 + at % 240], PROSE[account : account + 30 + account % 130]
    quoted = ""
    if at % 3 == 0:
        quoted = f',"quoted_tweet":{{"type":"tweet","id":"{id - (at << 24)}","text":"{PROSE[at // 2 : at // 2 + 700]}","likeCount":{at}}}'
    return (
        f'{{"event_type":"tweet","rule_id":"rule-{at % 7}","rule_tag":"{tag}","timestamp":{at_ms},"tweets":[{{"type":"tweet","id":"{id}",'
        f'"url":"https://x.com/{name}/status/{id}","twitterUrl":"https://twitter.com/{name}/status/{id}","text":"{text}",'
        f'"source":"Twitter for iPhone","retweetCount":{at % 97},"replyCount":{at % 13},"likeCount":{at % 1013},"quoteCount":{at % 7},'
        f'"viewCount":{at * 17},"lang":"en","bookmarkCount":{at % 5},"isReply":false,"inReplyToId":null,"conversationId":"{id}",'
        f'"displayTextRange":[0,{len(text)}],"inReplyToUserId":null,"inReplyToUsername":null,"author":{{"type":"user","userName":"{name}",'
        f'"url":"https://x.com/{name}","twitterUrl":"https://twitter.com/{name}","id":"{user}","name":"{name.title()}","isVerified":false,'
        f'"isBlueVerified":{str(at % 4 == 0).lower()},"verifiedType":null,"profilePicture":"https://pbs.twimg.com/profile_images/{user * 3:x}_normal.jpg",'
        f'"coverPicture":"https://pbs.twimg.com/profile_banners/{user}/{user * 5}","description":"{bio}","location":"","followers":{account * 11},'
        f'"following":{account % 900},"status":"","canDm":true,"canMediaTag":true,"fastFollowersCount":0,"favouritesCount":{account * 3},'
        f'"hasCustomTimelines":true,"isTranslator":false,"mediaCount":{account % 300},"statusesCount":{account * 7},'
        f'"withheldInCountries":[],"affiliatesHighlightedLabel":{{}},"possiblySensitive":false,"pinnedTweetIds":[]}},'
        f'"extendedEntities":{{}},"card":null,"place":{{}},"entities":{{"hashtags":[],"urls":[],"user_mentions":[]}}{quoted}}}]}}'
    ).encode()


def frame(opcode: int, payload: bytes) -> bytes:
    size = len(payload)
    if size < 126:
        head = struct.pack("!BB", 0x80 | opcode, size)
    elif size < 1 << 16:
        head = struct.pack("!BBH", 0x80 | opcode, 126, size)
    else:
        head = struct.pack("!BBQ", 0x80 | opcode, 127, size)
    return head + payload


@dataclass
class Load:
    """How much is sent: so many messages at a time, so long apart, at most so many on a connection."""

    burst: int = 10
    pause: float = 0.002
    limit: int | None = None
    # Seconds between pings of ours, if there are any.
    ping: float | None = None


@dataclass
class Conn:
    tag: str
    source: str
    # Messages handed to the system, at most.
    sent: int = 0
    # Seconds until each ping of ours was answered.
    pongs: list = field(default_factory=list)
    pinged: float = 0.0
    # "drop" or "reset" ends it.
    cut: str = ""


class Server:
    """Serves until `stop`; the key of a client is the name of its source."""

    def __init__(self, load: Load):
        self.load = load
        self.conns: dict[str, Conn] = {}
        self.is_mute = threading.Event()
        # It sends on, and reads nothing.
        self.is_deaf = threading.Event()
        self.lock = threading.Lock()
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=256)
        self.address = f"http://127.0.0.1:{self.listener.getsockname()[1]}"
        threading.Thread(target=self.accept, daemon=True).start()

    def stop(self) -> None:
        self.listener.close()

    def accept(self) -> None:
        while True:
            try:
                peer, _ = self.listener.accept()
            except OSError:
                return
            threading.Thread(target=self.serve, args=(peer,), daemon=True).start()

    def serve(self, peer: socket.socket) -> None:
        try:
            peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            peer.settimeout(10)
            conn = self.shake_hands(peer)
            if conn is not None:
                self.talk(peer, conn)
        except OSError:
            # The client is dead: that is what the test is about.
            pass
        finally:
            peer.close()

    def shake_hands(self, peer: socket.socket) -> Conn | None:
        request = b""
        while b"\r\n\r\n" not in request:
            more = peer.recv(4096)
            if not more:
                return None
            request += more
        lines = request.decode("latin-1").split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:])}
        if headers.get("upgrade", "").lower() != "websocket":
            peer.sendall(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
            return None
        accept = base64.b64encode(hashlib.sha1((headers["sec-websocket-key"] + MAGIC).encode()).digest()).decode()
        head = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        source = headers.get("x-api-key", "")
        with self.lock:
            conn = self.conn(source, f"{source}-{len(self.conns)}")
            self.conns[conn.tag] = conn
        peer.sendall(f"{head}Sec-WebSocket-Accept: {accept}\r\n\r\n".encode())
        return conn

    def conn(self, source: str, tag: str) -> Conn:
        return Conn(tag, source)

    def due(self, conn: Conn) -> int:
        """Up to which message it is to be sent by now."""
        return conn.sent + self.load.burst

    def handed(self, conn: Conn) -> None:
        """More is about to be handed to the system."""

    def talk(self, peer: socket.socket, conn: Conn) -> None:
        load, received = self.load, b""
        while not conn.cut:
            if not self.is_mute.is_set():
                until = self.due(conn)
                if load.limit is not None:
                    until = min(until, load.limit)
                if conn.sent < until:
                    batch = b"".join(frame(*message(conn.tag, i)) for i in range(conn.sent, until))
                    conn.sent = until
                    self.handed(conn)
                    peer.sendall(batch)
                if load.ping is not None and time.monotonic() > conn.pinged + load.ping:
                    conn.pinged = time.monotonic()
                    peer.sendall(frame(9, struct.pack("!d", conn.pinged)))
            if self.is_deaf.is_set():
                time.sleep(load.pause)
                continue
            peer.settimeout(load.pause)
            try:
                more = peer.recv(4096)
                if not more:
                    return
                received += more
            except TimeoutError:
                pass
            peer.settimeout(10)
            while (taken := take_frame(received)) is not None:
                opcode, payload, received = taken
                if opcode == 9 and not self.is_mute.is_set():
                    peer.sendall(frame(10, payload))
                elif opcode == 10 and len(payload) == 8:
                    conn.pongs.append(time.monotonic() - struct.unpack("!d", payload)[0])
                elif opcode == 8:
                    peer.sendall(frame(8, payload[:2]))
                    return
        if conn.cut == "reset":
            # What is still on its way is thrown away.
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def take_frame(data: bytes) -> tuple[int, bytes, bytes] | None:
    """The first frame of a client, unmasked, and what follows it."""
    if len(data) < 6:
        return None
    size, at = data[1] & 0x7F, 2
    if size == 126:
        size, at = struct.unpack("!H", data[2:4])[0], 4
    elif size == 127:
        size, at = struct.unpack("!Q", data[2:10])[0], 10
    if len(data) < at + 4 + size:
        return None
    mask, payload = data[at : at + 4], data[at + 4 : at + 4 + size]
    plain = bytes(byte ^ mask[i % 4] for i, byte in enumerate(payload))
    return data[0] & 0x0F, plain, data[at + 4 + size :]
