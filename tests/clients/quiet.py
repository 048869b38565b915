"""Streams on which nothing is said for long: what is said then must still arrive.

Usage: quiet.py EDGE_BINARY SECONDS [--kinds http,sse,ts] [--directory DIR]

In front of each upstream one edge, with a Streamable HTTP and an SSE client. Both open their stream,
prove it by one notification, stay silent for SECONDS, and then call a tool that sends one
notification, which must be there within a second. 600 is the length that counts: it is longer than
the idle limits of common proxies and clients. FastMCP keeps its streams alive with comments of its
own, the TypeScript fixture is told not to. Runs in the pinned venv.
"""

import argparse
import asyncio
import sys
import tempfile
import time
from pathlib import Path

import wire
from edge import RAISED, Edge, upstream
from upstream import KINDS, Upstream
from walk import explain
from wire import Connection, answer_to, call, encode, headers, initialize, notification, parse_event

IN_TIME = 1
OPENING = 15
AFTER = 0.2


class Listener:
    """A client with one open stream, which notes every event and when the stream last gave a byte."""

    def __init__(self, edge, transport):
        self.edge, self.transport = edge, transport
        self.context = wire.trust(edge.ca)
        self.session, self.target, self.ids = None, "/mcp", 0
        self.events, self.comments, self.ended = [], 0, None
        self.heard = self.longest = 0

    async def open(self):
        if self.transport == "http":
            answer, response = await self.post(initialize())
            assert "result" in answer, answer
            self.session = response.headers["mcp-session-id"]
        path = "/mcp" if self.transport == "http" else "/sse"
        self.connection = await Connection.open(self.edge.port, self.context)
        asked = headers(self.edge.token, self.session, accept="text/event-stream")
        self.connection.send("GET", path, asked)
        response = await self.connection.response()
        assert response.status == 200 and response.is_stream, response.status
        self.heard = time.monotonic()
        self.reader = asyncio.create_task(self.listen(response))
        if self.transport == "sse":
            self.target = (await self.wait(lambda e: e["event"] == "endpoint", OPENING))[1]["data"]
            await self.post(initialize())
            await self.wait(lambda e: '"protocolVersion"' in e["data"], OPENING)
        await self.post(notification("notifications/initialized"))

    async def listen(self, response):
        rest = b""
        try:
            async for piece in response.chunks():
                now = time.monotonic()
                self.longest, self.heard = max(self.longest, now - self.heard), now
                *blocks, rest = (rest + piece).replace(b"\r\n", b"\n").split(b"\n\n")
                for block in blocks:
                    event = parse_event(block.decode())
                    if event["data"]:
                        self.events.append((now, event))
                    elif block.startswith(b":"):
                        self.comments += 1
            self.ended = "the stream ended"
        except Exception as error:
            self.ended = explain(error)

    async def post(self, message):
        """The answer and its response; None and a 202 where the answer comes on the stream."""
        connection = await Connection.open(self.edge.port, self.context)
        try:
            connection.send("POST", self.target, headers(self.edge.token, self.session), encode(message))
            response = await connection.response()
            if response.status == 202:
                return None, response
            assert response.status == 200, (response.status, await response.body())
            return (await answer_to(response, message["id"]))[0], response
        finally:
            connection.close()

    async def wait(self, matches, timeout):
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            for at, event in self.events:
                if matches(event):
                    return at, event
            assert self.ended is None, self.ended
            await asyncio.sleep(0.005)
        raise AssertionError(f"nothing within {timeout} s")

    async def announce(self, text, timeout):
        """Seconds from when the notification was due to when it was on the stream.

        It is sent a little after the call is over, or it may belong on the stream of the call.
        """
        self.ids += 1
        due = time.monotonic() + AFTER
        await self.post(call(self.ids, "announce", {"text": text, "after": AFTER}))

        def is_it(event):
            return "notifications/message" in event["data"] and text in event["data"]

        return (await self.wait(is_it, AFTER + timeout))[0] - due

    async def announced(self, text):
        """Announces until it is heard: the stream to the upstream may open only now."""
        deadline = time.monotonic() + OPENING
        number = 0
        while True:
            number += 1
            try:
                return await self.announce(f"{text}-{number}", 0.5)
            except AssertionError:
                if self.ended or time.monotonic() > deadline:
                    raise


async def silence(name, edge, transport, seconds):
    listener = Listener(edge, transport)
    try:
        await listener.open()
        first = await listener.announced("before")
        listener.comments = listener.longest = 0
        await asyncio.sleep(seconds)
        assert listener.ended is None, f"after silence: {listener.ended}"
        said = [event["data"] for _, event in listener.events if "before" not in event["data"]]
        took = await listener.announce("after", max(IN_TIME, 10))
        print(
            f"{'ok  ' if took < IN_TIME else 'FAIL'} {name}: {took * 1000:.0f} ms after {seconds:g} s "
            f"of silence (before it {first * 1000:.0f} ms), {listener.comments} comments, the longest "
            f"gap {listener.longest:.1f} s, {len(said)} events at the opening"
        )
        return took < IN_TIME
    except Exception as error:
        print(f"FAIL {name}: {explain(error)}")
        return False
    finally:
        if hasattr(listener, "connection"):
            listener.connection.close()


async def main(options):
    ups, edges, works = [], [], []
    try:
        for kind in options.kinds.split(","):
            more = ["--quiet"] if kind == "ts" else []
            up = await asyncio.to_thread(
                Upstream, kind, *more, directory=options.directory, name=f"{kind}-upstream"
            )
            ups.append(up)
            edge = await asyncio.to_thread(
                Edge, options.binary, None, *RAISED, *upstream(up.url), directory=options.directory,
                name=f"{kind}-edge",
            )
            edges.append(edge)
            await asyncio.to_thread(edge.wait_ready)
            for transport in ("http", "sse"):
                name = f"{transport} client, {kind} upstream"
                works.append(silence(name, edge, transport, options.seconds))
        good = all(await asyncio.gather(*works))
        for edge in edges:
            if problem := await asyncio.to_thread(edge.stop):
                print(f"FAIL SIGTERM: {problem}")
                good = False
        return 0 if good else 1
    finally:
        for it in [*edges, *ups]:
            it.kill()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("binary")
    parser.add_argument("seconds", type=float)
    parser.add_argument("--kinds", default="http,sse,ts", help=f"some of {','.join(KINDS)}")
    parser.add_argument("--directory", type=Path, default=None)
    options = parser.parse_args()
    options.directory = options.directory or Path(tempfile.mkdtemp(prefix="quiet-"))
    options.directory.mkdir(parents=True, exist_ok=True)
    sys.exit(asyncio.run(main(options)))
