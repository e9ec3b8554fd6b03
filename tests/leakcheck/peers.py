"""Servers that behave as a script says, and remember what they were sent."""

import base64
import hashlib
import socket
import struct
import threading


def frame(opcode, payload, first=0x80):
    """A frame from a server; `first` are the bits above the opcode."""
    length = len(payload)
    if length < 126:
        head = struct.pack("!BB", first | opcode, length)
    elif length < 1 << 16:
        head = struct.pack("!BBH", first | opcode, 126, length)
    else:
        head = struct.pack("!BBQ", first | opcode, 127, length)
    return head + payload


def text(words):
    return frame(1, words.encode() if isinstance(words, str) else words)


def close(code, reason):
    return frame(8, struct.pack("!H", code) + reason.encode()[:123])


def answer(status, body="", headers=()):
    body = body.encode() if isinstance(body, str) else body
    lines = [f"HTTP/1.1 {status} Whatever", "Content-Type: application/json", f"Content-Length: {len(body)}",
             *(f"{name}: {value}" for name, value in headers), "Connection: close"]
    return ("\r\n".join(lines) + "\r\n\r\n").encode() + body


class Request:
    def __init__(self, head, body):
        self.head, self.body = head, body
        lines = head.decode("latin-1").split("\r\n")
        self.line = lines[0]
        self.headers = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:] if line)}

    @property
    def is_upgrade(self):
        return self.headers.get("upgrade", "").lower() == "websocket"

    @property
    def is_live(self):
        """Whether it opens the stream."""
        return self.is_upgrade or "live_pipeline/events" in self.line

    def upgraded(self, headers=()):
        """The right answer to an upgrade, or the head of an endless response."""
        if not self.is_upgrade:
            lines = ["HTTP/1.1 200 OK", "Content-Type: text/event-stream", *(f"{name}: {value}" for name, value in headers)]
            return ("\r\n".join(lines) + "\r\n\r\n").encode()
        key = self.headers.get("sec-websocket-key", "") + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
        accept = base64.b64encode(hashlib.sha1(key.encode()).digest()).decode()
        lines = ["HTTP/1.1 101 Switching Protocols", "Upgrade: websocket", "Connection: Upgrade",
                 f"Sec-WebSocket-Accept: {accept}", *(f"{name}: {value}" for name, value in headers)]
        return ("\r\n".join(lines) + "\r\n\r\n").encode()


class Peer:
    """Listens on a port of its own. `script(request)` gives bytes to send and whether to stay afterwards."""

    def __init__(self, script):
        self.script = script
        self.requests = []
        self.heard = b""
        self.changed = threading.Condition()
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.is_over = False
        self.sockets = []
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            self.sockets.append(connection)
            threading.Thread(target=self.serve, args=(connection,), daemon=True).start()

    def serve(self, connection):
        try:
            with connection:
                self.talk(connection)
        except OSError:
            pass

    def talk(self, connection):
        head = b""
        while b"\r\n\r\n" not in head:
            chunk = connection.recv(65536)
            if not chunk:
                # What is no HTTP, such as a hello of TLS, is remembered as well.
                self.note(None, head)
                return
            head += chunk
            if head[:1] == b"\x16":
                self.note(None, head)
                connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
                return
        head, _, body = head.partition(b"\r\n\r\n")
        request = Request(head, body)
        wanted = int(request.headers.get("content-length", "0"))
        while len(request.body) < wanted:
            request.body += connection.recv(65536)
        said, stays = self.script(request)
        connection.sendall(said)
        self.note(request, b"")
        while stays:
            chunk = connection.recv(65536)
            if not chunk:
                return
            self.note(None, chunk)
            if chunk[0] == 0x88:
                # The client takes leave.
                return

    def note(self, request, heard):
        with self.changed:
            if request:
                self.requests.append(request)
            self.heard += heard
            self.changed.notify_all()

    def stop(self):
        self.listener.close()
        for connection in self.sockets:
            try:
                connection.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
