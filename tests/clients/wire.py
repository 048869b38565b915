"""HTTP/1.1 and server-sent events on bare asyncio streams: a client that can misbehave.

The SDKs never hang up in the middle of a body; this one does. Standard library only.
"""

import asyncio
import json
import socket
import ssl
import struct

VERSION = "2025-11-25"
LINE = 32 * 1024 * 1024


class Gone(Exception):
    """The other side closed where the protocol does not allow it."""


def trust(ca):
    context = ssl.create_default_context(cafile=ca)
    context.set_alpn_protocols(["http/1.1"])
    return context


class Connection:
    def __init__(self, reader, writer, host):
        self.reader, self.writer, self.host = reader, writer, host

    @classmethod
    async def open(cls, port, context, source=None, timeout=20):
        async with asyncio.timeout(timeout):
            reader, writer = await asyncio.open_connection(
                "127.0.0.1", port, ssl=context, limit=LINE,
                server_hostname="127.0.0.1" if context else None,
                local_addr=(source, 0) if source else None,
            )
        return cls(reader, writer, f"127.0.0.1:{port}")

    def send(self, method, path, headers=None, body=None, only=None):
        """Queues one request; `only` is the share of its bytes that is sent at all."""
        headers = {"Host": self.host, **(headers or {})}
        if body is not None:
            headers["Content-Length"] = str(len(body))
        head = f"{method} {path} HTTP/1.1\r\n"
        head += "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        data = head.encode() + b"\r\n" + (body or b"")
        self.writer.write(data if only is None else data[: int(len(data) * only)])

    async def response(self, timeout=30):
        async with asyncio.timeout(timeout):
            return await Response.read_head(self.reader)

    def close(self):
        self.writer.close()

    def reset(self):
        """Closes with RST, as a machine that went away."""
        sock = self.writer.get_extra_info("socket")
        if sock is not None:
            try:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            except OSError:
                pass
        self.writer.transport.abort()


class Response:
    def __init__(self, reader, status, headers):
        self.reader, self.status, self.headers = reader, status, headers

    @classmethod
    async def read_head(cls, reader):
        line = await reader.readline()
        if not line:
            raise Gone("closed before an answer")
        status = int(line.split()[1])
        headers = {}
        while (line := await reader.readline()) not in (b"\r\n", b""):
            name, _, value = line.decode("latin-1").partition(":")
            headers[name.lower()] = value.strip()
        return cls(reader, status, headers)

    @property
    def is_stream(self):
        return self.headers.get("content-type", "").startswith("text/event-stream")

    async def chunks(self):
        if self.status in (204, 304):
            return
        if self.headers.get("transfer-encoding", "").lower() == "chunked":
            while size := int((await self._line()).split(b";")[0], 16):
                yield await self._exactly(size)
                await self._line()
            await self._line()
        else:
            left = int(self.headers.get("content-length", 0))
            while left:
                data = await self._exactly(min(left, 65536))
                left -= len(data)
                yield data

    async def _line(self):
        line = await self.reader.readline()
        if not line.endswith(b"\n"):
            raise Gone("closed within a chunked body")
        return line.strip()

    async def _exactly(self, size):
        try:
            return await self.reader.readexactly(size)
        except asyncio.IncompleteReadError:
            raise Gone("closed within a body") from None

    async def body(self, timeout=30):
        async with asyncio.timeout(timeout):
            return b"".join([chunk async for chunk in self.chunks()])

    async def json(self, timeout=30):
        return json.loads(await self.body(timeout))

    async def events(self):
        """Every event with data as {event, id, data}; comments and empty events are skipped."""
        rest = b""
        async for chunk in self.chunks():
            *blocks, rest = (rest + chunk).replace(b"\r\n", b"\n").split(b"\n\n")
            for block in blocks:
                event = parse_event(block.decode())
                if event["data"]:
                    yield event


def parse_event(block):
    event = {"event": "message", "id": None, "data": ""}
    data = []
    for line in block.split("\n"):
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if name == "data":
            data.append(value)
        elif name in ("event", "id"):
            event[name] = value
    event["data"] = "\n".join(data)
    return event


def request(id, method, params=None):
    return {"jsonrpc": "2.0", "id": id, "method": method, "params": params or {}}


def notification(method, params=None):
    return {"jsonrpc": "2.0", "method": method, "params": params or {}}


def initialize(id=0, capabilities=None):
    return request(id, "initialize", {
        "protocolVersion": VERSION,
        "capabilities": capabilities or {},
        "clientInfo": {"name": "suite", "version": "1"},
    })


def call(id, tool, arguments, token=None):
    params = {"name": tool, "arguments": arguments}
    if token is not None:
        params["_meta"] = {"progressToken": token}
    return request(id, "tools/call", params)


def headers(token=None, session=None, accept="application/json, text/event-stream"):
    found = {"Content-Type": "application/json"}
    if accept:
        found["Accept"] = accept
    if token:
        found["Authorization"] = f"Bearer {token}"
    if session:
        found["Mcp-Session-Id"] = session
        found["MCP-Protocol-Version"] = VERSION
    return found


def encode(message):
    return json.dumps(message).encode()


async def answer_to(response, id, timeout=30):
    """The answer to request `id`, from a JSON or an SSE body, and all other messages before it."""
    if not response.is_stream:
        return await response.json(timeout), []
    others = []
    async with asyncio.timeout(timeout):
        async for event in response.events():
            message = json.loads(event["data"])
            if message.get("id") == id and "method" not in message:
                return message, others
            others.append(message)
    raise Gone(f"the stream ended without the answer to {id}")
