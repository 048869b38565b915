"""Clients that hammer the edge and hang up anywhere: nothing may reach a foreign session.

Usage: chaos.py EDGE_BINARY [SECONDS] [--clients N] [--child everything|diagnostics] [--seed N]

All clients use the same small request ids; what differs is a marker in every argument, progress
token, prompt and resource URI. Whatever a session receives on any of its streams may only hold
markers of its own. In the end, a while after the idle timeout, no child may be left.
"""

import argparse
import asyncio
import json
import random
import re
import sys
import tempfile
import time
from collections import Counter
from contextlib import aclosing
from pathlib import Path

import wire
from edge import EVERYTHING, RAISED, Edge, call_timeout, max_children, pass_env, session_idle
from wire import Connection, call, encode, headers, initialize, notification, request

MARKER = re.compile(rb"m-\d+-\d+-[0-9a-f]{12}")
IDLE = 3
# A call that waits for a sampling answer of a client that left ends by this only.
CALL = 15
SETTLE = 25
PATIENCE = 30
CAPABILITIES = {"sampling": {}, "roots": {"listChanged": True}}


class HungUp(Exception):
    """The client left on purpose."""


class Chaos:
    def __init__(self, edge, seed, everything):
        self.edge, self.everything = edge, everything
        self.context = wire.trust(edge.ca)
        self.random = random.Random(seed)
        self.totals = Counter()
        self.problems = []
        self.sessions = 0

    def problem(self, kind, text):
        self.totals[kind] += 1
        if len(self.problems) < 20:
            self.problems.append(f"{kind}: {text}")


class Client:
    """One session from its birth to some end, and the markers that are its own."""

    def __init__(self, chaos, number, source):
        chaos.sessions += 1
        self.chaos, self.random, self.edge = chaos, chaos.random, chaos.edge
        self.name = f"m-{number}-{chaos.sessions}"
        self.source = source
        self.own = set()
        self.connections = set()
        self.session = None
        self.endpoint = None
        self.ending = False
        self.cut = False
        self.waiting = {}
        self.tasks = []

    def hang_up(self, why):
        self.cut = True
        return HungUp(why)

    def marker(self):
        made = f"{self.name}-{self.random.getrandbits(48):012x}"
        self.own.add(made.encode())
        return made

    def looked_at(self, data, where):
        """Every byte that this session receives passes here."""
        if isinstance(data, str):
            data = data.encode()
        for found in MARKER.findall(data):
            self.chaos.totals["markers"] += 1
            if found not in self.own:
                text = f"{self.name} got {found.decode()} on {where}: {data[:400]!r}"
                self.chaos.problem("foreign", text)

    async def open(self):
        connection = await Connection.open(self.edge.port, self.chaos.context, self.source)
        self.connections.add(connection)
        return connection

    def leave(self, connection):
        self.connections.discard(connection)
        connection.reset() if self.random.random() < 0.5 else connection.close()

    async def exchange(self, method, message=None, path="/mcp"):
        """One request on a connection of its own; hangs up in the middle of it now and then."""
        connection = await self.open()
        try:
            body = None if message is None else encode(message)
            asked = headers(self.edge.token, self.session)
            if self.random.random() < 0.03:
                connection.send(method, path, asked, body, only=self.random.random())
                await connection.writer.drain()
                await asyncio.sleep(self.random.random() * 0.05)
                raise self.hang_up("within a request")
            connection.send(method, path, asked, body)
            await connection.writer.drain()
            if self.random.random() < 0.03:
                await asyncio.sleep(self.random.random() * 0.05)
                raise self.hang_up("before an answer")
            response = await connection.response(PATIENCE)
            async for data in self.read(response):
                yield response, data
        finally:
            self.leave(connection)

    async def read(self, response):
        if not response.is_stream:
            body = await response.body(PATIENCE)
            self.looked_at(body, f"a {response.status}")
            # A 202 has no body and is an answer all the same.
            yield body
            return
        async for event in response.events():
            self.looked_at(event["data"], "a POST stream")
            yield event["data"]

    async def post(self, message):
        """The answer to a request, or None for what needs no answer."""
        wanted = message.get("id") if "method" in message else None
        async with asyncio.timeout(PATIENCE):
            if self.endpoint:
                return await self.post_sse(message, wanted)
            return await self.post_http(message, wanted)

    async def post_http(self, message, wanted):
        async with aclosing(self.exchange("POST", message)) as exchange:
            async for response, data in exchange:
                self.accepted(response, data, message)
                if "mcp-session-id" in response.headers and self.session is None:
                    self.session = response.headers["mcp-session-id"]
                if response.status == 202:
                    return None
                found = json.loads(data)
                if "method" in found:
                    await self.asked(found)
                    continue
                if found.get("id") != wanted or type(found.get("id")) is not type(wanted):
                    self.chaos.problem("wrong id", f"{found} to {message}")
                return found
        if wanted is not None:
            raise wire.Gone("a stream ended without its answer")
        return None

    async def post_sse(self, message, wanted):
        if wanted is not None:
            self.waiting[wanted] = asyncio.get_running_loop().create_future()
        async with aclosing(self.exchange("POST", message, self.endpoint)) as exchange:
            async for response, data in exchange:
                self.accepted(response, data, message)
        return None if wanted is None else await self.waiting[wanted]

    def accepted(self, response, data, message):
        if response.status in (429, 503):
            self.chaos.totals["refused"] += 1
            raise self.hang_up("refused")
        if response.status not in (200, 202):
            # The answer to a server's request may cross the client's own DELETE.
            if not (self.ending and response.status == 404):
                text = f"{response.status} {data[:300]!r} to {message}"
                self.chaos.problem("unexpected", text)
            raise self.hang_up("unexpected")

    async def asked(self, message):
        """A request or notification of the server, on whatever stream it came."""
        if "id" not in message:
            self.chaos.totals["notifications"] += 1
            return
        self.chaos.totals["server requests"] += 1
        answer = {"jsonrpc": "2.0", "id": message["id"]}
        if message["method"] == "sampling/createMessage":
            content = {"type": "text", "text": message["params"]["messages"][0]["content"]["text"]}
            answer["result"] = {"role": "assistant", "model": "none", "content": content}
        elif message["method"] == "roots/list":
            answer["result"] = {"roots": [{"uri": f"file:///{self.marker()}"}]}
        else:
            answer["result"] = {}
        await self.post(answer)

    # --- the two transports -------------------------------------------------------------------

    async def start(self):
        if self.random.random() < 0.25:
            await self.start_sse()
        answer = await self.post(initialize(0, CAPABILITIES))
        if "result" not in answer:
            self.chaos.problem("unexpected", f"{answer} to initialize")
            raise self.hang_up("unexpected")
        await self.post(notification("notifications/initialized"))
        self.chaos.totals["sessions"] += 1
        if self.endpoint is None and self.random.random() < 0.7:
            self.spawn(self.listen())

    async def start_sse(self):
        connection = await self.open()
        connection.send("GET", self.random.choice(["/sse", "/mcp"]), headers(self.edge.token, accept="text/event-stream"))
        response = await connection.response(PATIENCE)
        if response.status != 200:
            if response.status in (429, 503):
                self.chaos.totals["refused"] += 1
            else:
                self.chaos.problem("unexpected", f"{response.status} to GET /sse")
            raise self.hang_up("refused")
        events = response.events()
        async with asyncio.timeout(PATIENCE):
            event = await anext(events)
        if event["event"] != "endpoint":
            self.chaos.problem("unexpected", f"{event} before the endpoint")
            raise self.hang_up("unexpected")
        self.endpoint = event["data"]
        self.chaos.totals["sse sessions"] += 1
        self.spawn(self.listen_sse(events))

    async def listen_sse(self, events):
        try:
            async for event in events:
                self.looked_at(event["data"], "an SSE stream")
                message = json.loads(event["data"])
                if "method" in message:
                    self.spawn(self.asked(message))
                elif (future := self.waiting.get(message["id"])) and not future.done():
                    future.set_result(message)
                else:
                    self.chaos.problem("wrong id", f"{message} on SSE, waiting {list(self.waiting)}")
        finally:
            for future in self.waiting.values():
                if not future.done():
                    future.set_exception(wire.Gone("the SSE stream ended"))
                    future.exception()

    async def listen(self):
        connection = await self.open()
        asked = headers(self.edge.token, self.session, accept="text/event-stream")
        connection.send("GET", "/mcp", asked)
        response = await connection.response(PATIENCE)
        if response.status != 200:
            self.chaos.problem("unexpected", f"{response.status} to GET with a live session")
            return
        self.chaos.totals["streams"] += 1
        async for event in response.events():
            self.looked_at(event["data"], "a GET stream")
            message = json.loads(event["data"])
            if "method" in message:
                await self.asked(message)
            else:
                self.chaos.problem("wrong id", f"an answer on a GET stream: {message}")

    def spawn(self, work):
        task = asyncio.ensure_future(work)
        self.tasks.append(task)

    # --- what a session does ------------------------------------------------------------------

    async def echo(self, id):
        marker = self.marker()
        name = "message" if self.chaos.everything else "text"
        answer = await self.post(call(id, "echo", {name: marker}))
        self.checked(answer, marker)

    async def progress(self, id):
        arguments = {"duration": 0.3, "steps": 3}
        answer = await self.post(call(id, "trigger-long-running-operation", arguments, self.marker()))
        if "result" not in answer:
            self.chaos.problem("unexpected", str(answer))
        self.chaos.totals["answers"] += 1

    async def sampling(self, id):
        marker = self.marker()
        arguments = {"prompt": marker, "maxTokens": 5}
        self.checked(await self.post(call(id, "trigger-sampling-request", arguments)), marker)

    async def subscribe(self, id):
        uri = f"demo://resource/dynamic/text/{self.marker()}"
        await self.post(request(id, "resources/subscribe", {"uri": uri}))
        self.chaos.totals["answers"] += 1

    def checked(self, answer, marker):
        self.chaos.totals["answers"] += 1
        # An answer to the server that was cut may make the server's own call fail.
        if marker not in json.dumps(answer) and not ("error" in answer and self.cut):
            self.chaos.problem("not its own", f"{answer} lacks {marker}")

    async def live(self):
        await self.start()
        kinds = [self.echo]
        if self.chaos.everything:
            kinds = [self.echo] * 6 + [self.progress, self.sampling, self.subscribe]
        for _ in range(self.random.randint(1, 3)):
            count = self.random.randint(1, 6)
            works = [asyncio.ensure_future(self.random.choice(kinds)(id + 1)) for id in range(count)]
            self.tasks += works
            if self.random.random() < 0.1:
                await asyncio.sleep(self.random.random() * 0.3)
                raise self.hang_up("within a stream")
            await asyncio.gather(*works)
        if self.endpoint is None and self.random.random() < 0.5:
            self.ending = True
            async for response, data in self.exchange("DELETE"):
                if response.status not in (200, 204):
                    self.chaos.problem("unexpected", f"{response.status} {data[:200]!r} to DELETE")
            self.chaos.totals["deleted"] += 1

    async def run(self):
        try:
            await self.live()
        except HungUp as why:
            self.chaos.totals[f"hung up {why}"] += 1
        except Exception as error:
            # One connection of the session was cut on purpose: its others may end in any way.
            if not self.cut:
                self.chaos.problem("unexpected", f"{self.name}: {type(error).__name__}: {error}")
        finally:
            for connection in list(self.connections):
                self.leave(connection)
            for task in self.tasks:
                task.cancel()
            ends = await asyncio.gather(*self.tasks, return_exceptions=True)
            self.chaos.totals["tasks"] += len(ends)


async def hammer(chaos, number, until):
    turn = 0
    while time.monotonic() < until and len(chaos.problems) < 20:
        turn += 1
        source = f"127.0.{number % 4}.{10 + (number * 7 + turn) % 200}"
        try:
            async with asyncio.timeout(90):
                await Client(chaos, number, source).run()
        except TimeoutError:
            chaos.problem("stuck", f"client {number} was in one session for 90 s")


def start(options, directory):
    command = EVERYTHING
    limits = [*RAISED, *session_idle(IDLE), *call_timeout(CALL), *max_children(options.children)]
    if options.child == "diagnostics":
        command = [options.binary]
        limits += pass_env("MCP_TRANSPORT", "stdio")
    return Edge(options.binary, command, *limits, directory=directory, name="chaos")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("binary")
    parser.add_argument("seconds", type=float, nargs="?", default=120)
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--children", type=int, default=100)
    parser.add_argument("--child", choices=["everything", "diagnostics"], default="everything")
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--directory", type=Path, default=None)
    options = parser.parse_args()
    directory = options.directory or Path(tempfile.mkdtemp(prefix="chaos-"))
    directory.mkdir(parents=True, exist_ok=True)

    edge = start(options, directory)
    try:
        return storm(options, edge, directory)
    finally:
        edge.kill()


def storm(options, edge, directory):
    print(f"seed {options.seed}, {options.clients} clients for {options.seconds:g} s, log in {directory}")
    base = edge.descriptors()
    chaos = Chaos(edge, options.seed, options.child == "everything")

    async def everybody():
        until = time.monotonic() + options.seconds
        await asyncio.gather(*(hammer(chaos, n, until) for n in range(options.clients)))

    asyncio.run(everybody())
    most = edge.memory()
    left = edge.wait_children(0, IDLE + SETTLE)
    # A connection that was cut within a request has that request's time.
    deadline = time.monotonic() + IDLE + SETTLE
    while (descriptors := edge.descriptors()) > base and time.monotonic() < deadline:
        time.sleep(0.1)
    stopped = edge.stop()

    totals = chaos.totals
    for text in chaos.problems:
        print(text)
    print("totals: " + ", ".join(f"{k}={v}" for k, v in sorted(totals.items())))
    if left:
        print(f"still there: {left}")
    if stopped:
        print(f"SIGTERM: {stopped}")
    bad = sum(totals[k] for k in ("foreign", "wrong id", "not its own", "unexpected", "stuck"))
    grown = max(0, descriptors - base)
    print(
        f"sessions={totals['sessions']} answers={totals['answers']} foreign={totals['foreign']} "
        f"bad={bad} left={len(left)} descriptors={base}->{descriptors} memory={most}MiB"
    )
    useful = totals["sessions"] > 0 and totals["answers"] > 0
    return 0 if useful and not bad and not left and not stopped and not grown else 1


if __name__ == "__main__":
    sys.exit(main())
