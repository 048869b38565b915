"""Rows "backend dies" and "SIGTERM": what becomes of calls in flight."""

import asyncio
import signal
import sys
import time
from pathlib import Path

from edge import RAISED
from wire import Connection, answer_to, call, encode, headers, initialize, trust

CHILD = [sys.executable, str(Path(__file__).with_name("child.py"))]
TIMES = 10


async def open_session(edge, context):
    connection = await Connection.open(edge.port, context)
    connection.send("POST", "/mcp", headers(edge.token), encode(initialize()))
    response = await connection.response()
    answer, _ = await answer_to(response, 0)
    assert "result" in answer, answer
    return connection, response.headers["mcp-session-id"]


async def backend_dies(start, _binary):
    edge = start(*RAISED, command=CHILD)
    try:
        context, told, again, ids = trust(edge.ca), [], [], 0
        for number in range(TIMES):
            connection, session = await open_session(edge, context)
            begun = time.monotonic()
            connection.send("POST", "/mcp", headers(edge.token, session), encode(call(77 + number, "die", {})))
            answer, _ = await answer_to(await connection.response(), 77 + number)
            told.append(time.monotonic() - begun)
            ids += answer["id"] == 77 + number and "status 7" in answer["error"]["message"]
            begun = time.monotonic()
            connection, session = await open_session(edge, context)
            connection.send("POST", "/mcp", headers(edge.token, session), encode(call(1, "echo", {})))
            answer, _ = await answer_to(await connection.response(), 1)
            assert "result" in answer, answer
            again.append(time.monotonic() - begun)
            connection.close()
    finally:
        left = edge.stop()
    return [
        (f"backend dies, {TIMES} times: errors with the call's own id and the exit status", ids, TIMES, ids == TIMES),
        ("backend dies: slowest error", f"{max(told) * 1000:.0f} ms", "250 ms", max(told) <= 0.25),
        ("backend dies: slowest next call, in a new session", f"{max(again) * 1000:.0f} ms", "1 s",
         max(again) <= 1 and not left),
    ]


async def sigterm(start, _binary):
    edge = start(*RAISED, command=CHILD)
    context = trust(edge.ca)
    calls = []
    for number in range(TIMES):
        connection, session = await open_session(edge, context)
        body = encode(call(number, "sleep", {"seconds": 2 + number / 10}))
        connection.send("POST", "/mcp", headers(edge.token, session), body)
        calls.append((connection, number))
    await asyncio.sleep(0.5)
    edge.process.send_signal(signal.SIGTERM)
    await asyncio.sleep(0.2)
    try:
        await Connection.open(edge.port, context, timeout=2)
        refused = False
    except (OSError, TimeoutError):
        refused = True
    answered = 0
    for connection, number in calls:
        answer, _ = await answer_to(await connection.response(), number)
        answered += "result" in answer
    code = await asyncio.to_thread(edge.process.wait, 20)
    left = edge.children() if edge.process.poll() is None else {}
    return [
        (f"SIGTERM: calls in flight that finish, of {TIMES}", answered, TIMES, answered == TIMES),
        ("SIGTERM: a new connection is refused", refused, True, refused),
        ("SIGTERM: exit code", code, 0, code == 0 and not left),
    ]


ROWS = [backend_dies, sigterm]
