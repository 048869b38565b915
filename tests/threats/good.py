"""The good client that everything is measured beside, and the crowd in a process of its own."""

import asyncio
import logging
import multiprocessing
import time

from wire import Connection, encode, headers, request, trust

LIST = encode(request(1, "tools/list"))


def percentile(times, share):
    return sorted(times)[min(len(times) - 1, int(len(times) * share))]


async def calls(edge, seconds, every, source="127.0.100.1", keep=True):
    """Calls in this time, one each `every` seconds: how many, how many were answered, times."""
    context, times, failed, connection = trust(edge.ca), [], 0, None
    end = time.monotonic() + seconds
    while (begun := time.monotonic()) < end:
        try:
            if connection is None:
                connection = await Connection.open(edge.port, context, source)
            connection.send("POST", "/mcp", headers(edge.token), LIST)
            response = await connection.response(10)
            await response.body()
            assert response.status == 200, response.status
            times.append(time.monotonic() - begun)
            if not keep:
                connection.close()
                connection = None
        except Exception:  # noqa: BLE001
            failed += 1
            connection = None
        await asyncio.sleep(max(0, begun + every - time.monotonic()))
    return len(times) + failed, failed, times


def said(figures):
    asked, failed, times = figures
    good = 100 * (asked - failed) / asked
    p50, p99 = (percentile(times, share) * 1000 for share in (0.5, 0.99))
    return good, p99, f"{asked - failed} of {asked}, p50 {p50:.0f} ms, p99 {p99:.0f} ms"


class Crowd:
    """`work(edge's port, ca, token, queue, *more)`, a coroutine, in processes of their own."""

    def __init__(self, edge, work, *more, processes=1):
        context = multiprocessing.get_context("spawn")
        self.told = context.Queue()
        facts = (edge.port, edge.ca, edge.token)
        self.processes = [
            context.Process(target=run, args=(work, *facts, self.told, number, *more), daemon=True)
            for number in range(processes)
        ]
        for process in self.processes:
            process.start()

    async def first(self, seconds=60):
        return await asyncio.to_thread(self.told.get, True, seconds)

    def end(self):
        for process in self.processes:
            process.terminate()
            process.join(5)


def run(work, *facts):
    # Connections that end in the middle are what it is about.
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)
    try:
        asyncio.run(work(*facts))
    except KeyboardInterrupt:
        pass
