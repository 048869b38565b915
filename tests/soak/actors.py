"""Clients of every kind, good and bad, each of them one coroutine that comes, acts and is gone.

An actor takes an `Edge` and opens whatever it needs. Good ones (`GOOD`) return what they were
answered last and raise where that is wrong; of the others nothing is asked but that they end.
"""

import asyncio
import json
import os
import random
import socket
import ssl
import struct

# An address for whoever keeps to the rules, and some for whoever does not.
HOME = "127.0.0.2"
ABROAD = [f"127.0.0.{last}" for last in range(3, 9)]
VERSION = "2025-11-25"


class Refused(Exception):
    """The edge said no, as it may: 429 or 503 with Retry-After."""


class Edge:
    def __init__(self, port, ca, token):
        self.port, self.token = port, token
        self.contexts = {
            alpn: ssl.create_default_context(cafile=ca) for alpn in ("http/1.1", "h2")
        }
        for alpn, context in self.contexts.items():
            context.set_alpn_protocols([alpn])

    async def tcp(self, address):
        return await asyncio.open_connection("127.0.0.1", self.port, local_addr=(address, 0))

    async def tls(self, address, alpn="http/1.1", room=None):
        """`room` is how many bytes the system takes for whoever does not read."""
        sock = socket.socket()
        try:
            sock.setblocking(False)
            if room:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, room)
            sock.bind((address, 0))
            await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", self.port))
            context = self.contexts[alpn]
            return await asyncio.open_connection(sock=sock, ssl=context, server_hostname="localhost")
        except BaseException:
            sock.close()
            raise

    def head(self, method, path, **fields):
        fields = {"host": "localhost", "authorization": f"Bearer {self.token}"} | {
            name.replace("_", "-"): value for name, value in fields.items() if value is not None
        }
        lines = [f"{method} {path} HTTP/1.1"] + [f"{name}: {it}" for name, it in fields.items()]
        return ("\r\n".join(lines) + "\r\n\r\n").encode()

    def post(self, message, path="/mcp", session=None, **fields):
        body = message if isinstance(message, bytes) else json.dumps(message).encode()
        fields = {"accept": "application/json, text/event-stream"} | fields
        return (
            self.head(
                "POST",
                path,
                content_type="application/json",
                content_length=len(body),
                mcp_session_id=session,
                **fields,
            )
            + body
        )


def call(id, method, **params):
    return {"jsonrpc": "2.0", "id": id, "method": method, "params": params}


def tool(id, name, token=None, **arguments):
    meta = {} if token is None else {"_meta": {"progressToken": token}}
    return call(id, "tools/call", name=name, arguments=arguments, **meta)


HELLO = call(
    0,
    "initialize",
    protocolVersion=VERSION,
    capabilities={},
    clientInfo={"name": "soak", "version": "1"},
)
READY = {"jsonrpc": "2.0", "method": "notifications/initialized"}


async def answer(reader):
    """One whole answer: status, header fields, body."""
    head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
    status = int(head[0].split(" ")[1])
    fields = dict(line.lower().split(": ", 1) for line in head[1:] if line)
    body = b""
    if "content-length" in fields:
        body = await reader.readexactly(int(fields["content-length"]))
    elif fields.get("transfer-encoding") == "chunked":
        while size := int(await reader.readline(), 16):
            body += (await reader.readexactly(size + 2))[:-2]
        await reader.readline()
    return status, fields, body


def message_of(fields, body):
    if fields["content-type"] == "text/event-stream":
        data = [line[6:] for line in body.split(b"\n") if line.startswith(b"data: ")]
        body = [it for it in data if it][-1]
    return json.loads(body)


def result_of(fields, body):
    message = message_of(fields, body)
    assert "result" in message, message
    return message


async def ask(connection, request, wanted=200):
    reader, writer = connection
    writer.write(request)
    await writer.drain()
    status, fields, body = await answer(reader)
    if status in (429, 503) and "retry-after" in fields:
        raise Refused(json.loads(body))
    assert status == wanted, (status, body[:200])
    return fields, body


def cut(connection):
    """Ends a connection without goodbye."""
    connection[1].transport.abort()


async def open_session(edge, address, room=None):
    connection = await edge.tls(address, room=room)
    fields, _ = await ask(connection, edge.post(HELLO))
    session = fields["mcp-session-id"]
    await ask(connection, edge.post(READY, session=session, mcp_protocol_version=VERSION), 202)
    return connection, session


# Who keeps to the rules.


async def bare(edge, address=HOME):
    connection = await edge.tls(address)
    try:
        request = edge.post(tool(1, "echo", text="bare"))
        for _ in range(3):
            message = result_of(*await ask(connection, request))
            assert message["result"]["content"][0]["text"] == "bare", message
    finally:
        cut(connection)


async def session(edge, address=HOME):
    connection, session = await open_session(edge, address)
    try:
        for id in range(1, 4):
            text = f"{id}-" * random.choice([1, 100, 20_000])
            message = result_of(*await ask(connection, edge.post(tool(id, "echo", text=text), session=session)))
            assert message["id"] == id and message["result"]["content"][0]["text"] == text
        counted = result_of(*await ask(connection, edge.post(tool(9, "count", "t", n=5, delay_ms=20), session=session)))
        assert counted["id"] == 9, counted
        gone = edge.head("DELETE", "/mcp", mcp_session_id=session)
        await ask(connection, gone, 204)
        connection[1].close()
    finally:
        cut(connection)


async def large(edge, address=HOME):
    connection = await edge.tls(address)
    try:
        text = "x" * random.choice([300_000, 2_000_000])
        message = result_of(*await ask(connection, edge.post(tool(1, "echo", text=text))))
        assert message["result"]["content"][0]["text"] == text
    finally:
        cut(connection)


async def tools(edge, address=HOME):
    connection = await edge.tls(address)
    try:
        _, body = await ask(connection, edge.head("GET", "/mcp/tools"))
        assert json.loads(body)["tools"]
        request = edge.post({"name": "echo", "arguments": {"text": "t"}}, "/mcp/call-tool")
        _, body = await ask(connection, request)
        assert json.loads(body)["content"][0]["text"] == "t"
    finally:
        cut(connection)


# Who leaves.


async def abandons(edge):
    """A session, and its client is gone without a word."""
    connection, session = await open_session(edge, random.choice(ABROAD))
    await ask(connection, edge.post(tool(1, "echo", text="a"), session=session))
    cut(connection)


async def vanishes_in_mid_call(edge):
    connection, session = await open_session(edge, random.choice(ABROAD))
    connection[1].write(edge.post(tool(1, "count", "t", n=100, delay_ms=50), session=session))
    await asyncio.sleep(random.random())
    cut(connection)


async def vanishes_in_a_bare_call(edge):
    connection = await edge.tls(random.choice(ABROAD))
    connection[1].write(edge.post(tool(1, "count", n=40, delay_ms=50)))
    await asyncio.sleep(random.random() / 2)
    cut(connection)


async def listens_and_leaves(edge):
    connection, session = await open_session(edge, random.choice(ABROAD))
    get = edge.head("GET", "/mcp", accept="text/event-stream", mcp_session_id=session)
    connection[1].write(get)
    await connection[0].readuntil(b"\r\n\r\n")
    await asyncio.sleep(random.random() * 2)
    cut(connection)


async def legacy(edge):
    address = random.choice(ABROAD)
    stream, poster = await edge.tls(address), await edge.tls(address)
    try:
        stream[1].write(edge.head("GET", "/sse", accept="text/event-stream"))
        await stream[0].readuntil(b"data: /messages?sessionId=")
        path = "/messages?sessionId=" + (await stream[0].readline()).decode().strip()
        for message in [HELLO, READY, tool(1, "echo", text="legacy")]:
            await ask(poster, edge.post(message, path), 202)
        await stream[0].readuntil(b"legacy")
    finally:
        cut(stream)
        cut(poster)


# Who takes nothing, or gives nothing.


async def never_reads(edge):
    """Asks for much, and reads none of it, until the edge has had enough."""
    address = random.choice(ABROAD)
    connection, session = await open_session(edge, address, room=4096)
    get = edge.head("GET", "/mcp", accept="text/event-stream", mcp_session_id=session)
    connection[1].write(get if random.random() < 0.3 else edge.post(tool(0, "count", "t", n=1000), session=session))
    connection[1].transport.pause_reading()
    others = [await edge.tls(address, room=4096) for _ in range(4)]
    for id, other in enumerate(others, 1):
        other[1].transport.pause_reading()
        calls = [tool(id, "echo", text="x" * 1_500_000), tool(id, "count", f"t{id}", n=1000)]
        other[1].write(edge.post(random.choice(calls), session=session))
    await asyncio.sleep(9)
    for it in [connection, *others]:
        cut(it)


async def never_reads_its_stream(edge):
    connection, session = await open_session(edge, random.choice(ABROAD))
    get = edge.head("GET", "/mcp", accept="text/event-stream", mcp_session_id=session)
    connection[1].write(get)
    connection[1].transport.pause_reading()
    await asyncio.sleep(4)
    cut(connection)


async def half_a_head(edge):
    connection = await edge.tls(random.choice(ABROAD))
    connection[1].write(edge.head("POST", "/mcp")[: random.randrange(1, 60)])
    await until_over(connection)


async def half_a_body(edge):
    connection = await edge.tls(random.choice(ABROAD))
    request = edge.post(tool(1, "echo", text="x" * random.choice([100, 3_000_000])))
    connection[1].write(request[: len(request) // 2])
    await until_over(connection)


async def half_a_handshake(edge):
    connection = await edge.tcp(random.choice(ABROAD))
    connection[1].write(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + os.urandom(40))
    await until_over(connection)


async def silent(edge):
    await until_over(await edge.tcp(random.choice(ABROAD)))


async def too_large(edge):
    connection = await edge.tls(random.choice(ABROAD))
    connection[1].write(edge.head("POST", "/mcp", content_type="application/json", content_length=99_000_000))
    await until_over(connection)


# Who talks rubbish.


async def rubbish(edge):
    connection = await edge.tls(random.choice(ABROAD))
    connection[1].write(os.urandom(random.choice([1, 100, 50_000])))
    await until_over(connection)


async def rubbish_without_tls(edge):
    connection = await edge.tcp(random.choice(ABROAD))
    connection[1].write(random.choice([os.urandom(500), b"GET / HTTP/1.1\r\n\r\n", b"\r\n" * 50]))
    await until_over(connection)


async def bad_json(edge):
    connection = await edge.tls(random.choice(ABROAD))
    for body in [b"{", b"[" * 5000, b"[1," * 3000 + b"1]", b'{"jsonrpc":"2.0","id":1}']:
        connection[1].write(edge.post(body))
        await answer(connection[0])
    cut(connection)


async def guesses(edge):
    connection = await edge.tls(random.choice(ABROAD))
    for _ in range(3):
        connection[1].write(edge.post(HELLO).replace(edge.token.encode(), os.urandom(16).hex().encode()))
        await answer(connection[0])
    cut(connection)


def frame(kind, flags, stream, payload=b""):
    return struct.pack(">I", len(payload))[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + payload


def literal(name, value):
    """A header field, neither indexed nor compressed (RFC 7541 section 6.2.2)."""
    return b"\x00" + bytes([len(name)]) + name + bytes([len(value)]) + value


async def vanishes_over_http2(edge):
    connection = await edge.tls(random.choice(ABROAD), "h2")
    fields = [(b":method", b"GET"), (b":scheme", b"https"), (b":authority", b"localhost"), (b":path", b"/sse")]
    fields += [(b"accept", b"text/event-stream"), (b"authorization", f"Bearer {edge.token}".encode())]
    head = b"".join(literal(name, value) for name, value in fields)
    connection[1].write(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(4, 0, 0))
    for stream in (1, 3, 5):
        connection[1].write(frame(1, 5, stream, head))
    await asyncio.sleep(random.random() * 2)
    if random.random() < 0.5:
        connection[1].write(b"".join(frame(3, 0, stream, b"\0\0\0\x08") for stream in (1, 3)))
        await asyncio.sleep(random.random())
    cut(connection)


async def until_over(connection):
    """Reads until the edge ends the connection, whatever it says."""
    try:
        while await connection[0].read(65_536):
            pass
    finally:
        cut(connection)


GOOD = [bare, session, large, tools]
BAD = [
    abandons,
    vanishes_in_mid_call,
    vanishes_in_a_bare_call,
    listens_and_leaves,
    legacy,
    never_reads,
    never_reads_its_stream,
    half_a_head,
    half_a_body,
    half_a_handshake,
    silent,
    too_large,
    rubbish,
    rubbish_without_tls,
    bad_json,
    guesses,
    vanishes_over_http2,
]
