"""Rows "slow peers", "floods" and "guessing": a good client beside those who are none."""

import asyncio
import ssl
import time

from door import cpu
from good import Crowd, calls, percentile, said
from wire import Connection, encode, headers, initialize, request, trust

LIST = encode(request(1, "tools/list"))
SLOW = 800
FLOOD = 10
ROOM = ["--max-connections=5000"]


async def slow_crowd(port, ca, token, told, _number):
    context = trust(ca)

    async def one(number):
        address = f"127.0.{1 + number // 200}.{1 + number % 200}"
        while True:
            try:
                connection = await Connection.open(port, context, address)
                match number % 4:
                    case 0:
                        for byte in b"POST /mcp HTTP/1.1\r\nHost: 127.0.0.1\r\nX: " + b"x" * 500:
                            connection.writer.write(bytes([byte]))
                            await asyncio.sleep(1)
                    case 1:
                        connection.send("POST", "/mcp", {**headers(token), "Content-Length": "5000"})
                        while True:
                            connection.writer.write(b" ")
                            await asyncio.sleep(1)
                    case 2:
                        await connection.reader.read()
                    case _:
                        connection.send("GET", "/sse", headers(token, accept="text/event-stream"))
                        await asyncio.sleep(60)
                connection.close()
            except (OSError, ssl.SSLError, TimeoutError):
                pass
            await asyncio.sleep(0.5)

    gate = asyncio.Semaphore(50)

    async def begun(number):
        async with gate:
            task = asyncio.ensure_future(one(number))
            await asyncio.sleep(0.05)
        return task

    everybody = await asyncio.gather(*(begun(number) for number in range(SLOW)))
    await asyncio.sleep(2)
    told.put("there")
    await asyncio.gather(*everybody)


async def slow_peers(start, _binary):
    edge = start(*ROOM, "--max-sessions=5000")
    crowd = Crowd(edge, slow_crowd)
    try:
        await crowd.first()
        figures = await calls(edge, 20, 0.11)
    finally:
        crowd.end()
        edge.stop()
    good, p99, text = said(figures)
    return [(f"slow peers: a good client beside {SLOW} of them", text, "100 %, p99 under 100 ms",
             good == 100 and p99 < 100)]


async def flood_crowd(port, ca, token, told, number, guess):
    """As many requests as go, over a few connections from one address; what came of them."""
    context, counts, address = trust(ca), {}, f"127.0.{50 + number}.1"
    begun = time.monotonic()

    async def one(line):
        sent = headers(token) if not guess else {**headers(), "Authorization": ""}
        while time.monotonic() - begun < FLOOD:
            try:
                connection = await Connection.open(port, context, address)
                while time.monotonic() - begun < FLOOD:
                    if guess:
                        sent["Authorization"] = f"Bearer {line:08}{time.monotonic_ns():024}"
                    connection.send("POST", "/mcp", sent, LIST)
                    response = await connection.response(10)
                    await response.body()
                    counts[response.status] = counts.get(response.status, 0) + 1
            except Exception:  # noqa: BLE001
                counts["broken"] = counts.get("broken", 0) + 1

    await asyncio.gather(*(one(line) for line in range(10)))
    told.put((time.monotonic() - begun, counts))


async def beside(edge, guess, processes):
    used = cpu(edge)
    crowd = Crowd(edge, flood_crowd, guess, processes=processes)
    try:
        figures = await calls(edge, FLOOD, 0.11)
        found = [await crowd.first() for _ in range(processes)]
    finally:
        crowd.end()
    return figures, found, cpu(edge) - used


async def flood(start, _binary):
    edge = start(*ROOM)
    try:
        figures, found, used = await beside(edge, False, 2)
    finally:
        edge.stop()
    good, p99, text = said(figures)
    rows = [(f"floods: a good client beside {sum(sum(it.values()) for _, it in found)} requests of 2 addresses",
             text, "100 %, p99 under 150 ms", good == 100 and p99 < 150)]
    for took, counts in found:
        most = (21 + 10 * took) * 1.05
        passed = counts.get(200, 0)
        rows.append(("floods: accepted of one address", f"{passed} in {took:.1f} s ({counts})",
                     f"{most:.0f} (burst + rate × time + 5 %)", passed <= most))
    refused = sum(counts.get(429, 0) for _, counts in found)
    rows.append(("floods: CPU for each refusal, TLS and the good client's calls in it",
                 f"{used / max(refused, 1) * 1e6:.0f} µs", "half of nginx's: see the benchmark", refused > 0))
    return rows


async def guessing(start, _binary):
    edge = start(*ROOM)
    try:
        _, [(took, counts)], _ = await beside(edge, True, 1)
    finally:
        edge.stop()
    compared, most = counts.get(401, 0), (21 + 10 * took) * 1.05
    return [("guessing: tokens of one address that were compared", f"{compared} in {took:.1f} s ({counts})",
             f"{most:.0f} (burst + rate × time)", compared <= most and counts.get(429, 0) > 0)]


ROWS = [slow_peers, flood, guessing]
