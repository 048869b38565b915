"""Row "streams": what readers that vanish, or never read, leave behind and cost."""

import asyncio
import json
import socket
import time

from edge import RAISED
from wire import Connection, encode, headers, initialize, notification, request, trust

VANISHED = 2000
SILENT = 100
WRITE = 40
# Bodies that are sent at the same time. Their memory is not that of the readers, and goes back to
# the system within so many seconds.
AT_ONCE = 8
GOES_BACK = 12


def source(number):
    return f"127.0.{number % 16}.{1 + number // 16}"


async def session(edge, context, number):
    connection = await Connection.open(edge.port, context, source(number))
    connection.send("POST", "/mcp", headers(edge.token), encode(initialize()))
    response = await connection.response()
    await response.body()
    connection.close()
    return response.headers["mcp-session-id"]


async def listen(edge, context, number):
    name = await session(edge, context, number)
    connection = await Connection.open(edge.port, context, source(number))
    connection.send("GET", "/mcp", headers(edge.token, name, accept="text/event-stream"))
    response = await connection.response()
    assert response.is_stream, response.status
    return connection


async def settled(look, least, seconds):
    """Waits until `look()` is no more than `least`; how long that took, and what it is then."""
    begun = time.monotonic()
    while (seen := look()) > least and time.monotonic() - begun < seconds:
        await asyncio.sleep(0.05)
    return time.monotonic() - begun, seen


async def vanished_readers(start, _binary):
    edge = start(*RAISED, "--session-idle-timeout=2s")
    try:
        context = trust(edge.ca)
        # As many as there will be at once: what memory the first of them take stays in use.
        for _ in range(2):
            gate = asyncio.Semaphore(50)
            before = edge.descriptors(), edge.memory()

            async def one(number):
                async with gate:
                    return await listen(edge, context, number)

            readers = await asyncio.gather(*(one(number) for number in range(VANISHED)))
            there = edge.descriptors()
            for number, reader in enumerate(readers):
                reader.reset() if number % 2 else reader.close()
            took, left = await settled(edge.descriptors, before[0], 30)
            # Memory goes back to the system some seconds later.
            await asyncio.sleep(20)
            grown = edge.memory() - before[1]
    finally:
        stopped = edge.stop()
    what = f"streams: {VANISHED} vanished readers"
    return [
        (f"{what}: descriptors", f"{before[0]} → {there} → {left} in {took:.1f} s", "back within 5 s",
         left <= before[0] and took < 5 and there > VANISHED),
        (f"{what}: memory, second round", f"{grown:+} MiB", "within 8 MiB", grown <= 8 and not stopped),
    ]


async def silent_readers(start, _binary):
    edge = start(*RAISED, f"--write-timeout={WRITE}s")
    try:
        context = trust(edge.ca)
        before = edge.memory(), edge.descriptors()
        readers = [await silent(edge, context, number) for number in range(SILENT)]
        text = json.dumps(request(1, "tools/call", {"name": "echo", "arguments": {"text": "x" * 60000}}))
        gate = asyncio.Semaphore(AT_ONCE)

        async def fed(number, path):
            async with gate:
                return await feed(edge, context, number, path, text.encode())

        posts = await asyncio.gather(*(fed(number, path) for number, (_, path) in enumerate(readers)))
        await asyncio.sleep(GOES_BACK)
        assert edge.descriptors() >= before[1] + SILENT, "some are closed already"
        cost = (edge.memory() - before[0]) / SILENT
        took, left = await settled(edge.descriptors, before[1] + 2, WRITE * 3)
    finally:
        edge.stop()
    what = f"streams: {SILENT} readers that never read"
    return [
        (f"{what}, {sum(posts)} answers of 60 kB: memory each", f"{cost:.2f} MiB", "under 1 MB", cost < 0.95),
        (f"{what}: closed", f"{took + GOES_BACK:.0f} s after the last answer, --write-timeout={WRITE}s",
         "within the write limit", left <= before[1] + 2 and took + GOES_BACK <= WRITE * 1.5),
    ]


async def silent(edge, context, number):
    """An HTTP+SSE stream that is read as far as its endpoint, and then never again."""
    plain = socket.socket()
    plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    plain.bind((source(number), 0))
    plain.setblocking(False)
    await asyncio.get_running_loop().sock_connect(plain, ("127.0.0.1", edge.port))
    reader, writer = await asyncio.open_connection(
        sock=plain, ssl=context, server_hostname="127.0.0.1", limit=1024
    )
    writer.write(
        f"GET /sse HTTP/1.1\r\nHost: 127.0.0.1:{edge.port}\r\nAuthorization: Bearer {edge.token}\r\n"
        "Accept: text/event-stream\r\n\r\n".encode()
    )
    while not (line := await asyncio.wait_for(reader.readline(), 20)).startswith(b"data: "):
        assert line, "the stream ended"
    return (reader, writer), line.removeprefix(b"data: ").decode().strip()


async def feed(edge, context, number, path, body):
    """Posts until the edge takes no more; how many it took."""
    connection = await Connection.open(edge.port, context, source(number))
    connection.send("POST", path, headers(edge.token), encode(initialize()))
    taken = 0
    try:
        await (await connection.response()).body()
        connection.send("POST", path, headers(edge.token), encode(notification("notifications/initialized")))
        await (await connection.response()).body()
        for call in range(60):
            connection.send("POST", path, headers(edge.token), body.replace(b'"id": 1', f'"id": {call + 1}'.encode()))
            response = await connection.response(5)
            await response.body()
            if response.status != 202:
                break
            taken += 1
    except (TimeoutError, ConnectionError):
        pass
    except Exception as error:  # noqa: BLE001
        if type(error).__name__ != "Gone":
            raise
    connection.close()
    return taken


ROWS = [vanished_readers, silent_readers]
