"""Row "bad messages": nothing malformed gives a 5xx, a hang or growth; every 4xx has a JSON body."""

import asyncio
import json
import random

from edge import RAISED
from wire import Connection, Gone, encode, headers, request, trust

SEED = 20261125
ROUNDS = 3000


def bodies(random):
    """Bodies that are wrong each in its own way, for ever."""
    good = encode(request(1, "tools/call", {"name": "echo", "arguments": {"text": "x"}}))
    deep = lambda n: b"[" * n + b"]" * n  # noqa: E731
    made = [
        b"", b"{", b"[]", b"[[]]", b"null", b"0", b'"x"', b"{}", b"\xff\xfe", b"\x00", b"nul",
        b'{"jsonrpc":"2.0"}', b'{"jsonrpc":"1.0","id":1,"method":"ping"}',
        b'{"jsonrpc":"2.0","id":null,"method":"ping"}', b'{"jsonrpc":"2.0","id":1.5,"method":"ping"}',
        b'{"jsonrpc":"2.0","id":{},"method":"ping"}', b'{"jsonrpc":"2.0","id":1,"method":7}',
        b'{"jsonrpc":"2.0","id":1,"id":2,"method":"ping"}',
        b'{"jsonrpc":"2.0","id":1,"method":"ping","method":"tools/list"}',
        b'{"jsonrpc":"2.0","id":1,"Method":"ping","method":"ping"}',
        b'{"jsonrpc":"2.0","id":1,"result":{},"method":"ping"}',
        b'{"jsonrpc":"2.0","id":1,"method":"ping"} {}', b'{"jsonrpc":"2.0","id":1,"method":"\\ud800"}',
        b'{"jsonrpc":"2.0","id":' + b"9" * 400 + b',"method":"ping"}',
        b'{"jsonrpc":"2.0","id":1,"method":"ping","params":' + deep(200) + b"}",
        deep(100), deep(129), deep(100_000), b'{"a":' * 50_000, b"[" * 1_000_000,
        b'{"jsonrpc":"2.0","id":1,"method":"' + b"m" * 1_000_000 + b'"}',
        b"[" + b",".join([good] * 200) + b"]", b" " * 1_000_000, b'"' + b"x" * 3_000_000 + b'"',
    ]
    yield from made
    while True:
        bytes_ = bytearray(random.choice([good, *made[:24]]))
        for _ in range(random.randint(1, 4)):
            at = random.randrange(len(bytes_) + 1)
            match random.randrange(4):
                case 0:
                    del bytes_[at : at + random.randint(1, 8)]
                case 1:
                    bytes_[at:at] = random.choice([b"{", b"}", b"[", b'"', b"\\u0000", b",", b"\n", b":"])
                case 2 if at < len(bytes_):
                    bytes_[at] = random.randrange(256)
                case _:
                    bytes_ = bytes_[:at] + bytes_[at // 2 :]
        yield bytes(bytes_)


async def bad_messages(start, _binary):
    edge = start(*RAISED, command=[str(_binary), "--transport", "stdio"])
    try:
        context, wrong = trust(edge.ca), []
        await send(edge, context, b"{}", wrong)
        before, statuses, slowest = edge.memory(), {}, 0.0
        made = bodies(random.Random(SEED))
        for _ in range(ROUNDS):
            begun = asyncio.get_running_loop().time()
            status = await send(edge, context, next(made), wrong)
            statuses[status] = statuses.get(status, 0) + 1
            slowest = max(slowest, asyncio.get_running_loop().time() - begun)
        grown = edge.memory() - before
        good = await send(edge, context, encode(request(1, "tools/list")), wrong)
    finally:
        left = edge.stop()
    server = sum(count for status, count in statuses.items() if status >= 500)
    said = ", ".join(f"{count} × {status}" for status, count in sorted(statuses.items()))
    return [
        (f"bad messages: {ROUNDS} bodies", said, "no 5xx", server == 0),
        ("bad messages: 4xx without a JSON body", len(wrong), "0", not wrong),
        ("bad messages: slowest answer", f"{slowest * 1000:.0f} ms", "no hang (5 s)", slowest < 5),
        ("bad messages: memory", f"{grown:+} MiB", "no growth (32 MiB)", grown < 32),
        ("bad messages: a good call after them", good, "200", good == 200 and left is None),
    ]


async def send(edge, context, body, wrong):
    connection = await Connection.open(edge.port, context)
    try:
        connection.send("POST", "/mcp", headers(edge.token), body)
        response = await connection.response(30)
        content = await response.body()
        if 400 <= response.status < 500:
            try:
                json.loads(content)["error"]
            except (ValueError, KeyError, TypeError):
                wrong.append((response.status, body[:80], content[:80]))
        return response.status
    except (Gone, ConnectionError):
        return 599
    finally:
        connection.close()


ROWS = [bad_messages]
