"""An MCP server that misbehaves on demand, over Streamable HTTP or SSE. Standard library only.

It is well behaved until a call of the tool `faulty` names a mode, or until `mode` is set, which
then spoils whatever opens a session. `faulted_at` is when it last did what it should not.
"""

import asyncio
import gzip
import itertools
import json
import socket
import struct
import time
from collections import Counter

RUBBISH = b"this is no JSON {"
PAGE = b"<html><body><h1>500 Internal Server Error</h1></body></html>"
# More than anybody reads of a head, less than what would hurt this machine.
ENDLESS = 64 * 1024 * 1024
HANG = 60
JSON, EVENTS = "application/json", "text/event-stream"
SCHEMA = {"type": "object", "properties": {"mode": {"type": "string"}, "key": {"type": "string"}}}


def tool(name, read_only):
    annotations = {"annotations": {"readOnlyHint": True}} if read_only else {}
    return {"name": name, "inputSchema": SCHEMA, **annotations}


TOOLS = [tool("echo", True), tool("faulty", False), tool("once", True)]


class Faulty:
    def __init__(self, kind, port):
        self.kind, self.port = kind, port
        self.path = "/sse" if kind == "sse" else "/mcp"
        self.url = f"http://127.0.0.1:{port}{self.path}"
        self.mode = self.faulted_at = None
        self.seen = Counter()  # how often each key was called
        self.sent = 0  # bytes of an endless head
        self.elsewhere = 0  # requests to where nobody should be led
        self.sessions, self.streams = itertools.count(1), {}
        self.open, self.server, self.other = set(), None, None

    async def start(self):
        self.server = await asyncio.start_server(self.connected, "127.0.0.1", self.port)
        if self.other is None:
            self.other = await asyncio.start_server(self.lost, "127.0.0.1", 0)
            self.other_port = self.other.sockets[0].getsockname()[1]

    async def lost(self, reader, writer):
        self.elsewhere += 1
        writer.close()

    def refuse(self):
        """Nobody listens any more, and every connection is reset."""
        self.faulted_at = time.monotonic()
        self.server.close()
        for writer in list(self.open):
            reset(writer)

    async def connected(self, reader, writer):
        self.open.add(writer)
        try:
            while request := await read_request(reader):
                await self.answer(writer, *request)
        except (OSError, asyncio.IncompleteReadError, ValueError, asyncio.CancelledError):
            pass
        finally:
            self.open.discard(writer)
            for session in [s for s, w in self.streams.items() if w is writer]:
                del self.streams[session]
            writer.close()

    async def answer(self, writer, method, target, body):
        if self.kind == "sse":
            await self.answer_sse(writer, method, target, body)
        elif method != "POST":
            status = "200 OK" if method == "DELETE" else "405 Method Not Allowed"
            await reply(writer, status, JSON, b"{}", "Allow: POST, DELETE\r\n")
        else:
            message = json.loads(body)
            mode = self.mode_of(message)
            if mode:
                return await self.fault(writer, mode, message)
            if "id" not in message:
                return await reply(writer, "202 Accepted")
            session = f"Mcp-Session-Id: {'s' * 32}\r\n" if message.get("method") == "initialize" else ""
            await reply(writer, "200 OK", JSON, encode(self.result(message)), session)

    async def answer_sse(self, writer, method, target, body):
        if method == "GET":
            session = str(next(self.sessions))
            endpoint = f"/messages?session={session}"
            if self.mode == "silent":
                self.faulted_at = time.monotonic()
                return await stream(writer)
            if self.mode == "foreign":
                endpoint = f"http://127.0.0.1:{self.other_port}{endpoint}"
                self.faulted_at = time.monotonic()
            elif self.mode:
                return await self.fault(writer, self.mode, {"id": 0})
            self.streams[session] = writer
            await stream(writer)
            return await event(writer, endpoint.encode(), "endpoint")
        message = json.loads(body)
        down = self.streams.get(target.partition("session=")[2])
        if down is None:
            return await reply(writer, "404 Not Found", "text/plain", b"no such session")
        mode = self.mode_of(message)
        if mode in ("rubbish", "wrong id"):
            # Nothing on a shared stream tells whose rubbish it is; the answer follows.
            self.faulted_at = time.monotonic()
            await reply(writer, "202 Accepted")
            wrong = RUBBISH if mode == "rubbish" else encode({**self.result(message), "id": "other"})
            await event(down, wrong)
        elif mode in ("die", "end"):
            await reply(writer, "202 Accepted")
            await self.fault(down, mode, message)
            return
        elif mode:
            return await self.fault(writer, mode, message)
        else:
            await reply(writer, "202 Accepted")
        if "id" in message and "method" in message:
            await event(down, encode(self.result(message)))

    def mode_of(self, message):
        """What is to go wrong with this message, if anything."""
        if message.get("method") == "initialize" and self.mode and self.kind != "sse":
            return self.mode
        if message.get("method") != "tools/call":
            return None
        arguments = message["params"].get("arguments") or {}
        key = arguments.get("key")
        self.seen[key] += 1
        if message["params"]["name"] == "once" and self.seen[key] == 1:
            return "die"
        return arguments.get("mode") if message["params"]["name"] == "faulty" else None

    def result(self, message):
        results = {
            "initialize": {
                "protocolVersion": "2025-11-25",
                "capabilities": {"tools": {}},
                "serverInfo": {"name": "faulty", "version": "1"},
            },
            "tools/list": {"tools": TOOLS},
            "tools/call": {"content": [{"type": "text", "text": "as it should be"}]},
        }
        found = results.get(message.get("method"), {})
        return {"jsonrpc": "2.0", "id": message.get("id"), "result": found}

    async def fault(self, writer, mode, message):
        self.faulted_at = time.monotonic()
        right = encode(self.result(message))
        if mode == "reset":
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: applica")
            await writer.drain()
            reset(writer)
        elif mode == "hang":
            await asyncio.sleep(HANG)
        elif mode in ("die", "end"):
            if writer not in self.streams.values():
                await stream(writer)
            if mode == "end":
                writer.write(b"0\r\n\r\n")
            else:
                writer.write(chunk(b'event: message\ndata: {"jsonrpc":"2.0","id":'))
            await writer.drain()
            self.faulted_at = time.monotonic()
            writer.close() if mode == "end" else reset(writer)
        elif mode == "short":
            head = f"HTTP/1.1 200 OK\r\nContent-Type: {JSON}\r\nContent-Length: {len(right) + 9}\r\n\r\n"
            writer.write(head.encode() + right)
            await writer.drain()
            writer.close()
        elif mode == "rubbish":
            await reply(writer, "200 OK", JSON, RUBBISH)
        elif mode == "HTML 500":
            await reply(writer, "500 Internal Server Error", "text/html", PAGE)
        elif mode == "wrong id":
            await reply(writer, "200 OK", JSON, encode({**self.result(message), "id": "other"}))
        elif mode == "202":
            await reply(writer, "202 Accepted")
        elif mode == "endless":
            self.sent = 0
            writer.write(b"HTTP/1.1 200 OK\r\n")
            for number in range(ENDLESS // 65536):
                writer.write(b"X-Long: " + b"a" * 65526 + b"\r\n")
                await writer.drain()
                self.sent = number * 65536
        elif mode == "redirect":
            to = f"Location: http://127.0.0.1:{self.other_port}{self.path}\r\n"
            await reply(writer, "307 Temporary Redirect", "text/plain", b"", to)
        elif mode == "401":
            challenge = 'WWW-Authenticate: Bearer realm="upstream"\r\n'
            await reply(writer, "401 Unauthorized", JSON, b'{"error":"no"}', challenge)
        elif mode == "gzip":
            await reply(writer, "200 OK", JSON, gzip.compress(right), "Content-Encoding: gzip\r\n")
        else:
            raise ValueError(f"no such mode: {mode}")

    def stop(self):
        for server in (self.server, self.other):
            if server:
                server.close()
        for writer in list(self.open):
            reset(writer)


def encode(message):
    return json.dumps(message).encode()


def reset(writer):
    sock = writer.get_extra_info("socket")
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    except OSError:
        pass
    writer.transport.abort()


async def read_request(reader):
    """(method, target, body) of the next request, or None when the peer has left."""
    line = await reader.readline()
    if not line:
        return None
    method, target, _ = line.decode("latin-1").split()
    headers = {}
    while (line := await reader.readline()) not in (b"\r\n", b""):
        name, _, value = line.decode("latin-1").partition(":")
        headers[name.lower()] = value.strip()
    if headers.get("transfer-encoding", "").lower() == "chunked":
        body = b""
        while size := int((await reader.readline()).split(b";")[0], 16):
            body += await reader.readexactly(size)
            await reader.readline()
        await reader.readline()
    else:
        body = await reader.readexactly(int(headers.get("content-length", 0)))
    return method, target, body


async def reply(writer, status, kind=None, body=b"", more=""):
    head = f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n{more}"
    head += f"Content-Type: {kind}\r\n" if kind else ""
    writer.write(head.encode() + b"\r\n" + body)
    await writer.drain()


async def stream(writer):
    head = f"HTTP/1.1 200 OK\r\nContent-Type: {EVENTS}\r\nTransfer-Encoding: chunked\r\n\r\n"
    writer.write(head.encode() + chunk(b": open\n\n"))
    await writer.drain()


async def event(writer, data, name="message"):
    writer.write(chunk(b"event: " + name.encode() + b"\ndata: " + data + b"\n\n"))
    await writer.drain()


def chunk(data):
    return f"{len(data):x}\r\n".encode() + data + b"\r\n"
