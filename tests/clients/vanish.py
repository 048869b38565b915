"""Clients that open a session and a stream and vanish: nothing of them may stay behind.

Of as many as are wanted, as `--clients 10000 --wave 250`, memory is told before, after the first
wave, and at the end. Each child has a keeper, which counts as one of the children.

Usage: vanish.py EDGE_BINARY [--clients N] [--wave N] [--child diagnostics|everything]

Half of them reset the connection, half just close it; nobody sends DELETE. After the idle timeout
there may be no child, no descriptor more than at the start, and every session id must be 404.
The child is the edge's own diagnostics server, so that all can be there at once; with
`--child everything` they come in waves, because each is a Node process.
"""

import argparse
import asyncio
import sys
import tempfile
import time
from pathlib import Path

import wire
from edge import EVERYTHING, RAISED, Edge, max_children, pass_env, session_idle
from wire import Connection, answer_to, encode, headers, initialize, notification, request

IDLE = 5
SETTLE = 40
AT_ONCE = 25


async def appear(edge, context, number, gate):
    """A session with a child and an open GET stream; every fourth one over 2024-11-05 SSE."""
    source = f"127.0.{number // 250 % 250}.{1 + number % 250}"
    async with gate:
        if number % 4 == 3:
            return None, await appear_sse(edge, context, source)
        connection = await Connection.open(edge.port, context, source)
        connection.send("POST", "/mcp", headers(edge.token), encode(initialize()))
        response = await connection.response(60)
        answer, _ = await answer_to(response, 0, 60)
        assert "result" in answer, (response.status, answer)
        session = response.headers["mcp-session-id"]
        connection.close()
        connection = await Connection.open(edge.port, context, source)
        note = encode(notification("notifications/initialized"))
        connection.send("POST", "/mcp", headers(edge.token, session), note)
        await (await connection.response()).body()
        connection.send("POST", "/mcp", headers(edge.token, session), encode(request(1, "tools/list")))
        answer, _ = await answer_to(await connection.response(60), 1, 60)
        assert "result" in answer, answer
        connection.close()
        connection = await Connection.open(edge.port, context, source)
        connection.send("GET", "/mcp", headers(edge.token, session, accept="text/event-stream"))
        response = await connection.response()
        assert response.status == 200 and response.is_stream, response.status
        return session, connection


async def appear_sse(edge, context, source):
    stream = await Connection.open(edge.port, context, source)
    stream.send("GET", "/sse", headers(edge.token, accept="text/event-stream"))
    response = await stream.response()
    assert response.status == 200 and response.is_stream, response.status
    events = response.events()
    endpoint = (await asyncio.wait_for(anext(events), 30))["data"]
    connection = await Connection.open(edge.port, context, source)
    connection.send("POST", endpoint, headers(edge.token), encode(initialize()))
    assert (await connection.response()).status == 202
    await asyncio.wait_for(anext(events), 60)
    connection.close()
    return stream


async def wave(edge, context, numbers):
    gate = asyncio.Semaphore(AT_ONCE)
    found = await asyncio.gather(*(appear(edge, context, n, gate) for n in numbers))
    seen = len(edge.children()), edge.descriptors()
    for number, (_, connection) in zip(numbers, found):
        connection.reset() if number % 2 else connection.close()
    return [session for session, _ in found if session], seen


async def living(edge, context, sessions):
    """Which of the session ids are still answered with anything but 404."""
    alive = []
    connection = await Connection.open(edge.port, context)
    for session in sessions:
        connection.send("POST", "/mcp", headers(edge.token, session), encode(request(1, "ping")))
        response = await connection.response()
        await response.body()
        if response.status != 404:
            alive.append((session[:8], response.status))
    connection.close()
    return alive


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("binary")
    parser.add_argument("--clients", type=int, default=500)
    parser.add_argument("--wave", type=int, default=0, help="clients at a time; 0 is all of them")
    parser.add_argument("--child", choices=["diagnostics", "everything"], default="diagnostics")
    parser.add_argument("--directory", type=Path, default=None)
    options = parser.parse_args()
    directory = options.directory or Path(tempfile.mkdtemp(prefix="vanish-"))
    directory.mkdir(parents=True, exist_ok=True)
    size = options.wave or (options.clients if options.child == "diagnostics" else 40)

    command, more = EVERYTHING, []
    if options.child == "diagnostics":
        command, more = [options.binary], pass_env("MCP_TRANSPORT", "stdio")
    limits = [*RAISED, *session_idle(IDLE), *max_children(options.clients + 50), *more]
    edge = Edge(options.binary, command, *limits, directory=directory, name="vanish")
    try:
        return disappear(options, edge, size)
    finally:
        edge.kill()


def disappear(options, edge, size):
    context = wire.trust(edge.ca)
    base, before = edge.descriptors(), edge.memory()
    started = time.monotonic()
    sessions, most, first_wave = [], (0, 0), []
    for first in range(0, options.clients, size):
        numbers = range(first, min(first + size, options.clients))
        found, seen = asyncio.run(wave(edge, context, numbers))
        sessions += found
        most = max(most, seen)
        edge.wait_children(0, IDLE + SETTLE)
        first_wave = first_wave or [edge.memory()]
    left = edge.wait_children(0, IDLE + SETTLE)
    deadline = time.monotonic() + 10
    while edge.descriptors() > base and time.monotonic() < deadline:
        time.sleep(0.1)
    descriptors = edge.descriptors()
    alive = asyncio.run(living(edge, context, sessions))
    memory = edge.memory()
    after_first = first_wave[0] if first_wave else before
    stopped = edge.stop()
    if left:
        print(f"children still there: {list(left.items())[:5]}")
    if alive:
        print(f"sessions still alive: {alive[:5]}")
    if stopped:
        print(f"SIGTERM: {stopped}")
    print(
        f"clients={options.clients} most_children={most[0]} most_descriptors={most[1]} "
        f"left={len(left)} descriptors={base}->{descriptors} alive={len(alive)} "
        f"memory={before}->{after_first}->{memory}MiB (start, first wave, end) took={time.monotonic() - started:.0f}s"
    )
    enough = most[0] >= size
    return 0 if enough and not left and not alive and not stopped and descriptors <= base else 1


if __name__ == "__main__":
    sys.exit(main())
